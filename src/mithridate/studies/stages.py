"""What a cell is made of, as values: worlds, sets, models, measurements, each known by a key of all that decides it.

Equal stages have equal keys, whichever cell asks for them, so that each is done once. Nothing is read or done here.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Any

from mithridate.audit.scores import Detector
from mithridate.audit.threshold import CleanQuantile, Threshold
from mithridate.poisoning.plan import Attack
from mithridate.studies.spec.build import bare
from mithridate.studies.spec.study import Cell, DataSpec, StartSpec, ToySpec
from mithridate.toy.toy import CAPTIONS_PER_IMAGE
from mithridate.training.clip import Clip
from mithridate.training.config import TrainConfig
from mithridate.training.objective import Objective
from mithridate.version import __version__

PRETRAIN, REPAIR = 10_000, 20_000  # added to the seed: worlds that no cell trains on
FILTER, SURROGATE = 1, 2  # added to the seed: models that look on


@dataclass(frozen=True)
class ToyDataset:
    """A toy world that is drawn."""

    toy: ToySpec
    seed: int


@dataclass(frozen=True)
class CleanPairs:
    """Clean pairs: a part (train, test) of a world, or of data that are read; `share` of their images."""

    part: str
    world: ToyDataset | None = None
    data: DataSpec | None = None
    fingerprint: str = ""  # of what is read: other pairs are another stage
    share: float = 1.0
    seed: int = 0  # that the share is drawn by


@dataclass(frozen=True)
class InitialModel:
    """An encoder as it is loaded, or drawn from `seed`."""

    encoder: str
    pretrained: str | None = None
    seed: int = 0
    weights: str = ""  # fingerprint of weights that lie outside


@dataclass(frozen=True)
class PoisonedPairs:
    pairs: CleanPairs
    attack: Attack
    seed: int
    gallery: CleanPairs | None = None
    surrogate: "InitialModel | TrainedModel | None" = None


@dataclass(frozen=True)
class EmbeddedPairs:
    """Pairs seen by an encoder: for a filter."""

    pairs: "CleanPairs | PoisonedPairs"
    encoder: "InitialModel | TrainedModel"


@dataclass(frozen=True)
class FilteredPairs:
    """What a filter leaves of pairs."""

    embedded: EmbeddedPairs
    detector: Detector
    threshold: Threshold
    seed: int
    reference: EmbeddedPairs | None = None


@dataclass(frozen=True)
class TrainedModel:
    start: "InitialModel | TrainedModel"
    pairs: CleanPairs | PoisonedPairs | FilteredPairs
    objective: Objective
    config: TrainConfig


@dataclass(frozen=True)
class ClassifiedImages:
    """Test images classified by prompts, and where `train` is given by a probe on those images."""

    model: "InitialModel | TrainedModel"
    test: CleanPairs
    prompts: bool
    train: CleanPairs | None = None


@dataclass(frozen=True)
class MeasuredCell:
    """All that is measured of a cell."""

    model: TrainedModel
    clean: TrainedModel
    test: CleanPairs
    seed: int
    start: "InitialModel | TrainedModel | None" = None
    poison: PoisonedPairs | None = None
    kept: FilteredPairs | None = None
    classified: tuple[tuple[str, ClassifiedImages], ...] = ()  # by model
    shift: bool = False
    epochs: bool = False


Stage = ToyDataset | PoisonedPairs | EmbeddedPairs | FilteredPairs | TrainedModel | ClassifiedImages | MeasuredCell
"""What is done once and kept."""

KINDS: dict[type, str] = {
    ToyDataset: "worlds",
    PoisonedPairs: "poison",
    EmbeddedPairs: "embeddings",
    FilteredPairs: "kept",
    TrainedModel: "models",
    ClassifiedImages: "classified",
    MeasuredCell: "measured",
}
"""The folder of each kind of stage."""

_FREE = ("save_epochs", "checkpoint_every", "max_bad")  # options that do not decide the weights


def key_of(stage: Any) -> str:
    """A hash of everything that decides what `stage` gives, the version of the package among it."""
    text = json.dumps([__version__, plain_of(stage)], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def plain_of(value: Any) -> Any:
    """All that decides what `value` means, as JSON has it: neither where data lie nor how often a state is saved."""
    if is_dataclass(value) and not isinstance(value, type):
        free = _FREE if isinstance(value, TrainConfig) else ()
        options = {f.name: plain_of(getattr(value, f.name)) for f in fields(value) if f.name not in free}
        if isinstance(value, DataSpec):  # their fingerprint decides
            options.pop("path")
        return {"is": type(value).__name__, **options}
    if isinstance(value, tuple | list):
        return [plain_of(entry) for entry in value]
    return value


def needs(stage: Stage) -> Iterator[Stage]:
    """The stages that must be there before `stage` can be done."""
    match stage:
        case ToyDataset():
            return
        case PoisonedPairs():
            yield from _of_pairs(stage.pairs)
            yield from _of_pairs(stage.gallery)
            yield from _of_model(stage.surrogate)
        case EmbeddedPairs():
            yield from _of_pairs(stage.pairs)
            yield from _of_model(stage.encoder)
        case FilteredPairs():
            yield stage.embedded
            yield from _of_pairs(stage.embedded.pairs)
            if stage.reference is not None:
                yield stage.reference
                yield from _of_pairs(stage.reference.pairs)
        case TrainedModel():
            yield from _of_model(stage.start)
            yield from _of_pairs(stage.pairs)
        case ClassifiedImages():
            yield from _of_pairs(stage.test)
            yield from _of_pairs(stage.train)
            yield from _of_model(stage.model)
        case MeasuredCell():
            yield from _of_pairs(stage.test)
            yield from _of_pairs(stage.poison)
            if stage.kept is not None:
                yield stage.kept
            for model in (stage.model, stage.clean, stage.start):
                yield from _of_model(model)
            for _, classified in stage.classified:
                yield classified


def _of_pairs(pairs: CleanPairs | PoisonedPairs | FilteredPairs | None) -> Iterator[Stage]:
    if isinstance(pairs, FilteredPairs):
        yield from _of_pairs(pairs.embedded.pairs)
        yield pairs
    elif isinstance(pairs, PoisonedPairs):
        yield from _of_pairs(pairs.pairs)
        yield from _of_pairs(pairs.gallery)
        yield pairs
    elif pairs is not None and pairs.world is not None:
        yield pairs.world


def _of_model(model: InitialModel | TrainedModel | None) -> Iterator[Stage]:
    if isinstance(model, TrainedModel):
        yield model


# --- from a cell ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InputFingerprints:
    """What lies outside a study: fingerprints of pairs that are read, and of encoders' weights, by `fact_of`."""

    known: Mapping[str, str]

    def of(self, *what: Any) -> str:
        return self.known[fact_of(*what)]


def fact_of(*what: Any) -> str:
    """The name of a fact."""
    return json.dumps([asdict(value) if is_dataclass(value) else value for value in what], sort_keys=True)  # type: ignore[arg-type]


def outside(cells: Iterator[Cell] | tuple[Cell, ...]) -> tuple[list[tuple[DataSpec, str]], list[StartSpec]]:
    """The data (with the part of them) and the encoders of these cells that lie outside, each once."""
    data: dict[tuple[DataSpec, str], None] = {}
    starts: dict[StartSpec, None] = {}
    for cell in cells:
        own = [cell.start, *([cell.filter.encoder] if cell.filter and cell.filter.encoder else [])]
        starts |= dict.fromkeys(replace(s, pretrain=None, on=None) for s in own if not bare(s))
        places = [(cell.data, "train"), (cell.data, "test"), (cell.test, "test")]
        places += [(start.on, part) for start in own for part in ("train", "test") if start.pretrain]
        places += [(cell.repair.on, "train")] if cell.repair else []
        for place, part in places:
            if place is not None and place.toy is None:
                data[replace(place, share=1.0), part] = None
    return list(data), list(starts)


def measured(cell: Cell, facts: InputFingerprints) -> MeasuredCell:
    """What measures a cell, with everything below it."""
    plan = _Plan(cell, facts)
    train, test = plan.pairs(cell.data, "train"), plan.pairs(cell.test or cell.data, "test")
    poison = None if cell.attack is None else plan.poisoned(train, cell.attack)
    kept = None if cell.filter is None else plan.kept(poison or train)
    config = replace(cell.train, seed=cell.seed)
    start = plan.model(cell.start, cell.seed)
    model = TrainedModel(start, kept or poison or train, cell.objective, config)
    if cell.repair is not None:
        own = cell.data.toy
        on = cell.repair.on or (DataSpec(toy=own) if own else cell.data)
        pairs = plan.pairs(on, "train", REPAIR if on.toy else 0)
        model = TrainedModel(model, pairs, cell.repair.objective, replace(cell.repair.train, seed=cell.seed))
    clean = TrainedModel(start, train, Clip(), config)
    found = MeasuredCell(
        model,
        clean,
        test,
        cell.seed,
        start=start if "start" in cell.measures else None,
        poison=poison,
        kept=kept,
        shift="shift" in cell.measures,
        epochs="epochs" in cell.measures,
    )
    if not {"zero-shot", "probe"} & set(cell.measures):
        return found
    models = {"poisoned": model, "clean": clean, "start": found.start}
    probe = train if "probe" in cell.measures else None
    return replace(
        found,
        classified=tuple(
            (name, ClassifiedImages(one, test, "zero-shot" in cell.measures, probe))
            for name, one in models.items()
            if one is not None
        ),
    )


@dataclass(frozen=True)
class _Plan:
    cell: Cell
    facts: InputFingerprints

    def pairs(self, data: DataSpec, part: str, added: int = 0) -> CleanPairs:
        seed = self.cell.seed
        share = {"share": data.share, "seed": seed} if part == "train" and data.share < 1 else {}
        if data.toy is not None:
            return CleanPairs(part, ToyDataset(replace(data.toy, offset=0), seed + data.toy.offset + added), **share)
        plain = replace(data, share=1.0)
        return CleanPairs(part, data=plain, fingerprint=self.facts.of(plain, part), **share)

    def other_world(self, data: DataSpec | None, seed: int, part: str) -> CleanPairs:
        """Pairs that an encoder is trained on beforehand: `data`, or a toy world like the cell's, of its own."""
        if data is not None and data.toy is None:
            return self.pairs(data, part)
        toy = data.toy if data is not None and data.toy else replace(self.cell.data.toy or ToySpec(), offset=0)
        return CleanPairs(part, ToyDataset(replace(toy, offset=0), PRETRAIN + seed + toy.offset))

    def model(self, start: StartSpec, seed: int) -> InitialModel | TrainedModel:
        if bare(start):
            fresh = InitialModel(start.encoder, start.pretrained, seed)
        else:
            weights = self.facts.of(replace(start, pretrain=None, on=None))
            fresh = InitialModel(start.encoder, start.pretrained, weights=weights)
        if start.pretrain is None:
            return fresh
        return TrainedModel(
            fresh, self.other_world(start.on, seed, "train"), Clip(), replace(start.pretrain, seed=seed)
        )

    def watcher(self, added: int) -> tuple[InitialModel | TrainedModel, CleanPairs | None]:
        """A model of another seed that has seen neither these pairs nor the poison, and clean pairs beside it.

        A start that is drawn at random knows nothing: it is trained by the cell's recipe first.
        """
        start, seed = self.cell.start, self.cell.seed + added
        if bare(start) and start.pretrain is None:
            start = replace(start, pretrain=self.cell.train)
        return self.model(start, seed), self.beside(start, seed)

    def beside(self, start: StartSpec, seed: int) -> CleanPairs | None:
        """Test pairs of the toy world that a start was trained on; None where it was on none."""
        drawn = start.pretrain is not None and (start.on is None or start.on.toy is not None)
        return self.other_world(start.on, seed, "test") if drawn else None

    def poisoned(self, train: CleanPairs, attack: Attack) -> PoisonedPairs:
        gallery = self.pairs(self.cell.data, "test") if attack.needs_gallery else None
        surrogate = self.watcher(SURROGATE)[0] if attack.needs_surrogate else None
        return PoisonedPairs(train, attack, self.cell.seed, gallery, surrogate)

    def kept(self, pairs: CleanPairs | PoisonedPairs) -> FilteredPairs:
        chosen = self.cell.filter
        assert chosen is not None  # asked for by a cell that has one
        encoder, test = self.watcher(FILTER)
        if chosen.encoder is not None:
            seed = self.cell.seed + FILTER
            encoder, test = self.model(chosen.encoder, seed), self.beside(chosen.encoder, seed)
        reference = None
        if isinstance(chosen.threshold, CleanQuantile):
            reference = EmbeddedPairs(test or self.pairs(self.cell.data, "test"), encoder)
        embedded = EmbeddedPairs(pairs, encoder)
        return FilteredPairs(embedded, chosen.detector, chosen.threshold, self.cell.seed, reference)


def work(stage: Stage) -> float:
    """How much there is to do, to compare stages of one kind: pairs times epochs of a training."""
    if isinstance(stage, TrainedModel):
        return stage.config.epochs * _pairs(stage.pairs) * (2 if type(stage.objective) is not Clip else 1)
    return 1.0


def _pairs(pairs: CleanPairs | PoisonedPairs | FilteredPairs) -> float:
    if isinstance(pairs, FilteredPairs):
        return _pairs(pairs.embedded.pairs)
    if isinstance(pairs, PoisonedPairs):
        return _pairs(pairs.pairs)
    return pairs.share * (CAPTIONS_PER_IMAGE * pairs.world.toy.train if pairs.world else 20_000)
