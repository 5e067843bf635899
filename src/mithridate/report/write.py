"""A report on disk: `report.json`, and what is rendered from it."""

from __future__ import annotations

from pathlib import Path

from mithridate.disk import output_error
from mithridate.errors import OutputError
from mithridate.folders import write_atomically
from mithridate.report.document import Report, read_report
from mithridate.report.html import to_html
from mithridate.report.markdown import to_markdown


def write_report(report: Report, out: Path) -> None:
    """Write `report.json`, `report.md` and `report.html` into the folder `out`, replacing those there."""
    out = Path(out)
    if not out.is_dir():
        raise OutputError(f"the folder {out} does not exist; create it first")
    try:
        write_atomically(out / "report.json", report.to_json())
        # Rendered from the file, so that rendering it again gives the same pages.
        report = read_report(out)
        write_atomically(out / "report.md", to_markdown(report))
        write_atomically(out / "report.html", to_html(report))
    except OSError as error:
        raise output_error(out, error) from error
