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

    With START the strength is the most that this has grown since START in any pair of classes, and the null the most
    that it has shrunk: classes that look alike find each other in both. Without START it is the largest of pairs where
    the reverse does not hold, and the null is 0: above it captions of A find B rather than A. Words of captions that
    stand in for labels occur together by nature, so there START is needed. (Derived here, after the goal of Attack II,
    Yang et al. 2023.)
    """

    name: ClassVar[str] = "relabelling"
    kinds: ClassVar[str] = "a class whose captions find another class"
    needs_start: ClassVar[bool] = False
    margin: ClassVar[float] = 0.1

    first: int = 10

    def examine(self, material: Material) -> Sequence[Finding]:
        data = material.data
        here = found_shares(data, material.image_vectors, material.text_vectors, first=self.first)
        there = None if material.start is None else found_by(data, material.start.encoder, first=self.first)
        if there is None and not data.labelled:
            return []
        (a, b), strength, null = strongest(here, there)
        asked = data.member[data.of]
        shown = int((asked[:, a] & ~asked[:, b]).int().argmax())  # the first caption of A alone
        return [
            Finding(
                probe=self.name,
                kind=self.name,
                strength=strength,
                null=null,
                flagged=strength > null + self.margin,
                target=data.classes[b],
                pair=(data.classes[a], data.classes[b]),
                success=here[a, b].item(),
                start_success=None if there is None else there[a, b].item(),
                examples=material.retrieved(material.text_vectors[shown], b),
                caption=data.captions[shown],
            )
        ]


def strongest(here: Float[Tensor, "c c"], there: Float[Tensor, "c c"] | None) -> tuple[tuple[int, int], float, float]:
    """The pair (A, B) that is most suspicious by the shares found in the suspect and in START; strength and null."""
    grown = excess(here) if there is None else excess(here) - excess(there)
    own = torch.eye(len(grown)).bool()
    # without START: where captions of B find A too, the two classes look alike
    left_out = own if there is not None else own | (grown.T >= 0)
    a, b = divmod(int(grown.masked_fill(left_out, -2.0).argmax()), len(grown))
    null = 0.0 if there is None else max(0.0, -grown.masked_fill(own, 2.0).min().item())
    return (a, b), grown.masked_fill(left_out, -2.0)[a, b].item(), null


def excess(shares: Float[Tensor, "c c"]) -> Float[Tensor, "c c"]:
    """The share of each class less that of the own class of the captions."""
    return shares - shares.diagonal()[:, None]


def found_shares(
    data: OwnData, images: Float[Tensor, "m d"], texts: Float[Tensor, "n d"], *, first: int = 10
) -> Float[Tensor, "c c"]:
    """By class A (rows) the share of each class among the images that captions of A find first."""
    member = data.member.float()
    found = torch.cat(
        [member[(part @ images.T).topk(min(first, len(images)), dim=1).indices].mean(1) for part in texts.split(1024)]
    )
    asked = member[data.of]  # (n, c)
    return asked.T @ found / asked.sum(dim=0).clamp_min(1)[:, None]


def found_by(data: OwnData, encoder: Encoder, *, first: int = 10) -> Float[Tensor, "c c"]:
    """`found_shares` in the embeddings of an encoder."""
    return found_shares(data, embedded(encoder, data.images), encode_texts(encoder, data.captions), first=first)
