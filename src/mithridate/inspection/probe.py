"""What a probe is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol, runtime_checkable

from mithridate.inspection.finding import Finding
from mithridate.inspection.material import Material


@runtime_checkable
class Probe(Protocol):
    """A small frozen dataclass: options in, findings out, strongest first. It never sees a manifest.

    `kinds`: what it can find, in plain words. `needs_start`: whether nothing that it finds can be flagged without
    START. `margin`: by how much a strength must exceed its null to be flagged.
    """

    name: ClassVar[str]
    kinds: ClassVar[str]
    needs_start: ClassVar[bool]
    margin: ClassVar[float]

    def examine(self, material: Material) -> Sequence[Finding]:
        """What it finds, at least the strongest candidate."""
        ...
