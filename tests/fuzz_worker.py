"""Runs cases of `fuzz_cases`, one a line of its input, and says of each what came of it.

usage: fuzz_worker.py BASES SEED MEMORY_LIMIT   (numbers of cases on standard input)
       fuzz_worker.py BASES SEED MEMORY_LIMIT NUMBER [KIND]   (one case, with what the command prints)
"""

import io
import json
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from fuzz_cases import make_case


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            status = path.lstat()
            is_folder = path.is_dir() and not path.is_symlink()
            found[str(path.relative_to(folder))] = (0, 0) if is_folder else (status.st_size, status.st_mtime_ns)
    return found


def run_case(seed: int, number: int, base: Path, kind: str | None = None, *, show: bool = False) -> dict:
    from mithridate.cli import main

    place = Path(tempfile.mkdtemp(dir=os.environ["FUZZ_PLACE"]))
    here = place / "here"
    here.mkdir()
    argv = make_case(seed, number, base, here, kind=kind)
    before, clock = listing(place), time.perf_counter()
    out, err = io.StringIO(), io.StringIO()
    os.chdir(here)
    trace = ""
    try:
        with redirect_stdout(out), redirect_stderr(err), small_files():
            try:
                code = main(argv)
            except SystemExit as exited:
                code = exited.code if isinstance(exited.code, int) else 99
    except BaseException:
        code, trace = 98, traceback.format_exc()
    seconds = time.perf_counter() - clock
    os.chdir("/")
    wrong = []
    if trace:
        wrong.append("raised")
    if code not in (0, 1, 2):
        wrong.append(f"ended with {code}")
    printed = out.getvalue() + err.getvalue()
    if "Traceback" in printed:
        wrong.append("printed a trace")
    if any(sign in printed for sign in "\x1b\x07\x9b\u202e\x00"):
        wrong.append("printed what a terminal obeys")
    sentences = [line for line in err.getvalue().splitlines() if line.startswith("mithridate: ")]
    if code == 1 and (not sentences or sentences[-1].startswith("mithridate: warning")):
        wrong.append("ended with 1 and no sentence")
    if code == 1 and len(sentences[-1] if sentences else "") > 3000:
        wrong.append("said a very long sentence")
    if "not enough memory" in printed:
        wrong.append("ran out of memory")
    after = listing(place)
    names = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    # trainings, studies and curves go on in the folder that they are given, a report is written where it lies
    goes_on = argv[0] in ("train", "report", "study", "repair-curve")
    may = ("here/out", "here/in") if goes_on else ("here/out",)
    outside = sorted(name for name in names if not name.startswith(may))
    if outside:
        wrong.append(f"touched {outside[0]}")
    if code != 0 and (here / "out").exists():
        wrong.append("left something half-written")
    if show:
        print(
            f"argv: {argv}\ncode: {code}\nstdout: {out.getvalue()[-3000:]}\nstderr: {err.getvalue()[-5000:]}\n{trace}"
        )
        print(f"in {place}")
    else:
        shutil.rmtree(place, ignore_errors=True)
    said = (sentences[-1] if sentences else err.getvalue()[-500:]) if wrong else ""
    return {"number": number, "argv": argv[:3], "wrong": wrong, "seconds": round(seconds, 3), "said": said[:400]}


@contextmanager
def small_files():
    """What is written is at most 1 GiB a file: the limit keeps a mistake from filling the disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**30, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def data_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0


def main() -> None:
    base, seed, limit = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    warnings.simplefilter("ignore")
    # imports all that commands import, so that a case pays for itself alone
    from mithridate.cli import COMMANDS
    from mithridate.encoder.encoder import load_encoder

    for module, _ in COMMANDS.values():
        __import__(module)
    load_encoder("mithridate-micro")
    if sys.platform == "linux":
        # what the process may allocate beyond what it has now
        resource.setrlimit(resource.RLIMIT_DATA, (data_bytes() + limit, data_bytes() + limit))
    if len(sys.argv) > 4:
        result = run_case(seed, int(sys.argv[4]), base, sys.argv[5] if len(sys.argv) > 5 else None, show=True)
        print(json.dumps(result, indent=1))
        return
    answers = os.fdopen(os.dup(1), "w")  # what a library prints must not mix with them
    os.dup2(2, 1)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(run_case(seed, int(line), base)), file=answers, flush=True)


if __name__ == "__main__":
    main()
