"""The detectors by their command-line names. To add one: write a file, add a line."""

from mithridate.auditing.cosine import CosineDistance
from mithridate.auditing.mixture import GaussianMixture
from mithridate.auditing.neg_clip_loss import NegClipLoss
from mithridate.auditing.scores import Detector

DETECTORS: dict[str, type[Detector]] = {
    "cosine-distance": CosineDistance,
    "gmm": GaussianMixture,
    "neg-clip-loss": NegClipLoss,
}
