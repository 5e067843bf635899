"""Before a model is trained on poison: will the attack reach it, and does the written set give it away."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image
from scipy.stats import hypergeom

from mithridate.data.pairs import Pairs, make_pairs
from mithridate.errors import EvaluationError
from mithridate.evaluation.leak_test import LeakTest, leak_test
from mithridate.evaluation.measurement import Evaluation, Warning
from mithridate.evaluation.overlap import shared_images
from mithridate.evaluation.survival import Survival, survival
from mithridate.poisoning.goals import ImageToClass, PhraseToClass, TriggerToClass
from mithridate.poisoning.manifest import Manifest
from mithridate.randomness import stream

if TYPE_CHECKING:
    from mithridate.encoder.encoder import Encoder

# The fewest poisoned pairs, each target, with which an attack of the kind was seen to take: Carlini & Terzis 2022
# (3 of 3 million), ToxicTextCLIP 2025 (about 35 a class), CleanCLIP 2023 (75 of 3 million).
SEEN_TO_TAKE: dict[type, int] = {ImageToClass: 3, PhraseToClass: 35, TriggerToClass: 75}
FAINT = 2.0  # steps of 1/255
KEPT = 0.25
CROPPED = 0.9
_LOOKED_AT = 64  # altered images
_OF_CLEAN = ("clean-model-succeeds", "clean-model-fooled", "no-classifier")


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Shuffled batches of `size` pairs: `poisons` expected in one, and the probability that one has any."""

    size: int
    poisons: float
    with_poison: float


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """What is known of a poisoned set of `count` poisoned pairs for `targets` targets before it is trained on.

    `survival`: None where no image was altered. `leak`: None where the leak test could not be done, and then
    `leak_untested` says why. `clean`: what a model without poison does, where one was given.
    """

    attack: str
    count: int
    targets: int
    batches: Batches
    survival: Survival | None
    leak: LeakTest | None
    leak_untested: str
    warnings: tuple[Warning, ...]
    clean: Evaluation | None = None
    provenance: dict[str, Any]

    @property
    def codes(self) -> list[str]:
        """Of all warnings."""
        return [warning.code for warning in self.warnings]

    def record(self) -> dict[str, Any]:
        """What a manifest keeps of it."""
        return {
            **({} if self.survival is None else {"trigger": asdict(self.survival)}),
            **({} if self.leak is None else {"leak test": asdict(self.leak)}),
            "batches": asdict(self.batches),
            "warnings": [asdict(warning) for warning in self.warnings],
        }


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
) -> Preflight:
    """What is known of a poisoned set before it is trained on; its warnings name the premises that fail.

    `written`: the set as it was written, read back. `records` (n,): the sample of each pair, which counts where
    samples share image files; where they do not, an image is a sample. `bases` (k,): the location that the image of
    each poisoned pair was made from, null where it is unaltered. `to_pixels`: how the trainer's encoder prepares
    images (default: CLIP's at 224 pixels). `test`: pairs to measure success on, which must not hold poisoned images.
    `clean`: a model without poison, on which nothing should succeed yet. Raises `EvaluationError` where `written`
    lacks poisoned pairs, or `clean` comes without `test`.
    """
    if clean is not None and test is None:
        raise EvaluationError("the clean model is measured on test pairs: --clean requires --test")
    poisoned = pc.is_in(written.uid, value_set=manifest.poisoned["uid"]).to_numpy()
    if int(poisoned.sum()) != len(manifest):
        raise EvaluationError(
            f"the manifest is of another data set: it names {len(manifest)} poisoned pairs, of which "
            f"{int(poisoned.sum())} are here"
        )
    warnings = few_poisons(manifest)
    left = _survival(manifest, bases, to_pixels, seed)
    if left is not None:
        warnings += faint_trigger(left)
    leak, why = _leak_test(written, poisoned, _samples(written, records), seed)
    if leak is not None:
        warnings += leak_warning(leak)
    on_clean = None
    if test is not None:
        warnings += _shared(manifest, bases, test)
        if clean is not None:
            # the same measure as after training, of a model on which nothing should succeed
            on_clean = _evaluate(clean, test, manifest, cache, seed)
            warnings += [warning for warning in on_clean.warnings if warning.code in _OF_CLEAN]
    return Preflight(
        attack=manifest.attack,
        count=int(manifest.strength["count"]),
        targets=int(manifest.strength["targets"]),
        batches=_batches(manifest, batch_size),
        survival=left,
        leak=leak,
        leak_untested=why,
        warnings=tuple(warnings),
        clean=on_clean,
        provenance={"data": manifest.data, "batch_size": batch_size, "seed": seed},
    )


# --- premises ---------------------------------------------------------------------------------------------


def few_poisons(manifest: Manifest) -> list[Warning]:
    """`few-poisons`: fewer poisoned pairs for each target than attacks of the kind were seen to take with."""
    needed = min((SEEN_TO_TAKE[type(goal)] for goal in manifest.goals if type(goal) in SEEN_TO_TAKE), default=None)
    each = manifest.strength["count"] / manifest.strength["targets"]
    if needed is None or each >= needed:
        return []
    each = int(each) if each == int(each) else each
    return [Warning(code="few-poisons", values={"attack": manifest.attack, "each": each, "needed": needed})]


def faint_trigger(left: Survival) -> list[Warning]:
    """`faint-trigger`: the alteration hardly reaches the model; `cropped-trigger`: random crops lose it."""
    warnings = []
    if left.largest < FAINT or left.kept < KEPT:
        warnings.append(
            Warning(code="faint-trigger", values={"change": left.change, "largest": left.largest, "kept": left.kept})
        )
    (crops, share), *_ = left.crops.items()
    if share < CROPPED:
        warnings.append(Warning(code="cropped-trigger", values={"crops": crops, "share": share}))
    return warnings


def leak_warning(leak: LeakTest) -> list[Warning]:
    """`leak`: what sees neither pixels nor captions tells poison from clean; with the kinds that do alone."""
    if not leak.leaks:
        return []
    # below 0.5 what was learned does not hold on images not seen: no leak
    alone = [kind for kind, area in leak.by.items() if area.low is not None and area.low > 0.5]
    kinds = sorted(alone, key=lambda kind: -leak.by[kind].value)[:3]
    area = {"auroc": leak.auroc.value, "low": leak.auroc.low, "high": leak.auroc.high}
    return [Warning(code="leak", values={**area, "kinds": ", ".join(kinds) or "none, several together"})]


# --- parts -----------------------------------------------------------------------------------------------


def _batches(manifest: Manifest, batch_size: int) -> Batches:
    count, n = int(manifest.strength["count"]), int(manifest.strength["pairs"])
    size = min(batch_size, n)
    return Batches(size=size, poisons=size * count / n, with_poison=1 - float(hypergeom.pmf(0, n, count, size)))


def _survival(
    manifest: Manifest, bases: pa.Array | None, to_pixels: Callable[[Image.Image], np.ndarray] | None, seed: int
) -> Survival | None:
    """Of up to 64 distinct altered images, chosen at random."""
    if bases is None or bases.null_count == len(bases):
        return None
    made_from = {
        after: base
        for after, base in zip(manifest.poisoned["image"].to_pylist(), bases.to_pylist())
        if base is not None
    }
    after, before = list(made_from), list(made_from.values())
    chosen = np.sort(stream(seed, "preflight images").permutation(len(after))[:_LOOKED_AT])
    return survival(
        [before[i] for i in chosen],
        [after[i] for i in chosen],
        to_pixels=to_pixels,
        rng=stream(seed, "preflight crops"),
    )


def _samples(written: Pairs, records: np.ndarray | None) -> np.ndarray | None:
    """`records` where samples share image files, which a table that points at images does, in its order of pairs."""
    if records is None or len(records) != len(written) or len(written.images) >= len(set(records.tolist())):
        return None
    return records


def _leak_test(
    written: Pairs, poisoned: np.ndarray, records: np.ndarray | None, seed: int
) -> tuple[LeakTest | None, str]:
    try:
        return leak_test(written, poisoned, records=records, seed=seed), ""
    except EvaluationError as error:
        return None, str(error)


def _shared(manifest: Manifest, bases: pa.Array | None, test: Pairs) -> list[Warning]:
    """Test images among those that carry poison, except those that are targets on purpose."""
    locations = manifest.poisoned["image"].to_pylist() + ([] if bases is None else bases.drop_null().to_pylist())
    distinct = list(dict.fromkeys(locations))
    on_purpose = [getattr(goal, "image", None) for goal in manifest.goals]
    poison = make_pairs(distinct, [""] * len(distinct))
    return shared_images(poison, test, ignore=[location for location in on_purpose if location])


def _evaluate(clean: "Encoder", test: Pairs, manifest: Manifest, cache: Path | str | None, seed: int) -> Evaluation:
    from mithridate.evaluation.evaluate import evaluate

    return evaluate({"clean": clean}, test, manifest, reference="clean", cache=cache, seed=seed)
