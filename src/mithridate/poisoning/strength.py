"""How much is poisoned: one of count, rate and class share; the other two follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mithridate.data.pairs import Pairs
from mithridate.errors import AttackError
from mithridate.poisoning.plan import Mode


@dataclass(frozen=True)
class Strength:
    """Exactly one is set. `count`: poisoned pairs; `rate`: share of all pairs, poison included (the paper's phi);
    `class_share`: share of the images of class A whose captions are used."""

    count: int | None = None
    rate: float | None = None
    class_share: float | None = None

    def __post_init__(self) -> None:
        given = {k: v for k, v in vars(self).items() if v is not None}
        if len(given) != 1:
            shown = ", ".join(f"{k}={v}" for k, v in given.items()) or "none"
            raise AttackError(f"expected exactly one of count, rate and class_share, got {shown}; leave out the others")
        if self.count is not None and self.count < 1:
            raise AttackError(f"count must be at least 1 pair, got {self.count}")
        for name in ("rate", "class_share"):
            value = given.get(name)
            if value is not None and not 0 < value <= 1:
                raise AttackError(f"{name} must lie in (0, 1], got {value}")
        if self.rate == 1:
            raise AttackError("rate must be below 1: something must be left that is not poison")


def chosen_strength(count: int | None, rate: float | None, class_share: float | None) -> Strength:
    """The one that is given; all of class A, as in the paper, where none is."""
    if count is rate is class_share is None:
        return Strength(class_share=1.0)
    return Strength(count, rate, class_share)


def draw_captions(
    pairs: Pairs,
    mask: np.ndarray,
    strength: Strength,
    mode: Mode,
    rng: np.random.Generator,
    *,
    name: str,
    dropped: int = 0,
    goals: int = 1,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Rows of class A whose captions are used: image by image in random order, each with all its captions.

    `mask` (n,) says which pairs are class A; `name` is what an error calls it. A rate is of the poisoned set, which
    lacks `dropped` pairs and holds the poison of all `goals`. Gives back the rows (k,), for each
    the number of its image in the order drawn (k,), and how many images class A has. A count that ends inside an
    image takes only the first of its captions. Raises `AttackError` where class A has too few pairs.
    """
    rows = np.flatnonzero(mask)
    images = pairs.image_index[rows]
    # images in order of appearance, then shuffled: independent of how places happen to be named
    distinct, first = np.unique(images, return_index=True)
    distinct = distinct[np.argsort(first)]
    order = rng.permutation(len(distinct))
    position = np.empty(int(distinct.max()) + 1, dtype=np.int64)
    position[distinct[order]] = np.arange(len(distinct))
    turn = position[images]
    by_turn = np.argsort(turn, kind="stable")
    rows, turn = rows[by_turn], turn[by_turn]

    if strength.class_share is not None:
        wanted = max(1, round(strength.class_share * len(distinct)))
        keep = turn < wanted
        return rows[keep], turn[keep], len(distinct)
    count = strength.count
    if count is None:
        assert strength.rate is not None  # one of the three is set
        count = pairs_for_rate(strength.rate, len(pairs) - dropped, mode, goals=goals)
    if count > len(rows):
        raise AttackError(
            f"{count} pairs of class {name} are asked for, it has {len(rows)} ({len(distinct)} images); "
            f"lower the strength (all of it: class_share=1)"
        )
    return rows[:count], turn[:count], len(distinct)


def pairs_for_rate(rate: float, clean: int, mode: Mode, *, goals: int = 1) -> int:
    """How many pairs of each goal make the share `rate` of a set with `clean` pairs besides added ones; at least 1.

    Added pairs, of all goals, enlarge the set they are a share of. Raises `AttackError` where nothing clean is left.
    """
    if mode == "inject" and rate * goals >= 1:
        raise AttackError(f"{goals} goals at rate {rate} leave nothing that is not poison; lower the rate")
    return max(1, round(rate * clean / (1 - goals * rate) if mode == "inject" else rate * clean))
