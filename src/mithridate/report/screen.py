"""The page of a screening: scores side by side, what each saw in the zoo, the most suspicious images in pictures."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from mithridate.encoder.embed import image_source
from mithridate.encoder.encoder import Encoder
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


def screen_page(screened: Screened, encoder: Encoder) -> str:
    """The page as one HTML file: it asks for nothing else, and has no script."""
    flagged = screened.flagged
    p = np.stack(list(screened.p.values()))
    order = np.lexsort((p.min(axis=0), -np.sum(list(flagged.values()), axis=0)))[:_SHOWN]
    source = image_source(encoder, _array([screened.locations[i] for i in order]), cache=None)
    pixels = source.gather(np.arange(len(order)))
    cards = [
        {
            "picture": _picture(np.asarray(pixels[at]), _SIDE),
            "name": one_line(Path(screened.locations[i]).name),
            "class": one_line(screened.predicted[i]),
            "scores": ", ".join(
                f"{name} (p {show(float(screened.p[name][i]))})" for name in flagged if flagged[name][i]
            ),
        }
        for at, i in enumerate(order.tolist())
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


def _array(locations: list[str]) -> Any:
    import pyarrow as pa

    return pa.array(locations)
