"""The probes by their names. To add one: write a file, add a line.

`COMPARISONS` are published detectors that run beside them where they are asked for, and take no part in the verdict.
"""

from mithridate.inspection.comparisons import Decree, GradientToken, NeuralCleanse
from mithridate.inspection.known_triggers import KnownTriggers
from mithridate.inspection.mask_inversion import MaskInversion
from mithridate.inspection.overlay_inversion import OverlayInversion
from mithridate.inspection.probe import Probe
from mithridate.inspection.relabelling import Relabelling
from mithridate.inspection.token_scan import TokenScan

PROBES: dict[str, type[Probe]] = {
    "token-scan": TokenScan,
    "relabelling": Relabelling,
    "mask-inversion": MaskInversion,
    "overlay-inversion": OverlayInversion,
    "known-triggers": KnownTriggers,
}

COMPARISONS: dict[str, type[Probe]] = {
    "neural-cleanse": NeuralCleanse,
    "decree": Decree,
    "gradient-token": GradientToken,
}
