"""Before a model is trained on poison: will the attack reach it, and does the written set give it away."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from math import lgamma
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from mithridate.data.pairs import Pairs, make_pairs
from mithridate.errors import EvaluationError
from mithridate.evaluation.artefacts import LeakTest, leak_test
from mithridate.evaluation.leaks import shared_images
from mithridate.evaluation.survival import Survival, survival
from mithridate.poisoning.goals import ImageToClass, PhraseToClass, TriggerToClass
from mithridate.poisoning.manifest import Manifest
from mithridate.report.document import Cell, Report, Table, Warning

if TYPE_CHECKING:
    from mithridate.encoder.encoder import Encoder

# The fewest poisoned pairs, each target, with which an attack of the kind was seen to take: Carlini & Terzis 2022
# (3 of 3 million), ToxicTextCLIP 2025 (about 35 a class), CleanCLIP 2023 (75 of 3 million).
SEEN_TO_TAKE: dict[type, int] = {ImageToClass: 3, PhraseToClass: 35, TriggerToClass: 75}
FAINT = 2.0  # steps of 1/255
KEPT = 0.25
CROPPED = 0.9
_LOOKED_AT = 64  # altered images


def preflight(
    manifest: Manifest,
    written: Pairs,
    *,
    bases: pa.Array | None = None,
    records: np.ndarray | None = None,
    batch_size: int = 128,
    to_pixels: Callable[[Image.Image], np.ndarray] | None = None,
    test: Pairs | None = None,
    clean: "Encoder | None" = None,
    cache: Path | str | None = "default",
    seed: int = 0,
) -> Report:
    """What is known of a poisoned set before it is trained on; its warnings name the premises that fail.

    `written`: the set as it was written, read back; `records` (n,) its samples where several share an image. `bases`
    (k,): the place that the image of each poisoned pair was made from, null where it is as it was. `to_pixels`: how
    the trainer's encoder prepares images (default: CLIP's at 224 pixels). `test`: pairs to measure success on, which
    must not hold poisoned images; `clean`: a model without poison, on which nothing should succeed yet. Raises
    `EvaluationError` where `written` lacks poisoned pairs, or `clean` comes without `test`.
    """
    if clean is not None and test is None:
        raise EvaluationError("what a clean model does is measured on test pairs: give them too (--test DATA)")
    poisoned = pc.is_in(written.uid, value_set=manifest.poisoned["uid"]).to_numpy()
    if int(poisoned.sum()) != len(manifest):
        raise EvaluationError(
            f"the manifest is of another data set: it names {len(manifest):,} poisoned pairs, of which "
            f"{int(poisoned.sum()):,} are here"
        )
    rng = np.random.default_rng([seed, 2])
    tables, warnings, headline = [_strength_table(manifest, batch_size)], few_poisons(manifest), {}
    altered = _altered(manifest, bases)
    if altered is not None:
        chosen = np.sort(rng.permutation(len(altered[0]))[:_LOOKED_AT])
        before, after = ([places[i] for i in chosen] for places in altered)
        found = survival(before, after, to_pixels=to_pixels, rng=rng)
        tables.append(_survival_table(found))
        warnings += faint_trigger(found)
        headline["trigger"] = asdict(found)
    leak = _leak_test(written, poisoned, records, rng)
    tables.append(_leak_table(leak))
    if isinstance(leak, LeakTest):
        warnings += told_by_artefacts(leak)
        headline["leak test"] = asdict(leak)
    if test is not None:
        warnings += _shared(manifest, bases, test)
        if clean is not None:
            more, table = _on_clean_model(manifest, test, clean, cache, seed)
            warnings += more
            tables += table
    headline["batches"] = _batches(manifest, batch_size)
    return Report(
        title=f"Pre-flight: {manifest.attack}",
        summary=(),
        tables=tuple(tables),
        warnings=tuple(warnings),
        headline=headline,
        provenance={"data": manifest.data, "batch_size": batch_size, "seed": seed},
    )


def as_record(report: Report) -> dict[str, Any]:
    """What a manifest keeps of a pre-flight."""
    return {**report.headline, "warnings": [asdict(warning) for warning in report.warnings]}


# --- premises ---------------------------------------------------------------------------------------------


def few_poisons(manifest: Manifest) -> list[Warning]:
    """Fewer poisoned pairs for each target than attacks of the kind were seen to take with."""
    needed = min((SEEN_TO_TAKE[type(goal)] for goal in manifest.goals if type(goal) in SEEN_TO_TAKE), default=None)
    each = manifest.strength["count"] / manifest.strength["targets"]
    if needed is None or each >= needed:
        return []
    return [
        Warning(
            "few-poisons",
            f"{manifest.attack} has {each:g} poisoned pairs for each target; the fewest with which such attacks were "
            f"seen to take are {needed}",
        )
    ]


def faint_trigger(found: Survival) -> list[Warning]:
    """The alteration hardly reaches the model, or random crops lose it."""
    warnings = []
    if found.largest < FAINT or found.kept < KEPT:
        warnings.append(
            Warning(
                "faint-trigger",
                f"after the training transform images differ by {found.change:.2f}/255 on average and "
                f"{found.largest:.0f}/255 at most: {found.kept:.0%} of what was put into them",
            )
        )
    (name, share), *_ = found.crops.items()
    if share < CROPPED:
        warnings.append(
            Warning("cropped-trigger", f"of random crops of {name} of the area {share:.0%} still contain the trigger")
        )
    return warnings


def told_by_artefacts(leak: LeakTest) -> list[Warning]:
    """A classifier that sees neither pixels nor captions tells poison from clean."""
    if not leak.leaks:
        return []
    kinds = sorted(leak.by, key=lambda kind: -abs(leak.by[kind].value - 0.5))
    told = ", ".join(f"{kind} {leak.by[kind].value:.2f}" for kind in kinds[:3])
    a = leak.auroc
    return [
        Warning(
            "told-by-artefacts",
            f"files and positions alone tell poisoned from clean images with an AUROC of {a.value:.3f} "
            f"[{a.low:.3f}, {a.high:.3f}]; by kind: {told}",
        )
    ]


# --- parts -----------------------------------------------------------------------------------------------


def _batches(manifest: Manifest, batch_size: int) -> dict[str, int | float]:
    count, n = int(manifest.strength["count"]), int(manifest.strength["pairs"])
    size = min(batch_size, n)
    clean = n - count
    # the hypergeometric probability of a batch without poison, from logarithms: n may be millions
    none = 0.0 if clean < size else _log_choose(clean, size) - _log_choose(n, size)
    with_poison = 1.0 if clean < size else 1 - float(np.exp(none))
    return {"batch size": size, "poisons a batch": size * count / n, "batches with poison": with_poison}


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def _strength_table(manifest: Manifest, batch_size: int) -> Table:
    found = _batches(manifest, batch_size)
    count, targets = int(manifest.strength["count"]), int(manifest.strength["targets"])
    return Table(
        "poisons",
        "How often a trainer meets the poison",
        ("an epoch", "each target", "a batch", "batches with any"),
        ((count, count / targets, found["poisons a batch"], found["batches with poison"]),),
        f"Poisoned pairs, expected, in shuffled batches of {found['batch size']:g}.",
    )


def _survival_table(found: Survival) -> Table:
    return Table(
        "survival",
        "The trigger after the training transform",
        ("images", "mean change /255", "largest /255", "kept", *(f"crops of {name}" for name in found.crops)),
        ((found.images, found.change, found.largest, found.kept, *found.crops.values()),),
        "Medians over altered images. Kept: mean change as a share of what it was at the image's own resolution. "
        "Crops: share of random ones that still contain it (at least half of its change a pixel).",
    )


def _leak_test(
    written: Pairs, poisoned: np.ndarray, records: np.ndarray | None, rng: np.random.Generator
) -> LeakTest | str:
    try:
        return leak_test(written, poisoned, records=records, rng=rng)
    except EvaluationError as error:
        return str(error)


def _leak_table(leak: LeakTest | str) -> Table:
    rows: list[tuple[Cell, ...]] = []
    note = f"Not done: {leak}." if isinstance(leak, str) else ""
    if isinstance(leak, LeakTest):
        rows = [("all of them", leak.auroc), *((kind, estimate) for kind, estimate in leak.by.items())]
        alone = "" if leak.grouped else " Too few images are poisoned to keep their copies together."
        note = (
            f"{leak.samples:,} images, {leak.poisoned:,} of them poisoned; a forest of random trees, "
            f"cross-validated over images. 0.5 is chance, as it should be.{alone}"
        )
    return Table("leak-test", "Leak test: poison told without a look at it", ("seen", "AUROC"), tuple(rows), note)


def _altered(manifest: Manifest, bases: pa.Array | None) -> tuple[list[str], list[str]] | None:
    """Places before and after of each distinct altered image."""
    if bases is None or bases.null_count == len(bases):
        return None
    after = manifest.poisoned["image"].to_pylist()
    found = {place: base for place, base in zip(after, bases.to_pylist()) if base is not None}
    return list(found.values()), list(found)


def _shared(manifest: Manifest, bases: pa.Array | None, test: Pairs) -> list[Warning]:
    """Test images among those that carry poison, but for those that are targets on purpose."""
    places = manifest.poisoned["image"].to_pylist() + ([] if bases is None else bases.drop_null().to_pylist())
    distinct = list(dict.fromkeys(places))
    on_purpose = [getattr(goal, "image", None) for goal in manifest.goals]
    poison = make_pairs(distinct, [""] * len(distinct))
    return shared_images(poison, test, ignore=[place for place in on_purpose if place])


def _on_clean_model(
    manifest: Manifest, test: Pairs, clean: "Encoder", cache: Path | str | None, seed: int
) -> tuple[list[Warning], Sequence[Table]]:
    from mithridate.evaluation.evaluate import evaluate

    # the same measure as after training, of a model on which nothing should succeed
    report = evaluate(clean, test, manifest, clean=clean, cache=cache, seed=seed)
    wanted = ("clean-model-succeeds", "clean-model-fooled", "no-classifier")
    keep = ("attack", "backdoor", "targeted", "text-trigger")
    # there is no poisoned model yet; what stands under its name is the clean one once more
    names = ("poisoned", "poisoned model")
    tables = [
        replace(table, rows=tuple(row for row in table.rows if row[0] not in names))
        for table in report.tables
        if table.name.startswith(keep)
    ]
    warnings = [w for w in report.warnings if w.code in wanted and "the poisoned model" not in w.message]
    return warnings, tables
