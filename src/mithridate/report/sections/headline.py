"""The few numbers of an evaluation that decide, nested by attack and model: what `--json` prints."""

from dataclasses import asdict
from typing import Any

from mithridate.evaluation.measurement import Evaluation
from mithridate.metrics import names
from mithridate.poisoning.goals import ImageToClass, PhraseToClass, RetrievalGoal, TriggerToClass

Numbers = dict[str, dict[str, Any]]


def headline(e: Evaluation) -> dict[str, Any]:
    """{attack: {model: {measure: number}}}; beside the models `chance` and, for captions, `random_captions`."""
    found: dict[str, Any] = {}
    triggers = [goal for goal in e.goals if isinstance(goal, TriggerToClass)]
    captions = [goal for goal in e.goals if isinstance(goal, RetrievalGoal)]
    phrases = [goal for goal in e.goals if isinstance(goal, PhraseToClass)]
    if (accuracy := _plain(e, "", (("accuracy", names.ZERO_SHOT, names.ALL),))) is not None:
        found["zero-shot"] = accuracy
    for goal in triggers:
        found[_named("backdoor", e.goal_name(goal.key), len(triggers))] = _backdoor(e, goal.key)
    if any(isinstance(goal, ImageToClass) for goal in e.goals):
        found["targeted"] = _targeted(e)
    for goal in phrases:
        found[_named("text-trigger", e.goal_name(goal.key), len(phrases))] = _phrase(e, goal.key)
    for goal in captions:
        found[_named("attack", goal.key, len(captions))] = _captions(e, goal.key)
    retrieval = {"tr@10": names.recall_of_texts(10), "ir@10": names.recall_of_images(10)}
    found["utility"] = {
        model: {key: e.value(metric, model=model).value for key, metric in retrieval.items()} for model in e.models
    }
    return found


def _named(what: str, goal: str, of: int) -> str:
    return what if of == 1 else f"{what} {goal}"


def _captions(e: Evaluation, goal: str) -> Numbers:
    metrics = {"hit@10": names.hit(10), "min_rank": names.MIN_RANK}

    def numbers(model: str, group: str) -> dict[str, float]:
        return {key: e.value(metric, model=model, goal=goal, group=group).value for key, metric in metrics.items()}

    found: Numbers = {model: numbers(model, names.ALL) for model in e.models}
    found["random_captions"] = numbers(e.model, names.RANDOM_CAPTIONS)
    found["chance"] = {key: _chance(e, metric, goal) for key, metric in metrics.items()}
    return found


def _backdoor(e: Evaluation, goal: str) -> Numbers:
    found: Numbers = {}
    for model in e.models:
        z, probe = (e.find(metric, model=model, goal=goal) for metric in (names.Z_SCORE, names.PROBE_ASR))
        found[model] = {
            "asr": asdict(e.value(names.ASR, model=model, goal=goal)),
            "without trigger": asdict(e.value(names.ASR, model=model, goal=goal, group=names.UNTOUCHED)),
            "z": None if z is None else z.value.value,
            "captions hit@10": e.value(names.hit(10), model=model, goal=goal).value,
            **({} if probe is None else {"asr of the probe": asdict(probe.value)}),
        }
    found["chance"] = {"asr": _chance(e, names.ASR, goal), "captions hit@10": _chance(e, names.hit(10), goal)}
    return found


def _targeted(e: Evaluation) -> Numbers:
    goal, found = names.SINGLE_IMAGES, {}
    for model in e.models:
        probe = e.find(names.PROBE_PSR, model=model, goal=goal)
        found[model] = {
            "psr": asdict(e.value(names.PSR, model=model, goal=goal)),
            "captions hit@10": e.value(names.hit(10), model=model, goal=goal).value,
            **({} if probe is None else {"psr of the probe": asdict(probe.value)}),
        }
    found["chance"] = {"psr": _chance(e, names.PSR, goal), "captions hit@10": _chance(e, names.hit(10), goal)}
    return found


def _phrase(e: Evaluation, goal: str) -> Numbers:
    found: Numbers = {
        model: {
            "hit@10": e.value(names.hit(10), model=model, goal=goal).value,
            "min_rank": e.value(names.MIN_RANK, model=model, goal=goal).value,
            "hit@10 without": e.value(names.hit(10), model=model, goal=goal, group=names.UNTOUCHED).value,
        }
        for model in e.models
    }
    found["chance"] = {"hit@10": _chance(e, names.hit(10), goal)}
    return found


def _plain(e: Evaluation, goal: str, wanted: tuple[tuple[str, str, str], ...]) -> Numbers | None:
    """Estimates of (key, metric, group) by model, where they were measured."""
    if e.find(wanted[0][1], goal=goal, group=wanted[0][2]) is None:
        return None
    found: Numbers = {
        model: {key: asdict(e.value(metric, model=model, goal=goal, group=group)) for key, metric, group in wanted}
        for model in e.models
    }
    found["chance"] = {key: _chance(e, metric, goal) for key, metric, _ in wanted}
    return found


def _chance(e: Evaluation, metric: str, goal: str) -> float | None:
    found = e.find(metric, goal=goal)
    return None if found is None else found.chance
