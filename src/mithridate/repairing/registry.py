"""The repairs by their names. To add one: write a file, add a line."""

from mithridate.repairing.case import Repair
from mithridate.repairing.retrain import RetrainCleanClip, RetrainClip, RetrainPar
from mithridate.repairing.unlearn import Unlearn
from mithridate.repairing.weights import Interpolate, TaskVector

REPAIRS: dict[str, type[Repair]] = {
    "unlearn": Unlearn,
    "interpolate": Interpolate,
    "task-vector": TaskVector,
    "clip": RetrainClip,
    "cleanclip": RetrainCleanClip,
    "par": RetrainPar,
}
