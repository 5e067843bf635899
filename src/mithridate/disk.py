"""Why a disk refuses, in one sentence."""

import errno
import os
import re
from pathlib import Path

from mithridate.errors import OutputError

_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "your quota is used up: free some space",
    errno.EFBIG: "free some space, raise the limit on the size of files",
    errno.EROFS: "nothing can be written there: mount it for writing",
    errno.EACCES: "you may not write there: change its permissions",
    errno.EPERM: "you may not write there: change its permissions",
    errno.ENOTDIR: "a part of the path is a file: move it away",
    errno.EEXIST: "a part of the path is a file: move it away",
    errno.ENAMETOOLONG: "a name is too long: shorten it",
    errno.EIO: "the disk is failing: replace it",
}
_ELSE = " or choose another --out"
GO_ON = ", then run the same command again to go on"


def output_error(out: Path, error: Exception, *, then: str = _ELSE) -> OutputError:
    """The sentence for a disk that refuses: the cause as the system names it, and what to do about that cause."""
    number = error_number(error)
    reason = os.strerror(number) if number is not None else _first_line(error)
    return OutputError(f"cannot write {out}: {reason}; {_ADVICE.get(number or 0, 'check the path and the disk')}{then}")


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
