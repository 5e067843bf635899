"""Training on the owner's clean pairs by an objective of the toolkit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from mithridate.repairing.case import Candidate, Case
from mithridate.training.cleanclip import CleanClip
from mithridate.training.clip import Clip
from mithridate.training.config import TrainConfig
from mithridate.training.loop import train
from mithridate.training.objective import Objective
from mithridate.training.par import Par


@dataclass(frozen=True, kw_only=True)
class _Retrain:
    """One pass at each rate."""

    needs_start: ClassVar[bool] = False
    needs_findings: ClassVar[bool] = False

    rates: tuple[float, ...] = (1e-4, 1e-3)

    def objective(self) -> Objective:
        raise NotImplementedError

    def candidates(self, case: Case) -> Iterator[Candidate]:
        for rate in self.rates:
            config = TrainConfig(
                epochs=1, batch_size=min(128, len(case.pairs)), lr=rate, min_lr=0.0, precision="fp32", seed=case.seed
            )
            made = train(
                case.encoder,
                case.pairs,
                objective=self.objective(),
                config=config,
                cache=case.cache,
                cache_limit=case.cache_limit,
                progress=case.progress,
            )
            yield Candidate(f"a rate of {rate}", made)


@dataclass(frozen=True, kw_only=True)
class RetrainClip(_Retrain):
    """Plain fine-tuning on clean pairs."""

    name: ClassVar[str] = "clip"

    def objective(self) -> Objective:
        return Clip()


@dataclass(frozen=True, kw_only=True)
class RetrainCleanClip(_Retrain):
    """CleanCLIP on clean pairs (Bansal et al., ICCV 2023)."""

    name: ClassVar[str] = "cleanclip"

    def objective(self) -> Objective:
        return CleanClip()


@dataclass(frozen=True, kw_only=True)
class RetrainPar(_Retrain):
    """PAR on clean pairs (2024)."""

    name: ClassVar[str] = "par"

    def objective(self) -> Objective:
        return Par()
