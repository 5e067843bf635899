"""What a process leaves beside its output while it writes, named so that the next one can tell whose it was."""

import os
import re
import secrets
import shutil
import time
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from mithridate.processes import Owner

_FORGOTTEN = 86_400.0  # seconds after which what a process of another machine left untouched is swept
_LONGEST = 120  # bytes of a name that stand in the names of what lies beside it

# .NAME-MACHINE-PID-BORN-RANDOM
_LEFTOVER = re.compile(
    r"\.(?P<name>.+)-(?P<machine>[0-9a-f]{8})-(?P<pid>\d{1,19})-(?P<born>[0-9a-f]+)-[0-9a-f]{8}", re.DOTALL
)


def beside(path: Path) -> Path:
    """A name beside `path` that tells whose it is, so that it can be swept when its process has ended."""
    own = Owner.this()
    return path.with_name(f".{short_name(path.name)}-{own.machine}-{own.pid}-{own.born}-{secrets.token_hex(4)}")


def sweep(folder: Path, name: str | None = None, *, ended: bool = True) -> None:
    """Take away what processes left in `folder` (beside `name`, by default beside anything) that have ended; without
    `ended`, what any left."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in list(entries):
            parts = _LEFTOVER.fullmatch(entry.name) if entry.name.startswith(".") else None
            if parts is None or (name is not None and parts["name"] != name):
                continue
            gone = Owner(parts["machine"], int(parts["pid"]), parts["born"]).gone() if ended else True
            if gone is None:
                with suppress(OSError):
                    gone = time.time() - entry.stat(follow_symlinks=False).st_mtime > _FORGOTTEN
            if gone:
                remove(Path(entry.path))


def remove(path: Path) -> None:
    """Delete a file, a link or a folder with all that is in it; what cannot be deleted stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def short_name(name: str) -> str:
    """`name`, cut where what is added would make it too long for a file system."""
    raw = os.fsencode(name)
    if len(raw) <= _LONGEST:
        return name
    return f"{os.fsdecode(raw[: _LONGEST // 2])}~{blake2b(raw, digest_size=8).hexdigest()}"
