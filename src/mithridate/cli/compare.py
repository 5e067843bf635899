"""`mithridate compare DIR DIR ... --out DIR`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from mithridate.cli.common import Threads, emit, parse, suggest
from mithridate.errors import EvaluationError
from mithridate.evaluation.compare import Side, compare, side
from mithridate.evaluation.evaluation_file import read_evaluation
from mithridate.folders import new_folder, refuse_existing
from mithridate.report.console import print_brief
from mithridate.report.sections.comparison import comparison_report
from mithridate.report.write import write_report
from mithridate.text import say


@dataclass(frozen=True)
class Compare:
    """Differences of evaluations on the same test pairs, query by query, with intervals and p-values."""

    folders: Annotated[Positional[tuple[Path, ...]], arg(metavar="DIR DIR [DIR ...]")]
    """Folders that mithridate evaluate wrote; each is compared with the first."""
    out: Path
    """Folder to write: report.json, report.md, report.html."""
    model: tuple[str, ...] = ()
    """Which model of each evaluation: one for all, or one for each; by default the one that it is about."""
    seed: int = 0
    """Of the bootstrap and the sign flips."""
    threads: Threads = None
    overwrite: bool = False
    """Replace what is in the output folder."""
    json: bool = False
    """One JSON object on the last line."""

    def run(self) -> None:
        refuse_existing(self.out, overwrite=self.overwrite)
        sides = self._sides()
        report = comparison_report(compare(sides, seed=self.seed))
        with new_folder(self.out, overwrite=self.overwrite) as folder:
            write_report(report, folder)
        if self.json:
            emit(report.headline, as_json=True)
        else:
            print_brief(report)
            say(self.out / "report.html")
            suggest("report", self.out)

    def _sides(self) -> list[Side]:
        if len(self.folders) < 2:
            raise EvaluationError(f"compare needs at least two folders of evaluations, got {len(self.folders)}")
        if len(self.model) not in (0, 1, len(self.folders)):
            raise EvaluationError(f"--model takes one name, or one for each of {len(self.folders)} folders")
        models = list(self.model or (None,)) * (len(self.folders) if len(self.model) < 2 else 1)
        sides = [side(str(path), read_evaluation(path), model) for path, model in zip(self.folders, models)]
        return [Side(name, s.evaluation, s.model) for name, s in zip(_names(self.folders, sides), sides)]


def _names(folders: tuple[Path, ...], sides: list[Side]) -> list[str]:
    """The shortest names that tell the sides apart: folder, folder and model, path and model, with a number."""
    models = [s.model for s in sides]
    short, long = [path.resolve().name for path in folders], [str(path) for path in folders]
    for names in (short, [f"{n} ({m})" for n, m in zip(short, models)], long):
        if len(set(names)) == len(names):
            return names
    return [f"{n} ({m}) {i}" for i, (n, m) in enumerate(zip(long, models), 1)]


def run(argv: Sequence[str]) -> None:
    parse(Compare, argv, prog="compare").run()
