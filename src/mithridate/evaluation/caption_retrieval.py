"""Which captions an image retrieves: success of triggers and single targets without prompts for classes."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from mithridate.evaluation.material import Material
from mithridate.evaluation.measurement import Measurement
from mithridate.metrics import names
from mithridate.metrics.retrieval import target_ranks
from mithridate.randomness import stream
from mithridate.statistics.differences import mean_over
from mithridate.statistics.intervals import chance_hit, chance_min_rank, rate


@dataclass(frozen=True)
class CaptionRanks:
    """Where the best caption of the class wanted stands for n images, and for the same ones untouched, if there are."""

    rank: Int[np.ndarray, " n"]
    before: Int[np.ndarray, " n"] | None
    chance: dict[int, float]  # by K
    chance_rank: float


def caption_ranks(
    m: Material,
    name: str,
    images: Float[np.ndarray, "n d"],
    target: Int[np.ndarray, " n"],
    untouched: Float[np.ndarray, "n d"] | None = None,
) -> CaptionRanks:
    """Rank all test captions for each image; wanted are those of class `target` (n,), ties count against them."""
    text, n = m.embedded[name].text, len(images)
    ranks, before = np.zeros(n, np.int64), np.zeros(n, np.int64)
    hits: dict[int, float] = dict.fromkeys(names.RECALLS, 0.0)
    mean = 0.0
    for each in np.unique(target):
        mine = target == each
        wanted = np.flatnonzero(m.pairs.labelled(m.classes.names[each]))
        ranks[mine] = target_ranks(images[mine], text, wanted).rank
        if untouched is not None:
            before[mine] = target_ranks(untouched[mine], text, wanted).rank
        share = float(mine.mean())
        size = {"targets": len(wanted), "gallery": len(text)}
        hits = {k: value + share * chance_hit(k, **size) for k, value in hits.items()}
        mean += share * chance_min_rank(**size)
    return CaptionRanks(ranks, before if untouched is not None else None, hits, mean)


def caption_rows(m: Material, name: str, found: CaptionRanks, *, goal: str, unit: str = "image") -> list[Measurement]:
    """Hit@K and MinRank of one model's images, and Hit@10 of the untouched ones."""

    def row(metric: str, value, chance: float, group: str = names.ALL) -> Measurement:
        return Measurement(model=name, metric=metric, value=value, goal=goal, group=group, unit=unit, chance=chance)

    # equal ranks, equal intervals: the draws do not depend on the model
    mean = mean_over(found.rank, rng=stream(m.seed, f"interval of {names.MIN_RANK}, captions, {goal}"))
    rows = [row(names.hit(k), rate(found.rank < k), found.chance[k]) for k in names.RECALLS]
    rows.append(row(names.MIN_RANK, mean, found.chance_rank))
    if found.before is not None:
        rows.append(row(names.hit(10), rate(found.before < 10), found.chance[10], names.UNTOUCHED))
    return rows
