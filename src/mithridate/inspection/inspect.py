"""From a checkpoint to a verdict: what its probes found, at which strength, and what could not be assessed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from mithridate.data.pairs import Pairs
from mithridate.encoder.embed import Progress, _silent
from mithridate.encoder.encoder import Encoder, weights_fingerprint
from mithridate.engine.calls import Engine
from mithridate.engine.run import gather
from mithridate.errors import InspectionError
from mithridate.inspection.finding import Finding
from mithridate.inspection.material import Material, OwnData, own_data, refuse_other_architecture, view_of
from mithridate.inspection.nulls import null_model
from mithridate.inspection.probe import Probe
from mithridate.inspection.registry import COMPARISONS, PROBES

Verdict = Literal["suspicious", "nothing found", "not assessable"]

FLOOR = 2.0
"""A model whose retrieval is below so many times chance has learned nothing that a trigger could be read from."""


@dataclass(frozen=True)
class Utility:
    """What the suspect is good for on the owner's pairs: Recall@10 of images (IR@10), the share of images that its
    class names find (None without labels), and chance of each."""

    recall: float
    recall_chance: float
    accuracy: float | None
    accuracy_chance: float | None


@dataclass(frozen=True)
class Inspection:
    """What an inspection says of a model.

    `findings`: the strongest of each probe, flagged ones first, then by how far they exceed their null.
    `not_assessable`: sentences. `nulls`: by probe the strongest finding in each null model. `seconds`: processor time
    by probe. `model`, `start`: fingerprints of the weights.
    """

    findings: tuple[Finding, ...]
    not_assessable: tuple[str, ...]
    utility: Utility
    classes: tuple[str, ...]
    images: int
    labelled: bool
    name: str
    model: str
    start: str | None
    probes: tuple[str, ...]
    nulls: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def flagged(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.flagged)

    @property
    def verdict(self) -> Verdict:
        if self.flagged:
            return "suspicious"
        return "nothing found" if self.probes else "not assessable"


def inspect(
    encoder: Encoder,
    pairs: Pairs,
    *,
    start: Encoder | None = None,
    labels: bool = False,
    nulls: int = 0,
    probes: Mapping[str, Probe] | None = None,
    compare: bool = False,
    seed: int = 0,
    cache: Path | str | None = "default",
    cache_limit: int | None = None,
    engine: Engine = Engine(),  # noqa: B008 (frozen)
    progress: Progress = _silent,
) -> Inspection:
    """Look for planted behaviour in `encoder` with clean `pairs` of the owner's, by every probe or by `probes`.

    `start`: the model that it was fine-tuned from, where there is one; without it nothing is said of recovered image
    triggers, as every model has some. `labels`: refuse pairs without labels. `nulls`: so many clean fine-tunes of
    `start` on `pairs` are put through the same probes, and the suspect must exceed all of them. `compare`: published
    detectors too, which take no part in the verdict. `engine` trains and probes the null models. A model below the
    utility floor gets no verdict. Raises `InspectionError` for pairs that do not suffice, `EncoderError` for a `start`
    of another architecture.
    """
    if nulls and start is None:
        raise InspectionError("null models are clean fine-tunes of the start; give --start, or leave out --nulls")
    if nulls < 0:
        raise InspectionError(f"nulls must be 0 or more, got {nulls}")
    if start is not None:
        refuse_other_architecture(encoder, start)
    chosen = {name: kind() for name, kind in PROBES.items()} if probes is None else dict(probes)
    data = own_data(pairs, encoder, labels=labels, cache=cache, cache_limit=cache_limit, progress=progress, seed=seed)
    start_view = None if start is None else view_of(start, data.classes)
    material = Material(view_of(encoder, data.classes), start_view, data, seed, progress)
    utility = measured_utility(material)
    left, running = _assessable(chosen, material, utility)
    seconds: dict[str, float] = {}
    found: list[Finding] = []
    for name, probe in running.items():
        clock = time.process_time()
        found += probe.examine(material)
        swapped = {data.classes.index(each.pair[0]) for each in found if each.flagged and each.pair is not None}
        if swapped != material.swapped:
            material = replace(material, swapped=frozenset(swapped))
        seconds[name] = round(time.process_time() - clock, 2)
    others = {name: kind() for name, kind in COMPARISONS.items()} if compare and running else {}
    for name, probe in others.items():
        clock = time.process_time()
        found += [replace(finding, flagged=False) for finding in probe.examine(material)]
        seconds[name] = round(time.process_time() - clock, 2)
    null_strengths: dict[str, tuple[float, ...]] = {}
    if nulls and start is not None and running:
        shown = material if engine.alone else replace(material, progress=_silent)
        each_null = gather(
            _NullModel(running, shown, start, pairs, cache, cache_limit),
            range(nulls),
            engine=engine,
            progress=lambda done: progress("null models", done, nulls),
        )
        null_strengths = {name: tuple(strengths[name] for strengths, _ in each_null) for name in running}
        found = [
            _against(each, null_strengths[each.probe], running[each.probe]) if each.probe in running else each
            for each in found
        ]
        seconds["null models"] = round(sum(used for _, used in each_null), 2)
    assessed = {n for n, p in running.items() if start is not None or not p.needs_start}
    return Inspection(
        findings=_ordered(found, {**running, **others}),
        not_assessable=tuple(left),
        utility=utility,
        classes=data.classes,
        images=len(data.images),
        labelled=data.labelled,
        name=encoder.name,
        model=weights_fingerprint(encoder.model),
        start=None if start is None else weights_fingerprint(start.model),
        probes=tuple(n for n in running if n in assessed),
        nulls=null_strengths,
        seconds=seconds,
    )


def _ordered(found: Sequence[Finding], running: Mapping[str, Probe]) -> tuple[Finding, ...]:
    """Flagged ones first, then by how many margins they exceed their null.

    What a patch does an overlay can do too: of the image triggers of one class the one that takes most images leads.
    Where captions of A find B, class A has no vector that images could be held against: its triggers are not flagged.
    """
    swapped = {finding.pair[0] for finding in found if finding.flagged and finding.pair is not None}
    found = [replace(f, flagged=f.flagged and not (f.trigger is not None and f.target in swapped)) for f in found]
    excess = {id(f): (f.strength - f.null) / (running[f.probe].margin or 1.0) for f in found}

    def rank(finding: Finding) -> tuple[bool, bool, float, float]:
        alike = [f for f in found if f is finding or _same_trigger(f, finding)]
        return (
            not finding.flagged,
            finding.probe in COMPARISONS,
            -max(excess[id(f)] for f in alike),
            -(finding.success or 0.0),
        )

    return tuple(sorted(found, key=rank))


def _same_trigger(one: Finding, other: Finding) -> bool:
    flagged = one.flagged and other.flagged and one.trigger is not None and other.trigger is not None
    return flagged and one.target == other.target


def _assessable(
    chosen: Mapping[str, Probe], material: Material, utility: Utility
) -> tuple[list[str], dict[str, Probe]]:
    """What cannot be assessed, in sentences, and the probes that run."""
    if utility.recall < FLOOR * utility.recall_chance:
        return ["The model retrieves hardly better than chance on your pairs, so there is nothing to judge."], {}
    left, running = [], dict(chosen)
    classifies = utility.accuracy is None or utility.accuracy >= FLOOR * (utility.accuracy_chance or 0.0)
    if not classifies:
        by_class = [name for name in running if name not in ("token-scan", "relabelling")]
        left += [f"{_capital(running.pop(name).kinds)}: the class names do not find their images." for name in by_class]
    if material.start is None:
        left += [
            f"{_capital(probe.kinds)}: every model has such triggers by nature, and only its start (--start) tells "
            "which were planted."
            for probe in running.values()
            if probe.needs_start
        ]
        if "known-triggers" in running:
            left.append("Known overlays over the whole image: without a start only known patches are tried.")
    if "relabelling" in running and not material.data.labelled and material.start is None:
        left.append(f"{_capital(running.pop('relabelling').kinds)}: your pairs carry no labels, and there is no start.")
    left.append("Single images that a caption retrieves, warps, and triggers that change with the image.")
    return left, running


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


@torch.no_grad()
def measured_utility(material: Material) -> Utility:
    """IR@10 and zero-shot accuracy of the suspect on the owner's pairs."""
    data = material.data
    return utility_of(data, material.image_vectors, material.text_vectors, material.suspect.classes)


def utility_of(
    data: OwnData, images: torch.Tensor, texts: torch.Tensor, classes: torch.Tensor, rows: torch.Tensor | None = None
) -> Utility:
    """IR@10 and zero-shot accuracy from embeddings, over the images `rows`, by default all."""
    rows = torch.arange(len(data.images)) if rows is None else rows
    position = torch.full((len(data.images),), -1)
    position[rows] = torch.arange(len(rows))
    asked = position[data.of] >= 0
    own = position[data.of[asked]]
    gallery, queries = images[rows], texts[asked]
    k = min(10, len(rows))
    hits = torch.cat([(part @ gallery.T).topk(k, dim=1).indices for part in queries.split(1024)])
    recall = (hits == own[:, None]).any(dim=1).float().mean().item()
    accuracy = chance = None
    if data.labelled:
        has = data.member[rows].any(dim=1)
        taken = (gallery[has] @ classes.T).argmax(dim=1)
        member = data.member[rows][has]
        accuracy = member.gather(1, taken[:, None]).float().mean().item()
        chance = member.float().mean(dim=0).mean().item()
    return Utility(recall, k / len(rows), accuracy, chance)


@dataclass(frozen=True, eq=False)
class _NullModel:
    """By probe its strongest finding in a clean fine-tune of `start`, known by its number; and processor seconds."""

    running: Mapping[str, Probe]
    material: Material
    start: Encoder
    pairs: Pairs
    cache: Path | str | None = "default"
    cache_limit: int | None = None

    def __call__(self, number: int) -> tuple[dict[str, float], float]:
        clock, material = time.process_time(), self.material
        options = {"cache": self.cache, "cache_limit": self.cache_limit, "progress": material.progress}
        model = null_model(self.start, self.pairs, number, seed=material.seed, **options)
        null = replace(material, suspect=view_of(model, material.data.classes))
        strengths = {
            name: max((finding.strength for finding in probe.examine(null)), default=0.0)
            for name, probe in self.running.items()
        }
        return strengths, time.process_time() - clock


def _against(finding: Finding, nulls: Sequence[float], probe: Probe) -> Finding:
    """The finding with the strongest of the null models as part of its null."""
    null = max([finding.null, *nulls])
    return replace(finding, null=null, flagged=finding.flagged and finding.strength > null + probe.margin)
