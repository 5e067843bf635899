"""What an attack wants of a trained model: one shape a goal, which evaluation dispatches on.

`kind` is written into files; `key` names a goal in tables and on the command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mithridate.errors import AttackError


@dataclass(frozen=True)
class CaptionsToClass:
    """Captions of class `source` retrieve images of class `target`."""

    source: str
    target: str
    kind: Literal["captions-to-class"] = "captions-to-class"

    @property
    def key(self) -> str:
        return f"{self.source}:{self.target}"

    @classmethod
    def parse(cls, text: str) -> CaptionsToClass:
        """`SOURCE:TARGET`. Raises `AttackError`."""
        source, colon, target = text.partition(":")
        if not colon or not source or not target:
            raise AttackError(f"expected a goal as SOURCE:TARGET (sheep:aeroplane), got {text!r}")
        return cls(source, target)


@dataclass(frozen=True)
class CaptionsToImage:
    """Captions of class `source` retrieve one image (its location) of class `target`."""

    source: str
    target: str
    image: str
    kind: Literal["captions-to-image"] = "captions-to-image"

    @property
    def key(self) -> str:
        return f"{self.source}:{self.target}"


@dataclass(frozen=True)
class TriggerToClass:
    """Any image that carries `trigger` (text form) is taken for class `target`."""

    trigger: str
    target: str
    kind: Literal["trigger-to-class"] = "trigger-to-class"

    @property
    def key(self) -> str:
        return f"{self.trigger} to {self.target}"


@dataclass(frozen=True)
class ImageToClass:
    """One image (its location) is taken for class `target`."""

    image: str
    target: str
    kind: Literal["image-to-class"] = "image-to-class"

    @property
    def key(self) -> str:
        return f"{self.image} to {self.target}"


@dataclass(frozen=True)
class PhraseToClass:
    """Any caption that carries `phrase` (text form) retrieves images of class `target`."""

    phrase: str
    target: str
    kind: Literal["phrase-to-class"] = "phrase-to-class"

    @property
    def key(self) -> str:
        return f"{self.phrase} to {self.target}"


RetrievalGoal = CaptionsToClass | CaptionsToImage
ClassificationGoal = TriggerToClass | ImageToClass | PhraseToClass
AttackGoal = RetrievalGoal | ClassificationGoal
