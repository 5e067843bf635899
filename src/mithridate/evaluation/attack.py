"""Did the attack take: where targets stand for queries of class A, with every comparison that gives it meaning."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from mithridate.metrics.ranks import ranks_and_top
from mithridate.report.document import Cell, Warning
from mithridate.statistics.differences import mean_over, rate_over
from mithridate.statistics.intervals import chance_hit, chance_min_rank

HITS = (1, 5, 10, 20, 30, 50)
PRECISION_AT = 10


@dataclass(frozen=True)
class AttackRanks:
    """Of q queries: 0-based rank of the best of t targets among g, and how many targets are in the first ten."""

    rank: Int[np.ndarray, " q"]
    in_top: Int[np.ndarray, " q"]
    targets: int
    gallery: int

    def hit(self, k: int) -> float:
        """Hit@K: share of queries with a target among the first K."""
        return float((self.rank < k).mean())

    @property
    def min_rank(self) -> float:
        """MinRank: mean over queries of the best target's 0-based rank."""
        return float(self.rank.mean())


def attack_ranks(
    query: Float[np.ndarray, "q d"], gallery: Float[np.ndarray, "g d"], targets: Int[np.ndarray, " t"]
) -> AttackRanks:
    """Rank the gallery for every query; `targets` are columns of it. Ties count against the targets."""
    rank, in_top = ranks_and_top(query, gallery, targets, (PRECISION_AT,))
    return AttackRanks(rank, in_top[:, 0], len(targets), len(gallery))


def attack_columns(gallery: int) -> tuple[str, ...]:
    """Column names of an attack table; a K beyond the gallery is left out."""
    hits = tuple(f"Hit@{k}" for k in HITS if k <= gallery)
    return ("queries", *hits, "MinRank", "median", "min", "max", f"Precision@{PRECISION_AT}")


def attack_row(
    name: str, ranks: AttackRanks, *, rng: np.random.Generator, image: Int[np.ndarray, " q"] | None = None
) -> tuple[Cell, ...]:
    """One model's row. Intervals are over queries, or over the `image` that each belongs to."""
    return (
        name,
        *(rate_over(ranks.rank < k, image) for k in HITS if k <= ranks.gallery),
        mean_over(ranks.rank, image, rng=rng),
        float(np.median(ranks.rank)),
        int(ranks.rank.min()),
        int(ranks.rank.max()),
        mean_over(ranks.in_top / PRECISION_AT, image, rng=rng),
    )


def chance_row(*, targets: int, gallery: int) -> tuple[Cell, ...]:
    """What a random ranking gives, exactly; its median and extremes are left open."""
    hits = (chance_hit(k, targets=targets, gallery=gallery) for k in HITS if k <= gallery)
    return ("chance", *hits, chance_min_rank(targets=targets, gallery=gallery), None, None, None, targets / gallery)


def below_chance(name: str, clean: AttackRanks, image: np.ndarray | None = None) -> list[Warning]:
    """Ten places of a random ranking hold a target more often than the clean model's, beyond its interval.

    `image` (q,): which image each query belongs to.
    """
    hit, chance = rate_over(clean.rank < 10, image), chance_hit(10, targets=clean.targets, gallery=clean.gallery)
    if hit.high is None or hit.high >= chance:
        return []
    return [
        Warning(
            "below-chance",
            f"{name}: the clean model's Hit@10 is {hit.value:.3f} (at most {hit.high:.3f}), chance is {chance:.3f}; "
            "an attack below chance may yet be one that took",
        )
    ]
