"""The attacks by their command-line names. To add one: write a file, add a line."""

from mithridate.poisoning.backdoor import Backdoor
from mithridate.poisoning.badclip import BadClip
from mithridate.poisoning.plan import Attack
from mithridate.poisoning.relabel import MultiLabel, SingleImage, SingleLabel
from mithridate.poisoning.targeted import Targeted
from mithridate.poisoning.text_trigger import TextTrigger

ATTACKS: dict[str, type[Attack]] = {
    "single-image": SingleImage,
    "single-label": SingleLabel,
    "multi-label": MultiLabel,
    "backdoor": Backdoor,
    "targeted": Targeted,
    "text-trigger": TextTrigger,
    "badclip": BadClip,
}
