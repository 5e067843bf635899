"""Why a disk refuses, in one sentence."""

import errno
import os
import re
from pathlib import Path

from mithridate.errors import OutputError

_ADVICE = {
    errno.ENOSPC: "free some space or choose another --out",
    errno.EDQUOT: "your quota is used up: free some space or choose another --out",
    errno.EFBIG: "a file would be too large here: choose another --out",
    errno.EROFS: "nothing can be written there: choose another --out",
    errno.EACCES: "you may not write there: change its permissions or choose another --out",
    errno.EPERM: "you may not write there: change its permissions or choose another --out",
    errno.ENOTDIR: "a part of the path is a file: choose another --out",
    errno.EEXIST: "a part of the path is a file: choose another --out",
    errno.ENAMETOOLONG: "choose a shorter --out",
    errno.EIO: "the disk is failing: choose another --out",
}


def output_error(out: Path, error: Exception) -> OutputError:
    """The sentence for a disk that refuses: the cause as the system names it, and what to do about that cause."""
    number = error_number(error)
    reason = os.strerror(number) if number is not None else _first_line(error)
    advice = _ADVICE.get(number or 0, "check the path and the disk, or choose another --out")
    return OutputError(f"cannot write {out}: {reason}; {advice}")


def error_number(error: BaseException) -> int | None:
    """The system's number of an error; libraries that wrap it (pyarrow, safetensors) leave it in their text."""
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number > 0:
        return number
    written = re.search(r"(?:[Ee]rrno|os error) (\d+)", str(error))
    if written:
        return int(written[1])
    cause = error.__cause__ or error.__context__
    return None if cause is None else error_number(cause)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
