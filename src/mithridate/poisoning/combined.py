"""Several attacks in one set, so that one trained model says how far each of them succeeds."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from mithridate.data.pairs import Pairs
from mithridate.errors import AttackError
from mithridate.poisoning.plan import Attack, Edits, PoisonPlan, Surrogate


@dataclass(frozen=True, kw_only=True)
class Combined:
    """Each attack is planned on the pairs that those before it leave clean, with draws of its own."""

    name: ClassVar[str] = "combined"

    attacks: tuple[Attack, ...]
    """In the order in which they are carried out."""

    def __post_init__(self) -> None:
        if len(self.attacks) < 2:
            raise AttackError(f"attacks to be combined must be two or more, got {len(self.attacks)}")

    @property
    def needs_surrogate(self) -> bool:
        return any(attack.needs_surrogate for attack in self.attacks)

    @property
    def needs_gallery(self) -> bool:
        return any(attack.needs_gallery for attack in self.attacks)

    @property
    def gallery_is_test(self) -> bool:
        return any(getattr(attack, "gallery_is_test", False) for attack in self.attacks)

    def plan(
        self,
        pairs: Pairs,
        rng: np.random.Generator,
        *,
        gallery: Pairs | None = None,
        surrogate: Surrogate | None = None,
    ) -> PoisonPlan:
        left, plans = np.arange(len(pairs)), []
        for attack, own in zip(self.attacks, rng.spawn(len(self.attacks)), strict=True):
            plan = attack.plan(
                pairs.take(left),
                own,
                gallery=gallery if attack.needs_gallery else None,
                surrogate=surrogate if attack.needs_surrogate else None,
            )
            plan = _of_all_pairs(plan, left)
            plans.append(plan)
            left = np.setdiff1d(left, np.concatenate([plan.rows, plan.drop]))
        return _joined(plans)


def _of_all_pairs(plan: PoisonPlan, rows: np.ndarray) -> PoisonPlan:
    """A plan on the pairs at `rows` (n,), said of all pairs."""
    return replace(
        plan,
        rows=np.where(plan.rows < 0, -1, rows[plan.rows]),
        text_rows=rows[plan.text_rows],
        drop=rows[plan.drop],
        like_rows=None if plan.like_rows is None else rows[plan.like_rows],
    )


def _joined(plans: list[PoisonPlan]) -> PoisonPlan:
    first = np.cumsum([0, *(0 if plan.edits is None else len(plan.edits) for plan in plans)])
    edited = [
        np.full(len(plan), -1) if plan.edited is None else np.where(plan.edited < 0, -1, plan.edited + start)
        for plan, start in zip(plans, first[:-1], strict=True)
    ]
    like = [plan.text_rows if plan.like_rows is None else plan.like_rows for plan in plans]
    edits = [plan.edits for plan in plans if plan.edits is not None]
    return PoisonPlan(
        rows=np.concatenate([plan.rows for plan in plans]),
        images=pa.concat_arrays([plan.images for plan in plans]),
        texts=pa.concat_arrays([plan.texts for plan in plans]),
        text_rows=np.concatenate([plan.text_rows for plan in plans]),
        goals=tuple(goal for plan in plans for goal in plan.goals),
        drop=np.concatenate([plan.drop for plan in plans]),
        class_images=sum(plan.class_images for plan in plans),
        used_images=sum(plan.used_images for plan in plans),
        edits=_all_edits(edits) if edits else None,
        edited=np.concatenate(edited) if edits else None,
        like_rows=np.concatenate(like),
    )


def _all_edits(parts: list[Edits]) -> Edits:
    first = np.cumsum([0, *(len(part.steps) for part in parts)])
    others: list[tuple[str, ...]] = []
    for part in parts:
        others += part.others or ((),) * len(part)
    return Edits(
        base=pa.concat_arrays([part.base for part in parts]),
        steps=tuple(step for part in parts for step in part.steps),
        step=np.concatenate([part.step + start for part, start in zip(parts, first[:-1], strict=True)]),
        others=tuple(others) if any(others) else (),
    )


def recorded(attack: Attack) -> dict[str, Any]:
    """The options of an attack as a manifest has them; those of combined ones with their names."""
    options: dict[str, Any] = {f.name: getattr(attack, f.name) for f in fields(attack)}  # type: ignore[arg-type]
    if isinstance(attack, Combined):
        options["attacks"] = [{"attack": one.name, **recorded(one)} for one in attack.attacks]
    return options
