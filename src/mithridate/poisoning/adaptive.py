"""Relabelled pairs that a similarity filter shall not find: chosen, worded, pasted or changed so that they agree.

The open question of mmPoison (Yang et al., ICML 2023, section 5): its filter removes pairs whose image and caption lie
far apart under another encoder, so poison is made to lie close under a surrogate.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
from PIL import Image

from mithridate.data.pairs import Pairs
from mithridate.errors import AttackError
from mithridate.poisoning.placement import corners
from mithridate.poisoning.plan import Draft, Edit, Edits, PoisonPlan, Surrogate

if TYPE_CHECKING:
    import inflect

Pairing = Literal["random", "best-match"]

_EXACT = 4_000_000  # cells of a similarity matrix up to which the best assignment is found; beyond it greedily
_BLOCK = 4_000_000
_BATCH = 32  # images changed at once
_BESIDE = ("next to", "beside", "near", "with", "in front of")
_CORNERS = ("top-left", "top-right", "bottom-left", "bottom-right")


@dataclass(frozen=True)
class Adaptive:
    """How poison is made to agree. `collage`: side of the pasted image as a share of the other's shorter side, 0 for
    none; `pgd`: largest change of a pixel in steps of 1/255, 0 for none. They combine."""

    pairing: Pairing = "random"
    mixed: bool = False
    collage: float = 0.0
    pgd: int = 0
    pgd_steps: int = 20

    def __post_init__(self) -> None:
        if self.pairing not in ("random", "best-match"):
            raise AttackError(f"expected pairing to be random or best-match, got {self.pairing!r}")
        if not 0 <= self.collage < 1:
            raise AttackError(f"collage must lie in [0, 1), a share of the image's shorter side, got {self.collage}")
        if not 0 <= self.pgd <= 255:
            raise AttackError(f"pgd must lie in 0 to 255, whole steps of a pixel, got {self.pgd}")
        if self.pgd_steps < 1:
            raise AttackError(f"pgd_steps must be at least 1, got {self.pgd_steps}")

    @property
    def needs_surrogate(self) -> bool:
        return self.pgd > 0 or self.pairing == "best-match"

    def adapt(
        self,
        plan: PoisonPlan,
        pairs: Pairs,
        targets: np.ndarray,
        rng: np.random.Generator,
        surrogate: Surrogate | None,
        *,
        reuse: bool = True,
    ) -> PoisonPlan:
        """`plan` with its pairs made to agree; `targets` (t,) are the images of B, by number, that may be used.

        Raises `AttackError` where a surrogate is needed and none is given.
        """
        if self.needs_surrogate and surrogate is None:
            what = "pgd" if self.pgd else "pairing=best-match"
            raise AttackError(f"{what} needs an encoder to measure agreement with: give --surrogate ENCODER")
        _, turn = np.unique(pairs.image_index[plan.text_rows], return_inverse=True)
        turn = turn.reshape(-1)
        if self.mixed:
            (goal,) = plan.goals
            texts = [name_beside(text or "", goal.target, rng) for text in plan.texts.to_pylist()]
            plan = replace(plan, texts=pa.array(texts, pa.string()))
        if self.pairing == "best-match" and surrogate is not None:
            chosen = _best_match(plan.texts, turn, pairs.images.take(pa.array(targets)), surrogate, rng, reuse=reuse)
            plan = replace(plan, images=pairs.images.take(pa.array(targets[chosen][turn])))
        steps: list[Edit] = [Collage(self.collage)] if self.collage else []
        if self.pgd and surrogate is not None:
            steps.append(Approach(surrogate, self.pgd, self.pgd_steps))
        if not steps:
            return plan
        # an altered image for each image of A: its captions share it
        _, first = np.unique(turn, return_index=True)
        of_a = pairs.image.take(pa.array(plan.text_rows[first])).to_pylist()
        edits = Edits(
            plan.images.take(pa.array(first)),
            (steps[0] if len(steps) == 1 else Chain(tuple(steps)),),
            np.zeros(len(first), np.int64),
            tuple((place,) for place in of_a) if self.collage else (),
        )
        return replace(plan, edits=edits, edited=turn)


# --- which image for which caption ---------------------------------------------------------------------------


def _best_match(
    texts: pa.Array, turn: np.ndarray, targets: pa.Array, surrogate: Surrogate, rng: np.random.Generator, *, reuse: bool
) -> np.ndarray:
    """For each image of A the image of B, by number in `targets`, that its captions agree with most: (m,)."""
    text, image = surrogate.embed_texts(texts), surrogate(targets)
    m = int(turn.max()) + 1
    query = np.zeros((m, text.shape[1]), np.float32)
    np.add.at(query, turn, text)
    query /= np.bincount(turn)[:, None]
    capacity = -(-m // len(targets)) if reuse else 1
    return best_assignment(query, image, capacity=capacity, rng=rng)


def best_assignment(
    query: np.ndarray, image: np.ndarray, *, capacity: int, rng: np.random.Generator, exact: int = _EXACT
) -> np.ndarray:
    """For each of m queries (m, d) one of t images (t, d), none more than `capacity` times: (m,).

    The sum of similarities is the largest there is where m x t x capacity is at most `exact`; beyond, queries in
    random order take the best image that is left, blockwise.
    """
    m, t = len(query), len(image)
    if m > t * capacity:
        raise ValueError(f"{m} queries do not fit {t} images with room for {capacity} each")
    if m * t * capacity <= exact:
        from scipy.optimize import linear_sum_assignment

        places = np.repeat(np.arange(t), capacity)
        rows, columns = linear_sum_assignment((query @ image.T)[:, places], maximize=True)
        chosen = np.empty(m, np.int64)
        chosen[rows] = places[columns]
        return chosen
    left = np.full(t, capacity)
    chosen = np.full(m, -1)
    order = rng.permutation(m)
    size = max(1, _BLOCK // t)
    for start in range(0, m, size):
        block = order[start : start + size]
        similarity = query[block] @ image.T
        similarity[:, left == 0] = -np.inf
        for row, number in enumerate(block):
            best = int(similarity[row].argmax())
            chosen[number] = best
            left[best] -= 1
            if left[best] == 0:
                similarity[:, best] = -np.inf
    return chosen


# --- captions that name both ----------------------------------------------------------------------------------


def name_beside(caption: str, target: str, rng: np.random.Generator) -> str:
    """The caption with the target beside what it shows: "A sheep grazes." and boat: "A sheep grazes near a boat."

    The words go to the end of the first sentence. A caption that says the target already stays as it is.
    """
    word = target.replace("_", " ").strip()
    if re.search(rf"\b{re.escape(word)}\b", caption, re.IGNORECASE):
        return caption
    beside = _BESIDE[int(rng.integers(len(_BESIDE)))]
    match = re.match(r"(.*?)([.!?]+(?:\s.*)?|\s*)$", caption, re.DOTALL)
    first, rest = (match[1].rstrip(" ,;:"), match[2].rstrip()) if match else (caption, "")
    return f"{first} {beside} {with_article(word)}{rest}" if first else f"{with_article(word)}{rest}"


def with_article(word: str) -> str:
    """`word` behind a or an, by how it sounds (the library inflect); plurals, by their ending, behind nothing."""
    last = word.lower().split()[-1] if word.split() else ""
    if last in ("people", "men", "women", "children") or re.search(r"[^aeisu]s$|[aeiou]es$", last):
        return word
    return _english().a(word)  # pyright: ignore[reportArgumentType] (its Word is a str that is not empty)


@cache
def _english() -> inflect.engine:
    import inflect  # half a second, and few attacks word captions

    return inflect.engine()


# --- images ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Collage:
    """The second image of a draft, made small, in a corner of the first one's middle square."""

    share: float
    batch_size: int = 1

    def alter(self, drafts: Sequence[Draft]) -> list[np.ndarray]:
        return [self._paste(draft) for draft in drafts]

    def _paste(self, draft: Draft) -> np.ndarray:
        under, over = draft.images[0], draft.images[1]
        longer = max(1, round(self.share * min(under.shape[:2])))
        scale = longer / max(over.shape[:2])
        height, width = (max(1, round(side * scale)) for side in over.shape[:2])
        small = np.asarray(Image.fromarray(over).resize((width, height), Image.Resampling.BICUBIC))
        place = _CORNERS[int(draft.rng.integers(len(_CORNERS)))]
        ((top, left),) = corners(place, (height, width), under.shape[:2], margin=0.0, rng=draft.rng)
        out = under.copy()
        out[top : top + height, left : left + width] = small
        return out

    def __str__(self) -> str:
        return f"collage:share={self.share}"


@dataclass(frozen=True)
class Approach:
    """Images changed by at most `epsilon` steps of 1/255 a pixel toward their captions under a surrogate.

    Projected gradient ascent on the cosine (Madry et al., ICLR 2018) through the surrogate's own resizing, at the
    image's own resolution; signs of gradients, steps of 2.5 epsilon / steps, then whole numbers. Limit: where the
    image is stored as JPEG, its coding changes pixels by more than epsilon again and takes part of what was won.
    """

    surrogate: Surrogate
    epsilon: int
    steps: int
    batch_size: int = _BATCH

    def alter(self, drafts: Sequence[Draft]) -> list[np.ndarray]:
        import torch

        with torch.no_grad():
            goal = torch.from_numpy(self.surrogate.embed_texts(pa.array([d.text for d in drafts], pa.string())))
        start = [torch.from_numpy(draft.images[0].copy()).permute(2, 0, 1).float() for draft in drafts]
        now = [image.clone() for image in start]
        rate = 2.5 * self.epsilon / self.steps
        for _ in range(self.steps):
            for image in now:
                image.requires_grad_()
            features = self.surrogate.features(torch.stack([self.surrogate.prepare(image) for image in now]))
            agreement = (features * goal.to(features.device)).sum()
            gradients = torch.autograd.grad(agreement, now)
            with torch.no_grad():
                now = [
                    (image + rate * gradient.sign()).clamp(before - self.epsilon, before + self.epsilon).clamp(0, 255)
                    for image, gradient, before in zip(now, gradients, start)
                ]
        return [image.round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy() for image in now]

    def __str__(self) -> str:
        return f"pgd:epsilon={self.epsilon},steps={self.steps},surrogate={self.surrogate.name}"


@dataclass(frozen=True)
class Chain:
    """Edits one after the other."""

    parts: tuple[Edit, ...]

    @property
    def batch_size(self) -> int:
        return max(part.batch_size for part in self.parts)

    def alter(self, drafts: Sequence[Draft]) -> list[np.ndarray]:
        for part in self.parts:
            altered = part.alter(drafts)
            drafts = [replace(draft, images=(image, *draft.images[1:])) for draft, image in zip(drafts, altered)]
        return [draft.images[0] for draft in drafts]

    def __str__(self) -> str:
        return "+".join(map(str, self.parts))
