"""The detectors by their command-line names. To add one: write a file, add a line."""

from mithridate.filtering.cosine import CosineDistance
from mithridate.filtering.mixture import GaussianMixture
from mithridate.filtering.promiscuity import NegClipLoss
from mithridate.filtering.scores import Detector

DETECTORS: dict[str, type[Detector]] = {
    "cosine-distance": CosineDistance,
    "gmm": GaussianMixture,
    "neg-clip-loss": NegClipLoss,
}
