"""Commands killed at random moments: the next run ends in the same result, and nothing is left behind."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

SERVER = Path(__file__).with_name("kill_server.py")
TRAIN = "--encoder mithridate-micro --epochs 2 --batch-size 16 --checkpoint-every 3"
REPAIR = "--test {b}/world --test-split test --manifest {b}/poisoned --strengths 1e-3 --epochs 1 --batch-size 16"
INTERPOLATE = "--start mithridate-micro --method interpolate"
# every command that writes, one a line; {b} is the folder of small whole files that `fuzz_cases.write_bases` writes
COMMANDS = {
    "toy": "data toy --train 40 --test 5 --size 64 --out out",
    "convert": "data convert {b}/world --to webdataset --out out",
    "poison": "poison single-label {b}/world --split train --source sheep --target bird --count 5 --out out",
    "backdoor": "poison backdoor {b}/world --split train --target bird --count 20 --format table --out out",
    "embed": "embed {b}/world --encoder mithridate-micro --cache cache --out out",
    "audit": "audit {b}/world --split train --encoder mithridate-micro --out out",
    "decide": "audit {b}/audited --decisions {b}/decisions.json --out out",
    "filter": "filter neg-clip-loss {b}/embedded --budget 5 --out out",
    "train": f"train {{b}}/table {TRAIN} --save-epochs --out out",
    "evaluate": "evaluate {b}/run {b}/world --split test --manifest {b}/poisoned --probe none --out out",
    "classify": "classify {b}/run {b}/world --split test --templates simple --out out",
    "compare": "compare {b}/evaluated {b}/evaluated --out out",
    "report": "report out",
    "trigger-test": "data trigger-test {b}/backdoor {b}/world --split test --out out",
    "manifest": "data manifest {b}/poisoned/manifest.json {b}/poisoned/data --to detect-clip --allow-outside --out out",
    "inspect": "inspect {b}/run --data {b}/more --out out",
    "repair": f"repair {{b}}/run --findings {{b}}/inspected --data {{b}}/more {INTERPOLATE} --out out",
    "screen": "screen {b}/run {b}/more --data {b}/more --out out",
    "repair-curve": f"repair-curve {{b}}/table --encoder {{b}}/run {REPAIR} --out out",
    "demo": "demo --epochs 1 --out out",  # on the small world of `kill_server`
    "study": "study {b}/study.yaml --data toy --out out",
    "study-jobs": "study {b}/study.yaml --data toy --jobs 2 --out out",
}
# killed twice by each signal in the fast tests too
FAST = ("embed", "filter")
LONGEST = 300.0  # seconds after which a command counts as hanging
# how often each signal kills a command, that of several processes less often; MITHRIDATE_HARNESS=1: all ten times
OFTEN, FEWER = 3, {"study-jobs": 1}
# fields that hold how long something took, when and by whom it was made, and checksums of files with such fields
TIMES = {"seconds", "seconds_to_first_result", "pairs_per_s", "at", "pid", "since", "checksum", "checksums"}
# lines in the order in which processes ended; pages of what report.json holds; a column of seconds
UNCOMPARED = ("log.jsonl", "report.html", "report.md", "*-cells.*")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    place = tmp_path_factory.mktemp("server")
    settings = {"MITHRIDATE_CACHE": str(place / "cache"), "OMP_NUM_THREADS": "1", "MPLCONFIGDIR": str(place / "mpl")}
    with subprocess.Popen(
        [sys.executable, "-B", str(SERVER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **settings},
        text=True,
    ) as process:
        yield process
        process.kill()


class Place:
    """A folder in which one command is run again and again."""

    def __init__(self, server, folder, command, bases):
        self.server, self.folder, self.bases = server, folder, bases
        self.argv = command.format(b=bases).split()
        self.said = folder.parent / f"{folder.name}.txt"

    def clean(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        if self.argv[0] == "report":
            shutil.copytree(self.bases / "evaluated", self.folder / "out")

    def run(self, signal_number=None, after=0.0):
        """The exit code, and how long the command took; with a signal, sent so many seconds after the start."""
        task = {"argv": self.argv, "cwd": str(self.folder), "said": str(self.said)}
        self.server.stdin.write(json.dumps(task) + "\n")
        self.server.stdin.flush()
        pid, start = json.loads(self.server.stdout.readline())["pid"], time.perf_counter()
        if signal_number is not None:
            time.sleep(after)
            with suppress(ProcessLookupError):  # it has ended already
                os.kill(pid, signal_number)
        hangs = threading.Timer(LONGEST, os.killpg, (pid, signal.SIGKILL))
        hangs.start()
        code = json.loads(self.server.stdout.readline())["code"]
        hangs.cancel()
        seconds = time.perf_counter() - start
        assert seconds < LONGEST, f"still running: {self.said.read_text()[-600:]}"
        end = time.monotonic() + 5
        while of_session(pid) and time.monotonic() < end:
            time.sleep(0.05)
        assert not of_session(pid), "processes live on"
        return code, seconds

    def result(self):
        """Names of all files, and what is in them but for times and what is cached."""
        found = {}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if name.startswith("cache") or "/cache/" in f"/{name}/":
                continue
            raw = b"" if path.is_dir() or any(map(path.match, UNCOMPARED)) else path.read_bytes()
            if path.suffix == ".json":
                raw = json.dumps(without_times(json.loads(raw))).encode()
            elif path.suffix == ".jsonl":
                raw = json.dumps([without_times(json.loads(line)) for line in raw.splitlines()]).encode()
            found[name] = hashlib.sha256(raw).hexdigest()[:12]
        return found


def without_times(value):
    """A JSON value without the fields `TIMES`, and without columns of that name in tables."""
    if isinstance(value, list):
        return [without_times(each) for each in value]
    if not isinstance(value, dict):
        return value
    timed = {at for at, name in enumerate(value.get("columns") or ()) if name in TIMES}
    if timed:
        rows = [[cell for at, cell in enumerate(row) if at not in timed] for row in value["rows"]]
        value = {**value, "rows": rows}
    return {name: without_times(each) for name, each in value.items() if name not in TIMES}


def last_word(said):
    """How the last line begins that a command printed: of results it is a name or a path."""
    lines = said.read_text().strip().splitlines()
    return lines[-1].split()[:1] if lines else []


def of_session(session):
    """Living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            found.append(int(path.parent.name))
    return found


def check(server, bases, folder, name, times):
    place = Place(server, folder / "here", COMMANDS[name], bases)
    place.clean()
    code, _ = place.run()
    assert code == 0, place.said.read_text()
    whole, last_word_whole = place.result(), last_word(place.said)
    place.clean()
    _, seconds = place.run()  # with warm caches, as the killed ones
    assert place.result() == whole
    rng = random.Random(name)
    for number, said in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143)):
        for _ in range(times):
            place.clean()
            after = rng.uniform(0, seconds * 1.05)
            code, _ = place.run(number, after)
            context = (
                f"{name}: {number.name} after {after:.3f} of {seconds:.3f} s: {code}; {place.said.read_text()[-600:]}"
            )
            assert code in (0, said, -number), context
            if number == signal.SIGTERM and code == 143:
                assert place.said.read_text().count("mithridate: stopped by SIGTERM") == 1, context
            done = (place.folder / "out").exists() and code == 0
            if not done:
                finished = last_word(place.said) == last_word_whole
                code, _ = place.run()
                if finished and "exists already" in place.said.read_text():
                    code = 0  # killed while Python ended: it had said its result
                assert code == 0, f"{context}; then {place.said.read_text()[-600:]}"
            found = place.result()
            differ = {key for key in found.keys() | whole.keys() if found.get(key) != whole.get(key)}
            assert not differ, f"{context}; {sorted(differ)[:5]}"


@pytest.mark.parametrize("name", FAST)
def test_a_killed_command_is_made_whole_by_the_next_run(server, bases, tmp_path, name):
    check(server, bases, tmp_path, name, 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_killed_often_is_made_whole_by_the_next_run(server, bases, tmp_path, name):
    check(server, bases, tmp_path, name, 10 if "MITHRIDATE_HARNESS" in os.environ else FEWER.get(name, OFTEN))
