"""What study a folder holds: the file, what was chosen of it, and whether another may go on there."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import TypeAdapter, ValidationError

from mithridate.errors import StudyError
from mithridate.folders import write_atomically
from mithridate.sealed import DamagedFile, read_sealed_json, write_sealed_json
from mithridate.studies.spec.load import study_of
from mithridate.studies.spec.located import read_located
from mithridate.studies.spec.study import Study
from mithridate.studies.stages.stage import plain_of

RECORD, FILE = "study.json", "study.yaml"
_AGAIN = "put a copy of it back, or choose another --out"


@dataclass(frozen=True)
class StudyRecord:
    """`combinations`: a hash of what each combination of labels means, by its name. `made_by`: of the last run.

    `kept`: whether some run was to keep the models.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}

    study: str
    profile: str
    data: str | None = None
    combinations: dict[str, str] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    made_by: dict[str, str | int] = field(default_factory=dict)
    kept: bool = False


def open_folder(
    study: Study,
    out: Path,
    *,
    text: str | None = None,
    data: str | None = None,
    made_by: dict[str, str | int] | None = None,
    keep_models: bool = False,
) -> None:
    """Begin a study in `out`, or go on with it; `text` is its file, `data` what `--data` said.

    `made_by`: what is recorded of how this run works. Raises what `refuse_other` raises.
    """
    out = Path(out)
    before = refuse_other(study, out)
    record = replace(
        before,
        data=data,
        combinations=before.combinations | _combinations(study),
        seeds=tuple(sorted({*before.seeds, *(cell.seed for cell in study.cells)})),
        made_by=made_by or before.made_by,
        kept=before.kept or keep_models,
    )
    out.mkdir(parents=True, exist_ok=True)
    if record != read_record(out):
        write_sealed_json(out / RECORD, asdict(record))
    if text is not None:
        _write_text(out / FILE, text)


def refuse_other(study: Study, out: Path) -> StudyRecord:
    """What `out` is known to hold of this study: nothing yet, or a part of it.

    Raises `StudyError` where `out` holds something else, or the same combinations with another meaning.
    """
    before = read_record(out)
    if before is None:
        if out.exists() and (not out.is_dir() or any(map(_of_another, out.iterdir()))):
            raise StudyError(f"{out} is not empty and holds no study; choose another --out")
        return StudyRecord(study.name, study.profile)
    for what, there, here in (("study", before.study, study.name), ("profile", before.profile, study.profile)):
        if there != here:
            raise StudyError(f"{out} holds {what} {there!r}, and this is {here!r}; choose another --out")
    for name, meaning in _combinations(study).items():
        if before.combinations.get(name, meaning) != meaning:
            raise StudyError(
                f"{out} holds another study of this name: {name} was defined otherwise; only experiments, values and "
                "seeds may be added, so choose another --out"
            )
    return before


def _of_another(entry: Path) -> bool:
    """Whether a file is none of a process that begins the same study just now, or was killed when it did."""
    return not entry.name.startswith((f".{RECORD}-", ".mithridate."))


def read_record(out: Path) -> StudyRecord | None:
    """The record of the study in `out`; None where it holds none. Raises `StudyError` where that is damaged."""
    path = Path(out) / RECORD
    try:
        # as JSON again: there a list is a tuple
        return TypeAdapter(StudyRecord).validate_json(json.dumps(read_sealed_json(path)))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise StudyError(f"{path} is damaged: {where}{': ' if where else ''}{first['msg']}; {_AGAIN}") from error
    except DamagedFile as error:
        raise StudyError(f"{path} is damaged: {error}; {_AGAIN}") from error
    except OSError as error:
        raise StudyError(f"{path} cannot be read: {error.strerror or error}") from error


def read_folder(out: Path) -> Study:
    """The study that lies in `out`, with all seeds that were ever asked for. Raises `StudyError`."""
    record = read_record(out)
    if record is None:
        raise StudyError(f"{out} holds no study; expected {RECORD}, as mithridate study FILE --out DIR writes it")
    path = Path(out) / FILE
    if not path.is_file():
        raise StudyError(f"{out} has no {FILE}: this study was started from Python; its definition is not on disk")
    return study_of(read_located(path, str(path)), data=record.data, seeds=record.seeds)


def _combinations(study: Study) -> dict[str, str]:
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
    if not path.is_file() or path.read_bytes() != text.encode():
        write_atomically(path, text)
