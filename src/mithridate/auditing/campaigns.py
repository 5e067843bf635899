"""Groups that are about the same pairs joined to one campaign: what a person reviews."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mithridate.auditing.groups import Group

_SHARED = 0.5  # of the smaller tail: groups that share so much are one campaign
_TELLING = ("word", "patch", "residual", "domain")
_CLEAN = 0.5  # of the pairs of a group that do not speak for it: where fewer are clean they would be dropped too
_MOST = 200  # groups that are joined; weaker ones follow


@dataclass(frozen=True)
class Campaign:
    """Groups about the same pairs, strongest first. `rows`: its pairs, `drop`: of them
    those that would be dropped."""

    groups: tuple[Group, ...]
    rows: np.ndarray
    drop: np.ndarray

    @property
    def strength(self) -> float:
        return self.groups[0].strength

    @property
    def lead(self) -> Group:
        """The group that names the campaign: the strongest that says what its pairs share, else the strongest."""
        return next((group for group in self.groups if group.kind in _TELLING), self.groups[0])


def campaigns(groups: Sequence[Group], p_value: np.ndarray, *, flag: float, own: float) -> tuple[Campaign, ...]:
    """The flagged groups (of at least strength `flag`), those that share their pairs joined, strongest first.

    Of a group's pairs those would be dropped that speak for it (its tail), and others of it whose own p-value is at
    most `own`; the rest too where most of it is planted. Words that contain each other are one group.
    """
    strong = sorted((g for g in groups if g.strength >= flag), key=lambda g: (-g.strength, g.kind, -len(g.value)))
    joined: list[list[Group]] = []
    for group in strong[:_MOST]:
        home = next((c for c in joined if any(_same(group, other) for other in c)), None)
        if home is None:
            joined.append([group])
        else:
            home.append(group)
    found = []
    for members in joined:
        rows = np.unique(np.concatenate([group.rows for group in members]))
        going = np.unique(np.concatenate([_going(group, p_value, own) for group in members]))
        found.append(Campaign(tuple(members), rows, going))
    return tuple(found)


def _going(group: Group, p_value: np.ndarray, own: float) -> np.ndarray:
    """The rows of a group that would be dropped."""
    speaks = np.union1d(group.tail, group.rows[p_value[group.rows] <= own])
    rest = np.setdiff1d(group.rows, speaks)
    return group.rows if len(rest) and clean_share(p_value[rest], own) <= _CLEAN else speaks


def clean_share(p: np.ndarray, least: float) -> float:
    """Storey's estimate (2002) of the share of clean pairs among those with these p-values, all above `least`: as many
    of the clean ones are above 0.5 as chance gives. One more is counted, so that few pairs are not called planted."""
    return (int((p > 0.5).sum()) + 1) * (1 - least) / 0.5 / len(p)


def _same(first: Group, second: Group) -> bool:
    if first.kind == second.kind == "word" and _contains(first.value, second.value):
        return True
    shared = len(np.intersect1d(first.tail, second.tail, assume_unique=False))
    return shared >= _SHARED * min(len(first.tail), len(second.tail))


def _contains(first: str, second: str) -> bool:
    """Whether one phrase holds the other's words."""
    a, b = re.findall(r"\w+", first), re.findall(r"\w+", second)
    short, long = sorted((a, b), key=len)
    return any(long[i : i + len(short)] == short for i in range(len(long) - len(short) + 1))
