"""The page of `mithridate demo`: what happened, in pictures, and what to type on data of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mithridate.auditing.data import DataAudit
from mithridate.folders import write_atomically
from mithridate.inspection.inspect import Inspection
from mithridate.repairing.repair import Repaired
from mithridate.report.document import Report
from mithridate.report.html import environment, retrieved, style, triggered
from mithridate.report.review import cards
from mithridate.report.verdict import card, repair_lines, repair_sentence, verdict_sentence

_PICTURES = 6
"""Of each group of the audit."""

NEXT = (
    (
        "You study attacks or defences",
        (
            "mithridate poison single-label MY-PAIRS --source sheep --target aeroplane --out poisoned",
            "mithridate train poisoned --encoder ViT-B-32 --pretrained openai --out run",
            "mithridate evaluate run MY-TEST-PAIRS --manifest poisoned --clean clean-run --out report",
            "mithridate study list",
        ),
    ),
    (
        "You are about to train on scraped pairs",
        (
            "mithridate data doctor 'shards/{00000..00099}.tar'",
            "mithridate audit 'shards/{00000..00099}.tar' --encoder ViT-B-32 --pretrained openai "
            "--clean MY-CLEAN-PAIRS.csv --out audit",
            "mithridate train 'shards/{00000..00099}.tar' --keep audit --out run",
        ),
    ),
    (
        "You were given a checkpoint",
        (
            "mithridate inspect MODEL --data MY-CLEAN-PAIRS.csv --start ITS-START --out verdict",
            "mithridate repair MODEL --findings verdict --data MY-CLEAN-PAIRS.csv --start ITS-START --out repaired",
        ),
    ),
)
"""By what the reader has, the commands on their own data."""


@dataclass(frozen=True)
class Step:
    """One step: its name, why it is taken, what it said, and the command that does it."""

    name: str
    why: str
    lines: tuple[str, ...]
    command: str


@dataclass(frozen=True)
class Headline:
    """One figure by model, `chance` among them, as it is shown. `attack`: of what was planted, lower is better."""

    title: str
    values: tuple[tuple[str, str], ...]
    attack: bool


@dataclass(frozen=True)
class Walk:
    """All that the page shows. `repaired` is None where nothing was found to repair."""

    report: Report
    audit: DataAudit
    inspection: Inspection
    repaired: Repaired | None
    steps: tuple[Step, ...]
    headlines: tuple[Headline, ...]


def walk_page(walk: Walk) -> str:
    """The page as one HTML file: no request, no script."""
    audited = walk.audit.audit
    return (
        environment()
        .get_template("walk.html.j2")
        .render(
            style=style(),
            headlines=walk.headlines,
            steps=walk.steps,
            retrievals=retrieved(walk.report),
            triggered=triggered(walk.report),
            groups=[{**each, "pictures": each["pictures"][:_PICTURES]} for each in cards(audited, walk.audit.crop)[:3]],
            verdict=verdict_sentence(walk.inspection),
            findings=[card(finding) for finding in walk.inspection.flagged[:3]],
            repaired=None if walk.repaired is None else repair_sentence(walk.repaired),
            lines=[] if walk.repaired is None else repair_lines(walk.repaired)[1:],
            chapters=NEXT,
        )
    )


def write_walk(walk: Walk, out: Path) -> Path:
    """Write `out`/report.html."""
    page = Path(out) / "report.html"
    write_atomically(page, walk_page(walk))
    return page
