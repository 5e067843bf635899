"""Several counts of captions in one poisoned set: an axis of its units, as each target has a count of its own."""

from mithridate.poisoning.combined import Combined
from mithridate.poisoning.plan import Attack
from mithridate.poisoning.targeted import Targeted, captions_of

COUNTS = "attack.counts"
"""The axis of captions a target, where an attack has several."""


def counts_of(attack: Attack | None) -> list[int]:
    """Captions of each single target, in the order of targets; empty where all have as many."""
    if isinstance(attack, Combined):
        return [count for part in attack.attacks for count in counts_of(part)]
    if not isinstance(attack, Targeted) or len(set(attack.counts)) < 2:
        return []
    return captions_of(attack, len(attack.uids) or attack.images)
