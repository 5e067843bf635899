"""What an objective's loss asks of the training loop, and what it sees of a step.

A loss is an `nn.Module`: a batch in, one number out. What it must remember lies in its buffers, which are in every
checkpoint. Two more methods are optional: `plan` says what an epoch encodes, `prepare` is called before the first step
of an epoch. Its options and the `build` that makes it are an `Objective`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mithridate.encoder.towers import Tower


@dataclass(frozen=True)
class View:
    """Which pixels and captions of a batch's pairs are encoded, and by which model.

    `augmented` is drawn anew for every step and view; `fixed` is one augmented caption a pair for the whole run.
    `start` is the model as it was before the first step, in eval mode and without gradient. `crop`, `flip` and
    `jitter` are of augmented images: the least share of the area that is left, whether half of them are mirrored, and
    whether colours change.
    """

    image: Literal["plain", "augmented"] = "plain"
    text: Literal["plain", "augmented", "fixed"] = "plain"
    model: Literal["current", "start"] = "current"
    crop: float = 0.08
    flip: bool = True
    jitter: bool = True


PLAIN = View()


@dataclass(frozen=True)
class EpochPlan:
    """What an objective wants of an epoch.

    `no_gradient` names towers whose embeddings the loss does not use with a gradient: their backward pass is left out,
    their gradient is zero, so that weight decay and momentum act as they would. `groups` (pairs,): pairs of one number
    share batches, as far as they fill them.
    """

    views: tuple[View, ...] = (PLAIN,)
    lr_factor: float = 1.0  # of the schedule's learning rate
    no_gradient: tuple[Tower, ...] = ()
    groups: Int[np.ndarray, " pairs"] | Bool[np.ndarray, " pairs"] | None = None


@dataclass(frozen=True)
class Encoded:
    """One view of a batch: unit-length embeddings."""

    image: Float[Tensor, "b d"]
    text: Float[Tensor, "b d"]


@dataclass(frozen=True)
class EncodedBatch:
    """What an objective sees of a step: unit-length embeddings of the whole batch, of all processes.

    `image` and `text` are those of the plan's first view, `others` those of its further ones.
    """

    image: Float[Tensor, "b d"]
    text: Float[Tensor, "b d"]
    scale: Float[Tensor, ""]  # exp of the logit scale
    row: Int[Tensor, " b"]  # which pair of the training set each is
    epoch: int
    step: int
    others: tuple[Encoded, ...] = field(default=())
    bias: Float[Tensor, ""] | None = None  # the model's logit bias, where it has one


@dataclass(frozen=True)
class EpochStart:
    """The training set before the first step of an epoch, seen by the model as it is, in eval mode.

    `rows` (n,) of the usable pairs, those of one image side by side; both functions take some of them (k,) and give
    their unit-length embeddings (k, d), the same in every process.
    """

    number: int
    rows: Int[np.ndarray, " n"]
    embed_images: Callable[[np.ndarray], Tensor]
    embed_texts: Callable[[np.ndarray], Tensor]


@runtime_checkable
class Plans(Protocol):
    """A loss that wants other than the plain pairs. The same epoch gets the same views at any time."""

    def plan(self, epoch: int) -> EpochPlan: ...


@runtime_checkable
class Prepares(Protocol):
    """A loss that looks at the training set before an epoch. A run that is resumed within one has it in its buffers."""

    def prepare(self, epoch: EpochStart) -> None: ...


def plan_of(loss: nn.Module, epoch: int) -> EpochPlan:
    """What `loss` wants of an epoch; plain pairs where it does not say."""
    return loss.plan(epoch) if isinstance(loss, Plans) else EpochPlan()
