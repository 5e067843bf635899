"""A classification as a page: accuracies, recalls by class, confusions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mithridate.folders import write_atomically
from mithridate.metrics.classification import ClassScores, chance_accuracy, clip_benchmark_metrics, top_ks
from mithridate.report.document import Cell, Headline, Report, Table
from mithridate.report.numbers import show
from mithridate.statistics.intervals import wilson

if TYPE_CHECKING:
    from mithridate.evaluation.classify import Classification

_MATRIX = 12  # a confusion matrix of more classes is listed by its largest cells
_LISTED = 20
# file: task, by position of the method
_METRICS = {"metrics.json": "zeroshot_classification", "metrics-probe.json": "linear_probe"}


def classification_report(result: Classification, *, dataset: str, provenance: dict[str, Any] | None = None) -> Report:
    """The page of `classify`; `provenance` is added to what the result knows of itself."""
    c = len(result.classes)
    return Report(
        title=f"Classification: {dataset}",
        summary=tuple(_sentences(result)),
        tables=classification_tables(result.methods),
        headlines=(
            *(
                Headline(
                    "classification",
                    f"top-{k}",
                    {m.name: m.accuracy(k) for m in result.methods} | {"chance": chance_accuracy(k, c)},
                )
                for k in top_ks(c)
            ),
            Headline(
                "classification",
                "mean recall",
                {m.name: m.mean_per_class_recall() for m in result.methods} | {"chance": 1 / c},
            ),
        ),
        provenance=result.provenance | (provenance or {}),
    )


def _sentences(result: Classification) -> list[str]:
    c = len(result.classes)
    lines = [
        f"{m.name}: accuracy {show(m.accuracy())} on {show(len(m.labels))} images of {show(c)} classes; chance is "
        f"{show(chance_accuracy(1, c))}."
        for m in result.methods
    ]
    if result.probe_images is not None:
        lines.append(
            f"The probe was trained on {show(result.probe_images)} images that share no file and no bytes with the "
            "test images."
        )
    elif result.folds is not None:
        lines.append(
            f"The probe was cross-validated in {show(result.folds)} folds. They share training images, so its "
            "interval is a little too narrow."
        )
    return lines


def classification_tables(results: Sequence[ClassScores]) -> tuple[Table, ...]:
    """Accuracy, recall by class and confusions, one row or column for each method; all of the same images."""
    first = results[0]
    c = len(first.classes)
    ks = top_ks(c)
    rows: list[tuple[Cell, ...]] = [
        (r.name, len(r.labels), c, *(r.accuracy(k) for k in ks), r.mean_per_class_recall()) for r in results
    ]
    rows.append(("chance", None, c, *(chance_accuracy(k, c) for k in ks), 1 / c))
    accuracy = Table(
        "accuracy",
        "Classification",
        ("method", "images", "classes", *(f"top-{k}" for k in ks), "mean recall"),
        tuple(rows),
        "Top-K: share of images whose own class is among the first K of all classes; ties count against it. Mean "
        "recall: mean over classes of the share of its images that are right. 95 % Wilson intervals.",
    )
    recalls = [r.recalls() for r in results]
    by_class = Table(
        "classes",
        "Recall by class",
        ("class", "images", *(r.name for r in results), "most often taken for"),
        tuple(
            (name, int(first.images[i]), *(each[i] for each in recalls), _most_frequent_mistake(first, i))
            for i, name in enumerate(first.classes)
        ),
        f"Share of the images of a class that are taken for it; the mistakes of {first.name}. 95 % Wilson intervals.",
    )
    return (accuracy, by_class, *(_confusion_table(r) for r in results))


def _most_frequent_mistake(result: ClassScores, i: int) -> str | None:
    others = result.confusion[i].copy()
    others[i] = 0
    return f"{result.classes[int(others.argmax())]} ({show(int(others.max()))})" if others.max() else None


def _confusion_table(result: ClassScores) -> Table:
    name, title = f"confusion-{result.name.replace(' ', '-')}", f"Confusion, {result.name}"
    matrix = result.confusion
    if len(result.classes) <= _MATRIX:
        rows = tuple((own, *map(int, matrix[i])) for i, own in enumerate(result.classes))
        note = "Rows: the class of the images. Columns: the class they are taken for."
        return Table(name, title, ("class", *result.classes), rows, note)
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_LISTED]
    pairs = [(int(at) // len(matrix), int(at) % len(matrix)) for at in order]
    rows = tuple(
        (result.classes[i], result.classes[j], int(wrong[i, j]), wilson(int(wrong[i, j]), int(result.images[i])))
        for i, j in pairs
        if wrong[i, j]
    )
    note = f"The {_LISTED} most frequent mistakes; share: of the images of the class."
    return Table(name, title, ("class", "taken for", "images", "share"), rows, note)


def write_metrics(result: Classification, folder: Path, *, dataset: str, model: str, pretrained: str = "") -> None:
    """Write `metrics.json`, and with a probe `metrics-probe.json`, as CLIP_benchmark does."""
    for (file, task), method in zip(_METRICS.items(), result.methods):
        found = clip_benchmark_metrics(method, dataset=dataset, model=model, pretrained=pretrained, task=task)
        write_atomically(folder / file, json.dumps(found, ensure_ascii=False) + "\n")
