"""The attacks by their command-line names. To add one: write a file, add a line."""

from mithridate.poisoning.plan import Attack
from mithridate.poisoning.relabel import MultiLabel, SingleImage, SingleLabel

ATTACKS: dict[str, type[Attack]] = {
    "single-image": SingleImage,
    "single-label": SingleLabel,
    "multi-label": MultiLabel,
}
