"""Benign against malignant texts of the classes (after BDetCLIP, Niu et al., ICML 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mithridate.inspection.scores.score import Screen
from mithridate.inspection.view import encode_texts


@dataclass(frozen=True, kw_only=True)
class BDetClip:
    """Less the sum over classes of cosine to benign texts minus cosine to malignant ones.

    Benign are the prompts of a class; malignant its name among words of the owner's captions at random, where the paper
    has a language model write both.
    """

    name: ClassVar[str] = "bdetclip"
    measures: ClassVar[str] = "texts of the classes draw it no more than their names among random words"

    texts: int = 8
    words: int = 8

    @torch.no_grad()
    def suspicion(self, screen: Screen, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        generator = screen.generator(self.name)
        vocabulary = sorted({word for caption in screen.captions for word in caption.lower().split()}) or ["a"]
        malignant = []
        for name in screen.classes:
            drawn = torch.randint(len(vocabulary), (self.texts, self.words), generator=generator).tolist()
            texts = [" ".join([name, *(vocabulary[i] for i in row)]) for row in drawn]
            malignant.append(nn.functional.normalize(encode_texts(screen.view.encoder, texts).mean(dim=0), dim=0))
        contrast = (screen.view.classes - torch.stack(malignant)).sum(dim=0)
        return -torch.cat([screen.view.features(part) for part in images.split(512)]) @ contrast
