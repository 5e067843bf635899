"""What is shown of a command's progress in a terminal, and what in a log."""

import io

import pytest
from rich.console import Console
from rich.progress import Progress

from mithridate.cli import main, progress
from mithridate.cli.progress import Display, TimeLeft, duration


@pytest.fixture
def display():
    return Display(Progress(console=Console(file=io.StringIO(), force_terminal=False)))


def test_outside_a_terminal_there_is_a_line_a_minute(display, monkeypatch, capsys):
    now = [0.0]
    begun = display._said
    monkeypatch.setattr(progress.time, "monotonic", lambda: begun + now[0])
    display.stage("embedding", 0, 100)
    now[0] = 59.0
    display.stage("embedding", 10, 100)
    assert capsys.readouterr().err == ""
    now[0] = 60.0
    display.stage("embedding", 20, 100)
    display.stage("embedding", 21, 100)
    assert capsys.readouterr().err == "mithridate: embedding 20 of 100, about 4 min 00 s left\n"
    step = display.training("training")
    step(0, 1000, 64)
    now[0] = 120.0
    step(100, 1000, 64)
    assert capsys.readouterr().err == "mithridate: training 100 of 1000, 107 pairs/s, about 9 min 00 s left\n"


def test_the_time_left_is_called_so():
    bars = Progress(TimeLeft(), console=Console(file=io.StringIO()))
    bars.add_task("x", total=10)
    (task,) = bars.tasks
    assert TimeLeft().render(task).plain.endswith(" left")
    bars.update(task.id, completed=10)
    assert TimeLeft().render(task).plain == ""


@pytest.mark.parametrize(("seconds", "shown"), [(48.2, "48 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")])
def test_a_duration(seconds, shown):
    assert duration(seconds) == shown


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_is_told_at_once_that_a_command_loads(terminal, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    assert main(["data", "describe", str(tmp_path / "none")]) == 1
    assert ("mithridate data describe: loading ..." in capsys.readouterr().err) == terminal
    assert main(["data", "describe", str(tmp_path / "none"), "--json"]) == 1
    assert "loading" not in capsys.readouterr().err
