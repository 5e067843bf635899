"""An encoder as probes see it: differentiable from pixels to classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mithridate.data.prompts import prompts, templates
from mithridate.encoder.encoder import Encoder
from mithridate.encoder.towers import image_embedding

_BATCH = 512


@dataclass(frozen=True, eq=False)
class View:
    """An encoder with the unit vectors of the classes (c, d) that it is held against."""

    encoder: Encoder
    classes: Float[Tensor, "c d"]

    def features(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Unit vectors of images of values 0 to 1, with a gradient to them."""
        return image_features(self.encoder, images)

    def logits(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c"]:
        """Cosine to each class, times the model's own scale."""
        scale = self.encoder.model.get_parameter("logit_scale").detach().exp().clamp(max=100.0)
        return scale * self.features(images) @ self.classes.T

    @torch.no_grad()
    def predicted(self, images: Float[Tensor, "b 3 h w"]) -> Int[Tensor, " b"]:
        """The class that each image is taken for."""
        return torch.cat([self.logits(part).argmax(dim=1) for part in images.split(_BATCH)])


def image_features(encoder: Encoder, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
    """Unit vectors of images of values 0 to 1, with a gradient to them."""
    cfg = encoder.config["preprocess_cfg"]
    mean, std = (images.new_tensor(cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    ready = ((images - mean) / std).to(encoder.device)
    return nn.functional.normalize(image_embedding(encoder.model, ready).float(), dim=-1)


@torch.no_grad()
def class_vectors(encoder: Encoder, names: Sequence[str]) -> Float[Tensor, "c d"]:
    """One unit vector a class: the mean over the seven prompts of CLIP's `simple` set."""
    each = templates("simple")
    texts = [text for name in names for text in prompts(name, each)]
    vectors = encode_texts(encoder, texts).view(len(names), len(each), -1).mean(dim=1)
    return nn.functional.normalize(vectors, dim=-1)


@torch.no_grad()
def encode_texts(encoder: Encoder, texts: Sequence[str]) -> Float[Tensor, "t d"]:
    """Unit vectors of captions."""
    parts = [encoder.encode_text(texts[low : low + _BATCH]) for low in range(0, len(texts), _BATCH)]
    return torch.cat(parts)
