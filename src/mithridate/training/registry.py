"""The objectives by their command-line names. To add one: a file of options, a file with its loss, a line."""

from typing import Any

from mithridate.training.augment_only import AugmentOnly
from mithridate.training.cleanclip import CleanClip
from mithridate.training.clip import Clip
from mithridate.training.par import Par
from mithridate.training.roclip import RoClip
from mithridate.training.safeclip import SafeClip
from mithridate.training.siglip import Siglip

# frozen dataclasses whose options all have defaults
OBJECTIVES: dict[str, type[Any]] = {
    "clip": Clip,
    "siglip": Siglip,
    "augment-only": AugmentOnly,
    "roclip": RoClip,
    "cleanclip": CleanClip,
    "safeclip": SafeClip,
    "par": Par,
}
