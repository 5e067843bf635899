"""The scores of single images by their names. To add one: write a file, add a line."""

from mithridate.inspection.scores.bdetclip import BDetClip
from mithridate.inspection.scores.masking import Masking
from mithridate.inspection.scores.occlusion import Occlusion
from mithridate.inspection.scores.scale_up import ScaleUp
from mithridate.inspection.scores.score import Score
from mithridate.inspection.scores.strip import Strip

SCORES: dict[str, type[Score]] = {
    "scale-up": ScaleUp,
    "bdetclip": BDetClip,
    "strip": Strip,
    "occlusion": Occlusion,
    "masking": Masking,
}
