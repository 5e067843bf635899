"""How a model is trained: a recipe as one value."""

from dataclasses import dataclass, field
from math import inf
from typing import Literal

from mithridate.errors import MithridateError

_FREE = {"decides": False}  # the weights do not depend on it

MAX_EPOCHS = 100_000  # more than anybody trains: what each asks for is known before the first

TOWERS = ("image", "text", "image-trunk", "text-trunk")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The defaults fine-tune as mmPoison does (section 5.1; lr schedule per step)."""

    epochs: int = 10
    """Passes over all pairs; each caption is a pair of its own."""
    batch_size: int = 128
    """Pairs in a step, over all processes; an incomplete last batch is left out."""
    lr: float = 1e-5
    """Peak learning rate of AdamW."""
    min_lr: float = 1e-6
    """Where the cosine ends."""
    warmup: int = 0
    """Steps of linear warm-up."""
    weight_decay: float = 0.2
    """Not applied to biases, norms and the logit scale."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's; the published code sets (0.9, 0.98) and never applies it."""
    eps: float = 1e-8
    """AdamW's."""
    freeze: tuple[str, ...] = ()
    """Kept as is: `image`, `text`, all but its projection (`image-trunk`, `text-trunk`), or by name (`ln_final.*`)."""
    freeze_logit_scale: bool = False
    """Keep the temperature as it is, and the bias where a model has one."""
    augment: Literal["none", "crop"] = "none"
    """`crop`: random resized crops of 90-100 % of the area, as in the published code."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bf16 where the GPU or the processor multiplies it. Embeddings for measuring are always float32."""
    seed: int = 0
    """Of the data order and of every draw."""
    max_bad: float = field(default=0.01, metadata=_FREE)
    """Largest share of images that may fail to decode; they are left out, counted and named."""
    save_epochs: bool = field(default=False, metadata=_FREE)
    """Keep the model after each epoch, in `epochs/`."""
    checkpoint_every: int = field(default=200, metadata=_FREE)
    """Steps between states from which a killed run goes on."""

    def __post_init__(self) -> None:
        for name, low in (("epochs", 1), ("batch_size", 2), ("warmup", 0), ("checkpoint_every", 1), ("seed", 0)):
            if getattr(self, name) < low:
                raise MithridateError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if self.epochs > MAX_EPOCHS:
            raise MithridateError(f"epochs must be at most {MAX_EPOCHS}, got {self.epochs}")
        for name in ("lr", "min_lr", "weight_decay", "max_bad"):
            if not 0 <= getattr(self, name) < inf:
                raise MithridateError(f"{name} must be 0 or more and finite, got {getattr(self, name)}")
        if not all(0 <= beta < 1 for beta in self.betas) or not 0 < self.eps < inf:
            raise MithridateError(
                f"betas must lie in [0, 1) and eps above 0, got betas {self.betas} and eps {self.eps}"
            )
        if self.max_bad > 1:
            raise MithridateError(f"max_bad is a share of the images, from 0 to 1, got {self.max_bad}")
        if self.min_lr > self.lr:
            raise MithridateError(f"min_lr must not exceed lr, got {self.min_lr} and {self.lr}; lower --min-lr")
        for tower in ("image", "text"):
            if tower in self.freeze and f"{tower}-trunk" in self.freeze:
                raise MithridateError(f"freeze names both {tower} and {tower}-trunk; give one")


SCRATCH = TrainConfig(
    epochs=10, batch_size=128, lr=2e-3, min_lr=0.0, warmup=20, weight_decay=0.1, betas=(0.9, 0.98), eps=1e-6
)
"""From scratch with a tiny model, for minutes on a CPU."""

PRESETS = {
    "finetune": TrainConfig(),
    "scratch": SCRATCH,
    # post-training of mmPoison: clean pairs from a poisoned checkpoint, at the three rates of its table
    **{f"repair-{lr}": TrainConfig(epochs=1, lr=float(lr), min_lr=float(lr) / 10) for lr in ("1e-3", "1e-4", "1e-5")},
}
