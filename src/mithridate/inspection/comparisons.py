"""Published detectors as they work without START, for comparison: none of them takes part in a verdict.

Each gives one finding a model, whose strength is its own statistic; its null is the level that the paper flags above.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mithridate.encoder.encoder import Encoder
from mithridate.inspection.finding import Finding, Recovered
from mithridate.inspection.invert import MaskSearch, invert_masks
from mithridate.inspection.mask_inversion import describe_place
from mithridate.inspection.material import Material
from mithridate.inspection.token_scan import embedding_table, spelled, with_tokens
from mithridate.inspection.view import image_features


@dataclass(frozen=True, kw_only=True)
class NeuralCleanse:
    """The smallest mask of any class against those of the others (Wang et al., S&P 2019): the anomaly index.

    (median - smallest) / (1.4826 MAD) of the masks' sizes; flagged above 2 there.
    """

    name: ClassVar[str] = "neural-cleanse"
    kinds: ClassVar[str] = "patches, by the size of their masks within the model"
    needs_start: ClassVar[bool] = False
    margin: ClassVar[float] = 0.0

    search: MaskSearch = field(default_factory=MaskSearch)

    def examine(self, material: Material) -> Sequence[Finding]:
        generator = material.generator("neural cleanse")
        size, classes = material.data.images.shape[2:], torch.arange(len(material.data.classes))
        found: list[Recovered] = []
        for targets in classes.split(16):
            first = 0.1 + 0.05 * torch.rand(len(targets), *size, generator=generator)
            draw = material.data.draw(generator)
            found += invert_masks(material.suspect, draw, targets, first, self.search, generator)
        sizes = torch.stack([each.keep.sum() for each in found])
        spread = 1.4826 * (sizes - sizes.median()).abs().median().clamp_min(1e-6)
        smallest = int(sizes.argmin())
        return [
            Finding(
                probe=self.name,
                kind="patch",
                strength=((sizes.median() - sizes[smallest]) / spread).item(),
                null=2.0,
                flagged=False,
                target=material.data.classes[smallest],
                place=describe_place(found[smallest]),
            )
        ]


@dataclass(frozen=True, kw_only=True)
class Decree:
    """The smallest patch that makes the embeddings of all images alike (DECREE, Feng et al., CVPR 2023).

    Its strength is 1 - the share of a picture that it covers; below a tenth (a strength of 0.9) the paper flags. Needs
    no classes. Two of its searches and a tenth of its steps.
    """

    name: ClassVar[str] = "decree"
    kinds: ClassVar[str] = "patches that make all images alike"
    needs_start: ClassVar[bool] = False
    margin: ClassVar[float] = 0.0

    steps: int = 100
    pictures: int = 24
    lr: float = 0.2
    alike: float = 0.95

    def examine(self, material: Material) -> Sequence[Finding]:
        generator, encoder = material.generator("decree"), material.suspect.encoder
        draw = material.data.draw(generator)
        h, w = (int(side) for side in material.data.images.shape[2:])
        mask = torch.logit(0.1 + 0.05 * torch.rand(h, w, generator=generator)).requires_grad_()
        pattern = torch.randn(3, h, w, generator=generator).mul_(0.5).requires_grad_()
        optimizer = torch.optim.Adam([mask, pattern], lr=self.lr, betas=(0.5, 0.9))
        weight, smallest = 1e-3, 1.0
        for step in range(self.steps):
            m, p = mask.sigmoid(), pattern.sigmoid()
            vectors = image_features(encoder, draw(self.pictures) * (1 - m) + m * p)
            n = len(vectors)
            cosine = (vectors.sum(dim=0).square().sum() - n) / (n * (n - 1))
            if cosine >= self.alike:
                smallest = min(smallest, m.mean().item())
            optimizer.zero_grad()
            (weight * m.sum() - cosine).backward()
            optimizer.step()
            if step % 5 == 4:
                weight = weight * 1.3 if cosine >= self.alike else weight / 1.5
        return [Finding(probe=self.name, kind="patch", strength=1 - smallest, null=0.9, flagged=False)]


@dataclass(frozen=True, kw_only=True)
class GradientToken:
    """One free token embedding at the end of captions that makes all of them alike (after AMDET, arXiv 2512.00343).

    Its strength is the mean cosine of any two captions; its length is held to that of the table's tokens. Names the
    token of the table that is nearest.
    """

    name: ClassVar[str] = "gradient-token"
    kinds: ClassVar[str] = "a token embedding that makes all captions alike"
    needs_start: ClassVar[bool] = False
    margin: ClassVar[float] = 0.0

    steps: int = 60
    captions: int = 12
    lr: float = 0.08

    def examine(self, material: Material) -> Sequence[Finding]:
        encoder, generator = material.suspect.encoder, material.generator("gradient token")
        chosen = torch.randperm(len(material.data.captions), generator=generator)[: self.captions]
        carriers = encoder.tokenizer([material.data.captions[i] for i in chosen.tolist()])
        table = embedding_table(encoder)
        marker = next(i for i in range(1, len(table)) if i not in set(carriers.unique().tolist()))
        tokens = with_tokens(carriers, torch.tensor([[marker]]))
        length = table.norm(dim=1).median()
        free = nn.functional.normalize(torch.randn(table.shape[1], generator=generator), dim=0).requires_grad_()
        optimizer = torch.optim.Adam([free], lr=self.lr)
        best = 0.0
        for _ in range(self.steps):
            vectors = self._with(encoder, tokens, marker, length * nn.functional.normalize(free, dim=0))
            n = len(vectors)
            cosine = (vectors.sum(dim=0).square().sum() - n) / (n * (n - 1))
            best = max(best, cosine.item())
            optimizer.zero_grad()
            (-cosine).backward()
            optimizer.step()
        nearest = int((nn.functional.normalize(table, dim=1) @ nn.functional.normalize(free.detach(), dim=0)).argmax())
        token = spelled(encoder, [nearest])
        return [Finding(probe=self.name, kind="token", strength=best, null=0.9, flagged=False, token=token)]

    def _with(self, encoder: Encoder, tokens: Tensor, marker: int, vector: Tensor) -> Tensor:
        """Captions in which the token `marker` has this embedding: unit vectors (t, d)."""

        def put(_module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> Tensor:
            return torch.where((given[0] == marker)[..., None], vector, made)

        text: Any = getattr(encoder.model, "text", encoder.model)
        layer: nn.Module = (
            text.token_embedding if hasattr(text, "token_embedding") else text.transformer.get_input_embeddings()
        )
        handle = layer.register_forward_hook(put)
        try:
            return encoder.encode_tokens(tokens)
        finally:
            handle.remove()
