"""The few numbers of an evaluation that decide, by attack and measure."""

from mithridate.evaluation.measurement import Evaluation
from mithridate.metrics import names
from mithridate.poisoning.goals import ImageToClass, PhraseToClass, RetrievalGoal, TriggerToClass
from mithridate.report.document import Cell, Headline


def headlines(e: Evaluation) -> tuple[Headline, ...]:
    """One a measure, with a value for each model, `chance` and, for captions, `random captions`."""
    found = [_estimates(e, "zero-shot", "accuracy", names.ZERO_SHOT)]
    triggers = [goal for goal in e.goals if isinstance(goal, TriggerToClass)]
    for goal in triggers:
        group, key = _named("backdoor", e.goal_name(goal.key), len(triggers)), goal.key
        found += [
            _estimates(e, group, "asr", names.ASR, key),
            _without_chance(_estimates(e, group, "without trigger", names.ASR, key, names.UNTOUCHED)),
            _values(e, group, "z", names.Z_SCORE, key),
            _values(e, group, "captions hit@10", names.hit(10), key),
            _without_chance(_estimates(e, group, "asr of the probe", names.PROBE_ASR, key)),
        ]
    if any(isinstance(goal, ImageToClass) for goal in e.goals):
        group, key = "targeted", names.SINGLE_IMAGES
        found += [
            _estimates(e, group, "psr", names.PSR, key),
            _values(e, group, "captions hit@10", names.hit(10), key),
            _without_chance(_estimates(e, group, "psr of the probe", names.PROBE_PSR, key)),
        ]
    phrases = [goal for goal in e.goals if isinstance(goal, PhraseToClass)]
    for goal in phrases:
        group, key = _named("text-trigger", e.goal_name(goal.key), len(phrases)), goal.key
        found += [
            _values(e, group, "hit@10", names.hit(10), key),
            _without_chance(_values(e, group, "min rank", names.MIN_RANK, key)),
            _without_chance(_values(e, group, "hit@10 without", names.hit(10), key, names.UNTOUCHED)),
        ]
    captions = [goal for goal in e.goals if isinstance(goal, RetrievalGoal)]
    for goal in captions:
        group, key = _named("attack", goal.key, len(captions)), goal.key
        for measure, metric in (("hit@10", names.hit(10)), ("min rank", names.MIN_RANK)):
            control = e.value(metric, goal=key, group=names.RANDOM_CAPTIONS).value
            found.append(_values(e, group, measure, metric, key, control={"random captions": control}))
    for measure, metric in (("tr@10", names.recall_of_texts(10)), ("ir@10", names.recall_of_images(10))):
        found.append(_without_chance(_values(e, "utility", measure, metric)))
    return tuple(headline for headline in found if headline.values)


def _named(what: str, goal: str, of: int) -> str:
    return what if of == 1 else f"{what} {goal}"


def _estimates(
    e: Evaluation, group: str, measure: str, metric: str, goal: str = "", queries: str = names.ALL
) -> Headline:
    """With intervals; no values at all where it was not measured."""
    found = {model: e.find(metric, model=model, goal=goal, group=queries) for model in e.models}
    measured = [each for each in found.values() if each is not None]
    if not measured:
        return Headline(group, measure, {})
    values: dict[str, Cell] = {model: None if each is None else each.value for model, each in found.items()}
    return Headline(group, measure, values | {"chance": measured[0].chance})


def _values(
    e: Evaluation,
    group: str,
    measure: str,
    metric: str,
    goal: str = "",
    queries: str = names.ALL,
    control: dict[str, float] | None = None,
) -> Headline:
    """Without intervals."""
    with_intervals = _estimates(e, group, measure, metric, goal, queries).values
    plain = {name: getattr(value, "value", value) for name, value in with_intervals.items()}
    chance = {"chance": plain.pop("chance")} if "chance" in plain else {}
    return Headline(group, measure, {**plain, **(control or {}), **chance})


def _without_chance(headline: Headline) -> Headline:
    return Headline(
        headline.group, headline.measure, {name: value for name, value in headline.values.items() if name != "chance"}
    )
