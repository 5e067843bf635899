"""Which pairs agree: two Gaussians on the similarities of image and caption."""

import numpy as np
from jaxtyping import Float

_LARGEST = 200_000  # similarities that a mixture of five numbers is fitted on


def upper_posterior(similarity: Float[np.ndarray, " n"], *, rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    """Probability of the component with the larger mean, made to rise with similarity.

    Where the components have unlike variances the posterior turns back beyond a mean, so that the worst pairs look
    clean; here it is held at what it is at each mean. One value for all similarities leaves nothing to tell: 0.5.
    """
    from sklearn.mixture import GaussianMixture

    if similarity.min() == similarity.max():
        return np.full(len(similarity), 0.5)
    values = similarity.astype(np.float64)[:, None]
    if len(values) > _LARGEST:
        values = rng.choice(values, _LARGEST, replace=False)
    mixture = GaussianMixture(2, max_iter=500, random_state=0).fit(values)
    means = np.asarray(mixture.means_)[:, 0]
    held = similarity.astype(np.float64).clip(means.min(), means.max())
    return mixture.predict_proba(held[:, None])[:, int(means.argmax())]
