"""Hostile inputs of every kind: each ends with an exit code and one sentence, and touches nothing outside --out.

One that fails is run again by hand with what the failure prints (`fuzz_worker.py`).
"""

import json
import os
import queue
import select
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

SEED = 0
SECONDS = 20.0  # for one input, without those in which others have the processor
MEMORY = 2 * 2**30  # for one input, beyond what the imported package takes
WORKER = Path(__file__).with_name("fuzz_worker.py")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of processes are Linux's")


class Worker:
    """A process that runs case after case, started again where it dies or takes too long."""

    def __init__(self, bases: Path, place: Path, seed: int) -> None:
        self.bases, self.place, self.seed = bases, place, seed
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        settings = {
            "FUZZ_PLACE": str(self.place),
            "HOME": str(self.place / "home"),
            "MPLCONFIGDIR": str(self.place / "matplotlib"),
            "MITHRIDATE_CACHE": str(self.place / "cache"),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "MALLOC_ARENA_MAX": "2",
            "ARROW_DEFAULT_MEMORY_POOL": "system",  # others reserve a GiB of addresses that they do not use
        }
        self.errors = (self.place / f"errors-{id(self)}").open("wb")
        command = [sys.executable, "-B", str(WORKER), str(self.bases), str(self.seed), str(MEMORY)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, env={**os.environ, **settings}
        )
        assert self._answer(120.0) == {"ready": True}

    def run(self, number: int) -> dict:
        if self.process is None:
            self.start()
        assert self.process is not None and self.process.stdin is not None
        self.process.stdin.write(f"{number}\n".encode())
        self.process.stdin.flush()
        answer = self._answer(SECONDS)
        if answer is None:
            died = self.process.poll()
            answer = {"number": number, "wrong": [f"died with {died}" if died is not None else "took too long"]}
            self.stop()
        return answer

    def _answer(self, seconds: float) -> dict | None:
        assert self.process is not None and self.process.stdout is not None
        begin, waited = time.monotonic(), waited_for_processor(self.process.pid)
        line = b""
        while not line.endswith(b"\n"):
            lost = waited_for_processor(self.process.pid) - waited
            if (left := begin + seconds + lost - time.monotonic()) <= 0:
                return None
            if not select.select([self.process.stdout], [], [], min(left, 1.0))[0]:
                continue
            part = os.read(self.process.stdout.fileno(), 2**16)
            if not part:
                self.process.wait(60)
                return None
            line += part
        return json.loads(line) if line.endswith(b"\n") else None

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for stream in (self.process.stdin, self.process.stdout):
                if stream is not None:
                    stream.close()
            self.errors.close()
        self.process = None


def waited_for_processor(pid: int) -> float:
    """Seconds in which a process could run and did not, as others had the processor; 0 where Linux does not tell."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def fuzz(bases: Path, place: Path, numbers: range, *, workers: int, seed: int = SEED) -> list[dict]:
    """What went wrong with the cases `numbers`."""
    (place / "home").mkdir(parents=True)
    (place / "cache").mkdir()
    waiting: queue.Queue[int] = queue.Queue()
    for number in numbers:
        waiting.put(number)
    answers: list[dict] = []

    def work() -> None:
        worker = Worker(bases, place, seed)
        try:
            while True:
                answers.append(worker.run(waiting.get_nowait()))
        except queue.Empty:
            return
        finally:
            worker.stop()

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == len(numbers)
    assert not list((place / "home").iterdir())
    return [answer for answer in answers if answer["wrong"]]


def told(bad: list[dict], bases: Path) -> str:
    again = f"FUZZ_PLACE=/tmp {sys.executable} {WORKER} {bases} {SEED} {MEMORY} NUMBER"
    return "\n".join([again, *(json.dumps(answer) for answer in sorted(bad, key=lambda answer: answer["number"]))])


def test_hostile_inputs_end_with_one_sentence(bases, tmp_path):
    bad = fuzz(bases, tmp_path, range(200), workers=1)
    assert not bad, told(bad, bases)


@pytest.mark.slow
def test_two_thousand_hostile_inputs_end_with_one_sentence(bases, tmp_path):
    bad = fuzz(bases, tmp_path, range(200, 2200), workers=2)
    assert not bad, told(bad, bases)
