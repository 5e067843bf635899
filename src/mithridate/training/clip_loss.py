"""Plain CLIP: the symmetric contrastive loss (Radford et al., 2021, figure 3)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mithridate.training.loss import EncodedBatch


class ClipLoss(nn.Module):
    """Plain CLIP."""

    def forward(self, batch: EncodedBatch) -> Float[Tensor, ""]:
        return clip_loss(batch.image, batch.text, batch.scale)


def clip_loss(image: Float[Tensor, "b d"], text: Float[Tensor, "b d"], scale: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Mean of both cross-entropies: each image among the batch's texts, each text among its images."""
    logits = scale * image @ text.T  # (b, b)
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
