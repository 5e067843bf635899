"""What a repair is given, and what a repair is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch

from mithridate.data.pairs import Pairs
from mithridate.encoder.embed import Progress, _silent
from mithridate.encoder.encoder import Encoder
from mithridate.inspection.finding import Finding
from mithridate.inspection.material import OwnData
from mithridate.randomness import stream_seed


class Candidate(NamedTuple):
    """A model that a repair offers, and how strongly it was repaired, in words."""

    strength: str
    encoder: Encoder


def between(one: Encoder, other: Encoder, share: float) -> Encoder:
    """A copy of `one`, `share` of the way to the weights of `other`; a negative share leads away from them."""
    made, theirs = one.copy(), other.model.state_dict()
    mixed = {
        name: torch.lerp(value, theirs[name], share) if value.is_floating_point() else value
        for name, value in one.model.state_dict().items()
    }
    made.model.load_state_dict(mixed)
    return made


@dataclass(frozen=True, eq=False)
class Case:
    """A model to be repaired: what was found in it, the half of the owner's data that repairs may use, and START."""

    encoder: Encoder
    findings: tuple[Finding, ...]
    data: OwnData
    pairs: Pairs
    start: Encoder | None = None
    seed: int = 0
    cache: Path | str | None = "default"
    cache_limit: int | None = None
    progress: Progress = field(default=_silent, repr=False)

    def generator(self, purpose: str, *index: int) -> torch.Generator:
        return torch.Generator().manual_seed(stream_seed(self.seed, f"repair {purpose}", *index))


@runtime_checkable
class Repair(Protocol):
    """A small frozen dataclass. `needs_start`: whether it works with START; `needs_findings`: with what was found."""

    name: ClassVar[str]
    needs_start: ClassVar[bool]
    needs_findings: ClassVar[bool]

    def candidates(self, case: Case) -> Iterator[Candidate]:
        """Models of rising strength; `case.encoder` itself is left as it is."""
        ...
