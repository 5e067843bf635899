"""From a cell to the stages that make and measure it. Nothing is read or done here.

Every random choice gets a seed of its own by its purpose, so that a filter's encoder, a surrogate and the toy datasets
they learnt from never coincide with what another seed of the study begins with.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any

from mithridate.auditing.registry import DETECTORS, audit_detectors
from mithridate.auditing.threshold import CleanQuantile
from mithridate.poisoning.plan import Attack
from mithridate.randomness import stream_seed
from mithridate.studies.spec.build import bare
from mithridate.studies.spec.data import DataSpec, ToySpec
from mithridate.studies.spec.study import Cell, StartSpec
from mithridate.studies.stages.audited_pairs import AuditedPairs
from mithridate.studies.stages.classified_images import ClassifiedImages
from mithridate.studies.stages.clean_pairs import CleanPairs
from mithridate.studies.stages.embedded_pairs import EmbeddedPairs
from mithridate.studies.stages.filtered_pairs import FilteredPairs
from mithridate.studies.stages.initial_model import InitialModel
from mithridate.studies.stages.inspected_model import InspectedModel
from mithridate.studies.stages.measured_cell import MeasuredCell
from mithridate.studies.stages.pair_audit import PairAudit
from mithridate.studies.stages.poisoned_pairs import PoisonedPairs
from mithridate.studies.stages.toy_dataset import ToyDataset
from mithridate.studies.stages.trained_model import TrainedModel
from mithridate.studies.stages.unplanted_model import UnplantedModel
from mithridate.training.clip import Clip

FILTER, SURROGATE = "filter encoder", "surrogate encoder"
"""Purposes of the seeds of models that look on."""

SECOND = "second clean model"
"""Purpose of the seed of the control of shifts: the same start and pairs in another order."""


@dataclass(frozen=True)
class InputFingerprints:
    """Fingerprints of what lies outside a study: pairs that are read, and weights of encoders, by `input_name`."""

    known: Mapping[str, str]

    def of(self, *what: Any) -> str:
        """The fingerprint of an input. Raises `KeyError` where it was never read."""
        return self.known[input_name(*what)]


def input_name(*what: Any) -> str:
    """The name of an input among the fingerprints."""
    return json.dumps([asdict(value) if is_dataclass(value) else value for value in what], sort_keys=True)  # type: ignore[arg-type]


def inputs_of(cells: Iterable[Cell]) -> tuple[list[tuple[DataSpec, str]], list[StartSpec]]:
    """The data (with the part of them) and the encoders of these cells that lie outside, each once."""
    data: dict[tuple[DataSpec, str], None] = {}
    starts: dict[StartSpec, None] = {}
    for cell in cells:
        onlookers = [chosen.encoder for chosen in (cell.filter, cell.audit) if chosen is not None]
        own = [cell.start, *(start for start in onlookers if start is not None)]
        starts |= dict.fromkeys(replace(s, pretrain=None, on=None) for s in own if not bare(s))
        parts = [(cell.data, "train"), (cell.data, "test"), (cell.test, "test")]
        parts += [(start.on, part) for start in own for part in ("train", "test") if start.pretrain]
        parts += [(cell.repair.on, "train")] if cell.repair else []
        parts += [(cell.inspect.on, "train")] if cell.inspect else []
        for source, part in parts:
            if source is not None and source.toy is None:
                data[replace(source, share=1.0, captions=None), part] = None
    return list(data), list(starts)


def measured(cell: Cell, fingerprints: InputFingerprints) -> MeasuredCell:
    """The stage that measures a cell, with everything below it."""
    plan = _Plan(cell, fingerprints)
    train, test = plan.pairs(cell.data, "train"), plan.pairs(cell.test or cell.data, "test")
    poison = None if cell.attack is None else plan.poisoned(train, cell.attack)
    filtered = None if cell.filter is None else plan.filtered(poison or train)
    filtered = filtered if cell.audit is None else plan.audited(poison or train)
    config = replace(cell.train, seed=cell.seed)
    other_order = replace(config, seed=stream_seed(cell.seed, SECOND))
    start = plan.model(cell.start, cell.seed)
    model = TrainedModel(start, filtered or poison or train, cell.objective, config)
    if cell.repair is not None:
        own = cell.data.toy
        on = cell.repair.on or (DataSpec(toy=own) if own else cell.data)
        pairs = plan.pairs(on, "train", purpose="repair pairs")
        model = TrainedModel(model, pairs, cell.repair.objective, replace(cell.repair.train, seed=cell.seed))
    stage = MeasuredCell(
        model,
        TrainedModel(start, train, Clip(), config) if cell.clean else None,
        test,
        cell.seed,
        start=start if "start" in cell.measures else None,
        poison=poison,
        filtered=filtered,
        shift=TrainedModel(start, train, Clip(), other_order) if "shift" in cell.measures else None,
        epochs="epochs" in cell.measures,
    )
    if cell.inspect is not None:
        owned = {name: plan.inspected(one) for name, one in (("poisoned", model), ("clean", stage.clean)) if one}
        repaired = None
        if cell.inspect.repair:
            told = poison if cell.inspect.told else None
            repaired = UnplantedModel(owned["poisoned"], cell.inspect.methods, cell.inspect.verify, told)
        stage = replace(stage, inspected=tuple(owned.items()), repaired=repaired)
    if not {"zero-shot", "probe"} & set(cell.measures):
        return stage
    models = {"poisoned": stage.model, "clean": stage.clean, "start": stage.start, "repaired": stage.repaired}
    probe, triggers = (train, poison) if "probe" in cell.measures else (None, None)
    classified = tuple(
        (name, ClassifiedImages(one, test, "zero-shot" in cell.measures, probe, triggers))
        for name, one in models.items()
        if one is not None
    )
    return replace(stage, classified=classified)


@dataclass(frozen=True)
class _Plan:
    cell: Cell
    fingerprints: InputFingerprints

    def pairs(self, data: DataSpec, part: str, purpose: str = "") -> CleanPairs:
        """Pairs of the cell; of a toy dataset the one that its seed draws for this purpose."""
        seed = self.cell.seed
        share: dict[str, Any] = {"captions": data.captions} if part == "train" else {}
        if part == "train" and data.share < 1:
            share |= {"share": data.share, "seed": seed}
        if data.toy is not None:
            return CleanPairs(part, toy_dataset(data.toy, seed, purpose), **share)
        plain = replace(data, share=1.0, captions=None)
        return CleanPairs(part, data=plain, fingerprint=self.fingerprints.of(plain, part), **share)

    def pretraining_pairs(self, data: DataSpec | None, seed: int, part: str) -> CleanPairs:
        """Pairs that an encoder is trained on beforehand: `data`, or a toy dataset like the cell's, of its own."""
        if data is not None and data.toy is None:
            return self.pairs(data, part)
        toy = data.toy if data is not None and data.toy else replace(self.cell.data.toy or ToySpec(), offset=0)
        return CleanPairs(part, toy_dataset(toy, seed, "pretraining pairs"))

    def model(self, start: StartSpec, seed: int) -> InitialModel | TrainedModel:
        if bare(start):
            initial = InitialModel(start.encoder, start.pretrained, seed)
        else:
            weights = self.fingerprints.of(replace(start, pretrain=None, on=None))
            initial = InitialModel(start.encoder, start.pretrained, weights=weights)
        if start.pretrain is None:
            return initial
        pairs = self.pretraining_pairs(start.on, seed, "train")
        return TrainedModel(initial, pairs, Clip(), replace(start.pretrain, seed=seed))

    def onlooker(self, purpose: str) -> tuple[InitialModel | TrainedModel, CleanPairs | None]:
        """A model of a seed of its own that has seen neither these pairs nor the poison, and clean pairs beside it.

        A start that is drawn at random knows nothing: it is trained by the cell's recipe first.
        """
        start, seed = self.cell.start, stream_seed(self.cell.seed, purpose)
        if bare(start) and start.pretrain is None:
            start = replace(start, pretrain=self.cell.train)
        return self.model(start, seed), self.beside(start, seed)

    def beside(self, start: StartSpec, seed: int) -> CleanPairs | None:
        """Test pairs of the toy dataset that a start was trained on; None where it was on none."""
        drawn = start.pretrain is not None and (start.on is None or start.on.toy is not None)
        return self.pretraining_pairs(start.on, seed, "test") if drawn else None

    def gallery(self, attack: Attack) -> CleanPairs:
        """Where target images come from: of a toy dataset pictures that nothing else uses, else the test pairs."""
        toy = self.cell.data.toy
        if toy is None or getattr(attack, "gallery_is_test", False):
            return self.pairs(self.cell.data, "test")
        return CleanPairs("test", toy_dataset(replace(toy, train=1), self.cell.seed, "gallery of targets"))

    def poisoned(self, train: CleanPairs, attack: Attack) -> PoisonedPairs:
        gallery = self.gallery(attack) if attack.needs_gallery else None
        surrogate = self.onlooker(SURROGATE)[0] if attack.needs_surrogate else None
        return PoisonedPairs(train, attack, self.cell.seed, gallery, surrogate)

    def inspected(self, model: TrainedModel) -> InspectedModel:
        """A model in the hands of its owner, whose clean pairs are of a world of their own."""
        chosen = self.cell.inspect
        assert chosen is not None  # asked for by a cell that has one
        own = self.cell.data.toy
        on = chosen.on or (DataSpec(toy=replace(own, offset=0)) if own else self.cell.data)
        given = chosen.start and not (bare(self.cell.start) and self.cell.start.pretrain is None)
        start = self.model(self.cell.start, self.cell.seed) if given else None
        pairs = self.pairs(on, "train", purpose="the owner's pairs")
        return InspectedModel(model, start, pairs, chosen.nulls, chosen.compare, self.cell.seed)

    def filtered(self, pairs: CleanPairs | PoisonedPairs) -> FilteredPairs:
        chosen = self.cell.filter
        assert chosen is not None  # asked for by a cell that has one
        encoder, test = self.watching(chosen.encoder)
        reference = None
        if isinstance(chosen.threshold, CleanQuantile):
            reference = EmbeddedPairs(test or self.pairs(self.cell.data, "test"), encoder)
        return FilteredPairs(
            EmbeddedPairs(pairs, encoder), chosen.detector, chosen.threshold, self.cell.seed, reference
        )

    def audited(self, pairs: CleanPairs | PoisonedPairs) -> AuditedPairs:
        chosen = self.cell.audit
        assert chosen is not None  # asked for by a cell that has one
        encoder, test = self.watching(chosen.encoder)
        clean = EmbeddedPairs(test or self.pairs(self.cell.data, "test"), encoder)
        share = chosen.drop if isinstance(chosen.drop, float) else None
        named = {name: DETECTORS[name]() for name in chosen.detectors}
        detectors = tuple((named or audit_detectors()).values())
        audit = PairAudit(EmbeddedPairs(pairs, encoder), clean, detectors, self.cell.seed)
        return AuditedPairs(audit, chosen.by, share)

    def watching(self, start: StartSpec | None) -> tuple[InitialModel | TrainedModel, CleanPairs | None]:
        """What looks at the pairs before training, as it is given or an onlooker, and clean pairs beside it."""
        if start is None:
            return self.onlooker(FILTER)
        seed = stream_seed(self.cell.seed, FILTER)
        return self.model(start, seed), self.beside(start, seed)


def toy_dataset(toy: ToySpec, seed: int, purpose: str = "") -> ToyDataset:
    """The toy dataset that `seed` draws for a purpose, by default to train and test on; `offset` numbers others."""
    if purpose or toy.offset:
        seed = stream_seed(seed, purpose or "toy dataset", toy.offset)
    return ToyDataset(replace(toy, offset=0), seed)
