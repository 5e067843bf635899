"""Output folders that are whole or not there, that one command at a time writes, and that no killed one litters.

While a command works on `out` it holds the file `.out.lock` beside it. A process that is killed leaves that file (the
system has let go of it) and perhaps `.out-...`; the next command on `out` takes both away, and learns from the file
whether the killed one had finished.
"""

# Above 350 lines: claims, sweeping and renaming share what they know of names, locks and identities.

import errno
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from mithridate.disk import error_number, output_error
from mithridate.errors import OutputError
from mithridate.leftovers import beside, remove, short_name, sweep
from mithridate.remote.paths import RemotePath, location
from mithridate.remote.uploads import refuse_remote, sent_whole, workplace

try:
    import fcntl
except ImportError:  # not Unix: two commands are told apart when the first has renamed its folder
    fcntl = None


class AlreadyDone(OutputError):
    """The same command has finished, and may have been killed then: its result is whole, and there is nothing to do."""


@dataclass
class Claim:
    """That this process alone writes `target`. `killed`: the same command was killed here before it had finished."""

    target: Path
    killed: bool = False
    _descriptor: int | None = None
    _command: str = ""
    _notes: dict[str, Any] = field(default_factory=dict)

    def note(self, whole: Path, place: Path, scratch: Sequence[Path]) -> None:
        """Write down that `whole`, about to be renamed to `place`, completes the result; `scratch` may go then."""
        self._notes = {
            "whole": _identity(whole),
            "place": str(place),
            "scratch": [str(path.absolute()) for path in scratch],
        }
        self.write()

    def is_whole(self) -> bool:
        """Whether what completes the result has been renamed to its place."""
        with suppress(OSError):
            return bool(self._notes) and _identity(Path(self._notes["place"])) == self._notes["whole"]
        return False

    def write(self) -> None:
        if self._descriptor is None:
            return
        content = json.dumps({"pid": os.getpid(), "command": self._command, **self._notes}).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, content, 0)


_CLAIMS: ContextVar[dict[Path, Claim]] = ContextVar("claims", default={})  # noqa: B039 (never changed in place)


def refuse_existing(out: Path, *, overwrite: bool) -> None:
    """Raise `OutputError` if `out` holds something and may not be replaced, or is remote and cannot be written."""
    if isinstance(out, RemotePath):
        refuse_remote(out, overwrite=overwrite)
        return
    if overwrite:
        # replacing a folder deletes it: keep a slip of the pen from deleting a home or the present folder
        if out.resolve() in (Path.home().resolve(), *Path.cwd().resolve().parents, Path.cwd().resolve()):
            raise OutputError(f"{out} contains the folder you are in; choose another --out")
        return
    if out.is_symlink() and not out.exists():
        raise OutputError(f"{out} is a link to a place that is not there; choose another --out")
    if out.exists() and (not out.is_dir() or any(path.name != _LOCK_INSIDE for path in out.iterdir())):
        raise OutputError(f"{out} exists already; choose another --out, or give --overwrite to replace it")


# --- one command at a time ------------------------------------------------------------------------------


_LOCK_INSIDE = ".mithridate.lock"


@contextmanager
def claim(out: Path, *, command: str = "") -> Iterator[Claim]:
    """Inside, no other process writes `out`; what killed ones left beside it and in it is gone.

    `command` decides what counts as the same command. Within one call chain `out` may be claimed again. Raises
    `OutputError` where another process is at it or the disk refuses, and `AlreadyDone` where the same command was
    killed when `out` was whole.
    """
    target = _target(out)
    held = _CLAIMS.get()
    if target in held:
        yield held[target]
        return
    made = [parent for parent in target.parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, lock = _lock(target, out)
    except OSError as error:
        _take_away(made)
        raise output_error(out, error) from error
    token, keep = None, False
    mine = Claim(target, _descriptor=descriptor, _command=_digest(command))
    try:
        before = _before(descriptor)
        sweep(target.parent, short_name(target.name))
        if before:  # whoever had it was killed
            sweep_below(target)
        if command and before.get("command") == mine._command:
            _refuse_done(before, out)
            mine.killed = True
        mine.write()
        token = _CLAIMS.set({**held, target: mine})
        yield mine
    except OSError as error:
        if token is None:
            raise output_error(out, error) from error
        raise
    except KeyboardInterrupt:
        keep = mine.is_whole()  # the next run of the command must know that it is done
        raise
    finally:
        if token is not None:
            _CLAIMS.reset(token)
        if descriptor is not None:
            with suppress(OSError):
                if not keep:
                    lock.unlink(missing_ok=True)
            os.close(descriptor)
        if not target.exists():
            _take_away(made)


def _lock(target: Path, out: Path) -> tuple[int | None, Path]:
    """An open file that this process alone has locked, and its path; None where the file system knows no locks."""
    path = target.with_name(f".{short_name(target.name)}.lock")
    if fcntl is None:
        return None, path
    for _ in range(100):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            # a folder that may be written in a place that may not, as where a volume is mounted
            if error.errno not in (errno.EACCES, errno.EROFS, errno.EPERM) or path.parent == target:
                raise
            if not target.is_dir():
                raise
            path = target / _LOCK_INSIDE
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _before(descriptor).get("pid")
            os.close(descriptor)
            who = f"process {pid}" if isinstance(pid, int) else "another process"
            raise OutputError(f"{out} is being written by {who}; wait for it, or choose another --out") from None
        except OSError as error:
            os.close(descriptor)
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                raise
            path.unlink(missing_ok=True)
            return None, path
        # whoever had it may have taken the file away between our opening and our locking it
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor, path
        os.close(descriptor)
    raise OutputError(f"{out} is being written by other processes; choose another --out")


def writer_of(out: Path) -> int | None:
    """The process that writes `out` now, 0 where its number is unknown; None where nobody does, or no locks tell."""
    target = _target(out)
    for path in (target.with_name(f".{short_name(target.name)}.lock"), target / _LOCK_INSIDE):
        if fcntl is None or not path.is_file():
            continue
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _before(descriptor).get("pid")
            return pid if isinstance(pid, int) else 0
        finally:
            os.close(descriptor)
    return None


def _before(descriptor: int | None) -> dict[str, Any]:
    """What the last holder wrote down; nothing where it ended in order, or the file is damaged."""
    if descriptor is None:
        return {}
    try:
        notes = json.loads(os.pread(descriptor, 2**20, 0))
    except (ValueError, RecursionError):
        return {}
    return notes if isinstance(notes, dict) else {}


def sweep_below(folder: Path) -> None:
    """Take away what ended processes left in `folder` and below, with the locks of output that nobody holds."""
    for parent, names, files in os.walk(folder):
        sweep(Path(parent))
        names[:] = [name for name in names if not name.startswith(".")]
        for name in files:
            if name.startswith(".") and name.endswith(".lock"):
                with suppress(OSError):
                    _unlink_unheld(Path(parent, name))


def _unlink_unheld(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if fcntl is not None and "command" in _before(descriptor):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    finally:
        os.close(descriptor)


def _refuse_done(before: dict[str, Any], out: Path) -> None:
    place, scratch = before.get("place"), before.get("scratch")
    if not isinstance(place, str) or not isinstance(scratch, list) or "\0" in place:
        return
    target = _target(out)
    if target not in (Path(place), *Path(place).parents):
        return
    with suppress(OSError):
        if _identity(Path(place)) == before.get("whole"):
            for path in map(Path, filter(lambda each: isinstance(each, str), scratch)):
                if path.parent in (target, target.parent) and path.name.startswith((".", "state.")):
                    remove(path)
            raise AlreadyDone(f"{out} is done already: this command was killed after it had written all of it")


def _identity(path: Path) -> list[int]:
    """What stays when a path is renamed, and differs when it is made again."""
    status = path.lstat()
    return [status.st_dev, status.st_ino, status.st_mtime_ns]


def _target(out: Path) -> Path:
    """Where `out` lies, links followed."""
    target = Path(os.path.realpath(out))
    if not target.name:
        raise OutputError(f"{out} cannot be an output folder; choose another --out")
    return target


def _digest(text: str) -> str:
    return blake2b(os.fsencode(text), digest_size=8).hexdigest()


# --- whole or not there ---------------------------------------------------------------------------------


@contextmanager
def new_folder(
    out: Path, *, overwrite: bool = False, completes: Path | None = None, scratch: Sequence[Path] = ()
) -> Iterator[Path]:
    """A temporary sibling of `out` to write into; it becomes `out` at the end, or vanishes on an error. Of a remote
    `out` it lies in the cache, and is sent whole at the end.

    What appears at `out` meanwhile is only replaced with `overwrite`. `completes`: what is done when `out` is there, by
    default `out` itself; `scratch`: what is of no more use then, and taken away. Raises `OutputError` where `out`
    exists and `overwrite` is not set, where another process writes it, and where the disk refuses.
    """
    out = location(out)
    refuse_existing(out, overwrite=overwrite)
    if isinstance(out, RemotePath):
        with claim(workplace(out)) as mine, sent_whole(beside(mine.target), out) as temporary:
            yield temporary
        for path in scratch:
            remove(path)
        return
    with claim(out) as mine:
        target = mine.target
        temporary = beside(target)
        try:
            temporary.mkdir()
        except OSError as error:
            raise output_error(out, error) from error
        try:
            yield temporary
            done = _CLAIMS.get().get(_target(completes or out))
            if done is not None:
                done.note(temporary, target, scratch)
            _into_place(temporary, target, out, overwrite=overwrite)
        except OSError as error:
            # an input that cannot be read is not an output that cannot be written
            if _of_input(error, temporary):
                raise
            raise output_error(out, error) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        for path in scratch:
            remove(path)


def was_killed(out: Path) -> bool:
    """Whether the same command was killed while it wrote `out`, and what is there is the half that it left."""
    mine = _CLAIMS.get().get(_target(out))
    return mine is not None and mine.killed


@contextmanager
def scratch_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` for what is only needed while `out` is made; it vanishes at the end."""
    with claim(out) as mine:
        temporary = beside(mine.target)
        try:
            temporary.mkdir()
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _into_place(temporary: Path, target: Path, out: Path, *, overwrite: bool) -> None:
    """Rename onto nothing, or onto an empty folder; with `overwrite` what is there moves aside first."""
    aside = None
    if overwrite and (target.is_symlink() or target.exists()):
        aside = beside(target)
        target.rename(aside)  # at once: half of it must never be found
    try:
        if os.name == "nt" and target.is_dir():
            target.rmdir()  # there a rename replaces not even an empty folder
        temporary.rename(target)
    except OSError as error:
        if aside is not None:
            with suppress(OSError):
                aside.rename(target)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise OutputError(
                f"{out} appeared while this command ran, and was left as it is; choose another --out, or give "
                "--overwrite to replace it"
            ) from error
        raise
    if aside is not None:
        remove(aside)


def _of_input(error: OSError, temporary: Path) -> bool:
    if error.filename is None or isinstance(error.filename, int):
        return error_number(error) is None
    paths = [Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    return not any(temporary in (path, *path.parents) for path in paths)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write `path` so that a reader, or a kill at any moment, finds the old or the new content, never half."""
    content = content.encode() if isinstance(content, str) else content
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary sibling of the file `path` to write; it replaces `path` at the end, or vanishes on an error."""
    path = Path(path)
    temporary = beside(path)
    try:
        yield temporary
        mine = _CLAIMS.get()
        if mine and (done := mine.get(_target(path))) is not None:
            done.note(temporary, done.target, ())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _take_away(made: Sequence[Path]) -> None:
    for parent in made:  # the innermost first
        with suppress(OSError):  # another has put something there
            parent.rmdir()
