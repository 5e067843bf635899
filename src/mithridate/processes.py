"""Processes: who one is, whether it still runs, that it ends with its parent, and what a signal to stop does."""

import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LOOK = 1.0  # seconds between two looks at the parent, where the system does not signal its death


# --- who runs -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Owner:
    """A process that cannot be mistaken for a later one: its machine, its number there, and when it began."""

    machine: str
    pid: int
    born: str

    @classmethod
    def this(cls) -> "Owner":
        return cls(_machine(), os.getpid(), _born(os.getpid()) or "0")

    def gone(self) -> bool | None:
        """Whether the process has ended; None where another machine alone can tell."""
        if self.machine != _machine():
            return None
        born = _born(self.pid)
        return born is None or ("0" not in (born, self.born) and born != self.born)


@lru_cache(maxsize=1)
def _machine() -> str:
    """Eight digits for what numbers processes: the machine, and the container on it."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115 (no path: a name in the kernel)
    return blake2b("\n".join(parts).encode(), digest_size=4).hexdigest()


@lru_cache(maxsize=1)
def _boot() -> str:
    """Four digits that differ after the machine was started anew."""
    try:
        content = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        return ""
    return blake2b(content, digest_size=2).hexdigest()


def _born(pid: int) -> str | None:
    """When a process began, None where there is none; "0" where the system does not tell."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except OSError:  # there, and another user's
        pass
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else "0"
    except OSError:
        return "0"
    return None if status[0] in "ZX" else _boot() + status[19]


# --- a worker ends with its parent ----------------------------------------------------------------------


def die_with_parent(parent: int) -> None:
    """End this process, at once and whatever it does, when the process `parent` that began it is no more.

    On Linux the kernel kills it (prctl PR_SET_PDEATHSIG); elsewhere a thread looks every second.
    """
    asked = False
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            asked = ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)
    if not asked:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(1)


# --- signals --------------------------------------------------------------------------------------------


class Stopped(KeyboardInterrupt):
    """A signal asked the process to stop: what is half-written is taken away, as after an interrupt by hand."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


@contextmanager
def stoppable() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP raise `Stopped`; a second one does not disturb what the first set going.

    An error that follows is the signal's, which a library has turned into one of its own: it is raised as `Stopped`.
    """
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (getattr(signal, name) for name in names)}
    ours = [number for number, handler in before.items() if handler is signal.SIG_DFL]  # not under nohup

    came: list[int] = []

    def stop(number: int, _frame: object) -> None:
        came.append(number)
        for each in (*ours, signal.SIGINT):
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    interrupt = signal.getsignal(signal.SIGINT)
    for number in ours:
        signal.signal(number, stop)
    try:
        yield
    except Exception as error:
        if came:
            raise Stopped(came[0]) from error
        raise
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and interrupt is not None:
            signal.signal(signal.SIGINT, interrupt)
