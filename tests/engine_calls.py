"""Functions that tests of the engine send to workers, which import them from here."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from mithridate.errors import DataError
from mithridate.folders import write_atomically


def write_name(shard, path):
    """Leaves the shard's name; some names are faults."""
    if shard == "bad":
        raise DataError("bad is damaged")
    if shard == "lazy":
        return
    if shard == "deadly" or (shard.startswith("once") and not Path(f"{path}.died").exists()):
        Path(f"{path}.died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if shard.startswith("slow"):
        time.sleep(0.3)
    write_atomically(path, f"{shard} by {os.getpid()}")


@dataclass(frozen=True)
class Holds:
    """Begins once a worker, and tells which beginning each shard was of."""

    folder: Path

    def begin(self):
        (self.folder / f"begun-{os.getpid()}").open("a").write("x")
        return lambda shard, path: write_atomically(path, str(os.environ["OMP_NUM_THREADS"]))


@dataclass(frozen=True)
class Note:
    """Appends each key to a file."""

    file: Path

    def __call__(self, key):
        if key.startswith("bad"):
            raise ValueError(key)
        with self.file.open("a") as file:
            file.write(f"{key}\n")


def fails(item):
    """Its negative; an error of ours for 2, one that nobody expected for 4."""
    if item == 2:
        raise DataError("two")
    if item == 4:
        raise KeyError("four")
    return -item
