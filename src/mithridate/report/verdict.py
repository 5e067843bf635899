"""The pages of an inspection and of a repair: a verdict, what was found in pictures, what was not assessable, cost."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mithridate.inspection.finding import Finding, Recovered, as_pixels
from mithridate.inspection.findings_file import write_findings
from mithridate.inspection.inspect import Inspection, Utility
from mithridate.inspection.registry import PROBES
from mithridate.repairing.repair import Repaired
from mithridate.report.html import environment, style
from mithridate.report.numbers import percent, show
from mithridate.text import one_line

_LARGE = 160  # pixels across of a trigger on the page
_SMALL = 112


def inspection_page(inspection: Inspection) -> str:
    """The page as one HTML file: it asks for nothing else, and has no script."""
    return _page(
        inspection, title="Mithridate, inspection of a model", verdict=verdict_sentence(inspection), repair=None
    )


def repair_page(repaired: Repaired, before: Inspection) -> str:
    """What was repaired and what is left; the findings shown are those of the suspect."""
    return _page(
        before,
        title="Mithridate, repair of a model",
        verdict=repair_sentence(repaired),
        repair={
            "lines": [_what_it_cost(repaired), *_left(repaired)],
            "trials": [
                {
                    "repair": trial.repair,
                    "strength": trial.strength,
                    "success": percent(trial.success),
                    "recall": show(trial.utility.recall).value,
                    "accuracy": show(trial.utility.accuracy).value,
                    "loss": show(trial.loss).value,
                    "chosen": trial.chosen,
                }
                for trial in repaired.trials
            ],
            "calm": repaired.verdict == "nothing found",
        },
    )


def write_inspection(inspection: Inspection, folder: Path) -> None:
    """Write the findings and their page into `folder` (it exists)."""
    write_findings(inspection, folder)
    (folder / "report.html").write_text(inspection_page(inspection), encoding="utf-8")


def write_repair(repaired: Repaired, before: Inspection, folder: Path) -> None:
    """Write what is left in the repaired model, and the page, into `folder` (it exists)."""
    if repaired.left is not None:
        write_findings(repaired.left, folder)
    (folder / "report.html").write_text(repair_page(repaired, before), encoding="utf-8")


def _page(inspection: Inspection, *, title: str, verdict: str, repair: dict[str, Any] | None) -> str:
    return (
        environment()
        .get_template("verdict.html.j2")
        .render(
            style=style(),
            title=title,
            verdict=verdict,
            calm=not inspection.flagged if repair is None else repair["calm"],
            repair=repair,
            cards=[card(finding) for finding in inspection.flagged],
            others=[card(finding) for finding in inspection.findings if not finding.flagged],
            not_assessable=inspection.not_assessable,
            facts=_facts(inspection),
        )
    )


def verdict_sentence(inspection: Inspection) -> str:
    """The verdict in one sentence."""
    if inspection.verdict == "not assessable":
        return f"Not assessable: {inspection.not_assessable[0]}" if inspection.not_assessable else "Not assessable."
    if inspection.verdict == "suspicious":
        return f"Suspicious: {sentence(inspection.flagged[0])}"
    kinds = "; ".join(PROBES[name].kinds for name in inspection.probes if name in PROBES)
    return f"Nothing found of these kinds, at the strengths below: {kinds}."


def sentence(finding: Finding) -> str:
    """What a finding says, in one sentence."""
    target, share = one_line(finding.target or ""), percent(finding.success)
    start = "" if finding.start_success is None else f" ({percent(finding.start_success)} by the start)"
    match finding.kind:
        case "patch":
            return f"this patch ({finding.place}) takes {share} of images of other classes to {target}{start}."
        case "overlay":
            return f"this pattern ({finding.place}) takes {share} of images of other classes to {target}{start}."
        case "known trigger":
            return f"the known trigger {finding.place} takes {share} of images of other classes to {target}{start}."
        case "token" | "phrase":
            return (
                f"captions that end with “{one_line(finding.token)}” retrieve {target}: {share} of their first ten "
                f"images{start.replace('by the start', 'in the start')}."
            )
        case _:
            a, b = finding.pair or ("", "")
            if finding.success is None:
                return f"captions of {one_line(a)} find images of {one_line(b)}."
            return (
                f"captions of {one_line(a)} find images of {one_line(b)}: {share} of their first ten"
                f"{start.replace('by the start', 'in the start')}."
            )


def inspection_lines(inspection: Inspection) -> list[str]:
    """What the console says of an inspection."""
    lines = [verdict_sentence(inspection)]
    lines += [f"  also: {sentence(finding)}" for finding in inspection.flagged[1:]]
    said = int(inspection.verdict == "not assessable")  # the verdict is the first of them
    lines += [f"  not assessable: {line}" for line in inspection.not_assessable[said:]]
    return lines


def repair_sentence(repaired: Repaired) -> str:
    """What came of a repair, in one sentence."""
    if not repaired.methods:
        return "Not repaired: no repair stays within the loss that is allowed; the model is as it was."
    left = {
        None: "",
        "nothing found": " Inspected again, nothing is found: what was recovered is gone; a planted trigger unlike it "
        "may not be.",
        "weakened": " Weakened, not gone: inspected again nothing is flagged, and some is left.",
        "not assessable": " Inspected again, it cannot be assessed.",
        "suspicious": " Inspected again, it is still suspicious.",
    }[repaired.verdict]
    if repaired.success_before is None:
        return f"Repaired by {', '.join(repaired.methods)}.{left}"
    start = "" if repaired.success_start is None else f" ({percent(repaired.success_start)} by the start)"
    return (
        f"Repaired: what took {percent(repaired.success_before)} of images takes {percent(repaired.success_after)} "
        f"now{start}.{left}"
    )


def repair_lines(repaired: Repaired) -> list[str]:
    """What the console says of a repair."""
    return [repair_sentence(repaired), _what_it_cost(repaired), *(f"  left: {line}" for line in _left(repaired))]


def repair_summary(repaired: Repaired) -> dict[str, Any]:
    """What `mithridate repair --json` ends with, less the folder."""
    return {
        "methods": list(repaired.methods),
        "success": {
            "before": repaired.success_before,
            "after": repaired.success_after,
            "start": repaired.success_start,
        },
        "recall": {"before": repaired.before.recall, "after": repaired.after.recall},
        "accuracy": {"before": repaired.before.accuracy, "after": repaired.after.accuracy},
        "left": repaired.verdict,
        "remaining": [
            {
                "kind": each.finding.kind,
                "class": each.finding.target,
                "token": each.finding.token,
                "pair": each.finding.pair,
                "state": each.state,
                "before": round(each.before, 3),
                "after": round(each.after, 3),
                "clean": round(each.clean, 3),
            }
            for each in repaired.remaining
        ],
        "seconds": repaired.seconds,
    }


def _what_it_cost(repaired: Repaired) -> str:
    def moved(name: str, before: float | None, after: float | None) -> list[str]:
        return [] if before is None else [f"{name} {show(before)} before, {show(after)} after"]

    parts = moved("IR@10", repaired.before.recall, repaired.after.recall)
    parts += moved("accuracy", repaired.before.accuracy, repaired.after.accuracy)
    used = f"by {', '.join(repaired.methods)}; " if repaired.methods else ""
    return f"On the half of the pairs that nothing was chosen on, {used}{'; '.join(parts)}."


def _left(repaired: Repaired) -> list[str]:
    """What each finding was and is, then what the second inspection flags."""
    lines = []
    for each in repaired.remaining:
        finding = each.finding
        numbers = f"strength from {show(each.before)} to {show(each.after)}, {show(each.clean)} on a clean model"
        lines.append(f"{finding.kind} ({one_line(finding.about)}): {each.state}, {numbers}.")
    return lines + ([] if repaired.left is None else [sentence(finding) for finding in repaired.left.flagged])


def _facts(inspection: Inspection) -> list[str]:
    u: Utility = inspection.utility
    classes = "their labels" if inspection.labelled else "frequent words of their captions"
    accuracy = "" if u.accuracy is None else f"; accuracy {percent(u.accuracy)}, chance {percent(u.accuracy_chance)}"
    facts = [
        f"Model: {one_line(inspection.name)}. Inspected with {show(inspection.images)} images of yours; the classes "
        f"are {classes}.",
        f"Utility on them: IR@10 {percent(u.recall)}, chance {percent(u.recall_chance)}{accuracy}.",
        "A strength is a difference of shares: with the trigger less without, or in the model less in its start. A "
        "finding is flagged where its strength exceeds its null by a margin; the null is what the start shows the "
        "other way, or what null models reach.",
    ]
    for name, values in inspection.nulls.items():
        facts.append(f"Null models, {name}: strongest {', '.join(str(show(v)) for v in sorted(values, reverse=True))}.")
    spent = "; ".join(f"{name} {show(value)}" for name, value in inspection.seconds.items())
    total = show(float(sum(inspection.seconds.values())))
    return [*facts, f"Cost: {total} seconds of processor time ({spent})."]


def card(finding: Finding) -> dict[str, Any]:
    """What a page shows of a finding."""
    line = sentence(finding)
    return {
        "title": f"{finding.kind}: {one_line(' finds '.join(finding.pair or (finding.target or '',)))}".rstrip(": "),
        "sentence": line[:1].upper() + line[1:],
        "strength": show(finding.strength).value,
        "null": show(finding.null).value,
        "caption": None if finding.caption is None else one_line(finding.caption),
        "trigger": None if finding.trigger is None else _picture(_alone(finding.trigger), _LARGE),
        "examples": [
            {
                "source": _picture(e.pixels, _SMALL),
                "before": None if e.before is None else one_line(e.before),
                "after": one_line(e.after),
                "hit": e.after == finding.target,
            }
            for e in finding.examples
        ],
    }


def _alone(trigger: Recovered) -> np.ndarray:
    """The trigger on mid-grey: (h, w, 3) uint8."""
    grey = trigger.add.new_full((1, *trigger.add.shape), 0.5)
    return as_pixels(trigger.stamp(grey))[0]


def _picture(pixels: np.ndarray, side: int) -> str:
    image = Image.fromarray(pixels)
    factor = max(1, side // max(image.size))
    if factor > 1:
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    elif max(image.size) > side:
        image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
