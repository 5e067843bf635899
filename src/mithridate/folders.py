"""Output folders that are whole or not there."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mithridate.errors import OutputError


def refuse_existing(out: Path, *, overwrite: bool) -> None:
    """Raise `OutputError` if `out` holds something and may not be replaced."""
    if overwrite:
        # replacing a folder deletes it: keep a slip of the pen from deleting a home or the present folder
        if out.resolve() in (Path.home().resolve(), *Path.cwd().resolve().parents, Path.cwd().resolve()):
            raise OutputError(f"{out} contains the folder you are in; choose another --out")
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} exists already; choose another --out, or give --overwrite to replace it")


@contextmanager
def new_folder(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary sibling of `out` to write into; it becomes `out` at the end, or vanishes on an error.

    Raises `OutputError` where `out` exists and `overwrite` is not set, and where the disk refuses.
    """
    out = Path(out)
    refuse_existing(out, overwrite=overwrite)
    made = [parent for parent in out.parents if not parent.exists()]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror}; choose another --out") from error
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if out.is_dir():
            shutil.rmtree(out)
        elif out.exists():
            out.unlink()
        temporary.rename(out)
    except OSError as error:
        # an input that cannot be read is not an output that cannot be written
        if error.filename is not None and temporary not in Path(os.fsdecode(error.filename)).parents:
            raise
        raise OutputError(
            f"cannot write {out}: {error.strerror or error}; free some space or choose another --out"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if not out.exists():
            for parent in made:  # the innermost first
                with suppress(OSError):  # another has put something there
                    parent.rmdir()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write `path` so that a reader, or a kill at any moment, finds the old or the new content, never half."""
    content = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
