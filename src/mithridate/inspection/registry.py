"""The probes by their names. To add one: write a file, add a line."""

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
