"""How far a model lies from its reference: table, densities, maps; and distances of poisoned pairs."""

from mithridate.evaluation.measurement import Evaluation
from mithridate.metrics import names
from mithridate.report.document import Cell, Curve, Figure, Table
from mithridate.report.numbers import show
from mithridate.report.sections.curves import distribution_figure

_OF = {"images": (names.SHIFT_IMAGE, names.CKA_IMAGE), "texts": (names.SHIFT_TEXT, names.CKA_TEXT)}
_AXES = {"pca": "principal axis", "tsne": "t-SNE"}


def density_figures(e: Evaluation) -> list[Figure]:
    """Cosine distances of poisoned pairs beside those of clean ones."""
    found = [d for d in e.distributions if d.metric == names.COSINE_DISTANCE]
    if not found:
        return []
    medians = ", ".join(f"{d.group} {show(d.median)}" for d in found)
    return [
        distribution_figure(
            "densities",
            "Cosine distance of clean and poisoned pairs",
            "cosine distance of image and caption",
            found,
            f"Under {found[0].model}. Medians: {medians}. What a similarity filter would see.",
        )
    ]


def shift_table(e: Evaluation) -> Table | None:
    """Mean cosine distance and linear CKA, by modality and group."""
    rows: list[tuple[Cell, ...]] = []
    for modality, (distance, cka) in _OF.items():
        for size in e.groups:
            mean, alignment = (e.find(metric, group=size.group) for metric in (distance, cka))
            if mean is not None:
                items = size.images if modality == "images" else size.captions
                rows.append(
                    (modality, size.group, mean.value, None if alignment is None else alignment.value.value, items)
                )
    if not rows:
        return None
    return Table(
        "shift",
        f"Shift: the same item under {e.reference} and under {e.model}",
        ("modality", "of", "cosine distance", "linear CKA", "items"),
        tuple(rows),
        "Mean of 1 - cosine between the two models' embeddings of one test item, with a 95 % bootstrap interval over "
        "images; for models from one start alone. Linear CKA: 1 where the models arrange the items alike.",
    )


def shift_figures(e: Evaluation) -> list[Figure]:
    """Densities of the distances, and a map of each model."""
    figures = []
    for modality, (distance, _) in _OF.items():
        found = [d for d in e.distributions if d.metric == distance]
        if found:
            mean = e.value(distance)
            note = f"Each test item once, by class. Mean over all {modality}: {show(mean.value)}."
            label = f"cosine distance from {e.reference} to {e.model}"
            figures.append(distribution_figure(f"shift-{modality}", f"How far {modality} moved", label, found, note))
    return figures + [_map(e, model) for model in dict.fromkeys(p.model for p in e.projections)]


def _map(e: Evaluation, model: str) -> Figure:
    items = [item for item in e.projections if item.model == model]
    groups = list(dict.fromkeys(item.group for item in items))
    curves = []
    # the others first: what is highlighted lies above them
    for series, group in sorted(enumerate(groups), key=lambda entry: entry[1] != names.OTHER_CLASSES):
        background = group in (names.OTHER_CLASSES, names.ALL)
        curves += [
            Curve(
                item.modality if group == names.ALL else f"{item.modality} of {group}",
                item.x,
                item.y,
                series=-1 if background else series,
                marker="dot" if item.modality == "images" else "cross",
            )
            for item in items
            if item.group == group
        ]
    method = items[0].method
    note = f"Axes of the images and texts of {e.reference} together, the same in both maps." if method == "pca" else ""
    return Figure(
        f"projection-{model}", f"Images and texts under {model}", "scatter", f"{_AXES[method]} 1", f"{_AXES[method]} 2",
        tuple(curves), note,
    )  # fmt: skip
