"""Pruning: channels that clean images do not use, channels of large Lipschitz constant, heads that a trigger moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mithridate.encoder.encoder import Encoder
from mithridate.errors import InspectionError
from mithridate.inspection.material import embedded
from mithridate.inspection.view import image_features
from mithridate.repairing.case import Candidate, Case
from mithridate.repairing.unlearn import fit


@dataclass(frozen=True, kw_only=True)
class FinePruning:
    """Channels of the last norms that clean images use least are cut, then the tower is tuned back (Liu et al. 2018).

    The tuning keeps the suspect's own embeddings of clean images. Image towers with batch norms alone.
    """

    name: ClassVar[str] = "fine-pruning"
    needs_start: ClassVar[bool] = False
    needs_findings: ClassVar[bool] = False

    shares: tuple[float, ...] = (0.2, 0.4, 0.6)
    last: int = 3
    steps: int = 40
    batch_size: int = 96
    lr: float = 3e-4

    def candidates(self, case: Case) -> Iterator[Candidate]:
        norms = batch_norms(case.encoder)[-self.last :]
        used = _use(case.encoder, norms, case.data.images[:256])
        teacher, images = embedded(case.encoder, case.data.images), case.data.images
        for number, share in enumerate(self.shares):
            made = case.encoder.copy()
            for name, use in zip(norms, used):
                _cut(made, name, use <= use.quantile(share))
            drawn = case.generator("fine-pruning", number)

            def loss(made: Encoder = made, drawn: torch.Generator = drawn) -> Tensor:
                rows = torch.randint(len(images), (self.batch_size,), generator=drawn)
                return (1 - (image_features(made, images[rows]) * teacher[rows]).sum(dim=1)).mean()

            fit(made, "image", loss, steps=self.steps, lr=self.lr)
            yield Candidate(f"{share} of the last channels", made)


@dataclass(frozen=True, kw_only=True)
class ChannelPruning:
    """Channels whose bound on the Lipschitz constant is an outlier of its layer are cut (CLP, Zheng et al., ECCV 2022).

    sigma_max of the channel's weights times |gamma / std|, above the layer's mean + u standard deviations. Needs no
    data. Image towers with batch norms alone.
    """

    name: ClassVar[str] = "channel-pruning"
    needs_start: ClassVar[bool] = False
    needs_findings: ClassVar[bool] = False

    thresholds: tuple[float, ...] = (5.0, 4.0, 3.0, 2.5, 2.0)

    def candidates(self, case: Case) -> Iterator[Candidate]:
        layers = [(conv, norm) for conv, norm in _convolutions(case.encoder)]
        for u in self.thresholds:
            made = case.encoder.copy()
            for conv, norm in layers:
                bound = _lipschitz(made, conv, norm)
                _cut(made, norm, bound > bound.mean() + u * bound.std())
            yield Candidate(f"above {u} standard deviations", made)


@dataclass(frozen=True, kw_only=True)
class HeadAblation:
    """Heads of the last blocks whose output a recovered trigger moves most are cut (after Decomposition, ICML 2025).

    Image towers that are open_clip's vision transformers alone.
    """

    name: ClassVar[str] = "head-ablation"
    needs_start: ClassVar[bool] = False
    needs_findings: ClassVar[bool] = True

    blocks: int = 2
    counts: tuple[int, ...] = (1, 2, 4)

    def candidates(self, case: Case) -> Iterator[Candidate]:
        names = [n for n, m in case.encoder.model.get_submodule("visual").named_modules() if _attends(m)][
            -self.blocks :
        ]
        if not names:
            raise InspectionError("head ablation needs a vision transformer, and the image tower has no attention")
        found = [f.trigger for f in case.findings if f.trigger is not None]
        if not found:
            raise InspectionError("head ablation needs a recovered image trigger, and none was flagged; use unlearn")
        images = case.data.images[:128]
        moved: list[tuple[float, str, int]] = []
        before = _inputs(case.encoder, names, images)
        after = _inputs(case.encoder, names, found[0].stamp(images))
        for name in names:
            heads = _attention(case.encoder, name).num_heads
            change = (after[name] - before[name]).unflatten(-1, (heads, -1)).norm(dim=-1)
            moved += [(value, name, head) for head, value in enumerate(change.flatten(0, -2).mean(dim=0).tolist())]
        moved.sort(reverse=True)
        for count in self.counts:
            made = case.encoder.copy()
            for _, name, head in moved[:count]:
                layer = _attention(made, name)
                width = layer.embed_dim // layer.num_heads
                with torch.no_grad():
                    layer.out_proj.weight[:, head * width : (head + 1) * width] = 0
            yield Candidate("1 head" if count == 1 else f"{count} heads", made)


def _attention(encoder: Encoder, name: str) -> nn.MultiheadAttention:
    """A layer of the image tower that `_attends`."""
    layer = encoder.model.get_submodule(f"visual.{name}")
    assert isinstance(layer, nn.MultiheadAttention)
    return layer


def batch_norms(encoder: Encoder) -> list[str]:
    """The batch norms of the image tower by name. Raises `InspectionError` where it has none."""
    visual = encoder.model.get_submodule("visual")
    names = [name for name, module in visual.named_modules() if isinstance(module, nn.BatchNorm2d)]
    if not names:
        raise InspectionError("pruning of channels needs batch norms, and the image tower has none; use unlearn")
    return names


def _convolutions(encoder: Encoder) -> list[tuple[str, str]]:
    """Each convolution with the batch norm that follows it, of as many channels."""
    batch_norms(encoder)
    found, last = [], None
    for name, module in encoder.model.get_submodule("visual").named_modules():
        if isinstance(module, nn.Conv2d):
            last = name, module.out_channels
        elif isinstance(module, nn.BatchNorm2d) and last is not None and last[1] == module.num_features:
            found.append((last[0], name))
            last = None
    return found


def _lipschitz(encoder: Encoder, conv: str, norm: str) -> Float[Tensor, " c"]:
    visual = encoder.model.get_submodule("visual")
    weight = visual.get_submodule(conv).get_parameter("weight").detach()
    layer = visual.get_submodule(norm)
    std = (layer.get_buffer("running_var") + layer.eps).sqrt()  # type: ignore[operator]
    largest = torch.linalg.matrix_norm(weight.flatten(2), ord=2)  # (c, in, k k): the largest singular value of each
    return largest * (layer.get_parameter("weight").detach() / std).abs()


def _cut(encoder: Encoder, norm: str, channels: Bool[Tensor, " c"]) -> None:
    layer = encoder.model.get_submodule(f"visual.{norm}")
    with torch.no_grad():
        layer.get_parameter("weight")[channels] = 0
        layer.get_parameter("bias")[channels] = 0


@torch.no_grad()
def _use(encoder: Encoder, norms: Sequence[str], images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, " c"]]:
    """By norm the mean of what each channel passes on."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _given, made: found.__setitem__(name, made.relu().mean(dim=(0, 2, 3)))

    with ExitStack() as stack:
        for name in norms:
            layer = encoder.model.get_submodule(f"visual.{name}")
            stack.callback(layer.register_forward_hook(keep(name)).remove)
        image_features(encoder, images)
    return [found[name] for name in norms]


@torch.no_grad()
def _inputs(encoder: Encoder, names: Sequence[str], images: Float[Tensor, "b 3 h w"]) -> dict[str, Tensor]:
    """By attention what its output projection is given: the heads side by side."""
    found: dict[str, Tensor] = {}

    def attended(name: str, layer: nn.Module) -> Callable[..., None]:
        # the projection is a call of torch.nn.functional, which no hook sees: solved for from what it gives
        weight, bias = layer.out_proj.weight, layer.out_proj.bias  # type: ignore[union-attr]
        inverse = torch.linalg.pinv(weight)  # type: ignore[arg-type]
        return lambda _module, _given, made: found.__setitem__(name, (made[0] - bias) @ inverse.T)

    with ExitStack() as stack:
        for name in names:
            layer = encoder.model.get_submodule(f"visual.{name}")
            stack.callback(layer.register_forward_hook(attended(name, layer)).remove)
        image_features(encoder, images)
    return found


def _attends(module: nn.Module) -> bool:
    return isinstance(module, nn.MultiheadAttention)
