"""Whether what was claimed held: a test for each claim, its verdict, and the sentence that says so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

from mithridate.statistics.differences import Difference, corrected, inside_noise
from mithridate.statistics.estimate import Estimate
from mithridate.studies.analysis.contrast import Side, against, difference, rise, side_of, side_of_numbers
from mithridate.studies.analysis.outcomes import Outcome
from mithridate.studies.analysis.select import Until, admits, chance, chosen, epochs, labels, models
from mithridate.studies.analysis.slopes import of_axis, slopes
from mithridate.studies.spec.study import Claim, Label, Where

Verdict = Literal["held", "refuted", "open", "not learned", "not measured"]


@dataclass(frozen=True)
class FloorTest:
    """The utility of the models spoken of, the level that it must exceed, and whether it does beyond its noise, or
    misses it beyond its noise."""

    measure: str
    utility: Estimate
    level: float
    learned: bool
    missed: bool


@dataclass(frozen=True)
class ClaimTest:
    """One test of a claim: at these labels of `every`, the estimates of its sides, and their difference.

    `sides`: of the cells spoken of and, where it is held against others, of those; for rising and falling one a label
    of `along`, which are `steps`. `level`: the fixed number or chance that it is held against.
    """

    at: Mapping[str, Label]
    sides: tuple[Estimate, ...]
    difference: Difference
    level: float | None = None
    steps: tuple[Label, ...] = ()
    verdict: Verdict = "open"
    floor: FloorTest | None = None


@dataclass(frozen=True)
class ClaimResult:
    """A claim, its tests, its verdict; `missing` says what could not be tested, and why."""

    claim: Claim
    verdict: Verdict
    tests: tuple[ClaimTest, ...] = ()
    missing: tuple[str, ...] = ()


def judge(claim: Claim, outcomes: Sequence[Outcome]) -> ClaimResult:
    """The verdict on `claim` from the outcomes of its experiment.

    `held` and `refuted` need evidence: a corrected p-value below 0.05 and an interval without 0, on this or the
    other side. What misses within its noise is `open`. `not learned` is what would hold of models that are not
    above the floor beyond their noise, and what would be open of models that are below it beyond their noise: no
    number of seeds makes a finding of those. `equal`: the 95 % interval of the difference lies within the margin
    (held), or wholly outside (refuted). With `every` all labels must hold, and one refuted refutes; p-values are
    corrected by Holm over them.
    """
    tests: list[ClaimTest] = []
    missing: list[str] = []
    for at in _labels(claim, outcomes, missing):
        tested = _test(claim, {**claim.of, **at}, at, outcomes)
        if isinstance(tested, str):
            where = ", ".join(f"{axis} {label}" for axis, label in at.items())
            missing.append(f"{where}: {tested}" if where else tested)
        else:
            tests.append(tested)
    if not tests:
        return ClaimResult(claim, "not measured", (), tuple(missing) or ("no cell of this study is such",))
    differences = [tested.difference for tested in tests]
    if claim.every and len(tests) > 1:
        differences = corrected(differences)
    tests = [
        replace(t, difference=d, verdict=_verdict(claim, d, t.floor)) for t, d in zip(tests, differences, strict=True)
    ]
    verdicts = {tested.verdict for tested in tests}
    overall: Verdict = next(verdict for verdict in _WORST_FIRST if verdict in verdicts)
    return ClaimResult(claim, overall, tuple(tests), tuple(missing))


_WORST_FIRST: tuple[Verdict, ...] = ("refuted", "not learned", "open", "held")


def _verdict(claim: Claim, d: Difference, floor: FloorTest | None) -> Verdict:
    holds: Verdict = "held" if floor is None or floor.learned else "not learned"
    undecided: Verdict = "not learned" if floor is not None and floor.missed else "open"
    if claim.is_ == "equal":
        if -claim.margin <= d.low and d.high <= claim.margin:
            return holds
        return "refuted" if d.low > claim.margin or d.high < -claim.margin else undecided
    if inside_noise(d):
        return undecided
    if (d.value > 0) != (claim.is_ in ("above", "rising")):
        return "refuted"
    return holds


def _labels(claim: Claim, outcomes: Sequence[Outcome], missing: list[str]) -> list[dict[str, Label]]:
    """Each combination of labels of `every` that the cells of the claim have; what it names and none has is missing."""
    cells = chosen(outcomes, claim.of)
    found: list[Sequence[Label]] = []
    for axis in claim.every:
        if axis == "model":
            there: Sequence[Label] = models(cells, [claim.measure], claim.of)
        elif axis == "epoch":
            model = claim.of.get("model", "poisoned")
            there = epochs(cells, claim.measure, model if isinstance(model, str) else "poisoned", claim.of)
        else:
            there = labels(cells, axis)
        asked = claim.of.get(axis)
        named = asked if isinstance(asked, list | tuple) else ()
        missing += [f"{axis} {label}: no such cell" for label in named if not admits(list(there), label)]
        found.append(there)
    combinations = [dict(zip(claim.every, combination)) for combination in product(*found)]
    if len(claim.every) < 2:
        return combinations
    return [at for at in combinations if chosen(cells, at)]  # a grid may have holes


def _view(where: Where, levels: Mapping[int, float] | None = None) -> tuple[str, int | Until | None]:
    """Model and epoch (None: the last) of a side. Raises `ValueError` where it is not one of each.

    `levels`: by seed what is to be reached where `until` does not say.
    """
    model, epoch = where.get("model", "poisoned"), where.get("epoch")
    if isinstance(model, str) and isinstance(epoch, Mapping) and "until" in epoch:
        until = epoch["until"]
        return model, Until(until["measure"], levels or {} if until["at"] is None else until["at"])
    if not isinstance(model, str) or not isinstance(epoch, int | None):
        raise ValueError(
            f"a claim speaks of one model and one epoch, got {model!r} and {epoch!r}; name them in `every` to test each"
        )
    return model, epoch


def _side(
    claim: Claim,
    where: Where,
    outcomes: Sequence[Outcome],
    *,
    fall_back: bool = False,
    levels: Mapping[int, float] | None = None,
) -> Side | str:
    cells = chosen(outcomes, where)
    if not cells:
        named = {axis: wanted for axis, wanted in where.items() if axis not in ("model", "epoch")}
        return f"no cell has {described(named)}" if named else "no cell was measured"
    model, epoch = _view(where, levels)
    side = side_of(cells, claim.measure, model, epoch)
    if side.estimate is None and fall_back:
        side = side_of(cells, claim.measure, model, None)
    if side.estimate is None:
        if isinstance(epoch, Until):
            return f"no {model} model reached the {epoch.measure} that it was to be stopped at, or it was not measured"
        after = "" if epoch is None else f" after epoch {epoch}"
        return f"{claim.measure} was not measured on the {model} model{after}"
    return side


def _test(claim: Claim, where: Where, at: dict[str, Label], outcomes: Sequence[Outcome]) -> ClaimTest | str:
    """One test, or why there is none."""
    if claim.is_ in ("rising", "falling"):
        return _trend(claim, where, at, outcomes)
    if claim.slope is not None:
        return _slope(claim, where, at, outcomes)
    side = _side(claim, where, outcomes)
    if isinstance(side, str):
        return side
    assert side.estimate is not None
    floor = _floor(claim, where, outcomes)
    if isinstance(floor, str):
        return floor
    if claim.than is None:
        level = claim.value if claim.value is not None else chance(chosen(outcomes, where), claim.measure)
        if level is None:
            return f"chance is not known for {claim.measure}"
        return ClaimTest(at, (side.estimate,), against(side, level), level, floor=floor)
    # the same cells but for what `than` says; a model that was not measured after every epoch counts as it ended
    second = replace(claim, measure=claim.than_measure or claim.measure)
    levels = _levels(claim, where, outcomes)
    other = _side(second, {**where, **claim.than}, outcomes, fall_back="epoch" not in claim.than, levels=levels)
    if isinstance(other, str):
        return other
    assert other.estimate is not None
    return ClaimTest(at, (side.estimate, other.estimate), difference(side, other), floor=floor)


def _slope(claim: Claim, where: Where, at: dict[str, Label], outcomes: Sequence[Outcome]) -> ClaimTest | str:
    """The slope along one axis against that along another, or a number."""
    model, _ = _view(where)
    found = slopes(chosen(outcomes, where), claim.measure, claim.regress, model)
    if len(found) < 2:
        return f"fewer than two seeds have slopes of {claim.measure}"
    assert claim.slope is not None  # asked for by a claim that has one
    first, *others = (
        side_of_numbers(of_axis(found, claim.regress.index(axis))) for axis in (claim.slope, claim.than_slope) if axis
    )
    assert first.estimate is not None
    if not others:
        level = claim.value or 0.0
        return ClaimTest(at, (first.estimate,), against(first, level), level)
    (other,) = others
    assert other.estimate is not None
    return ClaimTest(at, (first.estimate, other.estimate), difference(first, other))


def _levels(claim: Claim, where: Where, outcomes: Sequence[Outcome]) -> dict[int, float] | None:
    """By seed what the first side has of the measure that the second is stopped at, where that names no number."""
    epoch = claim.than.get("epoch") if claim.than else None
    if not isinstance(epoch, Mapping) or "until" not in epoch or epoch["until"]["at"] is not None:
        return None
    side = _side(replace(claim, measure=epoch["until"]["measure"]), where, outcomes)
    return None if isinstance(side, str) else {seed: float(values.mean()) for seed, values in side.values.items()}


def _floor(claim: Claim, where: Where, outcomes: Sequence[Outcome]) -> FloorTest | str | None:
    """Whether the models spoken of can still do what the claim asks of them; why not, where it was not measured."""
    if claim.floor is None:
        return None
    measure = claim.floor.measure
    side = _side(replace(claim, measure=measure), where, outcomes)
    if isinstance(side, str):
        return side
    level, times = claim.floor.above, claim.floor.times_chance
    if times is not None:
        by_chance = chance(chosen(outcomes, where), measure)
        if by_chance is None:
            return f"chance is not known for {measure}"
        level = times * by_chance
    assert side.estimate is not None
    assert level is not None
    d = against(side, level)
    sure = not inside_noise(d)
    return FloorTest(measure, side.estimate, level, learned=sure and d.value > 0, missed=sure and d.value < 0)


def _trend(claim: Claim, where: Where, at: dict[str, Label], outcomes: Sequence[Outcome]) -> ClaimTest | str:
    axis = claim.along
    if axis is None:
        return f"{claim.is_} along which axis is not said"
    cells = chosen(outcomes, where)
    model = where.get("model", "poisoned")
    steps = epochs(cells, claim.measure, model, where) if axis == "epoch" else labels(cells, axis)
    found = [(step, _side(claim, {**where, axis: step}, outcomes)) for step in steps]
    sides = [(step, side) for step, side in found if isinstance(side, Side)]
    if len(sides) < 2:
        return f"fewer than two labels of {axis} were measured"
    rises = rise([side for _, side in sides])
    if rises is None:
        return f"no seed has all labels of {axis}"
    estimates = tuple(side.estimate for _, side in sides if side.estimate is not None)
    return ClaimTest(at, estimates, rises, steps=tuple(step for step, _ in sides))


def described(where: Where) -> str:
    """What a `Where` asks for, in words."""

    def one(wanted: Any) -> str:
        if isinstance(wanted, Mapping) and "until" in wanted:
            at = wanted["until"]["at"]
            level = "as much as the other side has" if at is None else at
            return f"at which {wanted['until']['measure']} first reached {level}"
        if isinstance(wanted, Mapping):
            return f"other than {one(wanted['not'])}"
        if isinstance(wanted, list | tuple):
            return " or ".join(map(str, wanted))
        return str(wanted)

    parts = []
    for axis, wanted in where.items():
        if axis == "model":
            parts.append(f"the {one(wanted)} model")
        elif axis == "epoch":
            parts.append(f"epoch {one(wanted)}")
        else:
            parts.append(f"{axis} {one(wanted)}")
    return ", ".join(parts)
