"""The module that is trained: both towers of an encoder, with what is frozen computed once or without gradient."""

import fnmatch
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mithridate.encoder.encoder import Encoder
from mithridate.encoder.towers import (
    Tower,
    project,
    projection_prefix,
    text_embedding,
    tower_modules,
    tower_parameters,
    without_projection,
)
from mithridate.errors import MithridateError
from mithridate.training.config import TOWERS, TrainConfig


class TwoTower(nn.Module):
    """Views (images, tokens) -> unit-length embeddings of each, exp of the logit scale, and the logit bias or None.

    Images are uint8 pixels (b, h, w, 3), or (b, width) features of a frozen trunk; tokens (b, length) likewise.
    Every view passes by itself: statistics of batch norm are its own. `with_bias`: the loss uses the bias, which is
    trained with the scale; without, it keeps its value.
    """

    def __init__(self, encoder: Encoder, config: TrainConfig, *, with_bias: bool = False) -> None:
        super().__init__()
        self.model = encoder.model
        self._encoder = encoder
        self.frozen: dict[Tower, str] = {}  # tower -> "all" or "trunk"
        for tower in ("image", "text"):
            if tower in config.freeze:
                self.frozen[tower] = "all"
            elif f"{tower}-trunk" in config.freeze:
                self.frozen[tower] = "trunk"
        for tower, what in self.frozen.items():
            kept = projection_prefix(self.model, tower) if what == "trunk" else None
            for name, parameter in tower_parameters(self.model, tower).items():
                if kept is None or not (name == kept or name.startswith(f"{kept}.")):
                    parameter.requires_grad_(False)
        for pattern in config.freeze:
            if pattern not in TOWERS:
                self._freeze_matching(pattern)
        for name, still in (("logit_scale", False), ("logit_bias", not with_bias)):
            parameter = getattr(self.model, name, None)
            if isinstance(parameter, nn.Parameter) and (config.freeze_logit_scale or still):
                parameter.requires_grad_(False)

    def _freeze_matching(self, pattern: str) -> None:
        named = dict(self.model.named_parameters())
        chosen = fnmatch.filter(named, pattern)
        if not chosen:
            tops = sorted({name.split(".")[0] for name in named})
            raise MithridateError(
                f"freeze={pattern!r} is none of {', '.join(TOWERS)} and matches no parameter; "
                f"their names begin with {', '.join(tops)}"
            )
        for name in chosen:
            named[name].requires_grad_(False)

    def train(self, mode: bool = True) -> "TwoTower":
        super().train(mode)
        for tower, what in self.frozen.items():
            # eval mode is what freezes the statistics of batch norm
            for module in tower_modules(self.model, tower):
                module.eval()
            if what == "trunk" and mode:
                prefix = projection_prefix(self.model, tower)
                projection = dict(self.model.named_modules()).get(prefix)
                if projection is not None:
                    projection.train()
        return self

    def forward(
        self, views: Sequence[tuple[Tensor, Tensor]], no_gradient: Sequence[Tower] = ()
    ) -> tuple[list[tuple[Tensor, Tensor]], Tensor, Tensor | None]:
        """`no_gradient`: towers that are run without keeping what a backward pass would need."""

        def run(tower: Tower, batch: Tensor) -> Tensor:
            with torch.set_grad_enabled(torch.is_grad_enabled() and tower not in no_gradient):
                return self.encode(tower, batch)

        encoded = [(run("image", images), run("text", tokens)) for images, tokens in views]
        return encoded, self.model.get_parameter("logit_scale").exp(), getattr(self.model, "logit_bias", None)

    def encode(self, tower: Tower, batch: Tensor) -> Float[Tensor, "b d"]:
        """Unit-length embeddings of a batch of a tower's input."""
        given = batch.dtype != torch.uint8 if tower == "image" else batch.is_floating_point()
        with _attention(batch.device):
            embedding = self._embed(tower, batch, given=given)
        return nn.functional.normalize(embedding.float(), dim=-1)

    def _embed(self, tower: Tower, batch: Tensor, *, given: bool) -> Tensor:
        """Embeddings (b, d), not normalised; `given`: the batch holds features already."""
        frozen = self.frozen.get(tower)
        if frozen is None:
            return self._run(tower, batch)
        features = batch if given else self.features(tower, batch)
        return project(self.model, tower, features) if frozen == "trunk" else features

    def _run(self, tower: Tower, batch: Tensor) -> Tensor:
        if tower == "text":
            return text_embedding(self.model, batch)
        return self._encoder.image_embedding(batch)

    @torch.no_grad()
    def features(self, tower: Tower, batch: Tensor) -> Float[Tensor, "b width"]:
        """What the frozen part of a tower makes of a batch."""
        if self.frozen[tower] == "all":
            return self._run(tower, batch)
        with without_projection(self.model, tower):
            return self._run(tower, batch)


def _attention(device: torch.device) -> AbstractContextManager:
    """On a CPU, forward and backward as plain products: at CLIP's lengths (20 to 77) half the time of the fused kernel.

    At 257 positions it is 1.15 times the fused kernel's; no model so large is trained on a CPU for long.
    """
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict]:
    """Trainable parameters in two groups: matrices decay; biases, norms and scalars do not."""
    decayed, plain = [], []
    for parameter in module.parameters():
        if parameter.requires_grad:
            (decayed if parameter.ndim >= 2 else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def cosine_lr(step: int, total: int, *, peak: float, floor: float, warmup: int) -> float:
    """Learning rate of the 0-based `step`: linear to `peak` over `warmup` steps, then a cosine to `floor`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    return floor + (peak - floor) * 0.5 * (1 + float(np.cos(np.pi * done)))
