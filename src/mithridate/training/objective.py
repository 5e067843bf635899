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


def refuse_crop(crop: float) -> None:
    """Raise `MithridateError` where a share of the area to be left is none."""
    if not 0 < crop <= 1:
        raise MithridateError(f"crop must lie in (0, 1], got {crop}")


def refuse_negative(options: object, names: Sequence[str]) -> None:
    """Raise `MithridateError` where one of the options `names` is below 0, or no number."""
    for name in names:
        if not getattr(options, name) >= 0:
            raise MithridateError(f"{name} must not be negative, got {getattr(options, name)}")
