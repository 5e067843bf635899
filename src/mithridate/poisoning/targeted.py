"""Targeted poisoning: single images with captions of another class (Carlini & Terzis, ICLR 2022)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mithridate.data.pairs import Pairs
from mithridate.errors import AttackError
from mithridate.poisoning.classes import deal, from_templates, names_class, of_class, texts_of
from mithridate.poisoning.goals import ImageToClass
from mithridate.poisoning.plan import PoisonPlan, Surrogate


@dataclass(frozen=True, kw_only=True)
class Targeted:
    """Single images shall be taken for a class that they are not of.

    Each meets captions of its adversarial class. The images come from a gallery that is not trained on.
    """

    name: ClassVar[str] = "targeted"
    needs_surrogate = False

    images: int = 1
    """How many target images are drawn."""
    uids: tuple[str, ...] = ()
    """In their place: pairs of the gallery whose images are the targets."""
    classes: tuple[str, ...] = ()
    """Adversarial classes, given to the images in turn; by default each draws one that it is not of."""
    per_target: int = 5
    """Captions that each image meets: the strength."""
    counts: tuple[int, ...] = ()
    """In its place captions of the first image, the second ..., in turn: one model then gives success against count."""
    captions: Literal["training-captions", "templates"] = "training-captions"
    """Captions of the adversarial class, or the 80 prompts."""
    mode: Literal["inject", "replace"] = "inject"
    """Add pairs, or put the target image into the pairs that the captions come from."""
    reuse: bool = False
    """Let a caption be used more than once."""
    inside: bool = False
    """Take the target images from the training pairs, where their own captions speak against the poison."""

    @property
    def needs_gallery(self) -> bool:
        return not self.inside

    def __post_init__(self) -> None:
        for name in ("images", "per_target"):
            if getattr(self, name) < 1:
                raise AttackError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.counts and min(self.counts) < 1:
            raise AttackError(f"counts must be at least 1, got {list(self.counts)}")
        if self.reuse and self.mode == "replace":
            raise AttackError("mode=replace uses every pair once, so captions cannot be used again; leave out --reuse")

    def plan(
        self,
        pairs: Pairs,
        rng: np.random.Generator,
        *,
        gallery: Pairs | None = None,
        surrogate: Surrogate | None = None,
    ) -> PoisonPlan:
        if gallery is None and not self.inside:
            raise AttackError(
                "target images come from outside the training set: give --gallery DATA or --gallery-split SPLIT, or "
                "--inside to take them from the training pairs"
            )
        pool = pairs if self.inside or gallery is None else gallery
        images, classes = self._targets(pairs, pool, rng)
        counts = captions_of(self, len(images))
        needed: Counter[str] = Counter()
        for name, count in zip(classes, counts):
            needed[name] += count
        taken = np.zeros(len(pairs), dtype=bool)
        rows: dict[str, list[int]] = {}
        class_images = 0
        for name in needed:
            mask = of_class(pairs, name) & ~taken
            class_images += len(np.unique(pairs.image_index[mask]))
            rows[name] = deal(pairs, mask, needed[name], rng, name=name, reuse=self.reuse).tolist()
            taken[rows[name]] = self.mode == "replace"  # a pair of two classes is replaced once
        at: Counter[str] = Counter()
        text_rows = []
        for name, count in zip(classes, counts):
            text_rows += rows[name][at[name] : at[name] + count]
            at[name] += count
        chosen = np.array(text_rows, np.int64)
        texts = (
            pa.concat_arrays([from_templates(name, count, rng) for name, count in zip(classes, counts)])
            if self.captions == "templates"
            else texts_of(pairs, chosen)
        )
        return PoisonPlan(
            rows=np.full(len(chosen), -1) if self.mode == "inject" else chosen,
            images=pool.images.take(pa.array(np.repeat(images, counts))),
            texts=texts,
            text_rows=chosen,
            class_images=class_images,
            used_images=len(np.unique(pairs.image_index[chosen])),
            goals=tuple(ImageToClass(pool.images[int(i)].as_py(), name) for name, i in zip(classes, images)),
        )

    def _targets(self, pairs: Pairs, pool: Pairs, rng: np.random.Generator) -> tuple[list[int], list[str]]:
        """The target images, by number in `pool`, and the adversarial class of each."""
        count = len(self.uids) or self.images
        wanted = [self.classes[i % len(self.classes)] for i in range(count)] if self.classes else None
        if wanted is None and not pairs.classes:
            raise AttackError("no pair is labelled, so no class can be drawn; give --classes")
        fixed = [self._image_of(uid, pool) for uid in self.uids]
        free = set(range(len(pool.images))) - set(fixed)
        allowed = {name: self._not_of(pool, name) for name in dict.fromkeys(self.classes or pairs.classes)}
        if count > len(pool.images):
            raise AttackError(
                f"{count} target images are asked for, and the set that they come from has {len(pool.images)}; "
                "lower --images"
            )
        order = rng.permutation(len(pool.images)).tolist()
        images, classes = [], []
        for i in range(count):
            names = list(allowed) if wanted is None else [wanted[i]]
            candidates = [fixed[i]] if fixed else order
            found = next(
                (j for j in candidates if (fixed or j in free) and any(allowed[name][j] for name in names)), None
            )
            if found is None:
                named = " or ".join(names[:5]) + (" ..." if len(names) > 5 else "")
                raise AttackError(
                    f"image {self.uids[i]} names {named} already; expected a target image of another class"
                    if fixed
                    else f"{count} target images are asked for, and of {len(order)} only {i} can be taken: the "
                    f"others name {named} themselves; lower --images"
                )
            free.discard(found)
            fits = [name for name in names if allowed[name][found]]
            images.append(found)
            classes.append(fits[int(rng.integers(len(fits)))])
        return images, classes

    def _image_of(self, uid: str, pool: Pairs) -> int:
        row = pc.index(pool.uid, uid).as_py()
        if row < 0:
            raise AttackError(f"no pair of the set that target images come from has the uid {uid!r}")
        return int(pool.image_index[row])

    def _not_of(self, pool: Pairs, name: str) -> np.ndarray:
        """Which images neither carry the label nor have a caption that says it: (m,) bool."""
        out = np.ones(len(pool.images), dtype=bool)
        out[pool.image_index[names_class(pool, name)]] = False
        return out


def captions_of(attack: Targeted, targets: int) -> list[int]:
    """How many captions each of the `targets` meets, in their order."""
    counts = attack.counts or (attack.per_target,)
    return [counts[i % len(counts)] for i in range(targets)]
