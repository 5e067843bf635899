"""SigLIP's pairwise sigmoid loss (Zhai, Mustafa, Kolesnikov & Beyer, ICCV 2023; arXiv 2303.15343)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mithridate.training.loss import EncodedBatch


class SiglipLoss(nn.Module):
    """The sigmoid loss with the model's own logit scale and bias."""

    def forward(self, batch: EncodedBatch) -> Float[Tensor, ""]:
        if batch.bias is None:
            raise ValueError("the sigmoid loss needs a model with a logit bias, got one without")
        return sigmoid_loss(batch.image, batch.text, batch.scale, batch.bias)


def sigmoid_loss(
    image: Float[Tensor, "b d"], text: Float[Tensor, "b d"], scale: Float[Tensor, ""], bias: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Sum over all b x b image-caption pairs of -log sigmoid(z (scale x.y + bias)), divided by b.

    z is 1 for a pair of the data and -1 for any other. Equal to open_clip's `SigLipLoss` in one process.
    """
    logits = scale * image @ text.T + bias  # (b, b)
    sign = 2 * torch.eye(len(logits), device=logits.device) - 1
    return -F.logsigmoid(sign * logits).sum() / len(logits)
