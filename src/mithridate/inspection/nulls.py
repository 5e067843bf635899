"""Null models: START fine-tuned on the owner's clean pairs, which show what fine-tuning does by itself."""

from __future__ import annotations

from pathlib import Path

from mithridate.data.pairs import Pairs
from mithridate.encoder.embed import Progress, _silent
from mithridate.encoder.encoder import Encoder
from mithridate.randomness import stream_seed
from mithridate.training.config import TrainConfig
from mithridate.training.loop import train

LR = 1e-3
EPOCHS = 2


def null_model(
    start: Encoder,
    pairs: Pairs,
    number: int,
    *,
    seed: int = 0,
    cache: Path | str | None = "default",
    cache_limit: int | None = None,
    progress: Progress = _silent,
) -> Encoder:
    """A copy of `start`, trained for two passes over `pairs` in an order that `seed` and `number` draw."""
    config = TrainConfig(
        epochs=EPOCHS,
        batch_size=max(2, min(128, len(pairs))),
        lr=LR,
        min_lr=0.0,
        precision="fp32",
        seed=stream_seed(seed, "null model", number) % 2**31,
    )
    return train(start, pairs, config=config, cache=cache, cache_limit=cache_limit, progress=progress)
