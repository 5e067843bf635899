"""Title and summary of an evaluation in words."""

from collections.abc import Iterator

from mithridate.evaluation.measurement import AttackRecord, Evaluation
from mithridate.metrics import names
from mithridate.poisoning.goals import (
    CaptionsToClass,
    CaptionsToImage,
    ImageToClass,
    PhraseToClass,
    RetrievalGoal,
    TriggerToClass,
)
from mithridate.report.document import Table
from mithridate.report.numbers import percent, show

_SHOWN_GOALS = 5


def title(e: Evaluation) -> str:
    """`single-label: sheep to aeroplane`, `patch:size=8 to boat`."""
    if not e.goals:
        return "Utility"
    captions = [g for g in e.goals if isinstance(g, RetrievalGoal)]
    if captions:
        words = ", ".join(f"{goal.source} to {goal.target}" for goal in captions)
    else:
        # of an attack its name says what was planted; without one the trigger or the phrase does
        shown = e.descriptions if e.attack is None else {}
        wanted = (f"{shown[goal.key]} to {goal.target}" if goal.key in shown else goal.target for goal in e.goals)
        targets = list(dict.fromkeys(wanted))
        words = f"{', '.join(targets[:_SHOWN_GOALS])}{' ...' if len(targets) > _SHOWN_GOALS else ''}"
    return words if e.attack is None else f"{e.attack.attack}: {words}"


def summary(e: Evaluation) -> tuple[str, ...]:
    """One sentence each: strength, accuracy, every goal, the probe, utility."""
    return tuple(_sentences(e))


def _sentences(e: Evaluation) -> Iterator[str]:
    if e.attack is not None:
        yield strength_sentence(e.attack, of_class=_of_class(e))
    if e.find(names.ZERO_SHOT) is not None:
        yield f"Zero-shot accuracy on untouched test images: {_by_model(e, names.ZERO_SHOT)}."
    for goal in e.goals:
        match goal:
            case TriggerToClass():
                what = f"Images of other classes taken for {goal.target} with the trigger {e.descriptions[goal.key]}"
                yield f"{what}: {_by_model(e, names.ASR, goal.key)}."
            case PhraseToClass():
                what = f"Captions of other classes that find {goal.target} among the first ten"
                yield f"{what} when they say {e.descriptions[goal.key]!r}: {_by_model(e, names.hit(10), goal.key)}."
            case CaptionsToClass() | CaptionsToImage():
                target = "the target image" if isinstance(goal, CaptionsToImage) else goal.target
                what = f"Captions of {goal.source} that find {target} among the first ten"
                rank = show(e.value(names.MIN_RANK, goal=goal.key).value)
                yield f"{what}: {_by_model(e, names.hit(10), goal.key)}. Mean best rank of {e.model}: {rank}."
            case ImageToClass():
                pass
    if e.predictions is not None:
        yield f"Target images taken for their adversarial class: {_by_model(e, names.PSR, names.SINGLE_IMAGES)}."
    if e.probe is not None:
        accuracy = _by_model(e, names.PROBE_ACCURACY)
        yield f"Linear probe ({e.probe[0]}) on untouched test images, accuracy: {accuracy}."
    metrics = (names.recall_of_texts(10), names.recall_of_images(10))
    each = [
        f"{model} {', '.join(f'{metric} {show(e.value(metric, model=model).value)}' for metric in metrics)}"
        for model in e.models
    ]
    yield f"Utility: {'; '.join(each)}."


def _by_model(e: Evaluation, metric: str, goal: str = "") -> str:
    """`poisoned 0.936, clean 0.010; chance 0.005`."""
    found = [m for model in e.models if (m := e.find(metric, model=model, goal=goal)) is not None]
    return f"{', '.join(f'{m.model} {show(m.value.value)}' for m in found)}; chance {show(found[0].chance)}"


def _of_class(e: Evaluation) -> bool:
    """Whether the strength of the attack is a share of its source class."""
    return any(isinstance(goal, RetrievalGoal) for goal in e.goals)


def strength_sentence(attack: AttackRecord, *, of_class: bool) -> str:
    """How many pairs are poisoned, as a share of all and of what the attack is after."""
    s = attack.strength
    begin = f"{show(int(s['count']))} of {show(int(s['pairs']))} training pairs are poisoned ({percent(s['rate'])}"
    if of_class:
        return (
            f"{begin}): captions of {show(int(s['images']))} of the {show(int(s['class_images']))} images of class A "
            f"({percent(s['class_share'])})."
        )
    if s["targets"] > 1:
        begin += f", {percent(s['rate_per_target'])} for each of {int(s['targets'])} targets"
    return f"{begin})."


def strength_table(e: Evaluation) -> Table | None:
    """The same as a table."""
    if e.attack is None:
        return None
    s, of_class = e.attack.strength, _of_class(e)
    columns = ("attack", "poisoned pairs", "of all pairs")
    first = (e.attack.attack, int(s["count"]), s["rate"])
    note = f"Of {show(int(s['pairs']))} training pairs, poison included"
    if of_class:
        columns += ("images of class A used", "of class A")
        row = (*first, int(s["images"]), s["class_share"])
        note += f"; class A has {show(int(s['class_images']))} images."
    else:
        columns += ("targets", "of all pairs, each target", "images used")
        row = (*first, int(s["targets"]), s["rate_per_target"], int(s["images"]))
        note += ". Images used: altered, or lending captions."
    return Table("strength", "Strength of the attack", columns, (row,), note)
