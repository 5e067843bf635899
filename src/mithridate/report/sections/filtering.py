"""The outcome of a filter as a page."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from mithridate.report.document import Cell, Curve, Figure, Headline, Mark, Report, Table
from mithridate.report.numbers import percent, show
from mithridate.report.sections.curves import density_figure
from mithridate.report.sections.warnings import worded

if TYPE_CHECKING:
    from mithridate.auditing.filter import Filtered
    from mithridate.evaluation.filter_outcome import FilterOutcome, SuspiciousPair
    from mithridate.metrics.detection import Detection, Losses

_POINTS = 200  # of a curve


def filter_report(outcome: FilterOutcome) -> Report:
    """The page of a filter: what it removes, the densities of suspicion, and the detector against the truth."""
    filtered = outcome.filtered
    scores, name = filtered.scores, filtered.detector.name
    n, removed = len(scores), filtered.removed
    tables = [_removed_table(filtered)]
    lines = [
        f"{show(removed)} of {show(n)} pairs are removed ({percent(removed / n)}): {filtered.detector.measures} above "
        f"{show(filtered.level)} under {filtered.encoder}."
    ]
    headlines = [
        Headline("filter", "removed", {name: removed}),
        Headline("filter", "removed share", {name: removed / n}),
    ]
    shown, figures = {"all pairs": scores.suspicion}, []
    if outcome.poisoned is not None and outcome.detection is not None and outcome.losses is not None:
        truth, found, lost = outcome.poisoned, outcome.detection, outcome.losses
        shown = {"clean pairs": scores.suspicion[~truth], "poisoned pairs": scores.suspicion[truth]}
        tables += [_detection_table(found, lost), _cost_table(found)]
        figures = [_trade_figure(scores.suspicion, truth)]
        lines.append(
            f"{show(found.poisoned)} pairs are poisoned: AUROC {show(found.auroc)}; "
            f"{percent(lost.poison_removed.value)} of them are removed, {show(lost.poison_left)} are kept, and "
            f"{percent(lost.clean_lost.value)} of the clean pairs are lost."
        )
        headlines += [
            Headline("detection", "AUROC", {name: found.auroc}),
            Headline("detection", "average precision", {name: found.average_precision}),
            Headline("detection", "poison removed", {name: lost.poison_removed}),
            Headline("detection", "clean pairs lost", {name: lost.clean_lost}),
        ]
    if filtered.reference is not None:
        shown["clean reference"] = filtered.reference.suspicion
    if outcome.suspicious:
        tables.append(_suspicious_table(outcome.suspicious))
    density = density_figure(
        "suspicion",
        "Suspicion",
        filtered.detector.measures,
        shown,
        "Each curve integrates to one; pairs to the right of the line are removed.",
        marks=(Mark(f"threshold {show(filtered.level)}", filtered.level),),
    )
    return Report(
        title=f"Filter: {name}",
        summary=tuple(lines),
        tables=tuple(tables),
        figures=(density, *figures),
        warnings=worded(outcome.warnings),
        headlines=tuple(headlines),
        provenance=outcome.provenance,
    )


def _removed_table(filtered: Filtered) -> Table:
    n = len(filtered.scores)
    rows: list[tuple[Cell, ...]] = [
        ("scored", n, 1.0),
        ("removed", filtered.removed, filtered.removed / n),
        ("kept", n - filtered.removed, 1 - filtered.removed / n),
    ]
    if filtered.reference is not None:
        above = int((filtered.reference.suspicion > filtered.level).sum())
        rows.append(("clean reference, above the threshold", above, above / len(filtered.reference)))
    kind = asdict(filtered.threshold)  # type: ignore[call-overload]
    options = ", ".join(f"{key} {show(value)}" for key, value in kind.items() if value is not None)
    note = f"Threshold: {filtered.threshold.name}, {options}; highest suspicion kept: at most {show(filtered.level)}."
    return Table("filter", "What is removed", ("pairs", "count", "share"), tuple(rows), note)


def _detection_table(found: Detection, lost: Losses) -> Table:
    rate = found.poisoned / found.pairs
    rows: list[tuple[Cell, ...]] = [
        ("AUROC", found.auroc, 0.5),
        ("average precision", found.average_precision, rate),
        *((f"recall at an alert budget of {percent(b)}", r, min(b, 1.0)) for b, r in found.recall.items()),
        ("poisoned pairs removed", lost.poison_removed, None),
        ("clean pairs lost", lost.clean_lost, None),
        ("poison among the removed pairs", lost.precision, rate),
    ]
    return Table(
        "detection",
        "Suspicion against the truth",
        ("measure", "value", "chance"),
        tuple(rows),
        f"{show(found.poisoned)} of {show(found.pairs)} pairs are poisoned ({percent(rate)}). A budget is a share of "
        "all pairs, the most suspicious first, so recall is at most the budget divided by that rate. Chance: a random "
        "order. Intervals over images, whose pairs stay together.",
    )


def _cost_table(found: Detection) -> Table:
    return Table(
        "cost",
        "Clean pairs lost for each recall",
        ("poison found", "at suspicion", "clean pairs lost"),
        tuple((percent(recall), level, lost) for recall, (level, lost) in found.cost.items()),
        "The highest level with this share of the poison at or above it, and the share of clean pairs there. Chosen "
        "by looking at the truth: what the best threshold would cost.",
    )


def _trade_figure(suspicion: np.ndarray, truth: np.ndarray) -> Figure:
    poison, clean = np.sort(suspicion[truth]), np.sort(suspicion[~truth])
    levels = np.quantile(suspicion, np.linspace(1, 0, _POINTS))
    found, lost = (1 - np.searchsorted(part, levels, "left") / len(part) for part in (poison, clean))
    return Figure(
        "trade",
        "Poison found against clean pairs lost",
        "line",
        "share of clean pairs lost",
        "share of poison found",
        (
            Curve("this detector", (0.0, *lost.tolist()), (0.0, *found.tolist())),
            Curve("random order", (0.0, 1.0), (0.0, 1.0)),
        ),
        "One point a threshold.",
    )


def _suspicious_table(pairs: tuple[SuspiciousPair, ...]) -> Table:
    return Table(
        "most-suspicious",
        "The most suspicious pairs",
        ("caption", "suspicion", "kept", "uid"),
        tuple((pair.caption, pair.suspicion, "yes" if pair.kept else "no", pair.uid) for pair in pairs),
    )
