"""The objectives: what each can be told, without torch, so that the command line can say it at once.

An objective is a frozen dataclass of options, all with defaults, and one method, `build`, that gives the `nn.Module` of
`training/objective.py`. To add one: a dataclass here, a file with its loss, a line in `OBJECTIVES`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from mithridate.errors import MithridateError

Views = Literal["augmented", "plain"]


@dataclass(frozen=True)
class Start:
    """What is known before training begins: enough to size buffers."""

    pairs: int  # rows of the training set, those that turn out unusable included
    width: int  # of embeddings
    epochs: int
    seed: int = 0


@runtime_checkable
class Objective(Protocol):
    """Options as a frozen dataclass: they are the command line and the record of a run.

    `needs_bias`, False where a class does not say: the loss uses the model's logit bias, which is trained then.
    """

    def build(self, start: Start) -> Any:
        """An `nn.Module` whose `forward(batch: EncodedBatch)` is one finite number with a gradient.

        Raises `MithridateError` where the options do not fit the data.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Plain CLIP: each image among the captions of its batch, each caption among the images."""

    def build(self, start: Start) -> Any:
        from mithridate.training.clip import ClipLoss

        return ClipLoss()


@dataclass(frozen=True, kw_only=True)
class Siglip:
    """SigLIP's sigmoid loss: each image with each caption of the batch is a yes-or-no question of its own.

    For models with a logit bias, as SigLIP's are.
    """

    needs_bias: ClassVar[bool] = True

    def build(self, start: Start) -> Any:
        from mithridate.training.siglip import SiglipLoss

        return SiglipLoss()


@dataclass(frozen=True, kw_only=True)
class AugmentOnly:
    """Plain CLIP on SimCLR's augmentation of images and EDA of captions: the ablation the papers leave out."""

    images: Views = "augmented"
    """Images the model sees."""
    captions: Views = "augmented"
    """Captions the model sees."""

    def build(self, start: Start) -> Any:
        from mithridate.training.augment_only import AugmentOnlyLoss

        return AugmentOnlyLoss(self)


@dataclass(frozen=True, kw_only=True)
class RoClip:
    """Plain CLIP, but in every K-th epoch each image is matched to its nearest caption of a pool.

    The pool is what the text tower made of captions, so in matching epochs nothing reaches the text tower: it stands
    still but for momentum and weight decay, here as in the published code. All pairs are augmented in every epoch.
    """

    pool_size: int | None = None
    """Captions in the pool; by default 2 % of the pairs, 21,845 at most."""
    every: int = 2
    """K: every K-th epoch matches, the K-th first; 1 is all of them, 0 none."""
    views: Views = "augmented"
    """What the model sees: images after SimCLR's augmentation and captions after EDA, or the pairs as they are."""
    faithful: bool = False
    """As the published code: the pool starts as noise that is not of unit length and is never filled, its remainder is
    dropped when it is full, and one augmented caption a pair stands for the whole run."""

    def build(self, start: Start) -> Any:
        if self.every < 0:
            raise MithridateError(f"every must be 0 (never) or more, got {self.every}")
        if self.every > start.epochs:
            raise MithridateError(
                f"every {self.every}th epoch matches, and there are {start.epochs}; raise --epochs, or give --every 0 "
                "for none"
            )
        from mithridate.training.roclip import RoClipLoss

        return RoClipLoss(self, start)


@dataclass(frozen=True, kw_only=True)
class CleanClip:
    """CLIP on plain pairs, and each plain image and caption among the batch's augmented ones.

    Augmented are images by SimCLR's changes (the published code takes torchvision's AutoAugment) and captions by EDA,
    anew for every step (there: once).
    """

    clip_weight: float = 1.0
    """Of CLIP's loss."""
    inmodal_weight: float = 1.0
    """Of the mean of the two losses within a modality; 0 is plain CLIP."""

    def build(self, start: Start) -> Any:
        _refuse_negative(self, ("clip_weight", "inmodal_weight"))
        from mithridate.training.cleanclip import CleanClipLoss

        return CleanClipLoss(self)


@dataclass(frozen=True, kw_only=True)
class SafeClip:
    """Unimodal epochs on all pairs, one slow CLIP epoch, then CLIP on the safe pairs and unimodal on the rest.

    The safe pairs are those that a mixture of two Gaussians on the similarities gives to the better component; they
    grow with every epoch. Unlike the published code: similarities of the pairs as they are, not augmented; both losses
    in one epoch and one schedule; a split that rises with similarity.
    """

    unimodal_epochs: int = 5
    """Epochs in which each modality learns by itself."""
    slow_epochs: int = 1
    """CLIP epochs after them, before the split."""
    slow_factor: float = 0.01
    """Learning rate of the slow epochs, of what the schedule has (the paper: 5e-6 beside 5e-4)."""
    threshold: float = 0.9
    """Probability of the better component above which a pair is safe at first; 0 takes all pairs."""
    growth: float = 0.01
    """Share of all pairs that becomes safe with every further epoch."""
    rescored: float = 0.3
    """Share of all pairs, those with the largest similarity, that is measured anew before every further epoch."""
    pool_size: int | None = None
    """Images and captions in the pools of neighbours; by default 2 % of the pairs, 21,845 at most."""
    views: Views = "augmented"
    """What the model sees: images after SimCLR's augmentation and captions after EDA, or the pairs as they are."""

    def build(self, start: Start) -> Any:
        _refuse_negative(self, ("unimodal_epochs", "slow_epochs", "slow_factor", "growth"))
        for name in ("threshold", "rescored"):
            if not 0 <= getattr(self, name) <= 1:
                raise MithridateError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.unimodal_epochs + self.slow_epochs >= start.epochs:
            raise MithridateError(
                f"{self.unimodal_epochs} unimodal and {self.slow_epochs} slow epochs leave no epoch of {start.epochs} "
                "for the safe pairs; raise --epochs, or lower --unimodal-epochs"
            )
        from mithridate.training.safeclip import SafeClipLoss

        return SafeClipLoss(self, start)


@dataclass(frozen=True, kw_only=True)
class Par:
    """CLIP's loss on clean pairs, minus how far the embeddings have come from those of the model it starts with.

    The distance counts up to `tau`; from there on CLIP's loss alone leads back to a useful model.
    """

    weight: float = 1.0
    """Of half the sum of both distances; 0 is plain CLIP."""
    tau: float = 2.15
    """Mean squared distance, of 4 at most, beyond which a modality is pushed no further."""

    def build(self, start: Start) -> Any:
        _refuse_negative(self, ("weight", "tau"))
        from mithridate.training.par import ParLoss

        return ParLoss(self)


def _refuse_negative(options: object, names: Sequence[str]) -> None:
    for name in names:
        if not getattr(options, name) >= 0:
            raise MithridateError(f"{name} must not be negative, got {getattr(options, name)}")


# by their command-line names
OBJECTIVES: dict[str, type[Any]] = {
    "clip": Clip,
    "siglip": Siglip,
    "augment-only": AugmentOnly,
    "roclip": RoClip,
    "cleanclip": CleanClip,
    "safeclip": SafeClip,
    "par": Par,
}
