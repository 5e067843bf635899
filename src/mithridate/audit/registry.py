"""The detectors by their command-line names. To add one: write a file, add a line."""

from mithridate.audit.cosine import CosineDistance
from mithridate.audit.mixture import GaussianMixture
from mithridate.audit.neg_clip_loss import NegClipLoss
from mithridate.audit.scores import Detector

DETECTORS: dict[str, type[Detector]] = {
    "cosine-distance": CosineDistance,
    "gmm": GaussianMixture,
    "neg-clip-loss": NegClipLoss,
}
