"""The page of a screening: scores side by side, what each saw in the zoo, the most suspicious images in pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mithridate.inspection.scores.registry import SCORES
from mithridate.inspection.scores.seen import SEEN
from mithridate.inspection.screen import Screened
from mithridate.report.html import environment, style
from mithridate.report.numbers import percent, show
from mithridate.report.verdict import _picture
from mithridate.text import one_line

_SHOWN = 24
_SIDE = 112


def screen_sentence(screened: Screened) -> str:
    """How many images exceed a threshold, and that this proves nothing."""
    any_score = np.any(list(screened.flagged.values()), axis=0)
    several = np.sum(list(screened.flagged.values()), axis=0) >= 2
    return (
        f"{int(any_score.sum())} of {len(screened.locations)} images exceed the threshold of a score, "
        f"{int(several.sum())} of them those of several; of clean images {percent(screened.false_alarms)} exceed each. "
        "This proves nothing: no score sees every kind of trigger."
    )


def screen_lines(screened: Screened) -> list[str]:
    """What the console says of a screening."""
    lines = [screen_sentence(screened)]
    for name, hits in screened.flagged.items():
        lines.append(f"  {name}: {int(hits.sum())} images ({percent(float(hits.mean()))}); {_saw(name)}")
    if screened.unreadable:
        lines.append(f"  {screened.unreadable} images do not decode and were left out")
    return lines


def screen_summary(screened: Screened) -> dict[str, Any]:
    """What `mithridate screen --json` ends with, less the folder."""
    return {
        "images": len(screened.locations),
        "unreadable": screened.unreadable,
        "clean": screened.clean,
        "false_alarms": screened.false_alarms,
        "flagged": {name: int(hits.sum()) for name, hits in screened.flagged.items()},
        "pooled": list(screened.pooled),
    }


def screen_table(screened: Screened) -> str:
    """A row an image as CSV: location, class, and by score suspicion, threshold, p-value, flagged."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = list(screened.suspicion)
    parts = ("suspicion", "threshold", "p", "flagged")
    writer.writerow(["image", "class", *(f"{name} {part}" for name in names for part in parts)])
    flagged = screened.flagged
    for i, (location, taken) in enumerate(zip(screened.locations, screened.predicted)):
        row: list[Any] = [location, taken]
        for name in names:
            numbers = (screened.suspicion[name][i], screened.threshold[name][i], screened.p[name][i])
            row += [*(round(float(number), 6) for number in numbers), int(flagged[name][i])]
        writer.writerow(row)
    return out.getvalue()


def most_suspicious(screened: Screened) -> list[int]:
    """The rows that the page shows: those above most thresholds first, then by their smallest p-value."""
    smallest = np.min(list(screened.p.values()), axis=0)
    return np.lexsort((smallest, -np.sum(list(screened.flagged.values()), axis=0)))[:_SHOWN].tolist()


def screen_page(screened: Screened, pixels: Sequence[np.ndarray]) -> str:
    """The page as one HTML file: it asks for nothing else, and has no script. `pixels`: of `most_suspicious`."""
    flagged = screened.flagged
    cards = [
        {
            "picture": _picture(np.asarray(picture), _SIDE),
            "name": one_line(Path(screened.locations[i]).name),
            "class": one_line(screened.predicted[i]),
            "scores": ", ".join(
                f"{name} (p {show(float(screened.p[name][i]))})" for name in flagged if flagged[name][i]
            ),
        }
        for picture, i in zip(pixels, most_suspicious(screened))
    ]
    rows = [
        {
            "name": name,
            "measures": SCORES[name].measures if name in SCORES else "",
            "count": show(int(hits.sum())).value,
            "share": percent(float(hits.mean())),
            "saw": _saw(name),
        }
        for name, hits in flagged.items()
    ]
    facts = [
        f"Thresholds are of {show(screened.clean)} clean images, by the class that the model takes an image for.",
        *([f"Too few clean images of {', '.join(map(one_line, screened.pooled))}: there the thresholds of all classes "
           "together count."] if screened.pooled else []),
        *([f"{show(screened.unreadable)} images do not decode and were left out."] if screened.unreadable else []),
    ]  # fmt: skip
    return (
        environment()
        .get_template("screen.html.j2")
        .render(style=style(), sentence=screen_sentence(screened), rows=rows, cards=cards, facts=facts)
    )


def _saw(name: str) -> str:
    """What a score saw in the toy zoo, or that nobody measured it."""
    seen = SEEN.get(name)
    if not seen:
        return "not measured on models whose triggers are known"
    return "AUROC on toy models with known triggers: " + ", ".join(f"{kind} {show(v)}" for kind, v in seen.items())
