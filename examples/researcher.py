"""For a researcher: an attack of one's own, measured beside a published one under one budget.

python examples/researcher.py OUT
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

import mithridate as mt


@dataclass(frozen=True, kw_only=True)
class OneImageMany:
    """Captions of `source` all meet one and the same training image of `target`, drawn anew for each run."""

    name: ClassVar[str] = "one-image-many"
    needs_surrogate = False
    needs_gallery = False

    source: str
    target: str
    class_share: float = 1.0

    def plan(
        self,
        pairs: mt.Pairs,
        rng: np.random.Generator,
        *,
        gallery: mt.Pairs | None = None,
        surrogate: mt.Surrogate | None = None,
    ) -> mt.PoisonPlan:
        # every attack returns a plan: here that of single-image, without its fixed target at evaluation
        chosen = mt.SingleImage(source=self.source, target=self.target, class_share=self.class_share)
        plan = chosen.plan(pairs, rng)
        return replace(plan, goals=(mt.CaptionsToClass(self.source, self.target),))


def main(out: Path, *, train_images: int = 2000, epochs: int = 3) -> None:
    mt.write_toy_world(out / "toy", train=train_images, test=270)
    train, test = (mt.read_pairs(out / "toy", split=split) for split in ("train", "test"))
    recipe = replace(mt.SCRATCH, epochs=epochs)
    clean = mt.train(mt.load_encoder("mithridate-tiny"), train, config=recipe, out=out / "clean")
    for attack in (
        mt.SingleLabel(source="sheep", target="aeroplane"),
        OneImageMany(source="sheep", target="aeroplane"),
    ):
        poisoned = mt.poison(train, attack, seed=0)
        model = mt.train(mt.load_encoder("mithridate-tiny"), poisoned.pairs, config=recipe, out=out / attack.name)
        found = mt.evaluate({"poisoned": model, "clean": clean}, test, poisoned.manifest, reference="clean")
        for name in found.models:
            print(attack.name, name, *(f"{m.metric} {m.value.value:.3f}" for m in found.success(name).values()))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/researcher"))
