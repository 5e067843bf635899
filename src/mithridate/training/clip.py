"""Plain CLIP: the symmetric contrastive loss (Radford et al., 2021, figure 3)."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class EncodedBatch:
    """What an objective sees of a step: unit-length embeddings of the whole batch, of all processes."""

    image: Float[Tensor, "b d"]
    text: Float[Tensor, "b d"]
    scale: Float[Tensor, ""]  # exp of the logit scale
    row: Int[Tensor, " b"]  # which pair of the training set each is
    epoch: int
    step: int


@runtime_checkable
class Objective(Protocol):
    """An `nn.Module`: a batch in, one finite number with a gradient out. Its state is saved with the model's."""

    def __call__(self, batch: EncodedBatch) -> Float[Tensor, ""]: ...


class Clip(nn.Module):
    """Plain CLIP."""

    def forward(self, batch: EncodedBatch) -> Float[Tensor, ""]:
        return clip_loss(batch.image, batch.text, batch.scale)


def clip_loss(image: Float[Tensor, "b d"], text: Float[Tensor, "b d"], scale: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Mean of both cross-entropies: each image among the batch's texts, each text among its images."""
    logits = scale * image @ text.T  # (b, b)
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
