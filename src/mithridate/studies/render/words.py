"""A judged claim as a sentence, made from its numbers."""

from collections.abc import Mapping, Sequence

from mithridate.report.document import Effect, JudgedClaim
from mithridate.report.numbers import show, show_p, show_tick
from mithridate.statistics.differences import Difference, inside_noise
from mithridate.statistics.estimate import Estimate
from mithridate.studies.analysis.outcomes import Outcome
from mithridate.studies.analysis.verdicts import ClaimResult, ClaimTest, described, judge
from mithridate.studies.spec.study import Claim

DETAILS = 6
"""As many tests of one claim are shown one by one; more are counted, and only what did not hold is named."""

NAMES = 8


def findings(claims: Sequence[Claim], outcomes: Sequence[Outcome]) -> tuple[JudgedClaim, ...]:
    """The verdict on each claim, in words, from the outcomes of its experiment."""
    judged = [judge(claim, outcomes) for claim in claims]
    return tuple(JudgedClaim(j.claim.says, j.verdict, sentence(j), j.claim.source, _effects(j)) for j in judged)


def _effects(judged: ClaimResult) -> tuple[Effect, ...]:
    """The differences that were tested, turned so that what the claim says lies above 0."""
    found = []
    for tested in judged.tests:
        d = tested.difference
        ends = (-d.value, -d.high, -d.low) if judged.claim.is_ in ("below", "falling") else (d.value, d.low, d.high)
        found.append(Effect(_labels(tested), *map(float, ends)))
    return tuple(found)


def sentence(judged: ClaimResult) -> str:
    """The verdict, and the numbers that it comes from."""
    claim, missing = judged.claim, "; ".join(judged.missing)
    if not judged.tests:
        return f"Not measured: {missing}."
    verdict = judged.verdict.capitalize()
    floor = _floor(judged)
    if len(judged.tests) == 1:
        (tested,) = judged.tests
        text = f"{verdict}: {_place(tested)}{_sentence(claim, tested)}{floor}."
    elif len(judged.tests) <= DETAILS:
        parts = [f"{_labels(tested)}: {_short(claim, tested)}" for tested in judged.tests]
        text = (
            f"{verdict}: {claim.measure} {_sides(claim)}. {_counts(judged)}. {'; '.join(parts)}{_basis(judged)}{floor}."
        )
    else:
        text = f"{verdict}: {claim.measure} {_sides(claim)}. {_counts(judged)}{_basis(judged)}{floor}."
    return f"{text} Not measured: {missing}." if missing else text


def _sentence(claim: Claim, tested: ClaimTest) -> str:
    d = tested.difference
    gap = f"{show(d.estimate)} ({_evidence(claim, d)})"
    if claim.is_ in ("rising", "falling"):
        values = ", ".join(str(show(side)) for side in tested.sides)
        steps = ", ".join(map(_label, tested.steps))
        rises, size = d.value >= 0, d.estimate
        if not rises:
            size = Estimate(-d.value, -d.high, -d.low)
        tail = ", inside its noise" if inside_noise(d) else ""
        line = " on a straight line through them" if len(tested.steps) > 2 else ""
        text = f"{claim.measure} is {values} at {claim.along} {steps}; from first to last it"
        return f"{text} {'rises' if rises else 'falls'} by {show(size)}{line} ({_evidence(claim, d)}){tail}"
    if claim.slope is not None:
        text = f"the slope of the logit of {claim.measure} against log {claim.slope} is {show(tested.sides[0])}"
        if claim.than_slope is not None:
            text += f", against log {claim.than_slope} {show(tested.sides[1])}"
        text += f"; the difference{'' if claim.than_slope else f' from {_label(tested.level)}'} is {gap}"
        if claim.is_ == "equal":
            return f"{text}, {_within(claim, tested)}"
        return f"{text}, inside its noise" if inside_noise(d) else text
    first = f"{claim.measure} is {show(tested.sides[0])}"
    if claim.than is None:
        level = "" if tested.level is None else show(float(tested.level)).value
        level = level if claim.value is not None else f"chance, which is {level}"
        if claim.is_ == "equal":
            return f"{first}; its difference from {level} is {gap}, {_within(claim, tested)}"
        if inside_noise(d):
            return f"{first}; whether it is {claim.is_} {level} is inside its noise ({_evidence(claim, d)})"
        way = "above" if d.value > 0 else "below"
        return f"{first}, {way} {level} ({_evidence(claim, d)})"
    here, there = _here(claim), described(claim.than)
    if claim.than_measure:
        elsewhere = f" {_with(there)}" if there != here else ""
        text = f"{first}, {claim.than_measure} {show(tested.sides[1])}{elsewhere}; the difference is {gap}"
    else:
        text = f"{first} {_with(here)} and {show(tested.sides[1])} {_with(there)}; the difference is {gap}"
    if claim.is_ == "equal":
        return f"{text}, {_within(claim, tested)}"
    return f"{text}, inside its noise" if inside_noise(d) else text


def _floor(judged: ClaimResult) -> str:
    """What the models can still do beside the least that the claim asks for; of several tests, where it is missed."""
    tests = [tested for tested in judged.tests if tested.floor is not None]
    missed = [tested for tested in tests if tested.floor is not None and not tested.floor.learned]
    if not tests:
        return ""
    shown = [t.floor for t in (missed or tests) if t.floor is not None]
    if len(judged.tests) > 1 and not missed:
        return f"; {shown[0].measure} is above {_label(shown[0].level)} in all of them"
    where = f" ({_names(missed)})" if len(judged.tests) > 1 else ""
    values = " and ".join(str(show(floor.utility)) for floor in shown[:DETAILS])
    way = "not above" if missed else "above"
    return f"; {shown[0].measure} is {values}, {way} the floor of {_label(shown[0].level)}{where}"


def _short(claim: Claim, tested: ClaimTest) -> str:
    d = tested.difference
    numbers = " and ".join(str(show(side)) for side in tested.sides)
    if claim.is_ in ("rising", "falling"):
        numbers = ", ".join(show(side).value for side in tested.sides)
    p = "" if claim.is_ == "equal" else f" ({show_p(d.p if d.corrected is None else d.corrected)})"
    return f"{numbers}, {'change' if tested.steps else 'difference'} {show(d.estimate)}{p}"


def _evidence(claim: Claim, d: Difference) -> str:
    if claim.is_ == "equal":
        return _seeds(d.n)
    return f"{show_p(d.p if d.corrected is None else d.corrected)}, {_seeds(d.n)}"


def _basis(judged: ClaimResult) -> str:
    """What all of several tests have in common."""
    seeds = {tested.difference.n for tested in judged.tests}
    basis = f"{min(seeds)} to {max(seeds)} seeds" if len(seeds) > 1 else _seeds(min(seeds))
    holm = any(tested.difference.corrected is not None for tested in judged.tests) and judged.claim.is_ != "equal"
    return f" ({basis}{'; p-values after Holm' if holm else ''})"


def _seeds(number: int) -> str:
    return "one seed" if number == 1 else f"{number} seeds"


def _within(claim: Claim, tested: ClaimTest) -> str:
    d, margin = tested.difference, f"±{show_tick(float(claim.margin))}"
    if -claim.margin <= d.low and d.high <= claim.margin:
        return f"wholly within {margin}"
    outside = d.low > claim.margin or d.high < -claim.margin
    return f"wholly outside {margin}" if outside else f"which may lie within {margin} or not"


def _sides(claim: Claim) -> str:
    """What is held against what, where there are several tests."""
    if claim.is_ in ("rising", "falling"):
        return f"along {claim.along}"
    if claim.than is None:
        level = "chance" if claim.value is None else show_tick(float(claim.value))
        return f"held against {level}"
    against = f"held against {claim.than_measure}" if claim.than_measure else "held against"
    return f"{_with(_here(claim))}, {against} {described(claim.than)}"


def _here(claim: Claim) -> str:
    """What the cells spoken of have where `than` says otherwise."""
    assert claim.than is not None
    of = {"model": "poisoned", **claim.of} if "model" in claim.than else claim.of
    return described({axis: of[axis] for axis in claim.than if axis in of}) or "all"


def _with(words: str) -> str:
    return f"on {words}" if words.startswith("the ") else "over all others" if words == "all" else f"with {words}"


def _counts(judged: ClaimResult) -> str:
    """How many of its tests came out how; of what did not hold, which."""
    total, parts = len(judged.tests), []
    for verdict in ("held", "refuted", "open", "not learned"):
        tests = [tested for tested in judged.tests if tested.verdict == verdict]
        if tests:
            names = "" if verdict == "held" else f" ({_names(tests)})"
            parts.append(f"{verdict} for {'all ' if len(tests) == total else ''}{len(tests)}{names}")
    counted = f"Of {total}: " if len(parts) > 1 else ""
    text = f"{counted}{', '.join(parts)}"
    return text[0].upper() + text[1:]


def _names(tests: list[ClaimTest]) -> str:
    names = [_labels(tested) for tested in tests[:NAMES]]
    return "; ".join(names) + (f" and {len(tests) - NAMES} more" if len(tests) > NAMES else "")


def _place(tested: ClaimTest) -> str:
    return f"for {_labels(tested)}, " if tested.at else ""


def _labels(tested: ClaimTest) -> str:
    return ", ".join(f"{axis} {_label(label)}" for axis, label in tested.at.items())


def _label(label: object) -> str:
    return show_tick(float(label)) if isinstance(label, int | float) else str(label)


def axes_in_words(axes: Mapping[str, object]) -> str:
    """The axes of a cell: `attack II, attack.count 160`."""
    return ", ".join(f"{axis} {_label(label)}" for axis, label in axes.items())
