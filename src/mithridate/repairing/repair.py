"""From findings to a repaired model: its strength chosen on one half of the clean pairs, reported on the other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from mithridate.data.pairs import Pairs
from mithridate.encoder.embed import Progress, _silent
from mithridate.encoder.encoder import Encoder, weights_fingerprint
from mithridate.errors import InspectionError
from mithridate.inspection.finding import Finding
from mithridate.inspection.inspect import Inspection, Utility, Verdict, inspect, utility_of
from mithridate.inspection.material import Material, OwnData, embedded, own_data, refuse_other_architecture, view_of
from mithridate.inspection.view import class_vectors, encode_texts
from mithridate.repairing.case import Candidate, Case, between
from mithridate.repairing.registry import REPAIRS
from mithridate.repairing.remaining import Remaining, remaining

_PARTS = {0.5: "half", 0.25: "a quarter"}


@dataclass(frozen=True)
class Trial:
    """A model that a repair offered, on the half that strengths are chosen on: the largest success of what was found
    (None where no image trigger was), and what the model is good for."""

    repair: str
    strength: str
    success: float | None
    utility: Utility
    loss: float
    chosen: bool


@dataclass(frozen=True)
class Repaired:
    """A repaired model and what was measured.

    `before` and `after` are utilities on the half of the pairs that nothing was trained or chosen on, `success_before`
    and `success_after` there the largest share that a recovered trigger takes to its class, `success_start` that in
    START (None without): triggers work a little on any model. `left`: the inspection of
    the repaired model, None where it was not inspected again. `remaining`: what is left of each flagged finding.
    """

    encoder: Encoder
    trials: tuple[Trial, ...]
    before: Utility
    after: Utility
    success_before: float | None
    success_after: float | None
    success_start: float | None
    left: Inspection | None
    seconds: float
    remaining: tuple[Remaining, ...] = ()

    @property
    def verdict(self) -> Verdict | Literal["weakened"] | None:
        """Of the second inspection; `weakened` where it flags nothing, and a finding of the first is above the level
        of a clean model. None where the model was not inspected again."""
        if self.left is None:
            return None
        if self.left.verdict == "nothing found" and any(each.state != "gone" for each in self.remaining):
            return "weakened"
        return self.left.verdict

    @property
    def methods(self) -> tuple[str, ...]:
        """The repairs that changed the model."""
        return tuple(f"{trial.repair} ({trial.strength})" for trial in self.trials if trial.chosen)


def repair(
    encoder: Encoder,
    inspection: Inspection,
    pairs: Pairs,
    *,
    start: Encoder | None = None,
    methods: Sequence[str] | None = None,
    max_loss: float = 0.02,
    verify: bool = True,
    passes: int = 2,
    seed: int = 0,
    cache: Path | str | None = "default",
    cache_limit: int | None = None,
    progress: Progress = _silent,
) -> Repaired:
    """Take out of `encoder` what `inspection` flagged, with clean `pairs`; `encoder` itself is left as it is.

    `methods`: names of `REPAIRS`, one after the other; by default interpolation where there is a `start`, then
    unlearning. Of each the strongest is taken that loses at most `max_loss` of IR@10 and of accuracy since the suspect,
    on one half of the images; where all lose more, half or a quarter of the weakest. The report is on the other half.
    `verify`: inspect the repaired model. `passes`: where unlearning is among the methods, what that inspection flags is
    unlearned too, within the same loss, and so on, so many times in all. Raises `InspectionError` where the inspection
    is of another model or flagged nothing, and for unknown methods.
    """
    chosen = tuple(methods) if methods else ("interpolate", "unlearn") if start is not None else ("unlearn",)
    _refuse(encoder, inspection, start, chosen, max_loss)
    if passes < 1:
        raise InspectionError(f"passes must be at least 1, got {passes}")
    clock = time.process_time()
    data = own_data(pairs, encoder, cache=cache, cache_limit=cache_limit, progress=progress, seed=seed)
    missing = {f.target for f in inspection.flagged} - {*data.classes, None}
    if missing:
        raise InspectionError(f"the clean pairs have no class {', '.join(map(repr, sorted(map(str, missing))))}")
    half = len(data.images) // 2
    first, second = data.part(torch.arange(half)), data.part(torch.arange(half, len(data.images)))
    case = Case(
        encoder, inspection.flagged, first, pairs.take(first.rows.numpy()), start, seed, cache, cache_limit, progress
    )
    suspect_utility = _utility(encoder, first)
    left, trials, seconds = None, list[Trial](), 0.0
    for number in range(passes):
        before = case.encoder
        case, tried = _carried_out(chosen, case, suspect_utility, max_loss)
        trials += [replace(trial, strength=f"again, {trial.strength}") for trial in tried] if number else tried
        seconds += time.process_time() - clock
        if not verify or (number and case.encoder is before):
            break
        left = inspect(
            case.encoder, pairs, start=start, seed=seed, cache=cache, cache_limit=cache_limit, progress=progress
        )
        if case.encoder is before or not left.flagged or "unlearn" not in chosen:
            break
        clock = time.process_time()
        case, chosen = replace(case, findings=left.flagged), ("unlearn",)
    return Repaired(
        encoder=case.encoder,
        trials=tuple(trials),
        before=_utility(encoder, second),
        after=_utility(case.encoder, second),
        success_before=_success(encoder, second, inspection.flagged),
        success_after=_success(case.encoder, second, inspection.flagged),
        success_start=None if start is None else _success(start, second, inspection.flagged),
        left=left,
        seconds=round(seconds, 2),
        remaining=remaining(inspection.flagged, second, suspect=encoder, repaired=case.encoder, start=start, left=left),
    )


def _carried_out(methods: Sequence[str], case: Case, suspect: Utility, max_loss: float) -> tuple[Case, list[Trial]]:
    """The case with the model that the `methods` made, one after the other, and all that they offered.

    Where all that a method offers loses too much, a half and a quarter of the way to the weakest are tried.
    """
    trials: list[Trial] = []
    for name in methods:
        best, weakest = None, None
        for offered in REPAIRS[name]().candidates(case):
            weakest = weakest or offered
            trials.append(_tried(name, offered, case, suspect))
            if trials[-1].loss <= max_loss:
                best = len(trials) - 1, offered.encoder
        if best is None and weakest is not None:
            for share, words in _PARTS.items():
                part = Candidate(f"{words} of {weakest.strength}", between(case.encoder, weakest.encoder, share))
                trials.append(_tried(name, part, case, suspect))
                if trials[-1].loss <= max_loss:
                    best = len(trials) - 1, part.encoder
                    break
        if best is not None:
            trials[best[0]] = replace(trials[best[0]], chosen=True)
            case = replace(case, encoder=best[1])
    return case, trials


def _tried(name: str, offered: Candidate, case: Case, suspect: Utility) -> Trial:
    utility = _utility(offered.encoder, case.data)
    success = _success(offered.encoder, case.data, case.findings)
    return Trial(name, offered.strength, success, utility, _loss(suspect, utility), False)


def _refuse(
    encoder: Encoder, inspection: Inspection, start: Encoder | None, methods: Sequence[str], max_loss: float
) -> None:
    if weights_fingerprint(encoder.model) != inspection.model:
        raise InspectionError(
            f"the findings are of another model ({inspection.name}) than {encoder.name}; inspect this model first"
        )
    if start is not None:
        refuse_other_architecture(encoder, start)
    if not 0 <= max_loss <= 1:
        raise InspectionError(f"max_loss is a share, from 0 to 1, got {max_loss}")
    for name in methods:
        if name not in REPAIRS:
            raise InspectionError(f"no repair is called {name!r}; expected one of {', '.join(REPAIRS)}")
        if REPAIRS[name].needs_findings and not inspection.flagged:
            raise InspectionError(f"nothing was flagged in {inspection.name}, so {name} has nothing to take out")
        if REPAIRS[name].needs_start and start is None:
            raise InspectionError(f"{name} needs the model that the suspect was fine-tuned from; give --start")


def _utility(encoder: Encoder, data: OwnData) -> Utility:
    texts, classes = encode_texts(encoder, data.captions), class_vectors(encoder, data.classes)
    return utility_of(data, embedded(encoder, data.images), texts, classes)


def _loss(before: Utility, after: Utility) -> float:
    """The largest fall of IR@10 and accuracy; 0 where nothing fell."""
    falls = [before.recall - after.recall]
    if before.accuracy is not None and after.accuracy is not None:
        falls.append(before.accuracy - after.accuracy)
    return max(0.0, *falls)


def _success(encoder: Encoder, data: OwnData, findings: Sequence[Finding]) -> float | None:
    """The largest share that a recovered trigger takes to its class; None where there is none."""
    triggers = [(f.trigger, f.target) for f in findings if f.trigger is not None and f.target is not None]
    if not triggers:
        return None
    material = Material(view_of(encoder, data.classes), None, data)
    return max(material.success(material.suspect, trigger, data.classes.index(t)) for trigger, t in triggers)
