"""The repairs by their names. To add one: write a file, add a line."""

from mithridate.repairing.case import Repair
from mithridate.repairing.prune import ChannelPruning, FinePruning, HeadAblation
from mithridate.repairing.retrain import RetrainCleanClip, RetrainClip, RetrainPar
from mithridate.repairing.unlearn import Unlearn
from mithridate.repairing.weights import Interpolate, TaskVector

REPAIRS: dict[str, type[Repair]] = {
    "unlearn": Unlearn,
    "interpolate": Interpolate,
    "task-vector": TaskVector,
    "fine-pruning": FinePruning,
    "channel-pruning": ChannelPruning,
    "head-ablation": HeadAblation,
    "clip": RetrainClip,
    "cleanclip": RetrainCleanClip,
    "par": RetrainPar,
}
