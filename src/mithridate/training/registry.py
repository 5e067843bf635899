"""The objectives by their command-line names. To add one: write a file, add a line."""

from torch import nn

from mithridate.training.clip import Clip

OBJECTIVES: dict[str, type[nn.Module]] = {
    "clip": Clip,
}
