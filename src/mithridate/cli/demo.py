"""`mithridate demo`: poison, train, measure, audit, inspect, repair and verify on toy worlds, and one page."""

import json
import shutil
import textwrap
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mithridate.cli.common import Threads, emit, parse
from mithridate.cli.progress import display
from mithridate.data.pairs import nearest_names
from mithridate.errors import MithridateError
from mithridate.folders import AlreadyDone, refuse_existing, was_killed, write_atomically
from mithridate.text import say
from mithridate.toy.toy import CLASSES

OPTIONS, RESULT = "options.json", "demo.json"
WIDTH = 79


@dataclass(frozen=True)
class Demo:
    """The whole loop on toy worlds, in minutes: poison, train, measure, audit, inspect, repair, verify.

    Captions of one class go to images of another (attack II of mmPoison; like the paper, all of it), and a patch
    is planted. The toolkit then looks for both without being told, takes them out, and the truth says what is left.
    """

    out: Path = Path("runs/demo")
    """Folder to write; report.html in it is the result. Killed and started again, the same command goes on."""
    source: str = "sheep"
    """Class A: its captions are used."""
    target: str = "aeroplane"
    """Class B: its images are used."""
    class_share: float = 1.0
    """Share of the images of class A that are replaced, in (0, 1]."""
    triggered: str = "boat"
    """What images with the patch are to be taken for."""
    epochs: int = 2
    """Passes over the scraped pairs."""
    seed: int = 0
    """The first seed."""
    seeds: int = 1
    """How many seeds: each draws worlds, poison and models anew."""
    threads: Threads = None
    overwrite: bool = False
    """Replace what is in the output folder."""
    json: bool = False
    """One JSON object on the last line."""

    def run(self) -> None:
        self._check()
        options = json.dumps({**asdict(self), "out": "", "overwrite": "", "json": "", "threads": ""})
        self._claim(options)
        results = [self._walk(seed) for seed in range(self.seed, self.seed + self.seeds)]
        result = results[0] if self.seeds == 1 else {**_mean(results), "seeds": results}
        if self.json:
            emit(result, as_json=True)

    def _check(self) -> None:
        """Raise `MithridateError` for options that cannot be, before minutes are spent."""
        from mithridate.poisoning.strength import Strength

        if self.seeds < 1:
            raise MithridateError(f"seeds must be at least 1, got {self.seeds}")
        if self.epochs < 1:
            raise MithridateError(f"epochs must be at least 1, got {self.epochs}")
        chosen = (self.source, self.target, self.triggered)
        for name in chosen:
            if name not in CLASSES:
                raise MithridateError(f"the toy world has no class {name!r}; {nearest_names(name, CLASSES)}")
        if self.source == self.target:
            raise MithridateError(f"source and target must differ, both are {self.source!r}")
        if self.triggered in (self.source, self.target):
            raise MithridateError(f"triggered must be a class of its own, got {self.triggered!r}; choose another")
        Strength(class_share=self.class_share)

    def _claim(self, options: str) -> None:
        """Go on with the same demo, or begin one. Raises `OutputError`, and `AlreadyDone` for one that was killed at
        its very end."""
        file = self.out / OPTIONS
        same = not self.overwrite and file.is_file() and file.read_text(encoding="utf-8") == options
        done = same and all(
            (self._folder(seed) / RESULT).is_file() for seed in range(self.seed, self.seed + self.seeds)
        )
        if done and was_killed(self.out):
            raise AlreadyDone(f"{self.out} is done already: this command was killed after it had written all of it")
        if not same or done:
            refuse_existing(self.out, overwrite=self.overwrite or was_killed(self.out))
            shutil.rmtree(self.out, ignore_errors=True)
            self.out.mkdir(parents=True, exist_ok=True)
            write_atomically(file, options)

    def _folder(self, seed: int) -> Path:
        return self.out if self.seeds == 1 else self.out / f"seed-{seed}"

    def _walk(self, seed: int) -> dict[str, Any]:
        """One seed: its page and its result."""
        began, folder = time.monotonic(), self._folder(seed)
        if (folder / RESULT).is_file():
            return json.loads((folder / RESULT).read_text(encoding="utf-8"))
        # torch is not loaded for --help, and something is on the screen before it is
        from mithridate.cli.demo_plan import Plan
        from mithridate.cli.loop import Loop
        from mithridate.report.walk import write_walk

        folder.mkdir(parents=True, exist_ok=True)
        plan = Plan(self.source, self.target, self.triggered, self.class_share, self.epochs, seed)
        with display(quiet=self.json, transient=True) as show:
            loop = Loop(folder, plan, show, self._say, began=began)
            walk, found = loop.go()
        page = write_walk(walk, folder)
        seconds = {"seconds": round(time.monotonic() - began, 1), "seconds_to_first_result": round(loop.first, 1)}
        result = {**walk.report.headline, **found, **seconds}
        write_atomically(folder / RESULT, json.dumps(result))
        if not self.json:
            self._end(page, seconds)
        return result

    def _say(self, head: str, text: str) -> None:
        if not self.json:
            say(
                *textwrap.wrap(
                    text, WIDTH, initial_indent=f"{head} ", subsequent_indent=" " * 11, break_on_hyphens=False
                )
            )

    def _end(self, page: Path, seconds: dict[str, float]) -> None:
        from mithridate.cli.progress import duration

        say(f"done in {duration(seconds['seconds'])}; all of it in pictures, and what to type on your own data:")
        say(f"next: open {page}")


def _mean(values: Sequence[Any]) -> Any:
    """The mean of numbers in nested dicts, key by key; what is no number in all of them is left out."""
    keys = [key for key in values[0] if all(key in value for value in values)]
    found = {}
    for key in keys:
        each = [value[key] for value in values]
        if all(isinstance(value, dict) for value in each):
            found[key] = _mean(each)
        elif all(isinstance(value, int | float) and not isinstance(value, bool) for value in each):
            found[key] = float(np.mean(each))
    return found


def run(argv: Sequence[str]) -> None:
    parse(Demo, argv, prog="demo").run()
