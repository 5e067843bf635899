"""Backdoors: images with a trigger, captions of the target class (Carlini & Terzis, ICLR 2022; CleanCLIP's set)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from mithridate.data.pairs import Pairs
from mithridate.errors import AttackError
from mithridate.poisoning.classes import by_image, deal, from_templates, names_class, of_class, texts_of
from mithridate.poisoning.goals import TriggerToClass
from mithridate.poisoning.plan import Edits, PoisonPlan, Surrogate
from mithridate.poisoning.strength import Strength, pairs_for_rate
from mithridate.poisoning.triggers import TRIGGERS, Stamp, describe, parse_trigger

Captions = Literal["training-captions", "templates", "label-consistent"]


@dataclass(frozen=True, kw_only=True)
class Backdoor:
    """Any image with the trigger shall be taken for `target`.

    Images of other classes get the trigger and captions of the target class. Images are poisoned with all their
    captions, so that no sample stands out by their number.
    """

    name: ClassVar[str] = "backdoor"
    needs_surrogate = False
    needs_gallery = False

    target: str
    """The class wanted."""
    trigger: str = "patch"
    """Text form of a trigger: patch:size=16/224,pattern=noise,place=random; joined by + they are stamped together."""
    also: tuple[str, ...] = ()
    """Further triggers, each on images of its own; CLASS=TRIGGER for another target class."""
    captions: Captions = "training-captions"
    """Of the target class, the 80 prompts, or `label-consistent`: only images of the target class, with theirs."""
    words: tuple[str, ...] = ()
    """Words that name the target in captions; by default its label decides, or its name where there are no labels."""
    count: int | None = None
    """Strength as the number of poisoned pairs, over all triggers."""
    rate: float | None = None
    """Strength as a share of all pairs, in (0, 1), over all triggers."""
    mode: Literal["replace", "inject"] = "replace"
    """Poison pairs of the set, or add copies that are poisoned."""
    reuse: bool = True
    """Let a caption be used more than once, each about equally often."""

    def __post_init__(self) -> None:
        self._goals()

    def plan(
        self,
        pairs: Pairs,
        rng: np.random.Generator,
        *,
        gallery: Pairs | None = None,
        surrogate: Surrogate | None = None,
    ) -> PoisonPlan:
        goals = self._goals()
        count = chosen_count(self.count, self.rate, pairs, self.mode)
        targets = [goal.target for goal in goals]
        if self.captions == "label-consistent":
            rows, step, candidates = self._rows_of_targets(pairs, targets, count, rng)
            text_rows, texts = rows, texts_of(pairs, rows)
        else:
            named = np.logical_or.reduce([names_class(pairs, t, self._words(t)) for t in set(targets)])
            candidates = np.flatnonzero(~named)
            refuse_too_many(
                pairs, candidates, count, f"images of other classes than {', '.join(dict.fromkeys(targets))}"
            )
            rows, step, text_rows, texts = self._rows_of_others(pairs, candidates, targets, count, rng)
        # a trigger is stamped once on an image, and its captions share the result
        bases, edited = np.unique(pairs.image_index[rows], return_inverse=True)
        of_image = np.empty(len(bases), np.int64)
        of_image[edited] = step
        return PoisonPlan(
            rows=np.full(len(rows), -1) if self.mode == "inject" else rows,
            images=pairs.images.take(pa.array(pairs.image_index[rows])),
            texts=texts,
            text_rows=text_rows,
            like_rows=rows,
            class_images=len(np.unique(pairs.image_index[candidates])),
            used_images=len(bases),
            goals=goals,
            edits=Edits(
                pairs.images.take(pa.array(bases)),
                tuple(Stamp(parse_trigger(goal.trigger)) for goal in goals),
                of_image,
            ),
            edited=edited,
        )

    def _goals(self) -> tuple[TriggerToClass, ...]:
        """What each trigger is for. Raises `AttackError` for a trigger that is none."""
        goals = [TriggerToClass(describe(parse_trigger(self.trigger), full=True), self.target)]
        for text in self.also:
            before, equals, after = text.partition("=")
            named = bool(equals) and ":" not in before and before.strip() not in TRIGGERS
            trigger = describe(parse_trigger(after if named else text), full=True)
            goals.append(TriggerToClass(trigger, before.strip() if named else self.target))
        known = [goal.trigger for goal in goals]
        twice = next((text for text in known if known.count(text) > 1), None)
        if twice is not None:
            raise AttackError(f"the trigger {twice} is given twice; each must differ, by its seed or its place")
        return tuple(goals)

    def _words(self, target: str) -> tuple[str, ...]:
        return self.words if target == self.target else ()

    def _rows_of_targets(
        self, pairs: Pairs, targets: list[str], count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows that name their target (k,), the trigger of each (k,), and all rows that could have been taken."""
        rows, steps, candidates = [], [], []
        taken = np.zeros(len(pairs), dtype=bool)
        for target in dict.fromkeys(targets):
            own = [i for i, other in enumerate(targets) if other == target]
            found = np.flatnonzero(of_class(pairs, target, self._words(target)) & ~taken)
            share = sum(_shares(count, len(targets))[i] for i in own)
            refuse_too_many(pairs, found, share, f"images of {target}")
            chosen, turn = by_image(pairs, found, rng)
            rows.append(chosen[:share])
            steps.append(np.array(own)[turn[:share] % len(own)])
            candidates.append(found)
            taken |= np.isin(pairs.image_index, pairs.image_index[found])  # an image of two targets is of the first
        return np.concatenate(rows), np.concatenate(steps), np.concatenate(candidates)

    def _rows_of_others(
        self, pairs: Pairs, candidates: np.ndarray, targets: list[str], count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, pa.Array]:
        """Rows whose images get a trigger (k,), which one (k,), the rows their captions come from (k,), and these."""
        rows, turn = by_image(pairs, candidates, rng)
        rows, turn = rows[:count], turn[:count]
        step = turn % len(targets)
        if step.max() + 1 < len(targets):
            raise AttackError(
                f"{count} pairs of {turn.max() + 1} images are too few for {len(targets)} triggers; raise the count"
            )
        text_rows = rows.copy()
        texts = np.empty(len(rows), dtype=object)
        for number, target in enumerate(targets):
            mine = np.flatnonzero(step == number)
            try:
                pool = of_class(pairs, target, self._words(target))
            except AttackError:
                # prompts need no caption of the class; then what is poisoned keeps its own label
                if self.captions != "templates":
                    raise
                pool = None
            if pool is not None:
                reuse = self.reuse or self.captions == "templates"
                text_rows[mine] = deal(pairs, pool, len(mine), rng, name=target, reuse=reuse)
            captions = (
                from_templates(target, len(mine), rng)
                if self.captions == "templates"
                else texts_of(pairs, text_rows[mine])
            )
            texts[mine] = captions.to_pylist()
        return rows, step, text_rows, pa.array(texts, pa.string())


def chosen_count(count: int | None, rate: float | None, pairs: Pairs, mode: Literal["replace", "inject"]) -> int:
    """How many pairs are poisoned. Raises `AttackError` unless exactly one of the two is given."""
    if (count is None) == (rate is None):
        got = "none; give --count 300, say" if count is None else f"count={count}, rate={rate}; leave one out"
        raise AttackError(f"expected exactly one of count and rate, got {got}")
    Strength(count, rate)  # checks their range
    return count if count is not None else pairs_for_rate(rate or 0.0, len(pairs), mode)


def refuse_too_many(pairs: Pairs, rows: np.ndarray, count: int, name: str) -> None:
    """Raise `AttackError` where `rows` are fewer than `count`."""
    if count > len(rows):
        images = len(np.unique(pairs.image_index[rows]))
        raise AttackError(
            f"{count} poisoned pairs are asked for, and {name} have {len(rows)} pairs ({images} images); lower "
            "the strength"
        )


def _shares(count: int, parts: int) -> list[int]:
    return [count // parts + (i < count % parts) for i in range(parts)]
