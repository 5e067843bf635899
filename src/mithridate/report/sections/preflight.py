"""A pre-flight as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mithridate.report.document import Cell, Report, Table
from mithridate.report.numbers import show
from mithridate.report.sections.evaluation import goal_tables
from mithridate.report.sections.warnings import worded

if TYPE_CHECKING:
    from mithridate.evaluation.preflight import Preflight
    from mithridate.evaluation.survival import Survival


def preflight_report(found: Preflight) -> Report:
    """The page of `preflight`: how often a trainer meets the poison, what is left of it, and what gives it away."""
    tables = [_poisons_table(found)]
    if found.survival is not None:
        tables.append(_survival_table(found.survival))
    tables.append(_leak_table(found))
    return Report(
        title=f"Pre-flight: {found.attack}",
        summary=(),
        tables=(*tables, *(() if found.clean is None else goal_tables(found.clean))),
        warnings=worded(found.warnings),
        provenance=found.provenance,
    )


def _poisons_table(found: Preflight) -> Table:
    batches = found.batches
    return Table(
        "poisons",
        "How often a trainer meets the poison",
        ("an epoch", "each target", "a batch", "batches with any"),
        ((found.count, found.count / found.targets, batches.poisons, batches.with_poison),),
        f"Poisoned pairs, expected, in shuffled batches of {show(batches.size)}.",
    )


def _survival_table(left: Survival) -> Table:
    return Table(
        "survival",
        "The trigger after the training transform",
        ("images", "mean change /255", "largest /255", "kept", *(f"crops of {name}" for name in left.crops)),
        ((left.images, left.change, left.largest, left.kept, *left.crops.values()),),
        "Medians over altered images. Kept: mean change as a share of what it was at the image's own resolution. "
        "Crops: share of random ones that still contain it (at least half of its change a pixel).",
    )


def _leak_table(found: Preflight) -> Table:
    leak = found.leak
    rows: list[tuple[Cell, ...]] = []
    note = f"Not tested: {found.leak_untested}."
    if leak is not None:
        rows = [("all kinds", leak.auroc), *leak.by.items()]
        alone = "" if leak.grouped else " Too few images are poisoned to keep copies of an image in one fold."
        note = (
            f"{show(leak.samples)} images, {show(leak.poisoned)} of them poisoned; a forest of random trees, "
            f"cross-validated over images. 0.5 is chance, as it should be.{alone}"
        )
    return Table(
        "leak-test", "Leak test: files and positions, without pixels and captions", ("seen", "AUROC"), tuple(rows), note
    )
