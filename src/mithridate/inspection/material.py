"""What probes are given: the suspect and START as views, and the owner's pairs as images, captions and classes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mithridate.data.pairs import Pairs
from mithridate.encoder.embed import Progress, _silent, image_source
from mithridate.encoder.encoder import Encoder, weights_fingerprint
from mithridate.errors import EncoderError, InspectionError
from mithridate.inspection.finding import Example, Recovered, as_images, as_pixels
from mithridate.inspection.invert import Draw
from mithridate.inspection.view import View, class_vectors, encode_texts, image_features
from mithridate.randomness import stream_seed

MOST_IMAGES = 2000
LEAST_IMAGES = 40
MOST_WORDS = 20
_SHOWN = 6
# words that every caption may have; what they retrieve is nobody's target
_COMMON = frozenset(
    re.findall(
        r"\w+",
        "and are behind beside for from front has have its near next off one over photo picture side small large some "
        "that the their there this two under view with",
    )
)


T = TypeVar("T")
_OF_START: dict[tuple[str, ...], Any] = {}
_REMEMBERED = 8


@dataclass(frozen=True, eq=False)
class OwnData:
    """The owner's m images and n captions: `of` (n,) the image of each caption, `member` (m, c) the classes.

    Triggers are searched on the images `search` and their success is measured on the others, `held`.
    """

    images: Float[Tensor, "m 3 h w"]
    captions: tuple[str, ...]
    of: Int[Tensor, " n"]
    classes: tuple[str, ...]
    member: Bool[Tensor, "m c"]
    labelled: bool
    """Whether the classes are labels; else they are words of the captions."""
    rows: Int[Tensor, " n"]
    """Where the captions stand in the owner's pairs."""

    @cached_property
    def search(self) -> Int[Tensor, " s"]:
        return torch.arange(len(self.images))[: len(self.images) * 3 // 5]

    @cached_property
    def held(self) -> Int[Tensor, " t"]:
        return torch.arange(len(self.images))[len(self.images) * 3 // 5 :]

    @cached_property
    def fingerprint(self) -> str:
        """Of images and classes."""
        digest = blake2b(self.images.numpy().tobytes(), digest_size=12)
        digest.update(repr(self.classes).encode())
        return digest.hexdigest()

    def part(self, rows: Int[Tensor, " r"]) -> OwnData:
        """Only these images, with their captions."""
        position = torch.full((len(self.images),), -1)
        position[rows] = torch.arange(len(rows))
        asked = (position[self.of] >= 0).nonzero().flatten()
        captions = tuple(self.captions[i] for i in asked.tolist())
        of = position[self.of[asked]]
        return OwnData(
            self.images[rows], captions, of, self.classes, self.member[rows], self.labelled, self.rows[asked]
        )

    def draw(self, generator: torch.Generator) -> Draw:
        """Pictures of `search` at random."""
        return lambda count: self.images[self.search[torch.randint(len(self.search), (count,), generator=generator)]]


@dataclass(frozen=True, eq=False)
class Material:
    """What a probe works on. `start` is None where the owner has no START. `swapped`: classes whose captions find
    another class, so that their class vectors say nothing of images."""

    suspect: View
    start: View | None
    data: OwnData
    seed: int = 0
    progress: Progress = field(default=_silent, repr=False)
    swapped: frozenset[int] = frozenset()

    def generator(self, purpose: str, *index: int) -> torch.Generator:
        return torch.Generator().manual_seed(stream_seed(self.seed, purpose, *index))

    def of_start(self, what: str, make: Callable[[], T]) -> T:
        """What `make` gives, which depends on START, the owner's images, the seed and `what` alone.

        The last few are remembered: null models and the inspection after a repair ask for them again.
        """
        if self.start is None:
            return make()
        key = (what, weights_fingerprint(self.start.encoder.model), self.data.fingerprint, str(self.seed))
        if key not in _OF_START:
            while len(_OF_START) >= _REMEMBERED:
                del _OF_START[next(iter(_OF_START))]
            _OF_START[key] = make()
        return _OF_START[key]

    def success(self, view: View, trigger: Recovered, target: int) -> float:
        """The share of held images of other classes that are taken for `target` with the trigger."""
        stamped = trigger.stamp(self.data.images[self.others(target)])
        return (view.predicted(stamped) == target).float().mean().item()

    def others(self, target: int) -> Int[Tensor, " r"]:
        """The held images of other classes."""
        return self.data.held[~self.data.member[self.data.held, target]]

    def examples(self, trigger: Recovered, target: int) -> tuple[Example, ...]:
        """A few held images of other classes with the trigger."""
        images = self.data.images[self.others(target)[:_SHOWN]]
        stamped = trigger.stamp(images)
        names = self.data.classes
        return tuple(
            Example(pixels, names[before], names[after])
            for pixels, before, after in zip(
                as_pixels(stamped), self.suspect.predicted(images).tolist(), self.suspect.predicted(stamped).tolist()
            )
        )

    def retrieved(self, text: Float[Tensor, " d"], target: int) -> tuple[Example, ...]:
        """The images that a text of this vector retrieves first, by their class: `target` where they have it."""
        first = (self.image_vectors @ text).topk(min(_SHOWN, len(self.image_vectors))).indices
        names = [
            self.data.classes[target if has[target] else int(has.int().argmax())] if has.any() else "no class"
            for has in self.data.member[first]
        ]
        pixels = as_pixels(self.data.images[first])
        return tuple(Example(each, None, name) for each, name in zip(pixels, names))

    @cached_property
    def image_vectors(self) -> Float[Tensor, "m d"]:
        """The suspect's embeddings of all own images."""
        return embedded(self.suspect.encoder, self.data.images)

    @cached_property
    def text_vectors(self) -> Float[Tensor, "n d"]:
        """The suspect's embeddings of all own captions."""
        return encode_texts(self.suspect.encoder, self.data.captions)


@torch.no_grad()
def embedded(encoder: Encoder, images: Float[Tensor, "m 3 h w"]) -> Float[Tensor, "m d"]:
    """Unit vectors of images, without gradients."""
    return torch.cat([image_features(encoder, part) for part in images.split(256)])


def view_of(encoder: Encoder, classes: Sequence[str]) -> View:
    """A copy of the encoder that no gradient changes, with the vectors of the classes."""
    still = encoder.copy()
    still.model.requires_grad_(False)
    return View(still, class_vectors(still, classes))


def refuse_other_architecture(suspect: Encoder, start: Encoder) -> None:
    """Raise `EncoderError` where START is no model that the suspect can have been fine-tuned from."""
    if suspect.image_size != start.image_size:
        (a, b), (c, d) = start.image_size, suspect.image_size
        raise EncoderError(
            f"{start.name} sees images of {a}x{b} pixels, {suspect.name} of {c}x{d}; give the model that it was "
            "fine-tuned from as the start"
        )
    mine = {name: tuple(x.shape) for name, x in suspect.model.state_dict().items()}
    theirs = {name: tuple(x.shape) for name, x in start.model.state_dict().items()}
    differing = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
    if differing:
        raise EncoderError(
            f"{start.name} is of another architecture than {suspect.name}: {len(differing)} weights differ in name or "
            f"shape ({', '.join(differing[:2])}); give the model that {suspect.name} was fine-tuned from as the start"
        )


def own_data(
    pairs: Pairs,
    encoder: Encoder,
    *,
    labels: bool = False,
    cache: Path | str | None = "default",
    cache_limit: int | None = None,
    progress: Progress = _silent,
    seed: int = 0,
) -> OwnData:
    """Up to 2,000 of the images with their captions, in an order that `seed` draws.

    `labels`: refuse pairs without labels; otherwise frequent words of the captions stand in where there are none.
    Raises `InspectionError` for fewer than 40 images, and where classes are missing.
    """
    count = len(pairs.images)
    if count < LEAST_IMAGES:
        raise InspectionError(f"an inspection needs at least {LEAST_IMAGES} clean images, got {count}; give more")
    if labels and not pairs.classes:
        raise InspectionError("the clean pairs carry no labels; give pairs with labels, or leave out --labels")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(stream_seed(seed, "own images")))
    chosen = order[:MOST_IMAGES].numpy()
    locations = pairs.images.take(chosen)
    source = image_source(encoder, locations, cache=cache, limit=cache_limit, progress=progress)
    good = np.array([at for at in range(len(chosen)) if at not in source.bad])
    if len(good) < LEAST_IMAGES:
        raise InspectionError(f"only {len(good)} of {len(chosen)} images decode; fetch them again")
    images = as_images(torch.from_numpy(np.ascontiguousarray(source.gather(good))))
    position = np.full(count, -1)
    position[chosen[good]] = np.arange(len(good))
    of = position[pairs.image_index]
    rows = np.flatnonzero(of >= 0)
    kept = pairs.take(rows)
    captions = tuple(text or "" for text in kept.text.to_pylist())
    if kept.classes:
        classes = tuple(sorted(name for name, images_of in kept.classes.items() if images_of >= 3))
        member = np.stack([np.bincount(of[rows][kept.labelled(name)], minlength=len(good)) > 0 for name in classes], 1)
    else:
        classes, member = _words(captions, of[rows], len(good))
    if len(classes) < 2:
        raise InspectionError(f"an inspection needs images of two classes or more, got {len(classes)}; give more pairs")
    return OwnData(
        images,
        captions,
        torch.from_numpy(of[rows]),
        classes,
        torch.from_numpy(member),
        bool(kept.classes),
        torch.from_numpy(rows),
    )


def _words(captions: Sequence[str], of: np.ndarray, count: int) -> tuple[tuple[str, ...], np.ndarray]:
    """Words of the captions that mark a share of the images each, little overlapping: names, and who has them."""
    images: dict[str, set[int]] = {}
    for caption, image in zip(captions, of.tolist()):
        for word in set(re.findall(r"[^\W\d_]{3,}", caption.lower())) - _COMMON:
            images.setdefault(word, set()).add(image)
    often = Counter(
        {word: len(have) for word, have in images.items() if max(5, count // 200) <= len(have) <= count // 3}
    )
    chosen: list[str] = []
    for word, _ in sorted(often.items(), key=lambda item: (-item[1], item[0])):
        if all(len(images[word] & images[other]) < 0.25 * len(images[word] | images[other]) for other in chosen):
            chosen.append(word)
        if len(chosen) == MOST_WORDS:
            break
    member = np.zeros((count, len(chosen)), bool)
    for column, word in enumerate(chosen):
        member[sorted(images[word]), column] = True
    return tuple(chosen), member
