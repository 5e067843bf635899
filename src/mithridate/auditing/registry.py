"""The detectors by their command-line names. To add one: write a file, add a line."""

from mithridate.auditing.contradictions import Contradictions
from mithridate.auditing.cosine import CosineDistance
from mithridate.auditing.dao import Dao
from mithridate.auditing.echo import Echo
from mithridate.auditing.evidence import Detector
from mithridate.auditing.excess import GroupExcess
from mithridate.auditing.k_distance import KDistance
from mithridate.auditing.mismatch import Mismatch
from mithridate.auditing.mixture import GaussianMixture
from mithridate.auditing.neg_clip_loss import NegClipLoss
from mithridate.auditing.patch import RecurringPatch
from mithridate.auditing.raw_length import RawLength
from mithridate.auditing.slof import Slof
from mithridate.auditing.spectral import SpectralPeak
from mithridate.auditing.twins import ResidualTwins

DETECTORS: dict[str, type[Detector]] = {
    "cosine-distance": CosineDistance,
    "gmm": GaussianMixture,
    "neg-clip-loss": NegClipLoss,
    "mismatch": Mismatch,
    "echo": Echo,
    "group-excess": GroupExcess,
    "contradictions": Contradictions,
    "residual-twins": ResidualTwins,
    "recurring-patch": RecurringPatch,
    "spectral-peak": SpectralPeak,
    "raw-length": RawLength,
    "k-distance": KDistance,
    "slof": Slof,
    "dao": Dao,
}

ONLY_NAMED = ("cosine-distance", "gmm", "neg-clip-loss", "slof", "dao")
"""Those that an audit runs only where they are named: `mismatch` and `k-distance` rank pairs as they do."""


def audit_detectors() -> dict[str, Detector]:
    """What an audit runs where nobody names detectors: plugged-in ones too."""
    return {name: kind() for name, kind in DETECTORS.items() if name not in ONLY_NAMED}
