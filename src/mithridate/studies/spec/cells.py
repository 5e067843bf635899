"""The grid of an experiment laid out, and which cells of a study are meant. Nothing is read or written here."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from mithridate.errors import StudyError
from mithridate.studies.spec.located import Located, suggestion
from mithridate.studies.spec.study import Label, Study


@dataclass(frozen=True)
class Axis:
    """What is varied: `name` as tables call it, `path` into the sections, and for each label what stands there."""

    name: str
    path: tuple[str, ...]
    entries: tuple[tuple[Label, Located], ...]


@dataclass(frozen=True)
class Combination:
    """One combination: its labels, and the sections of a study file as it leaves them."""

    labels: tuple[tuple[str, Label], ...]
    sections: Mapping[str, Located]


def combinations(
    sections: Mapping[str, Located],
    axes: Sequence[Axis],
    unless_equal: Iterable[tuple[str, str]] = (),
    together: Sequence[str] = (),
) -> list[Combination]:
    """Every combination of the axes' entries, the last axis fastest, but for those in which two paths are equal.

    Of the axes `together` the first entries meet, the second, and so on: they have as many.
    """
    found = []
    # whole sections first, whatever is varied within them after
    order = sorted(range(len(axes)), key=lambda i: len(axes[i].path))
    for places in product(*(range(len(axis.entries)) for axis in axes)):
        if len({place for axis, place in zip(axes, places) if axis.name in together}) > 1:
            continue
        chosen = [axis.entries[place] for axis, place in zip(axes, places)]
        made = dict(sections)
        for i in order:
            made = _put(made, axes[i].path, chosen[i][1])
        point = Combination(tuple((axis.name, label) for axis, (label, _) in zip(axes, chosen)), made)
        if not any(_equal(point, *pair) for pair in unless_equal):
            found.append(point)
    return found


def value_at(sections: Mapping[str, Located], path: Sequence[str]) -> Located | None:
    """What stands at `path`; None where nothing does."""
    here = sections.get(path[0])
    for name in path[1:]:
        if here is None or not isinstance(here.value, dict):
            return None
        here = here.value.get(_key(here.value, name))
    return here


def _equal(point: Combination, first: str, second: str) -> bool:
    values = [value_at(point.sections, path.split(".")) for path in (first, second)]
    return all(value is not None for value in values) and len({str(value.plain()) for value in values if value}) == 1


def _put(sections: dict[str, Located], path: tuple[str, ...], value: Located) -> dict[str, Located]:
    """`sections` with `value` at `path`; a section that is nothing stays that."""
    if len(path) == 1:
        return {**sections, path[0]: value}
    here = sections.get(path[0])
    if here is None:
        if path[0] in ("attack", "filter", "repair", "inspect"):
            value.fail(f"{'.'.join(path)} is varied, and this experiment has no {path[0]}")
        here = Located({}, value.line, value.file)
    return {**sections, path[0]: _put_into(here, path[1:], value)}


def _put_into(here: Located, path: tuple[str, ...], value: Located) -> Located:
    if here.value is None:
        return here
    if not isinstance(here.value, dict):
        value.fail(f"{'.'.join(path)} is varied within {here.plain()!r}, which has no options; write it as a mapping")
    name = _key(here.value, path[0])
    if len(path) == 1:
        return Located({**here.value, name: value}, here.line, here.file)
    inner = here.value.get(name, Located({}, value.line, value.file))
    return Located({**here.value, name: _put_into(inner, path[1:], value)}, here.line, here.file)


def _key(there: Mapping[str, Located], name: str) -> str:
    """`name` as it is spelt there: hyphens and underscores are one."""
    plain = name.replace("-", "_")
    return next((key for key in there if key.replace("-", "_") == plain), name)


def selected(study: Study, only: Sequence[str]) -> Study:
    """The study with the experiments in `only`, all where it is empty. Raises `StudyError` for others."""
    names = [experiment.name for experiment in study.experiments]
    for name in only:
        if name not in names:
            raise StudyError(f"{study.name} has no experiment {name!r}; {suggestion(name, names)}")
    kept = tuple(experiment for experiment in study.experiments if not only or experiment.name in only)
    return replace(study, experiments=kept)
