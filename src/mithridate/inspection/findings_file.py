"""`findings.json` and `triggers.npy`: an inspection on disk, sealed, and strictly checked when it is read back."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError

from mithridate.errors import InspectionError
from mithridate.inspection.finding import Finding, Recovered
from mithridate.inspection.inspect import Inspection, Utility
from mithridate.sealed import DamagedFile, read_sealed_array, read_sealed_json, write_sealed_array, write_sealed_json
from mithridate.version import __version__

FINDINGS, TRIGGERS = "findings.json", "triggers.npy"
FORMAT = "mithridate-findings/1"
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
_MOST = 2**26  # bytes: a file from a stranger must not exhaust the memory


@dataclass(frozen=True)
class _Found:
    __pydantic_config__ = _STRICT

    probe: str
    kind: str
    strength: float
    null: float
    flagged: bool
    target: str | None
    token: str | None
    pair: tuple[str, str] | None
    place: str | None
    success: float | None
    start_success: float | None
    trigger: int | None
    """Row of `triggers.npy`."""


@dataclass(frozen=True)
class _Utility:
    __pydantic_config__ = _STRICT

    recall: float
    recall_chance: float
    accuracy: float | None
    accuracy_chance: float | None


@dataclass(frozen=True)
class _Record:
    __pydantic_config__ = _STRICT

    format: str
    version: str
    verdict: str
    name: str
    model: str
    start: str | None
    images: int
    labelled: bool
    classes: tuple[str, ...]
    probes: tuple[str, ...]
    utility: _Utility
    findings: tuple[_Found, ...]
    not_assessable: tuple[str, ...]
    nulls: dict[str, tuple[float, ...]]
    seconds: dict[str, float]


_ADAPTER = TypeAdapter(_Record)


def write_findings(inspection: Inspection, folder: Path) -> None:
    """Write `findings.json` and `triggers.npy` (k, 4, h, w: what goes, and what comes in its place) into `folder`."""
    triggers = [finding.trigger for finding in inspection.findings if finding.trigger is not None]
    if triggers:
        planes = np.stack([torch.cat([each.keep[None], each.add]).numpy() for each in triggers])
        write_sealed_array(folder / TRIGGERS, planes.astype(np.float32))
    numbers = iter(range(len(triggers)))
    record = _Record(
        format=FORMAT,
        version=__version__,
        verdict=inspection.verdict,
        name=inspection.name,
        model=inspection.model,
        start=inspection.start,
        images=inspection.images,
        labelled=inspection.labelled,
        classes=inspection.classes,
        probes=inspection.probes,
        utility=_Utility(**asdict(inspection.utility)),
        findings=tuple(
            _Found(**_plain(f), trigger=next(numbers) if f.trigger is not None else None) for f in inspection.findings
        ),
        not_assessable=inspection.not_assessable,
        nulls={name: tuple(values) for name, values in inspection.nulls.items()},
        seconds=dict(inspection.seconds),
    )
    write_sealed_json(folder / FINDINGS, _ADAPTER.dump_python(record, mode="json"))


def _plain(finding: Finding) -> dict[str, Any]:
    names = _Found.__dataclass_fields__.keys() - {"trigger"}
    return {name: getattr(finding, name) for name in names}


def read_findings(folder: Path) -> Inspection:
    """The inspection that `mithridate inspect` wrote into `folder`. Raises `InspectionError`."""
    again = "inspect the model again"
    path = Path(folder) / FINDINGS
    try:
        if path.stat().st_size > _MOST:
            raise InspectionError(f"{path} has {path.stat().st_size} bytes, at most {_MOST} are read; {again}")
        raw = read_sealed_json(path)
        record = _ADAPTER.validate_python(raw, strict=False)
        wanted = sorted(found.trigger for found in record.findings if found.trigger is not None)
        planes = read_sealed_array(Path(folder) / TRIGGERS) if wanted else np.zeros((0, 4, 1, 1), np.float32)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InspectionError(f"{path} has a wrong field: {where}: {first['msg']}; {again}") from error
    except (OSError, DamagedFile) as error:
        said = getattr(error, "strerror", None) or error
        raise InspectionError(f"{folder} holds no whole output of mithridate inspect: {said}; {again}") from error
    if record.format != FORMAT:
        raise InspectionError(f"{path} is of format {record.format!r}, expected {FORMAT}; {again}")
    if wanted != list(range(len(planes))) or planes.ndim != 4 or planes.shape[1] != 4 or planes.dtype != np.float32:
        raise InspectionError(f"{folder} holds other triggers than {FINDINGS} names; {again}")
    return Inspection(
        findings=tuple(_finding(found, planes) for found in record.findings),
        not_assessable=record.not_assessable,
        utility=Utility(**asdict(record.utility)),
        classes=record.classes,
        images=record.images,
        labelled=record.labelled,
        name=record.name,
        model=record.model,
        start=record.start,
        probes=record.probes,
        nulls=record.nulls,
        seconds=record.seconds,
    )


def _finding(found: _Found, planes: np.ndarray) -> Finding:
    plain = {name: getattr(found, name) for name in _Found.__dataclass_fields__ if name != "trigger"}
    if found.trigger is None:
        return Finding(**plain)
    plane = torch.from_numpy(np.array(planes[found.trigger]))
    return Finding(**plain, trigger=Recovered(plane[0], plane[1:]))


def summary(inspection: Inspection) -> dict[str, Any]:
    """What `mithridate inspect --json` ends with, less the folder."""
    return {
        "verdict": inspection.verdict,
        "findings": [
            {
                "kind": finding.kind,
                "class": finding.target,
                "token": finding.token,
                "pair": finding.pair,
                "strength": round(finding.strength, 3),
                "null": round(finding.null, 3),
                "flagged": finding.flagged,
            }
            for finding in inspection.findings
        ],
        "not_assessable": list(inspection.not_assessable),
    }
