"""What an attack wants, before anything is read or written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from mithridate.data.pairs import Pairs
from mithridate.errors import AttackError

Mode = Literal["replace", "replace-and-drop-target", "inject"]

# embeds distinct images by place: (m,) -> (m, d) unit length
EmbedImages = Callable[[pa.Array], np.ndarray]


@dataclass(frozen=True)
class Goal:
    """Captions of class `source` shall retrieve images of class `target`, or one image of it."""

    source: str
    target: str
    target_image: str | None = None  # its place; None where any image of the class will do

    @classmethod
    def parse(cls, text: str) -> Goal:
        """`SOURCE:TARGET`. Raises `AttackError`."""
        source, colon, target = text.partition(":")
        if not colon or not source or not target:
            raise AttackError(f"expected a goal as SOURCE:TARGET (sheep:aeroplane), got {text!r}")
        return cls(source, target)


@dataclass(frozen=True)
class PoisonPlan:
    """k poisoned pairs, as values. `rows` (k,) are replaced; where a row is -1 the pair is added instead.

    `images` (k,) places, `texts` (k,) captions, `text_rows` (k,) the row each caption comes from; `drop` (r,)
    rows that are removed. `class_images` is how many images class A has, `used_images` how many lent captions.
    """

    rows: np.ndarray
    images: pa.Array
    texts: pa.Array
    text_rows: np.ndarray
    goals: tuple[Goal, ...]
    drop: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    class_images: int = 0
    used_images: int = 0

    def __len__(self) -> int:
        return len(self.rows)


@runtime_checkable
class Attack(Protocol):
    """A small frozen dataclass: options in, plan out. It holds no data and no model."""

    name: ClassVar[str]

    def plan(
        self,
        pairs: Pairs,
        rng: np.random.Generator,
        *,
        gallery: Pairs | None = None,
        embed_images: EmbedImages | None = None,
    ) -> PoisonPlan:
        """Choose what to poison in `pairs`.

        `gallery`: pairs outside the training set that a target image may come from; `embed_images`: a surrogate
        encoder, for attacks that need one. Raises `AttackError` where the pairs do not allow it.
        """
        ...
