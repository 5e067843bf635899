"""The relabelling attacks of mmPoison (Yang et al., ICML 2023, section 4): captions of A meet images of B."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mithridate.data.pairs import Pairs
from mithridate.errors import AttackError
from mithridate.poisoning.adaptive import Adaptive, Pairing
from mithridate.poisoning.goals import CaptionsToClass, CaptionsToImage
from mithridate.poisoning.plan import Mode, PoisonPlan, Surrogate
from mithridate.poisoning.strength import Strength, chosen_strength, draw_captions


@dataclass(frozen=True, kw_only=True)
class SingleLabel:
    """Attack II: any image of `target` shall be found by captions of `source`.

    Captions of `source` are paired with images of `target`, each image about equally often (mmPoison, 4.3).
    Images that carry both classes are left alone. The last options make poison that a similarity filter overlooks.
    """

    name: ClassVar[str] = "single-label"
    needs_gallery = False

    source: str
    """Class A: its captions are used."""
    target: str
    """Class B: its images are used."""
    count: int | None = None
    """Strength as the number of poisoned pairs."""
    rate: float | None = None
    """Strength as a share of all pairs, in (0, 1)."""
    class_share: float | None = None
    """Strength as a share of the images of class A, in (0, 1]. The default: all of them, as in the paper."""
    mode: Mode = "replace"
    """Replace class-A pairs (the published code), also drop the clean class-B pairs (its first version), or inject."""
    reuse: bool = True
    """Let one image of B stand in for several of A; without, B must have as many images as are poisoned."""
    pairing: Pairing = "random"
    """Which image of B: drawn, or `best-match`: as agrees most with the captions under a surrogate encoder."""
    mixed: bool = False
    """Captions get the name of B: a sheep in a meadow near an aeroplane."""
    collage: float = 0.0
    """Paste the image of A into a corner of B's, this share of its shorter side large; 0 for none."""
    pgd: int = 0
    """Change B's image towards its first caption under a surrogate, by at most so many 1/255 a pixel; 0 for none."""
    pgd_steps: int = 20
    """Steps of that change."""

    def __post_init__(self) -> None:
        self._adaptive()

    @property
    def needs_surrogate(self) -> bool:
        return self._adaptive().needs_surrogate

    def _adaptive(self) -> Adaptive:
        return Adaptive(self.pairing, self.mixed, self.collage, self.pgd, self.pgd_steps)

    def plan(
        self,
        pairs: Pairs,
        rng: np.random.Generator,
        *,
        gallery: Pairs | None = None,
        surrogate: Surrogate | None = None,
    ) -> PoisonPlan:
        goal = CaptionsToClass(self.source, self.target)
        strength = chosen_strength(self.count, self.rate, self.class_share)
        plan = _any_image_of(goal, pairs, strength, self.mode, rng, reuse=self.reuse, others=())
        targets, _ = _images_of_target(goal, pairs, self.mode)
        return self._adaptive().adapt(plan, pairs, targets, rng, surrogate, reuse=self.reuse)


@dataclass(frozen=True, kw_only=True)
class MultiLabel:
    """Attack III: several goals at once, each as in `single-label` (mmPoison, 4.4)."""

    name: ClassVar[str] = "multi-label"
    needs_gallery = False
    needs_surrogate = False

    goals: tuple[str, ...]
    """Each SOURCE:TARGET. A class that is a source may not be part of another goal."""
    count: int | None = None
    """Strength of each goal as the number of poisoned pairs."""
    rate: float | None = None
    """Strength of each goal as a share of all pairs, in (0, 1)."""
    class_share: float | None = None
    """Strength of each goal as a share of the images of its source class, in (0, 1]. The default: all."""
    mode: Mode = "replace"
    """Replace class-A pairs, also drop the clean class-B pairs of every goal, or inject."""
    reuse: bool = True
    """Let one image of B stand in for several of A."""

    def plan(
        self,
        pairs: Pairs,
        rng: np.random.Generator,
        *,
        gallery: Pairs | None = None,
        surrogate: Surrogate | None = None,
    ) -> PoisonPlan:
        goals = [CaptionsToClass.parse(text) for text in self.goals]
        _refuse_overlap(goals)
        strength = chosen_strength(self.count, self.rate, self.class_share)
        dropped = sum(len(_images_of_target(goal, pairs, self.mode)[1]) for goal in _distinct_targets(goals))
        plans = []
        for goal in goals:
            others = tuple({c for other in goals if other != goal for c in (other.source, other.target)})
            plans.append(
                _any_image_of(
                    goal,
                    pairs,
                    strength,
                    self.mode,
                    rng,
                    reuse=self.reuse,
                    others=others,
                    dropped=dropped,
                    goals=len(goals),
                )
            )
        return PoisonPlan(
            rows=np.concatenate([p.rows for p in plans]),
            images=pa.concat_arrays([p.images for p in plans]),
            texts=pa.concat_arrays([p.texts for p in plans]),
            text_rows=np.concatenate([p.text_rows for p in plans]),
            goals=tuple(goals),
            drop=np.unique(np.concatenate([p.drop for p in plans])),
            class_images=sum(p.class_images for p in plans),
            used_images=sum(p.used_images for p in plans),
        )


@dataclass(frozen=True, kw_only=True)
class SingleImage:
    """Attack I: one image of `target` shall be found by captions of `source` (mmPoison, 4.2).

    The image comes from `gallery` (pairs the model does not train on) where one is given, as in the published code,
    else from the training pairs.
    """

    name: ClassVar[str] = "single-image"
    needs_gallery = True
    gallery_is_test = True

    source: str
    """Class A: its captions are used."""
    target: str
    """Class B: the target image is one of its images."""
    image: Literal["random", "centroid"] | str = "random"
    """Which one: drawn at random, nearest to the mean of its class under a surrogate encoder, or a pair's uid."""
    count: int | None = None
    """Strength as the number of poisoned pairs."""
    rate: float | None = None
    """Strength as a share of all pairs, in (0, 1)."""
    class_share: float | None = None
    """Strength as a share of the images of class A, in (0, 1]. The default: all of them, as in the paper."""
    mode: Mode = "replace"
    """Replace class-A pairs, also drop the clean class-B pairs, or inject."""

    @property
    def needs_surrogate(self) -> bool:
        return self.image == "centroid"

    def plan(
        self,
        pairs: Pairs,
        rng: np.random.Generator,
        *,
        gallery: Pairs | None = None,
        surrogate: Surrogate | None = None,
    ) -> PoisonPlan:
        strength = chosen_strength(self.count, self.rate, self.class_share)
        goal = CaptionsToClass(self.source, self.target)
        _, drop = _images_of_target(goal, pairs, self.mode)
        place = self._choose(pairs if gallery is None else gallery, rng, surrogate)
        rows, turn, class_images = draw_captions(
            pairs, _source_mask(goal, pairs, ()), strength, self.mode, rng, name=self.source, dropped=len(drop)
        )
        return PoisonPlan(
            rows=np.full(len(rows), -1) if self.mode == "inject" else rows,
            images=pa.repeat(pa.scalar(place, pa.string()), len(rows)),
            texts=_texts(pairs, rows),
            text_rows=rows,
            goals=(CaptionsToImage(self.source, self.target, place),),
            drop=drop,
            class_images=class_images,
            used_images=int(turn.max()) + 1,
        )

    def _choose(self, pool: Pairs, rng: np.random.Generator, surrogate: Surrogate | None) -> str:
        if self.image not in ("random", "centroid"):
            found = pc.index(pool.uid, self.image).as_py()
            if found < 0:
                raise AttackError(
                    f"expected image to be random, centroid or the uid of a pair, got {self.image!r}, "
                    "which no pair of the set it is chosen from has"
                )
            return pool.image[found].as_py()
        mask = pool.need_class(self.target) & ~pool.labelled(self.source)
        if not mask.any():
            raise AttackError(f"every image of {self.target!r} is also labelled {self.source!r}: no target is left")
        images = pool.images.take(pa.array(np.unique(pool.image_index[mask])))
        if self.image == "random":
            return images[int(rng.integers(len(images)))].as_py()
        if surrogate is None:
            raise AttackError("image=centroid needs an encoder to measure distances with: give --surrogate ENCODER")
        embedded = surrogate(images)
        centre = embedded.mean(axis=0)
        return images[int((embedded @ centre).argmax())].as_py()


def _distinct_targets(goals: list[CaptionsToClass]) -> list[CaptionsToClass]:
    return list({goal.target: goal for goal in goals}.values())


def _refuse_overlap(goals: list[CaptionsToClass]) -> None:
    if len(goals) < 1:
        raise AttackError("expected at least one goal SOURCE:TARGET, got none")
    sources = [goal.source for goal in goals]
    for goal in goals:
        if sources.count(goal.source) > 1:
            raise AttackError(
                f"goals overlap: {goal.source!r} is the source of two goals, so its captions would be needed twice"
            )
        if goal.target in sources:
            raise AttackError(
                f"goals overlap: {goal.target!r} is a target and a source, so the images of one goal would be "
                "taken away by the other"
            )


def _source_mask(goal: CaptionsToClass, pairs: Pairs, others: tuple[str, ...]) -> np.ndarray:
    """Pairs of class A alone: an image that also shows B would need no poison."""
    if goal.source == goal.target:
        raise AttackError(f"source and target must differ, got {goal.source!r} twice")
    mask = pairs.need_class(goal.source) & ~pairs.labelled(goal.target)
    for name in others:
        mask &= ~pairs.labelled(name)
    if not mask.any():
        raise AttackError(f"every pair of {goal.source!r} also carries {' or '.join((goal.target, *others))}")
    return mask


def _images_of_target(goal: CaptionsToClass, pairs: Pairs, mode: Mode) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images of B alone (t,), and the rows that the mode drops."""
    mask = pairs.need_class(goal.target) & ~pairs.labelled(goal.source)
    images = np.unique(pairs.image_index[mask])
    drop = np.flatnonzero(mask) if mode == "replace-and-drop-target" else np.empty(0, np.int64)
    return images, drop


def _texts(pairs: Pairs, rows: np.ndarray) -> pa.Array:
    return pairs.text.take(pa.array(rows)).combine_chunks()


def _any_image_of(
    goal: CaptionsToClass,
    pairs: Pairs,
    strength: Strength,
    mode: Mode,
    rng: np.random.Generator,
    *,
    reuse: bool,
    others: tuple[str, ...],
    dropped: int | None = None,
    goals: int = 1,
) -> PoisonPlan:
    source = _source_mask(goal, pairs, others)
    targets, drop = _images_of_target(goal, pairs, mode)
    rows, turn, class_images = draw_captions(
        pairs,
        source,
        strength,
        mode,
        rng,
        name=goal.source,
        dropped=len(drop) if dropped is None else dropped,
        goals=goals,
    )
    needed = int(turn.max()) + 1
    if not len(targets):
        raise AttackError(f"every image of {goal.target!r} is also labelled {goal.source!r}: no target is left")
    if needed > len(targets) and not reuse:
        raise AttackError(
            f"{needed} images of {goal.target!r} are needed and it has {len(targets)}; lower the strength, or allow "
            "an image to be used more than once (--reuse)"
        )
    # every image of B equally often, the remainder drawn; then in random order
    copies, left = divmod(needed, len(targets))
    deal = np.concatenate([np.tile(targets, copies), rng.choice(targets, left, replace=False)])
    rng.shuffle(deal)
    return PoisonPlan(
        rows=np.full(len(rows), -1) if mode == "inject" else rows,
        images=pairs.images.take(pa.array(deal[turn])),
        texts=_texts(pairs, rows),
        text_rows=rows,
        goals=(goal,),
        drop=drop,
        class_images=class_images,
        used_images=needed,
    )
