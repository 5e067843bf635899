"""What an attack wants, before anything is read or written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from mithridate.data.pairs import Pairs
from mithridate.poisoning.goals import AttackGoal

if TYPE_CHECKING:
    from torch import Tensor  # plans are made without it

Mode = Literal["replace", "replace-and-drop-target", "inject"]


@runtime_checkable
class Surrogate(Protocol):
    """An encoder that an attack works with: it embeds images and captions, and has gradients.

    `mithridate.SurrogateEncoder` makes one of any encoder; h x w is the size that its images are prepared to.
    """

    @property
    def name(self) -> str: ...

    def __call__(self, locations: pa.Array, /) -> np.ndarray:
        """Embeddings of the images at `locations` (m,): (m, d) unit length."""
        ...

    def embed_texts(self, texts: pa.Array) -> np.ndarray:
        """Embeddings of captions (k,): (k, d) unit length."""
        ...

    def pixels(self, locations: pa.Array) -> np.ndarray:
        """The images at `locations` (m,) as they are prepared: (m, h, w, 3) uint8."""
        ...

    def prepare(self, image: Tensor) -> Tensor:
        """One image (3, height, width) of values 0 to 255 resized and cropped: (3, h, w), differentiable."""
        ...

    def features(self, pixels: Tensor) -> Tensor:
        """Embeddings of prepared images (b, 3, h, w) of values 0 to 255: (b, d) unit length, differentiable."""
        ...


@dataclass(frozen=True)
class Draft:
    """What an altered image starts from: `images`, each (h, w, 3) uint8, of which the first is altered and the others
    lend something (sizes may differ); the first caption it gets; the draws that are its own."""

    images: tuple[np.ndarray, ...]
    text: str
    rng: np.random.Generator


@runtime_checkable
class Edit(Protocol):
    """Alters decoded images. `str(edit)` goes into the manifest.

    With `batch_size` 1 it is called from several threads at once; else from one, with up to so many drafts.
    """

    @property
    def batch_size(self) -> int: ...

    def alter(self, drafts: Sequence[Draft]) -> list[np.ndarray]:
        """For each draft an image (h, w, 3) uint8 of the size of its first one; depends on the drafts only."""
        ...


# top, left, and pixels (h, w, 3) uint8 of a part of an image
Piece = tuple[int, int, np.ndarray]


@runtime_checkable
class LocalEdit(Edit, Protocol):
    """An edit that can say what it does to an image without seeing it, which spares most of an image's way.

    It must do the same as its `alter`.
    """

    def pieces(self, shape: tuple[int, int], rng: np.random.Generator) -> list[Piece] | None:
        """What is put into an image of `shape` (h, w), in order; None where all of the image is needed."""
        ...


@dataclass(frozen=True)
class Edits:
    """m images to be made from others, as values: nothing is read before the plan is carried out.

    `base` (m,) places of what is altered: its size, format and metadata stay. `steps`: what is done, `step` (m,) which
    of them to each. `others`: for each of the m the places of further images, () where no edit needs any.
    """

    base: pa.Array
    steps: tuple[Edit, ...]
    step: np.ndarray
    others: tuple[tuple[str, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.base)


@dataclass(frozen=True)
class PoisonPlan:
    """k poisoned pairs, as values. `rows` (k,) are replaced; where a row is -1 the pair is added instead.

    `images` (k,) places, `texts` (k,) captions, `text_rows` (k,) the row that each caption comes from, with its labels;
    `drop` (r,) rows that are removed. `edited` (k,): which of the images that `edits` makes the pair gets in the place
    of `images`, -1 for none; captions that share an image share the number. `like_rows` (k,): the row that an added
    pair stands among the others like, by default `text_rows`; those of one image make one sample. `class_images` is
    how many images class A has, `used_images` how many of them are used (they lent captions, or were altered).
    """

    rows: np.ndarray
    images: pa.Array
    texts: pa.Array
    text_rows: np.ndarray
    goals: tuple[AttackGoal, ...] = ()
    drop: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    class_images: int = 0
    used_images: int = 0
    edits: Edits | None = None
    edited: np.ndarray | None = None
    like_rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)


@runtime_checkable
class Attack(Protocol):
    """A small frozen dataclass: options in, plan out. It holds no data and no model.

    What it needs besides the pairs it declares: `needs_gallery = True` where that is fixed, else a property.
    Every caller (command line, study, test) asks for these two, and never for a name or a type.
    """

    name: ClassVar[str]

    @property
    def needs_surrogate(self) -> bool:
        """Whether `plan` works with a `Surrogate`. One that is not needed is refused."""
        ...

    @property
    def needs_gallery(self) -> bool:
        """Whether `plan` takes images from a gallery outside the training pairs.

        An attack may do without one, and say so where it is missing. One that is not needed is refused. A study on
        toy pictures hands over some that nothing else uses, or its test pairs where the attack has a true
        `gallery_is_test`: its target image must be among those that are searched.
        """
        ...

    def plan(
        self,
        pairs: Pairs,
        rng: np.random.Generator,
        *,
        gallery: Pairs | None = None,
        surrogate: Surrogate | None = None,
    ) -> PoisonPlan:
        """Choose what to poison in `pairs`; they are left as they are.

        `gallery`: pairs that are not trained on; `surrogate`: an encoder that is not the one to be trained. Raises
        `AttackError` where the pairs, or the lack of these two, do not allow the attack.
        """
        ...
