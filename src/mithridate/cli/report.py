"""`mithridate report DIR`: render report.json again."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from mithridate.cli.common import parse
from mithridate.report.console import print_report
from mithridate.report.document import read_report
from mithridate.report.write import write_report
from mithridate.text import say


@dataclass(frozen=True)
class Render:
    """Render the report.json in a folder again, as report.md, report.html and on the console."""

    folder: Positional[Path]
    """The folder that holds report.json."""

    def run(self) -> None:
        report = read_report(self.folder)
        write_report(report, self.folder)
        print_report(report)
        say(self.folder / "report.html")


def run(argv: Sequence[str]) -> None:
    parse(Render, argv, prog="report").run()
