"""The contract of attacks, objectives, detectors, probes and repairs, for whoever writes one.

`check_attack`, `check_objective`, `check_detector`, `check_probe` and `check_repair` take an instance with its options
and raise `ContractError` with what was expected and what came: call them in a test. `mithridate check-plugin FILE`
tries all that a file exports.
"""

from collections.abc import Callable, Iterator
from typing import Any

from mithridate.testing.attacks import attack_checks, check_attack, example_pairs
from mithridate.testing.contract import CLASSES, ContractError, example_of
from mithridate.testing.detectors import check_detector, detector_checks, example_corpus
from mithridate.testing.objectives import check_objective, objective_checks
from mithridate.testing.probes import (
    check_probe,
    check_repair,
    example_case,
    example_material,
    probe_checks,
    repair_checks,
)

__all__ = [
    "CHECKS",
    "CLASSES",
    "ContractError",
    "check_attack",
    "check_detector",
    "check_objective",
    "check_probe",
    "check_repair",
    "example_case",
    "example_corpus",
    "example_material",
    "example_of",
    "example_pairs",
]

CHECKS: dict[str, Callable[[Any], Iterator[tuple[str, Callable[[], None]]]]] = {
    "ATTACKS": attack_checks,
    "OBJECTIVES": objective_checks,
    "DETECTORS": detector_checks,
    "PROBES": probe_checks,
    "REPAIRS": repair_checks,
}
"""The checks of each kind that a plugin may export."""
