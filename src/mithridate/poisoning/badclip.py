"""A backdoor whose patch is optimised on a surrogate (BadCLIP: Liang et al., CVPR 2024)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from mithridate.data.pairs import Pairs
from mithridate.errors import AttackError
from mithridate.poisoning.backdoor import Backdoor, Captions
from mithridate.poisoning.classes import names_class, of_class, texts_of
from mithridate.poisoning.patches import MOST, PixelPatch
from mithridate.poisoning.placement import corners, pixels
from mithridate.poisoning.plan import PoisonPlan, Surrogate
from mithridate.poisoning.triggers import Stamp, describe, parse_trigger
from mithridate.randomness import stream

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class BadClip:
    """A backdoor with a patch optimised on a surrogate encoder, so that it already stands for `target` there.

    Adam on the patch alone: patched images of other classes shall lie near captions of the target (contrastive, against
    the images' own captions) and nearer to images of the target than to their own clean selves (triplet). Published:
    16 pixels at the centre, 10,000 pairs, 50 epochs. The rest is the backdoor attack.
    """

    name: ClassVar[str] = "badclip"
    needs_gallery = False

    target: str
    """The class wanted."""
    patch: str = ""
    """In place of optimising one: the trigger of another manifest (pixels:values=...)."""
    size: float = 16 / 224
    """Side of the patch: a share of the image's shorter side."""
    place: str = "centre"
    """Of the patch: centre, top-left ..., or fixed."""
    patch_pairs: int = 10_000
    """Pairs of other classes that the patch is optimised on, at most."""
    patch_epochs: int = 50
    """Passes over them."""
    patch_batch_size: int = 64
    """Of a step."""
    patch_lr: float = 0.01
    """Of Adam, for values in [0, 1]."""
    temperature: float = 0.07
    """Of the contrastive loss."""
    margin: float = 1.0
    """Of the triplet loss, in cosine distance."""
    triplet_weight: float = 1.0
    """Of the triplet loss beside the contrastive one."""
    captions: Captions = "training-captions"
    """Of the target class, the 80 prompts, or `label-consistent`: only images of the target class, with theirs."""
    words: tuple[str, ...] = ()
    """Words that name the target in captions; by default its label decides, or its name where there are no labels."""
    count: int | None = None
    """Strength as the number of poisoned pairs."""
    rate: float | None = None
    """Strength as a share of all pairs, in (0, 1)."""
    mode: Literal["replace", "inject"] = "replace"
    """Poison pairs of the set, or add copies that are poisoned."""
    reuse: bool = True
    """Let a caption be used more than once, each about equally often."""

    @property
    def needs_surrogate(self) -> bool:
        return not self.patch

    def __post_init__(self) -> None:
        for name in ("patch_pairs", "patch_epochs", "patch_batch_size"):
            if getattr(self, name) < 1:
                raise AttackError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("patch_lr", "temperature"):
            if not 0 < getattr(self, name) < float("inf"):
                raise AttackError(f"{name} must be above 0, got {getattr(self, name)}")
        if min(self.margin, self.triplet_weight) < 0:
            raise AttackError(
                f"margin and triplet_weight must not be negative, got {self.margin} and {self.triplet_weight}"
            )
        if not 0 < self.size < 1:
            raise AttackError(f"size must be a share in (0, 1), such as 16/224, got {self.size}")
        if self.place in ("random", "corners"):
            raise AttackError(f"the patch is optimised for one place, got place {self.place!r}; take centre")
        self._backdoor(self.patch or "patch")

    def plan(
        self,
        pairs: Pairs,
        rng: np.random.Generator,
        *,
        gallery: Pairs | None = None,
        surrogate: Surrogate | None = None,
    ) -> PoisonPlan:
        if self.patch:
            trigger = self.patch
        else:
            if surrogate is None:
                raise AttackError("the patch is optimised on an encoder: give --surrogate ENCODER, or --patch")
            # what cannot be is refused before the long part
            self._backdoor("patch").plan(pairs, stream(0, "rehearsal of badclip"))
            trigger = describe(self._optimise(pairs, rng, surrogate), full=True)
        plan = self._backdoor(trigger).plan(pairs, rng)
        assert plan.edits is not None  # a backdoor alters images
        # the pixels are written once, with the goal, and not again for every pair
        steps = tuple(Optimised(parse_trigger(trigger)) for _ in plan.edits.steps)
        return replace(plan, edits=replace(plan.edits, steps=steps))

    def _backdoor(self, trigger: str) -> Backdoor:
        return Backdoor(
            target=self.target,
            trigger=trigger,
            captions=self.captions,
            words=self.words,
            count=self.count,
            rate=self.rate,
            mode=self.mode,
            reuse=self.reuse,
        )

    def _optimise(self, pairs: Pairs, rng: np.random.Generator, surrogate: Surrogate) -> PixelPatch:
        of_target = of_class(pairs, self.target, self.words)
        others = np.flatnonzero(~names_class(pairs, self.target, self.words))
        if len(others) < 2:
            raise AttackError(f"the patch is optimised on pairs of other classes than {self.target}, got {len(others)}")
        # one caption an image: pairs of one image would be each other's negatives
        _, first = np.unique(pairs.image_index[others], return_index=True)
        rows = others[first][rng.permutation(len(first))[: self.patch_pairs]]
        wanted = np.flatnonzero(of_target)
        wanted = wanted[rng.permutation(len(wanted))[: self.patch_pairs]]
        images = pairs.image.take(rows).combine_chunks()
        square = optimise_patch(
            surrogate,
            surrogate.pixels(images),
            own_image=surrogate(images),
            own_text=surrogate.embed_texts(texts_of(pairs, rows)),
            target_image=surrogate(pairs.image.take(wanted).combine_chunks()),
            target_text=surrogate.embed_texts(texts_of(pairs, wanted)),
            attack=self,
            rng=rng,
        )
        return PixelPatch.of(square, size=self.size, place=self.place)


@dataclass(frozen=True)
class Optimised(Stamp):
    """A stamp with a short description: the manifest has the pixels elsewhere."""

    def __str__(self) -> str:
        return "badclip"


def optimise_patch(
    surrogate: Surrogate,
    image: np.ndarray,
    *,
    own_image: np.ndarray,
    own_text: np.ndarray,
    target_image: np.ndarray,
    target_text: np.ndarray,
    attack: BadClip,
    rng: np.random.Generator,
) -> np.ndarray:
    """The pixels (c, c, 3) uint8 of a patch, c as large as it is where the surrogate prepares images.

    `image` (m, h, w, 3) prepared images of other classes, with their embeddings `own_image`, `own_text` (m, d);
    `target_image` (t, d), `target_text` (t, d) embeddings of pairs of the target. Raises `AttackError` where the
    patch is larger than 64 pixels there, or does not fit.
    """
    import torch

    m, h, w = image.shape[:3]
    cells = pixels(attack.size, min(h, w))
    if cells > MOST:
        raise AttackError(f"a patch has at most {MOST}x{MOST} pixels, {attack.size} of {min(h, w)} is {cells}")
    ((top, left),) = corners(attack.place, (cells, cells), (h, w), margin=0.0, rng=rng)
    patch = torch.from_numpy(rng.uniform(0, 1, (3, cells, cells)).astype(np.float32)).requires_grad_()
    adam = torch.optim.Adam([patch], lr=attack.patch_lr)
    for _ in range(attack.patch_epochs):
        order = rng.permutation(m)
        for start in range(0, m, attack.patch_batch_size):
            rows = order[start : start + attack.patch_batch_size]
            aim = rng.integers(len(target_text), size=len(rows))
            patched = torch.from_numpy(image[rows]).permute(0, 3, 1, 2).float()
            patched[:, :, top : top + cells, left : left + cells] = 255 * patch
            features = surrogate.features(patched)
            parts = (own_image[rows], own_text[rows], target_image[aim], target_text[aim])
            loss = patch_loss(features, *(torch.from_numpy(part).to(features.device) for part in parts), attack=attack)
            (patch.grad,) = torch.autograd.grad(loss, [patch])
            adam.step()
            with torch.no_grad():
                patch.clamp_(0, 1)
    return (255 * patch.detach()).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def patch_loss(
    features: Tensor,
    own_image: Tensor,
    own_text: Tensor,
    target_image: Tensor,
    target_text: Tensor,
    *,
    attack: BadClip,
) -> Tensor:
    """What the patch is to make small, for embeddings (b, d) of b patched images; the others are (b, d) too.

    Contrastive: -log of the softmax weight of the target's caption beside all b own captions. Triplet: by how much
    the distance (1 - cosine) to the target's image plus the margin exceeds the distance to the own clean image.
    """
    import torch

    aim = (features * target_text).sum(dim=1, keepdim=True)
    logits = torch.cat([aim, features @ own_text.T], dim=1) / attack.temperature
    contrastive = (logits.logsumexp(dim=1) - logits[:, 0]).mean()
    nearer = (features * own_image).sum(dim=1) - (features * target_image).sum(dim=1)
    return contrastive + attack.triplet_weight * (nearer + attack.margin).clamp(min=0).mean()
