"""Output folders: one command at a time, never onto what another put there, swept after a kill; sealed files."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mithridate.disk import output_error
from mithridate.errors import OutputError
from mithridate.folders import AlreadyDone, claim, new_folder, scratch_folder, write_atomically
from mithridate.leftovers import beside, sweep
from mithridate.sealed import (
    DamagedFile,
    read_sealed,
    read_sealed_array,
    read_sealed_json,
    write_sealed,
    write_sealed_array,
    write_sealed_json,
)
from mithridate.text import one_line, say, visible_json


def elsewhere(code):
    """A process that runs code, after its first line of output."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    return process


def names(folder):
    return sorted(path.name for path in folder.iterdir())


HELD = """
import sys, time
from pathlib import Path
from mithridate.folders import claim, new_folder
{body}
"""


def test_a_folder_that_appears_meanwhile_is_never_replaced(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(OutputError, match="appeared while this command ran"), new_folder(out) as folder:
        (folder / "ours").touch()
        out.mkdir()
        (out / "theirs").write_text("precious")
    assert names(tmp_path) == ["out"] and (out / "theirs").read_text() == "precious"
    with new_folder(out, overwrite=True) as folder:
        (folder / "ours").touch()
        (out / "more").touch()
    assert names(tmp_path) == ["out"] and names(out) == ["ours"]


def test_a_file_that_appears_meanwhile_is_never_replaced(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(OutputError, match="appeared while this command ran"), new_folder(out):
        out.write_text("precious")
    assert names(tmp_path) == ["out"] and out.read_text() == "precious"


def test_of_two_commands_on_one_folder_the_second_is_refused(tmp_path):
    out = tmp_path / "out"
    body = f"with claim(Path({str(out)!r})):\n    print('held', flush=True)\n    time.sleep(60)"
    first = elsewhere(HELD.format(body=body))
    try:
        with pytest.raises(OutputError, match=f"is being written by process {first.pid}"), new_folder(out):
            raise AssertionError
    finally:
        first.kill()
        first.wait()
    with new_folder(out):  # what the killed one held is free
        pass
    assert names(tmp_path) == ["out"]


def test_within_one_call_chain_a_folder_may_be_claimed_again(tmp_path):
    with claim(tmp_path / "out") as mine:
        with claim(tmp_path / "." / "out") as again:
            assert again is mine
        with new_folder(tmp_path / "out") as folder:
            (folder / "a").touch()
        assert ".out.lock" in names(tmp_path)
    assert names(tmp_path) == ["out"]


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path):
    out = tmp_path / "out"
    body = f"with new_folder(Path({str(out)!r})) as folder:\n    (folder / 'half').touch()\n    print(1, flush=True)\n"
    killed = elsewhere(HELD.format(body=body + "    time.sleep(60)"))
    killed.kill()
    killed.wait()
    assert len(names(tmp_path)) == 2  # the lock and the folder
    living = beside(out)
    living.mkdir()
    (tmp_path / ".out-mine").mkdir()  # the user's own
    (tmp_path / ".out-0000").mkdir()
    with new_folder(out):
        pass
    assert names(tmp_path) == sorted([living.name, ".out-mine", ".out-0000", "out"])


def test_a_leftover_of_another_machine_is_swept_when_it_is_old(tmp_path):
    path = tmp_path / f".out-{'0' * 8}-1-1-{'0' * 8}"
    path.mkdir()
    sweep(tmp_path, "out")
    assert path.exists()
    os.utime(path, (0, 0))
    sweep(tmp_path, "out")
    assert not path.exists()


@pytest.mark.parametrize("command", ["the same", "another"])
def test_a_command_killed_after_its_last_rename_is_done(tmp_path, command):
    out, partial = tmp_path / "out", tmp_path / ".out.partial"
    partial.mkdir()
    body = f"""
out = Path({str(out)!r})
with claim(out, command="the same"):
    with new_folder(out, scratch=[Path({str(partial)!r})]) as folder:
        (folder / "a").write_text("1")
        import mithridate.folders as folders
        folders.remove = lambda path: (print("renamed", flush=True), time.sleep(60))
"""
    killed = elsewhere(HELD.format(body=body))
    killed.kill()
    killed.wait()
    assert names(tmp_path) == [".out.lock", ".out.partial", "out"]
    if command == "the same":
        with pytest.raises(AlreadyDone, match="is done already"), claim(out, command=command):
            raise AssertionError
        assert names(tmp_path) == ["out"] and names(out) == ["a"]
    else:
        with claim(out, command=command), pytest.raises(OutputError, match="exists already"), new_folder(out):
            raise AssertionError


def test_a_command_killed_before_its_last_rename_is_not_done(tmp_path):
    out = tmp_path / "out"
    body = f"with claim(Path({str(out)!r}), command='x'):\n    print(1, flush=True)\n    time.sleep(60)"
    killed = elsewhere(HELD.format(body=body))
    killed.kill()
    killed.wait()
    out.mkdir()
    (out / "theirs").touch()
    with claim(out, command="x") as mine:
        assert mine.killed
        with pytest.raises(OutputError, match="exists already"), new_folder(out):
            raise AssertionError


@pytest.mark.parametrize("content", [b"", b"null", b"[" * 10**5, b'{"place": 3, "command": []}', b"\xff\x00"])
def test_a_lock_file_with_anything_in_it_is_taken(tmp_path, content):
    (tmp_path / ".out.lock").write_bytes(content)
    with claim(tmp_path / "out", command="x"), new_folder(tmp_path / "out"):
        pass
    assert names(tmp_path) == ["out"]


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    with new_folder(tmp_path / "out", overwrite=True) as folder:
        (folder / "a").touch()
    assert (tmp_path / "out").is_symlink() and names(tmp_path / "real") == ["a"]
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="a link to a place that is not there"), new_folder(tmp_path / "lost"):
        raise AssertionError


def test_a_name_as_long_as_the_file_system_takes(tmp_path):
    out = tmp_path / ("ü" * 127)
    with scratch_folder(out) as scratch, new_folder(out) as folder:
        (folder / "a").touch()
        assert scratch.is_dir()
    assert names(tmp_path) == [out.name]


CAUSES = {
    errno.ENOSPC: "No space left on device; free some space",
    errno.EDQUOT: "quota is used up",
    errno.EROFS: "Read-only file system; nothing can be written there",
    errno.EACCES: "Permission denied; you may not write there",
}


@pytest.mark.parametrize("number", CAUSES)
def test_a_disk_that_refuses_is_named_with_its_cause(number):
    system = OSError(number, os.strerror(number), "/somewhere/else")
    library = RuntimeError(f"Error while serializing: I/O error: ... (os error {number})")
    for error in (system, library):
        assert CAUSES[number] in str(output_error(Path("out"), error))
    assert "No space" not in str(output_error(Path("out"), ValueError("header too large")))


# --- files with a checksum ------------------------------------------------------------------------------


def write_three(folder):
    write_sealed_json(folder / "a.json", {"a": (1, 2.5, "ü"), "b": None})
    write_sealed(folder / "b.bin", lambda file: file.write(b"content" * 99))
    write_sealed_array(folder / "c.npy", np.arange(30, dtype=np.int16).reshape(5, 6))


READERS = {"a.json": read_sealed_json, "b.bin": read_sealed, "c.npy": read_sealed_array}


def test_sealed_files_read_as_they_were_written(tmp_path):
    write_three(tmp_path)
    assert read_sealed_json(tmp_path / "a.json") == {"a": [1, 2.5, "ü"], "b": None}
    assert read_sealed(tmp_path / "b.bin").read() == b"content" * 99
    for mapped in (False, True):
        assert (read_sealed_array(tmp_path / "c.npy", mapped=mapped) == np.arange(30).reshape(5, 6)).all()
    assert (np.load(tmp_path / "c.npy") == np.arange(30).reshape(5, 6)).all()
    assert json.loads((tmp_path / "a.json").read_text())["a"] == [1, 2.5, "ü"]
    assert names(tmp_path) == sorted(READERS)


@pytest.mark.parametrize("name", READERS)
def test_every_damage_is_noticed(tmp_path, name):
    write_three(tmp_path)
    path = tmp_path / name
    whole = path.read_bytes()
    values = {"a.json": {"a": [1, 2.5, "ü"], "b": None}}
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            assert READERS[name](path) == values[name]  # a blank between tokens of JSON
        except DamagedFile:
            continue
    for damaged in (
        b"",
        whole[:-1],
        whole[: len(whole) // 2],
        b"\0" * len(whole),
        whole[:40] + b"\0" * 40 + whole[80:],
    ):
        path.write_bytes(damaged)
        with pytest.raises(DamagedFile):
            READERS[name](path)


@pytest.mark.parametrize("content", [b"[]", b"3", b"null", b"[" * 10**5, b"{}", b'{"checksum": {}}', b"\xff"])
def test_what_is_no_sealed_object_is_damaged(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DamagedFile):
        read_sealed_json(tmp_path / "x")


# --- what is printed ------------------------------------------------------------------------------------


def test_what_a_terminal_obeys_is_never_printed(capsys):
    hostile = "\x1b]0;owned\x07\x1b[2Ja\x9b31mb\u202ec\ud800\r\nd\u2028e\x85f\x00"
    say(hostile)
    say(f"name: {hostile}", stderr=True)
    out, err = capsys.readouterr()
    assert out.count("\n") == err.count("\n") == 1
    for text in (out[:-1], err[:-1], one_line(hostile), visible_json({hostile: hostile})):
        assert text.isprintable() or "\ufffd" in text
        assert not set("\x1b\x07\x9b\u202e\ud800\r\n\u2028\x85\x00") & set(text)
    assert json.loads(visible_json([hostile])) == [hostile]


# --- processes ------------------------------------------------------------------------------------------


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def vanish(pids, seconds=5.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(map(alive, pids)):
        time.sleep(0.05)
    return not any(map(alive, pids))


WORKERS = """
import multiprocessing, time
from mithridate.engine.local import InProcesses
if __name__ == "__main__":
    pool = InProcesses(time.sleep, 3, 1)
    for _ in range(3):
        pool.begin(60)
    print(*(process.pid for process in multiprocessing.active_children()), flush=True)
    pool.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("wait", [0.0, 1.0])
def test_workers_die_with_their_parent_from_the_first_moment_on(tmp_path, wait):
    (tmp_path / "workers.py").write_text(WORKERS)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "workers.py")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    parent.stdout.close()
    time.sleep(wait)
    assert len(pids) == 3 and (not wait or all(map(alive, pids)))
    parent.kill()
    parent.wait()
    assert vanish(pids)


def test_sigterm_raises_and_a_second_one_does_not_disturb():
    from mithridate.processes import Stopped, stoppable

    before, interrupt = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(Stopped) as stopped, stoppable():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
    assert stopped.value.code == 143 and str(stopped.value) == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.getsignal(signal.SIGINT) is interrupt  # ignored where a shell started this in the background


def test_a_signal_that_a_library_turns_into_an_error_is_still_the_signal():
    from mithridate.processes import Stopped, stoppable

    with pytest.raises(Stopped), stoppable():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except Stopped:
            raise RuntimeError("unexpected position") from None


def test_a_file_is_written_under_a_claim_of_its_own(tmp_path):
    with claim(tmp_path / "x.json", command="c"):
        write_atomically(tmp_path / "x.json", "1")
        note = json.loads((tmp_path / ".x.json.lock").read_text())
        assert note["whole"][1] == (tmp_path / "x.json").stat().st_ino
    assert names(tmp_path) == ["x.json"]
