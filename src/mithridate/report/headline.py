"""The headline of a report, a nested dict, as groups of measures, each with one number a model."""

from __future__ import annotations

from typing import Any

from mithridate.report.document import Cell, Report
from mithridate.report.numbers import show
from mithridate.statistics.estimate import Estimate

Measure = tuple[str, list[tuple[str, Cell]]]


def grouped(report: Report) -> list[tuple[str, list[Measure]]]:
    """[(group, [(measure, [(model, number)])])] of what a report opens with."""
    found: dict[str, list[Measure]] = {}
    for h in report.headlines:
        found.setdefault(h.group, []).append((h.measure, list(h.values.items())))
    return [*found.items(), *groups(report.headline)]


def groups(headline: dict[str, Any]) -> list[tuple[str, list[Measure]]]:
    """[(group, [(measure, [(model, number)])])] from {group: {model: {measure: number}}}.

    What is nested otherwise is kept too: a shallower number is a measure of its own, a deeper one is named by
    its path.
    """
    found: dict[str, dict[str, list[tuple[str, Cell]]]] = {}
    for path, cell in _leaves(headline, ()):
        group = path[0]
        model = path[1] if len(path) > 2 else ""
        measure = " ".join(path[2:] or path[1:] or path)
        found.setdefault(group, {}).setdefault(measure, []).append((model, cell))
    return [(group, list(measures.items())) for group, measures in found.items()]


def _leaves(value: Any, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Cell]]:
    if isinstance(value, dict) and path and _is_estimate(value):
        return [(path, Estimate(**value))]
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in _leaves(item, (*path, str(key).replace("_", " ")))]
    if isinstance(value, list | tuple):
        return [(path, ", ".join(str(show(item)) for item in value))]
    return [(path, value)]


def _is_estimate(value: dict[str, Any]) -> bool:
    """Whether `value` is what JSON makes of an `Estimate`."""
    numbers = all(isinstance(number, int | float | None) for number in value.values())
    return value.keys() == {"value", "low", "high", "n"} and numbers
