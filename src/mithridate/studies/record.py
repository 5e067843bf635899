"""What study a folder holds: the file, what was chosen of it, and whether another may go on there."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from mithridate.errors import StudyError
from mithridate.folders import write_atomically
from mithridate.studies.spec.load import study_of
from mithridate.studies.spec.located import read_located
from mithridate.studies.spec.study import Study
from mithridate.studies.stages.stage import plain_of
from mithridate.studies.store import write_json

RECORD, FILE = "study.json", "study.yaml"


def open_folder(study: Study, out: Path, *, text: str | None = None, data: str | None = None) -> None:
    """Begin a study in `out`, or go on with it; `text` is its file, `data` what `--data` said.

    Raises what `refuse_other` raises.
    """
    out = Path(out)
    before = refuse_other(study, out)
    record = {
        **before,
        "data": data,
        "points": {**before["points"], **_points(study)},
        "seeds": sorted({*before["seeds"], *(cell.seed for cell in study.cells)}),
    }
    out.mkdir(parents=True, exist_ok=True)
    if record != before:
        write_json(out / RECORD, record)
    if text is not None:
        _write_text(out / FILE, text)


def refuse_other(study: Study, out: Path) -> dict[str, Any]:
    """What `out` is known to hold of this study: nothing yet, or a part of it.

    Raises `StudyError` where `out` holds something else, or the same combinations with another meaning.
    """
    before = read_record(out)
    if before is None:
        if out.exists() and (not out.is_dir() or any(map(_of_another, out.iterdir()))):
            raise StudyError(f"{out} holds something that is no study; choose another --out")
        return {"study": study.name, "profile": study.profile, "points": {}, "seeds": []}
    for what, mine in (("study", study.name), ("profile", study.profile)):
        if before[what] != mine:
            told = f"{what} {before[what]!r}, and this is {mine!r}"
            raise StudyError(f"{out} holds {told}; choose another --out")
    for point, meaning in _points(study).items():
        if before["points"].get(point, meaning) != meaning:
            raise StudyError(
                f"{out} holds another study of this name: {point} was something else; only experiments, values and "
                "seeds may be added, so choose another --out"
            )
    return before


def _of_another(entry: Path) -> bool:
    """Whether a file is none of a process that begins the same study just now."""
    return not entry.name.startswith(f".{RECORD}.")


def read_record(out: Path) -> dict[str, Any] | None:
    """What `out` holds a study of; None where it holds none. Raises `StudyError` where that is damaged."""
    try:
        record = json.loads((Path(out) / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise StudyError(f"{out}/{RECORD} is damaged: {error}") from error
    if not isinstance(record, dict) or not {"study", "profile", "points", "seeds"} <= record.keys():
        raise StudyError(f"{out}/{RECORD} is damaged: it lacks a field")
    return record


def read_folder(out: Path) -> Study:
    """The study that lies in `out`, with all seeds that were ever asked for. Raises `StudyError`."""
    record = read_record(out)
    if record is None:
        raise StudyError(f"{out} holds no study; expected {RECORD}, as mithridate study FILE --out DIR writes it")
    path = Path(out) / FILE
    if not path.is_file():
        raise StudyError(f"{out} has no {FILE}: its study was given by a program, which alone can tell")
    return study_of(read_located(path, str(path)), data=record.get("data"), seeds=tuple(record["seeds"]))


def _points(study: Study) -> dict[str, str]:
    """Each combination of labels by its name, with a hash of what it means; seed and measures are not in it."""
    found: dict[str, str] = {}
    for cell in study.cells:
        labels = ", ".join(f"{axis} {label}" for axis, label in cell.axes)
        name = f"{cell.experiment}: {labels}" if labels else cell.experiment
        if name not in found:
            text = json.dumps(plain_of(replace(cell, seed=0, measures=())), sort_keys=True)
            found[name] = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return found


def _write_text(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text)
