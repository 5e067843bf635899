"""Captions of one class that find another: the retrieval confusion of own pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from mithridate.encoder.encoder import Encoder
from mithridate.inspection.finding import Finding
from mithridate.inspection.material import Material, OwnData, embedded
from mithridate.inspection.view import encode_texts


@dataclass(frozen=True, kw_only=True)
class Relabelling:
    """Captions of class A: the share of images of B among the first `first` that they find, less that of A.

    The strength is the largest over pairs of classes where the reverse does not hold: classes that look alike find
    each other. Above 0 captions of A find B rather than A, which is the null. Words of captions that stand in for
    labels occur together by nature: then START is needed, and what START does is taken off. (Derived here, after the
    goal of Attack II, Yang et al. 2023.)
    """

    name: ClassVar[str] = "relabelling"
    kinds: ClassVar[str] = "a class whose captions find another class"
    needs_start: ClassVar[bool] = False
    margin: ClassVar[float] = 0.05

    first: int = 10

    def examine(self, material: Material) -> Sequence[Finding]:
        excess = confusion(material.data, material.image_vectors, material.text_vectors, first=self.first)
        start = (
            None if material.start is None else confusion_of(material.data, material.start.encoder, first=self.first)
        )
        if not material.data.labelled:
            if start is None:
                return []
            excess = torch.minimum(excess, excess - start)
        one_way = torch.where(excess.T < 0, excess, torch.full_like(excess, -2.0))
        one_way.fill_diagonal_(-2.0)
        a, b = divmod(int(one_way.argmax()), len(one_way))
        strength, names = one_way[a, b].item(), material.data.classes
        asked = material.data.member[material.data.of]
        shown = int((asked[:, a] & ~asked[:, b]).int().argmax())  # the first caption of A alone
        return [
            Finding(
                probe=self.name,
                kind=self.name,
                strength=strength,
                null=0.0,
                flagged=strength > self.margin,
                target=names[b],
                pair=(names[a], names[b]),
                success=None,
                start_success=None if start is None else start[a, b].item(),
                examples=material.retrieved(material.text_vectors[shown], b),
                caption=material.data.captions[shown],
            )
        ]


def confusion(
    data: OwnData, images: Float[Tensor, "m d"], texts: Float[Tensor, "n d"], *, first: int = 10
) -> Float[Tensor, "c c"]:
    """By class A (rows) and B (columns) the share of B less that of A among what captions of A find first."""
    member = data.member.float()
    found = torch.cat(
        [member[(part @ images.T).topk(min(first, len(images)), dim=1).indices].mean(1) for part in texts.split(1024)]
    )
    asked = member[data.of]  # (n, c)
    share = asked.T @ found / asked.sum(dim=0).clamp_min(1)[:, None]
    return share - share.diagonal()[:, None]


def confusion_of(data: OwnData, encoder: Encoder, *, first: int = 10) -> Float[Tensor, "c c"]:
    """`confusion` in the embeddings of an encoder."""
    return confusion(data, embedded(encoder, data.images), encode_texts(encoder, data.captions), first=first)
