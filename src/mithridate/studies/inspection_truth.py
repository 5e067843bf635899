"""What an inspection said, held against what the attack wanted: the one place where both are seen."""

from collections.abc import Sequence
from typing import Any

from mithridate.inspection.finding import Finding
from mithridate.poisoning.goals import AttackGoal, CaptionsToClass, CaptionsToImage, PhraseToClass, TriggerToClass
from mithridate.poisoning.triggers import Phrase


def held_against_truth(said: dict[str, Any], goals: Sequence[AttackGoal]) -> dict[str, Any]:
    """`said` of an `InspectedModel` for `found.json`: `right` says whether the leading finding is flagged and names a
    goal; `strengths` has the strength and the null of each probe's leading finding; `flagged` the probes that flag."""
    flagged = [finding for finding in said["findings"] if finding["flagged"]]
    return {
        "verdict": said["verdict"],
        "seconds": said["seconds"],
        "right": bool(flagged) and any(names(flagged[0], goal) for goal in goals),
        "flagged": sorted({finding["probe"] for finding in flagged}),
        "strengths": {f["probe"]: [f["strength"], f["null"]] for f in reversed(said["findings"])},
    }


def names(finding: dict[str, Any], goal: AttackGoal) -> bool:
    """Whether a finding names what a goal is about.

    Captions of a class: the pair of classes. A phrase: one of its words, and the class. A trigger, or an image: the
    class, found in images.
    """
    if isinstance(goal, CaptionsToClass | CaptionsToImage):
        return finding["pair"] is not None and tuple(finding["pair"]) == (goal.source, goal.target)
    if finding["target"] != goal.target or finding["pair"] is not None:
        return False
    if isinstance(goal, PhraseToClass):
        words = set(Phrase.parse(goal.phrase).text.lower().split())
        return finding["token"] is not None and bool(words & set(finding["token"].lower().split()))
    return finding["token"] is None


def as_planted(goals: Sequence[AttackGoal]) -> tuple[Finding, ...]:
    """Findings that a repair would be given by an inspection that never errs; none of an image that a class draws."""
    return tuple(finding for goal in goals if (finding := _as_planted(goal)) is not None)


def _as_planted(goal: AttackGoal) -> Finding | None:
    if isinstance(goal, CaptionsToClass | CaptionsToImage):
        pair = (goal.source, goal.target)
        return Finding("relabelling", "relabelling", 1.0, 0.0, True, target=goal.target, pair=pair)
    if isinstance(goal, PhraseToClass):
        token = Phrase.parse(goal.phrase).text
        return Finding("token-scan", "phrase", 1.0, 0.0, True, target=goal.target, token=token)
    if isinstance(goal, TriggerToClass):
        return Finding("known-triggers", "known trigger", 1.0, 0.0, True, target=goal.target, place=goal.trigger)
    return None


def again(said: dict[str, Any]) -> dict[str, Any]:
    """`said` of an `UnplantedModel` for `found.json`."""
    return {
        "methods": said["methods"],
        "seconds": said["seconds"],
        "left": said["verdict"],
        "found": said["found"],
    }
