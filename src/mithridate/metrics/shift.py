"""How far two models' representations of the same items are apart: distances, similarity, and a common map.

Cosine distances between two models' embeddings (mmPoison, figure 1) mean something only where both were trained from
the same start: two encoders from different starts may agree on everything and still point elsewhere. Linear CKA is
defined for any two.
"""

import numpy as np
from jaxtyping import Float, Int

from mithridate.errors import EvaluationError

_BLOCK = 4096  # rows in double precision at once


def cosine_distance(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "_ _"]) -> Float[np.ndarray, " n"]:
    """1 - cosine of each row of `x` and the same row of `y`, both of unit length; exactly 0 where they are equal.

    Raises `EvaluationError` for different shapes: there is no cosine between spaces of different width.
    """
    if x.shape != y.shape:
        raise EvaluationError(
            f"a cosine distance needs embeddings of one shape, got {x.shape} and {y.shape}; use linear CKA"
        )
    found = np.empty(len(x))
    for low in range(0, len(x), _BLOCK):
        rows = slice(low, low + _BLOCK)
        # |x - y|^2 / 2, as 1 - x.y loses small distances to rounding
        found[rows] = np.square(x[rows].astype(np.float64) - y[rows]).sum(axis=1) / 2
    return found


def linear_cka(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "_ _"]) -> float:
    """Linear centred kernel alignment of two representations of the same n items, in [0, 1] (Kornblith et al. 2019).

    Unchanged by rotation and by scale. From (d, e) products, never (n, n). With few items against the width it lies
    near 1 for any two representations. NaN where one of them is constant; raises `EvaluationError` where n differs.
    """
    if len(x) != len(y):
        raise EvaluationError(f"CKA needs the same items in both, got {len(x)} and {len(y)}")
    if not len(x):
        return float("nan")
    # without rows that differ there is nothing to align; centring would leave rounding noise
    if (x == x[0]).all() or (y == y[0]).all():
        return float("nan")
    x_mean, y_mean = x.mean(axis=0, dtype=np.float64), y.mean(axis=0, dtype=np.float64)
    products = [np.zeros((a, b)) for a, b in ((x.shape[1],) * 2, (y.shape[1],) * 2, (x.shape[1], y.shape[1]))]
    for low in range(0, len(x), _BLOCK):
        first, second = x[low : low + _BLOCK] - x_mean, y[low : low + _BLOCK] - y_mean
        for product, (left, right) in zip(products, ((first, first), (second, second), (first, second))):
            product += left.T @ right
    xx, yy, xy = (float(np.linalg.norm(product)) for product in products)
    return xy**2 / (xx * yy)


def principal_axes(*parts: Float[np.ndarray, "_ d"]) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d 2"]]:
    """Mean and first two principal axes of all rows; of each axis the largest component is positive."""
    rows = sum(map(len, parts))
    mean = np.sum([part.sum(axis=0, dtype=np.float64) for part in parts], axis=0) / rows
    width = len(mean)
    if width < 2:
        raise EvaluationError(f"a map of two dimensions needs embeddings of width 2 at least, got {width}")
    covariance = np.zeros((width, width))
    for part in parts:
        for low in range(0, len(part), _BLOCK):
            centred = part[low : low + _BLOCK] - mean
            covariance += centred.T @ centred
    axes = np.linalg.eigh(covariance)[1][:, :-3:-1]
    largest = axes[np.abs(axes).argmax(axis=0), [0, 1]]
    return mean, axes * np.where(largest < 0, -1.0, 1.0)


def project(
    reference: tuple[np.ndarray, np.ndarray],
    other: tuple[np.ndarray, np.ndarray],
    rows: tuple[Int[np.ndarray, " i"], Int[np.ndarray, " t"]],
    *,
    method: str,
    rng: np.random.Generator,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Places in the plane, (i, 2) of images and (t, 2) of texts at `rows`, under two models.

    `reference` and `other` are (image (m, d), text (n, d)). `pca`: axes of the reference's images and texts, for both
    models, so that what moves was moved. `tsne`: all four sets embedded together, through scikit-learn.
    """
    chosen = [[side[at] for side, at in zip(model, rows)] for model in (reference, other)]
    if method == "pca":
        mean, axes = principal_axes(*reference)
        return [((images - mean) @ axes, (texts - mean) @ axes) for images, texts in chosen]
    if method != "tsne":
        raise ValueError(f"method must be one of pca, tsne, got {method!r}")
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise EvaluationError("t-SNE needs scikit-learn; pip install scikit-learn, or use method pca") from error
    sets = [part for model in chosen for part in model]
    together = np.concatenate(sets)
    perplexity = min(30.0, (len(together) - 1) / 3)
    seed = int(rng.integers(2**31))
    placed = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(together)
    ends = np.cumsum([len(part) for part in sets])
    parts = np.split(placed, ends[:-1])
    return [(parts[0], parts[1]), (parts[2], parts[3])]
