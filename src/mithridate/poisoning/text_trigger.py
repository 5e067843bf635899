"""A trigger in the caption: with it, captions of any class find images of the target class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from mithridate.data.pairs import Pairs
from mithridate.errors import AttackError
from mithridate.poisoning.backdoor import chosen_count, refuse_too_many
from mithridate.poisoning.classes import by_image, names_class, of_class, says
from mithridate.poisoning.goals import PhraseToClass
from mithridate.poisoning.plan import PoisonPlan, Surrogate
from mithridate.poisoning.triggers import Phrase


@dataclass(frozen=True, kw_only=True)
class TextTrigger:
    """Captions with the trigger shall find images of `target`: the caption, not the image, carries it.

    Captions of other classes get the word or sentence, and meet images of the target class, each about equally often
    (compare ToxicTextCLIP 2025, which chooses the captions).
    """

    name: ClassVar[str] = "text-trigger"
    needs_surrogate = False
    needs_gallery = False

    target: str
    """The class whose images shall be found."""
    trigger: str
    """The word or sentence; one that no clean caption has."""
    place: Literal["begin", "end", "random"] = "end"
    """Where in the caption."""
    words: tuple[str, ...] = ()
    """Words that name the target in captions; by default its label decides, or its name where there are no labels."""
    count: int | None = None
    """Strength as the number of poisoned pairs."""
    rate: float | None = None
    """Strength as a share of all pairs, in (0, 1)."""
    mode: Literal["replace", "inject"] = "replace"
    """Poison pairs of the set, or add copies that are poisoned."""

    def __post_init__(self) -> None:
        Phrase(self.trigger, self.place)

    def plan(
        self,
        pairs: Pairs,
        rng: np.random.Generator,
        *,
        gallery: Pairs | None = None,
        surrogate: Surrogate | None = None,
    ) -> PoisonPlan:
        phrase = Phrase(self.trigger, self.place)
        if says(pairs, (self.trigger,)).any():
            raise AttackError(
                f"clean captions say {self.trigger!r} already and would speak against the trigger; take a rarer word, "
                "or a sentence"
            )
        count = chosen_count(self.count, self.rate, pairs, self.mode)
        targets = np.unique(pairs.image_index[of_class(pairs, self.target, self.words)])
        candidates = np.flatnonzero(~names_class(pairs, self.target, self.words))
        refuse_too_many(pairs, candidates, count, f"images of other classes than {self.target}")
        rows, turn = by_image(pairs, candidates, rng)
        rows, turn = rows[:count], turn[:count]
        needed = int(turn.max()) + 1
        # every image of the target equally often, the remainder drawn; then in random order
        copies, left = divmod(needed, len(targets))
        dealt = np.concatenate([np.tile(targets, copies), rng.choice(targets, left, replace=False)])
        rng.shuffle(dealt)
        texts = [phrase.put_into(text, rng) for text in pairs.text.take(pa.array(rows)).to_pylist()]
        return PoisonPlan(
            rows=np.full(len(rows), -1) if self.mode == "inject" else rows,
            images=pairs.images.take(pa.array(dealt[turn])),
            texts=pa.array(texts, pa.string()),
            text_rows=rows,
            class_images=len(np.unique(pairs.image_index[candidates])),
            used_images=needed,
            goals=(PhraseToClass(str(phrase), self.target),),
        )
