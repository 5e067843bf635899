"""What a filter did, as a report: without a manifest how many pairs go, with one what they were."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow as pa

from mithridate.audit.filter import Filtered
from mithridate.audit.output import record
from mithridate.data.pairs import Pairs
from mithridate.errors import EvaluationError
from mithridate.evaluation.curves import density_figure
from mithridate.evaluation.detection import Detection, Losses, detection, losses, poisoned_rows
from mithridate.poisoning.manifest import Manifest
from mithridate.report.document import Cell, Curve, Figure, Mark, Report, Table, Warning

_SHOWN = 20  # pairs listed
_POINTS = 200  # of a curve
MUCH = 0.5


def filter_report(filtered: Filtered, *, manifest: Manifest | None = None, pairs: Pairs | None = None) -> Report:
    """Tables `filter` and, with `pairs` (those scored, for their captions), `most-suspicious`; the density figure.

    With `manifest` also tables `detection` and `cost` and the figure `trade`. Raises `EvaluationError` where the
    manifest or the pairs are of another data set.
    """
    scores, name = filtered.scores, filtered.detector.name
    tables, lines = [_what_goes(filtered)], [_told(filtered)]
    headline: dict[str, Any] = {
        "filter": {
            name: {"pairs": len(scores), "removed": filtered.removed, "removed share": filtered.removed / len(scores)}
        }
    }
    shown = {"all pairs": scores.suspicion}
    figures: list[Figure] = []
    if manifest is not None:
        truth = poisoned_rows(scores, manifest)
        found = detection(scores.suspicion, truth, filtered.image_index)
        lost = losses(filtered.keep, truth, filtered.image_index)
        shown = {"clean pairs": scores.suspicion[~truth], "poisoned pairs": scores.suspicion[truth]}
        tables += [_detection_table(found, lost), _cost_table(found)]
        figures = [_trade_figure(scores.suspicion, truth)]
        lines.append(_verdict(found, lost))
        headline["detection"] = {
            name: {
                "AUROC": asdict(found.auroc),
                "average precision": asdict(found.average_precision),
                "poison removed": asdict(lost.poison_removed),
                "clean pairs lost": asdict(lost.clean_lost),
            }
        }
    if filtered.reference is not None:
        shown["clean reference"] = filtered.reference.suspicion
    if pairs is not None:
        tables.append(_most_suspicious(filtered, pairs))
    density = density_figure(
        "suspicion", "Suspicion", shown, "Each curve integrates to one; pairs right of the line go."
    )
    mark = Mark(f"threshold {filtered.level:.4g}", filtered.level)
    return Report(
        title=f"Filter: {name}",
        summary=tuple(lines),
        tables=tuple(tables),
        figures=(replace(density, x_label=filtered.detector.measures, marks=(mark,)), *figures),
        warnings=tuple(_warnings(filtered)),
        headline=headline,
        provenance=record(filtered)
        | ({} if manifest is None else {"attack": manifest.attack, "attack options": manifest.options}),
    )


def _told(filtered: Filtered) -> str:
    n = len(filtered.scores)
    return (
        f"{filtered.removed:,} of {n:,} pairs go ({filtered.removed / n:.2%}): {filtered.detector.measures} above "
        f"{filtered.level:.4f} under {filtered.encoder}."
    )


def _verdict(found: Detection, lost: Losses) -> str:
    return (
        f"{found.poisoned:,} pairs are poisoned: AUROC {found.auroc.value:.3f}; {lost.poison_removed.value:.1%} of "
        f"them go, {lost.poison_left:,} stay, and {lost.clean_lost.value:.2%} of the clean pairs are lost."
    )


def _what_goes(filtered: Filtered) -> Table:
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
    options = ", ".join(f"{key} {value:g}" for key, value in kind.items() if value is not None)
    note = f"Threshold: {filtered.threshold.name}, {options}; no pair that stays exceeds {filtered.level:.6g}."
    return Table("filter", "What goes", ("pairs", "count", "share"), tuple(rows), note)


def _detection_table(found: Detection, lost: Losses) -> Table:
    rate = found.poisoned / found.pairs
    rows: list[tuple[Cell, ...]] = [
        ("AUROC", found.auroc, 0.5),
        ("average precision", found.average_precision, rate),
        *((f"recall at an alert budget of {b:.1%}", r, min(b, 1.0)) for b, r in found.recall.items()),
        ("poisoned pairs removed", lost.poison_removed, None),
        ("clean pairs lost", lost.clean_lost, None),
        ("poison among what is removed", lost.precision, rate),
    ]
    return Table(
        "detection",
        "Suspicion against the truth",
        ("measure", "value", "chance"),
        tuple(rows),
        f"{found.poisoned:,} of {found.pairs:,} pairs are poisoned ({rate:.2%}). A budget is a share of all pairs, the "
        "most suspicious first, so recall is at most the budget divided by that rate. Chance: a random order. "
        "Intervals over images, whose pairs stay together.",
    )


def _cost_table(found: Detection) -> Table:
    return Table(
        "cost",
        "Clean pairs lost for each recall",
        ("poison found", "at suspicion", "clean pairs lost"),
        tuple((f"{recall:.0%}", level, lost) for recall, (level, lost) in found.cost.items()),
        "The highest level with this share of the poison at or above it, and the share of clean pairs there. Chosen "
        "with the truth in hand: what the best threshold would cost.",
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


def _most_suspicious(filtered: Filtered, pairs: Pairs) -> Table:
    order = filtered.scores.ranked()[:_SHOWN]
    uids = filtered.scores.uid.take(pa.array(order))
    rows = pa.compute.index_in(uids, value_set=pairs.uid.cast(uids.type))  # type: ignore[attr-defined]
    if rows.null_count:
        raise EvaluationError(
            f"the pairs are of another data set: they lack {rows.null_count} of the {len(order)} most suspicious uids; "
            "give the data that were embedded"
        )
    found = pairs.text.take(rows).to_pylist()
    cells = zip(uids.to_pylist(), filtered.scores.suspicion[order].tolist(), found, filtered.keep[order].tolist())
    return Table(
        "most-suspicious",
        "The most suspicious pairs",
        ("uid", "suspicion", "caption", "stays"),
        tuple((uid, value, text, "yes" if stays else "no") for uid, value, text, stays in cells),
        "",
    )


def _warnings(filtered: Filtered) -> list[Warning]:
    n, gone = len(filtered.scores), filtered.removed
    if gone > MUCH * n:
        return [
            Warning(
                "much-removed", f"the threshold removes {gone / n:.0%} of the pairs; it is not of this encoder's scale"
            )
        ]
    if gone:
        return []
    return [
        Warning(
            "nothing-removed",
            f"no pair lies above {filtered.level:.4f}; the most suspicious has {filtered.scores.suspicion.max():.4f}",
        )
    ]
