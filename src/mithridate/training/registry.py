"""The objectives by their command-line names. To add one: write a file, add a line."""

from typing import Any

from mithridate.training.clip import Clip

# frozen dataclasses whose options all have defaults
OBJECTIVES: dict[str, type[Any]] = {
    "clip": Clip,
}
