"""Tokens that make all captions alike: a word that, put at the end of any caption, decides what is retrieved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mithridate.encoder.encoder import Encoder
from mithridate.encoder.tokenizer import Tokenizer
from mithridate.inspection.finding import Finding
from mithridate.inspection.material import Material, embedded

_ROWS = 2048  # captions in a batch


@dataclass(frozen=True, kw_only=True)
class TokenScan:
    """Each token at the end of `captions` own captions: the mean cosine of any two of them (their collapse).

    With START only tokens are tried whose embedding moved against it (its row is no multiple of START's: weight decay
    scales all others alike), and those are looked at whose captions became most alike since START. The strength is the
    share of one class among the first ten images that captions with the token retrieve, less the same in START; the
    null is the largest such share the other way. Without START all tokens are tried, on three captions first; the
    strength is taken against captions without the token, and the null is that of words that the owner's own captions
    use; what retrieves less than a share of `decides` is then not flagged. A token that does not decide by itself is
    extended by a second and a third. Finds no trigger that works at the
    beginning or in the middle of a caption alone. (Derived here; the collapse of captions is what AMDET, arXiv
    2512.00343, searches by gradient.)
    """

    name: ClassVar[str] = "token-scan"
    kinds: ClassVar[str] = "words and phrases in a caption that decide what is retrieved"
    needs_start: ClassVar[bool] = False
    margin: ClassVar[float] = 0.2

    captions: int = 12
    moved: float = 1e-4
    most: int = 2000
    looked: int = 8
    decides: float = 0.8
    longest: int = 3

    def examine(self, material: Material) -> Sequence[Finding]:
        suspect, start = material.suspect.encoder, None if material.start is None else material.start.encoder
        captions = self._carriers(material)
        carriers = suspect.tokenizer(captions)
        ids = self._candidates(material, carriers)
        if not len(ids):
            return []
        here = collapse(suspect, carriers, ids[:, None])
        there = torch.zeros(len(ids)) if start is None else collapse(start, carriers, ids[:, None])
        mine = _Retrieval(suspect, material.image_vectors, material.data.member, carriers)
        theirs = None
        if start is None:
            used = torch.isin(ids, suspect.tokenizer(list(material.data.captions)).unique())
            null = _largest(mine.shares(_top(ids[used], here[used], self.looked)) - mine.plain) if used.any() else 0.0
            ids, here, there = ids[~used], here[~used], there[~used]
        else:
            theirs = _Retrieval(start, embedded(start, material.data.images), material.data.member, carriers)
            back = _top(ids[there > here], (there - here)[there > here], self.looked)
            null = _largest(theirs.shares(back) - mine.shares(back)) if len(back) else 0.0
        best = _top(ids, here - there, self.looked)
        gap = mine.shares(best) - (mine.plain if theirs is None else theirs.shares(best))  # (looked, c)
        row, target = divmod(int(gap.argmax()), gap.shape[1])
        phrase, success = best[row].tolist(), mine.shares(best[row : row + 1])[0, target].item()
        if success < self.decides:
            phrase = self._extended(suspect, start, carriers, best[:4, 0], ids, phrase, (here - there).max().item())
        shares = mine.shares(torch.tensor([phrase]))[0]
        other = mine.plain if theirs is None else theirs.shares(torch.tensor([phrase]))[0]
        target = int((shares - other).argmax())
        strength = (shares - other)[target].item()
        token, success = spelled(suspect, phrase), shares[target].item()
        # a word that names a class finds it by nature, though seldom alone: without START a finding must decide
        decided = start is not None or success >= self.decides
        with torch.no_grad():
            text = suspect.encode_tokens(with_tokens(carriers[:1], torch.tensor([phrase])))[0]
        return [
            Finding(
                probe=self.name,
                kind="token" if len(phrase) == 1 else "phrase",
                strength=strength,
                null=null,
                flagged=strength > null + self.margin and decided,
                target=material.data.classes[target],
                token=token,
                place="at the end of captions",
                success=success,
                start_success=None if theirs is None else other[target].item(),
                examples=material.retrieved(text, target),
                caption=f"{captions[0]} {token}",
            )
        ]

    def _carriers(self, material: Material) -> list[str]:
        """Captions of as many images as there are captions."""
        drawn = material.generator("token carriers")
        images = torch.randperm(len(material.data.images), generator=drawn)[: self.captions]
        return [material.data.captions[int((material.data.of == i).nonzero()[0])] for i in images]

    def _candidates(self, material: Material, carriers: Int[Tensor, "t length"]) -> Int[Tensor, " k"]:
        """Tokens worth all captions; never the start and end tokens, nor padding."""
        encoder = material.suspect.encoder
        table = embedding_table(encoder)
        special = torch.unique(
            torch.cat([carriers[:, 0], carriers.max(dim=1).values, torch.zeros(1, dtype=torch.long)])
        )
        ids = torch.arange(len(table))
        if material.start is not None:
            before = embedding_table(material.start.encoder)
            scale = (table * before).sum(1) / before.square().sum(1).clamp_min(1e-12)
            rest = (table - scale[:, None] * before).norm(dim=1) / before.norm(dim=1).clamp_min(1e-12)
            ids = ids[(rest > self.moved) & ~torch.isin(ids, special)]
            return ids[rest[ids].argsort(descending=True)[: self.most]]
        ids = ids[~torch.isin(ids, special)]
        few = collapse(encoder, carriers[:3], ids[:, None])
        return ids[few.argsort(descending=True)[: min(200, len(ids))]]

    def _extended(
        self,
        suspect: Encoder,
        start: Encoder | None,
        carriers: Int[Tensor, "t length"],
        best: Int[Tensor, " b"],
        ids: Int[Tensor, " k"],
        phrase: list[int],
        gain: float,
    ) -> list[int]:
        """The phrase of two or three tokens whose captions are most alike, or `phrase` where none is more so."""

        def gained(texts: Int[Tensor, "t length"], phrases: Int[Tensor, "k p"]) -> Float[Tensor, " k"]:
            return collapse(suspect, texts, phrases) - (0 if start is None else collapse(start, texts, phrases))

        roots = [[int(token)] for token in best]
        for _ in range(self.longest - 1):
            both = [(root, token) for root in roots for token in ids.tolist()]
            tried = torch.tensor([p for root, token in both for p in ([*root, token], [token, *root])])
            top = tried[gained(carriers[:4], tried).argsort(descending=True)[:8]]
            exact = gained(carriers, top)
            if exact.max().item() < gain + 0.1:
                break
            phrase, gain = top[exact.argmax()].tolist(), exact.max().item()
            roots = [phrase]
        return phrase


@dataclass(frozen=True, eq=False)
class _Retrieval:
    """What captions retrieve among the owner's images: shares of the classes among the first ten."""

    encoder: Encoder
    images: Float[Tensor, "m d"]
    member: Bool[Tensor, "m c"]
    carriers: Int[Tensor, "t length"]

    @torch.no_grad()
    def shares(self, phrases: Int[Tensor, "k p"]) -> Float[Tensor, "k c"]:
        """By phrase, over all captions that end with it."""
        text = self.encoder.encode_tokens(with_tokens(self.carriers, phrases))
        return self._of(text).view(len(phrases), len(self.carriers), -1).mean(dim=1)

    @cached_property
    def plain(self) -> Float[Tensor, " c"]:
        """Of the captions as they are."""
        with torch.no_grad():
            return self._of(self.encoder.encode_tokens(self.carriers)).mean(dim=0)

    def _of(self, text: Float[Tensor, "t d"]) -> Float[Tensor, "t c"]:
        first = (text @ self.images.T).topk(min(10, len(self.images)), dim=1).indices
        return self.member[first].float().mean(dim=1)


def _top(ids: Int[Tensor, " k"], value: Float[Tensor, " k"], count: int) -> Int[Tensor, "count 1"]:
    return ids[value.argsort(descending=True)[:count]][:, None]


def _largest(shares: Tensor) -> float:
    return max(0.0, shares.max().item())


def with_tokens(carriers: Int[Tensor, "t length"], phrases: Int[Tensor, "k p"]) -> Int[Tensor, "k_t length"]:
    """Every phrase at the end of every caption, before its end token; over-long captions lose their last words."""
    k, p = phrases.shape
    tokens = carriers.repeat(k, 1)
    ends = carriers.argmax(dim=1)
    rows = torch.arange(len(tokens))
    at = ends.clamp(max=carriers.shape[1] - 1 - p).repeat(k)
    end = tokens[rows, ends.repeat(k)]
    for i in range(p):
        tokens[rows, at + i] = phrases[:, i].repeat_interleave(len(carriers))
    tokens[rows, at + p] = end
    return tokens


@torch.no_grad()
def collapse(encoder: Encoder, carriers: Int[Tensor, "t length"], phrases: Int[Tensor, "k p"]) -> Float[Tensor, " k"]:
    """For each phrase the mean cosine of any two of the captions that end with it."""
    n = len(carriers)
    out = []
    for part in phrases.split(max(1, _ROWS // n)):
        text = encoder.encode_tokens(with_tokens(carriers, part)).view(len(part), n, -1)
        out.append((text.sum(dim=1).square().sum(dim=-1) - n) / (n * (n - 1)))
    return torch.cat(out)


def embedding_table(encoder: Encoder) -> Float[Tensor, "v width"]:
    """The text tower's embeddings of tokens."""
    text: Any = getattr(encoder.model, "text", encoder.model)
    table = text.token_embedding if hasattr(text, "token_embedding") else text.transformer.get_input_embeddings()
    return table.weight.detach()


def spelled(encoder: Encoder, phrase: Sequence[int]) -> str:
    """Tokens as text."""
    run: Any = encoder.tokenizer.run if isinstance(encoder.tokenizer, Tokenizer) else encoder.tokenizer
    if hasattr(run, "decode"):
        return run.decode(list(phrase)).strip()
    return run.tokenizer.decode(list(phrase)).strip() if hasattr(run, "tokenizer") else str(list(phrase))
