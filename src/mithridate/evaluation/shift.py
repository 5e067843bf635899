"""How far the poison moved what the model sees: per item, as similarity of representations, and as a map.

Cosine distances between two models' embeddings (mmPoison, figure 1) mean something only where both were trained from
the same start: two encoders from different starts may agree on everything and still point elsewhere. Linear CKA is
defined for any two.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from mithridate.data.pairs import Pairs
from mithridate.encoder.embeddings import Embeddings
from mithridate.errors import EvaluationError
from mithridate.evaluation.curves import density_figure
from mithridate.poisoning.goals import RetrievalGoal
from mithridate.report.document import Cell, Curve, Figure, Table
from mithridate.statistics.differences import mean_over

_BLOCK = 4096  # rows in double precision at once
_SHOWN = 400  # of each modality: what a page can hold and an eye can tell apart
_TEXTS, _IMAGES = "texts", "images"


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
    clean: tuple[np.ndarray, np.ndarray],
    poisoned: tuple[np.ndarray, np.ndarray],
    rows: tuple[Int[np.ndarray, " i"], Int[np.ndarray, " t"]],
    *,
    method: str,
    rng: np.random.Generator,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Places in the plane, (i, 2) of images and (t, 2) of texts at `rows`, under the clean and the poisoned model.

    `clean` and `poisoned` are (image (m, d), text (n, d)). `pca`: axes of the clean model's images and texts, for both
    models, so that what moves was moved. `tsne`: all four sets embedded together, through scikit-learn.
    """
    chosen = [[side[at] for side, at in zip(model, rows)] for model in (clean, poisoned)]
    if method == "pca":
        mean, axes = principal_axes(*clean)
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


def shift_report(
    clean: Embeddings,
    poisoned: Embeddings,
    pairs: Pairs,
    goals: tuple[RetrievalGoal, ...],
    rng: np.random.Generator,
    *,
    method: Literal["pca", "tsne"] = "pca",
) -> tuple[tuple[Table, ...], tuple[Figure, ...]]:
    """Table `shift`, densities `shift-images` and `shift-texts`, maps `projection-clean` and `projection-poisoned`.

    Both embeddings are of `pairs`, by models trained from the same start. Raises `EvaluationError` where they are not
    of the same data, or of different width.
    """
    for e in (clean, poisoned):
        if e.uid.to_pylist() != pairs.uid.to_pylist() or not np.array_equal(e.image_index, pairs.image_index):
            raise EvaluationError("the shift needs embeddings of the same test pairs, got other uids or images")
    distances = {
        _IMAGES: cosine_distance(clean.image, poisoned.image),
        _TEXTS: cosine_distance(clean.text, poisoned.text),
    }
    groups = _groups(pairs, goals)
    both = {_IMAGES: (clean.image, poisoned.image), _TEXTS: (clean.text, poisoned.text)}
    rows: list[tuple[Cell, ...]] = []
    index = pairs.image_index.astype(np.int64)
    for modality, found in distances.items():
        for name, masks in groups.items():
            mask = masks[modality]
            alignment = linear_cka(*(side[mask] for side in both[modality]))
            # captions of one image move together
            mean = mean_over(found[mask], index[mask] if modality == _TEXTS else None, rng=rng)
            rows.append((modality, name, mean, None if np.isnan(alignment) else alignment, int(mask.sum())))
    table = Table(
        "shift",
        "Shift: the same item under the clean and the poisoned model",
        ("modality", "of", "cosine distance", "linear CKA", "items"),
        tuple(rows),
        "Mean of 1 - cosine between the two models' embeddings of one test item, with a 95 % bootstrap interval over "
        "images; for models from one start alone. Linear CKA: 1 where the models arrange the items alike.",
    )
    shown = {name: masks for name, masks in groups.items() if name != "all" or len(groups) == 1}
    figures = [
        replace(
            density_figure(
                f"shift-{modality}",
                f"How far {modality} moved",
                {name: found[masks[modality]] for name, masks in shown.items()},
                f"Each test item once, by class. Mean over all {modality}: {found.mean():.4f}.",
            ),
            x_label="cosine distance from the clean to the poisoned model",
        )
        for modality, found in distances.items()
    ]
    at = (_chosen(shown, _IMAGES, rng), _chosen(shown, _TEXTS, rng))
    placed = project((clean.image, clean.text), (poisoned.image, poisoned.text), at, method=method, rng=rng)
    for model, (images, texts) in zip(("clean", "poisoned"), placed):
        figures.append(_map(model, method, shown, dict(zip((_IMAGES, _TEXTS), zip(at, (images, texts))))))
    return (table,), tuple(figures)


def _groups(pairs: Pairs, goals: tuple[RetrievalGoal, ...]) -> dict[str, dict[str, Bool[np.ndarray, " _"]]]:
    """Images (m,) and texts (n,) of all pairs, of each class of a goal, of the rest; empty groups are left out."""
    texts = {name: pairs.labelled(name) for goal in goals for name in (goal.source, goal.target)}
    rest = ~np.logical_or.reduce([np.zeros(len(pairs), bool), *texts.values()])
    named = {"all": np.ones(len(pairs), bool)} | texts | ({"other classes": rest} if texts else {})
    found = {}
    for name, mask in named.items():
        images = np.zeros(len(pairs.images), bool)
        images[pairs.image_index[mask]] = True
        if mask.any():
            found[name] = {_IMAGES: images, _TEXTS: mask}
    return found


def _chosen(groups: dict[str, dict[str, np.ndarray]], modality: str, rng: np.random.Generator) -> Int[np.ndarray, " k"]:
    """Items to show, at most `_SHOWN`: as many of each group where there are."""
    share = _SHOWN // len(groups)
    parts = [np.flatnonzero(masks[modality]) for masks in groups.values()]
    return np.unique(np.concatenate([np.sort(rng.permutation(part)[:share]) for part in parts]))


def _map(
    model: str,
    method: str,
    groups: dict[str, dict[str, np.ndarray]],
    placed: dict[str, tuple[Int[np.ndarray, " k"], Float[np.ndarray, "k 2"]]],
) -> Figure:
    curves = []
    # the others first: what is highlighted lies above them
    for series, name in sorted(enumerate(groups), key=lambda entry: entry[1] != "other classes"):
        for modality, (rows, points) in placed.items():
            x, y = points[groups[name][modality][rows]].T.round(4)
            background = name in ("other classes", "all")
            curves.append(
                Curve(
                    modality if name == "all" else f"{modality} of {name}",
                    tuple(x.tolist()),
                    tuple(y.tolist()),
                    series=-1 if background else series,
                    marker="dot" if modality == _IMAGES else "cross",
                )
            )
    axes = {"pca": "principal axis", "tsne": "t-SNE"}[method]
    note = "Axes of the clean model's images and texts together, the same in both maps." if method == "pca" else ""
    return Figure(
        f"projection-{model}", f"Images and texts under the {model} model", "scatter", f"{axes} 1", f"{axes} 2",
        tuple(curves), note,
    )  # fmt: skip
