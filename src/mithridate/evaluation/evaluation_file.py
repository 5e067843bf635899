"""`evaluation.json`: an evaluation on disk, strictly checked when it is read back."""

import json
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from mithridate.disk import output_error
from mithridate.errors import DataError
from mithridate.evaluation.measurement import Evaluation
from mithridate.folders import write_atomically
from mithridate.sealed import whole_number

FORMAT = "mithridate-evaluation/1"
FILE = "evaluation.json"
_LARGEST = 2**30  # bytes: a file from a stranger must not exhaust the memory
_ADAPTER = TypeAdapter(Evaluation)


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write `evaluation.json` into a folder that exists, replacing the one there. Raises `OutputError`."""
    plain = _ADAPTER.dump_python(evaluation, mode="json")
    text = json.dumps({"format": FORMAT, **plain}, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        # a path that is not UTF-8 comes as half a surrogate pair
        write_atomically(Path(folder) / FILE, text.encode(errors="replace"))
    except OSError as error:
        raise output_error(Path(folder) / FILE, error) from error


def read_evaluation(path: Path) -> Evaluation:
    """The evaluation in `path` (an `evaluation.json`, or the folder that holds one). Raises `DataError`."""
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    again = "make it again with mithridate evaluate"
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path} has {path.stat().st_size} bytes, an evaluation has at most {_LARGEST}")
        raw = json.loads(path.read_text(encoding="utf-8"), parse_int=whole_number)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not an evaluation: {getattr(error, 'strerror', None) or error}; {again}") from error
    if not isinstance(raw, dict) or raw.pop("format", None) != FORMAT:
        raise DataError(f"{path} is not an evaluation of format {FORMAT}; {again}")
    try:
        return _ADAPTER.validate_python(raw, strict=False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(f"{path} has a wrong field: {where}: {first['msg']}; {again}") from error
