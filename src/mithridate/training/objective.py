"""What an objective is: options that make a loss. Without torch, so that the command line can list them at once.

An objective is a frozen dataclass of options, all with defaults, and one method, `build`, that gives the `nn.Module` of
`training/loss.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from mithridate.errors import MithridateError

Views = Literal["augmented", "plain"]


@dataclass(frozen=True)
class Start:
    """What is known before training begins: enough to size buffers."""

    pairs: int  # rows of the training set, those that turn out unusable included
    width: int  # of embeddings
    epochs: int
    seed: int = 0
    batch: int = 1  # pairs of a step


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
class Augmenting:
    """Options of objectives that augment images: how much of SimCLR's changes is made."""

    crop: float = 0.08
    """Least share of an augmented image's area that is left. A patch in the corner falls out of small crops."""
    flip: bool = True
    """Mirror half of the augmented images; captions that name sides are wrong then."""
    jitter: bool = True
    """Change colours of augmented images, a fifth of them to grey; leave out where colours tell the classes apart."""

    def refuse_crop(self) -> None:
        """Raise `MithridateError` where the share of the area to be left is none."""
        if not 0 < self.crop <= 1:
            raise MithridateError(f"crop must lie in (0, 1], got {self.crop}")

    def augmentation(self) -> dict[str, Any]:
        """As arguments of `View`."""
        return {"crop": self.crop, "flip": self.flip, "jitter": self.jitter}


def refuse_negative(options: object, names: Sequence[str]) -> None:
    """Raise `MithridateError` where one of the options `names` is below 0, or no number."""
    for name in names:
        if not getattr(options, name) >= 0:
            raise MithridateError(f"{name} must not be negative, got {getattr(options, name)}")
