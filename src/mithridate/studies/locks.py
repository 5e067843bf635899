"""Who does what, agreed upon by files: any number of processes on one folder, on any machine, and no server.

A claim is a file that only one process can make. Its holder touches it every few seconds; one whose process is gone,
or that was not touched for a while, is succeeded by a claim of the next number, which again only one can make.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from mithridate.leftovers import beside, sweep

BEAT = 5.0  # seconds between two touches
STALE = 120.0  # seconds without one after which a holder on another machine counts as gone


@dataclass
class Locks:
    """The locks that one process holds in `folder`.

    `lost` is called where another took over one of them, as after a long sleep: two must not write one folder.
    """

    folder: Path
    lost: Callable[[], None] = lambda: os._exit(75)
    held: dict[str, Path] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _beating: threading.Thread | None = None

    def take(self, key: str) -> bool:
        """Whether this process has `key` to itself from now on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        last = _last(self.folder, key)
        if last is not None and not self._gone(last[1]):
            return False
        path = self.folder / f"{key}.{0 if last is None else last[0] + 1}"
        if not _make(path, json.dumps({**_own(), "since": time.time()})):
            return False
        with self._lock:
            self.held[key] = path
        if self._beating is None:
            self._beating = threading.Thread(target=self._beat, daemon=True)
            self._beating.start()
        return True

    def release(self, key: str) -> None:
        """Let go of `key`, and of what those before left."""
        with self._lock:
            own = self.held.pop(key, None)
        for path in sorted(self.folder.glob(f"{key}.*")):
            if own is not None and path != own and _number(path) < _number(own):
                path.unlink(missing_ok=True)
        if own is not None:
            own.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Take away what processes left that were killed: claims, and what they made claims of."""
        sweep(self.folder)
        # one that another has just succeeded must not go: it is taken, as by who goes on with it, and let go
        for key in {path.name.rpartition(".")[0] for path in self.folder.glob("[!.]*.*")}:
            if self.take(key):
                self.release(key)

    def others(self) -> dict[str, dict[str, Any]]:
        """What living processes have claimed: key -> who they are, `since` when."""
        found = {}
        for path in sorted(self.folder.glob("*.*"), key=_number) if self.folder.is_dir() else ():
            holder = _read(path)
            if holder is not None and not self._gone(path):
                found[path.name.rpartition(".")[0]] = holder
        return found

    def _gone(self, path: Path) -> bool:
        """Whether the holder of a claim is no more."""
        holder = _read(path)
        if holder is not None and holder.get("machine") == _own()["machine"]:
            born = _born(int(holder["pid"]))
            # a busy machine may keep a living process from its touches
            return born is None or bool(holder.get("born") and born != holder["born"])
        try:
            return self._now() - path.stat().st_mtime > STALE
        except OSError:  # let go of meanwhile
            return False

    def _now(self) -> float:
        """The time by the clock of the file system, which all machines share."""
        probe = beside(self.folder / "now")
        try:
            probe.touch()
            os.utime(probe)
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT)
            with self._lock:
                held = dict(self.held)
            for key, path in held.items():
                last = _last(self.folder, key)
                if last is not None and last[1] != path:
                    self.lost()
                elif last is not None:
                    with suppress(OSError):
                        os.utime(path)


def _make(path: Path, content: str) -> bool:
    """Make `path` with its content at once, unless it is there."""
    part = beside(path)
    try:
        part.write_text(content, encoding="utf-8")
        try:
            os.link(part, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links: made first, filled after
            try:
                with path.open("x", encoding="utf-8") as file:
                    file.write(content)
            except FileExistsError:
                return False
        return True
    finally:
        part.unlink(missing_ok=True)


def _last(folder: Path, key: str) -> tuple[int, Path] | None:
    """The claim of the highest number."""
    numbers = [_number(path) for path in folder.glob(f"{key}.*")]
    return (max(numbers), folder / f"{key}.{max(numbers)}") if numbers else None


def _number(path: Path) -> int:
    last = path.name.rpartition(".")[2]
    return int(last) if last.isdecimal() else -1


def _read(path: Path) -> dict[str, Any] | None:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    kinds = {"machine": str, "host": str, "pid": int}
    whole = isinstance(holder, dict) and all(type(holder.get(name)) is kind for name, kind in kinds.items())
    return holder if whole and 0 < holder["pid"] < 2**31 else None


def _own() -> dict[str, Any]:
    """This process: its machine (hashed with what tells containers of one name apart), number and birth."""
    parts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with suppress(OSError):
            parts.append(os.readlink(path) if path.endswith("pid") else Path(path).read_text(encoding="ascii"))  # noqa: PTH115
    machine = blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()
    return {"machine": machine, "host": socket.gethostname(), "pid": os.getpid(), "born": _born(os.getpid())}


def _born(pid: int) -> str | None:
    """When a process began, None where there is none; "" where the system does not tell."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:  # there, and another's
        pass
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return None if status[0] in "ZX" else status[19]
