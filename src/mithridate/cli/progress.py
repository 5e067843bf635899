"""How far a command is, on standard error."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from mithridate.report.numbers import show_short
from mithridate.text import one_line, say

_LOSS_EVERY = 10  # steps; as often as a training writes it
MINUTE = 60.0
"""Seconds between two lines where no terminal shows bars."""


class Display:
    """Progress on standard error: in a terminal one bar a stage, elsewhere a line a minute."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, Any] = {}
        self._begun: dict[str, tuple[float, int]] = {}  # when a stage was first heard of, and how far it was then
        self._said = time.monotonic()

    def stage(self, what: str, done: int, total: int) -> None:
        self._show(what, done, total)

    def training(self, what: str, metrics: Path | None = None) -> Callable[[int, int, int], None]:
        """For `train(on_step=...)`; `metrics` is the file that the training writes its losses to."""
        loss = ""

        def on_step(step: int, total: int, batch_size: int) -> None:
            nonlocal loss
            start, first = self._begun.get(what, (time.monotonic(), step))
            seconds = time.monotonic() - start
            speed = f"{round((step - first) * batch_size / seconds)} pairs/s" if seconds > 1 else ""
            if metrics is not None and (not loss or step % _LOSS_EVERY == 0):
                loss = _last_loss(metrics)
            self._show(what, step, total, ", ".join(filter(None, (speed, loss))))

        return on_step

    def clear(self) -> None:
        """Take the bars off a terminal, so that lines can be printed; the next stage begins new ones."""
        self._begun.clear()
        if self._bars.console.is_terminal and self._tasks:
            self._bars.stop()
            for task in self._bars.task_ids:
                self._bars.remove_task(task)
            self._tasks.clear()

    def _show(self, what: str, done: int, total: int, speed: str = "") -> None:
        now = time.monotonic()
        start, first = self._begun.setdefault(what, (now, done))
        self._bars.update(self._task(what, total), completed=done, total=total, speed=speed)
        if self._bars.console.is_terminal or self._bars.disable or done >= total or now - self._said < MINUTE:
            return
        self._said = now
        left = (now - start) / (done - first) * (total - done) if done > first else None
        parts = (f"{what} {done} of {total}", speed, "" if left is None else f"about {duration(left)} left")
        say(f"mithridate: {', '.join(filter(None, parts))}", stderr=True)

    def _task(self, what: str, total: int) -> Any:
        if what not in self._tasks:
            self._bars.start()  # not before there is something to tell: to stop them prints a line
            self._tasks[what] = self._bars.add_task(one_line(what), total=total, speed="")
        return self._tasks[what]


class TimeLeft(TimeRemainingColumn):
    """The time left, called so."""

    def render(self, task: Task) -> Text:
        return Text() if task.finished else super().render(task).append(" left")


def _last_loss(metrics: Path) -> str:
    """The last loss that a training wrote; nothing where there is none yet."""
    try:
        with metrics.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 400))
            return f"loss {show_short(json.loads(file.read().splitlines()[-1])['loss'])}"
    except (OSError, ValueError, LookupError, TypeError):  # it is being written
        return ""


@contextmanager
def display(*, quiet: bool = False, transient: bool = False) -> Iterator[Display]:
    """Progress on standard error, so that standard output holds results alone; `transient` bars vanish at the end."""
    bars = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeLeft(compact=True),
        TextColumn("{task.fields[speed]}"),
        console=Console(file=sys.stderr),
        disable=quiet,
        transient=transient,
    )
    try:
        yield Display(bars)
    finally:
        if bars.tasks:
            bars.stop()


def duration(seconds: float) -> str:
    """Seconds as a sentence has them: 48 s, 3 min 20 s, 2 h 05 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
