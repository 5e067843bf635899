"""The review page of an audit: a verdict, a card for each group with its pictures, and decisions by keyboard."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from PIL import Image

from mithridate.auditing.audit import Audit
from mithridate.auditing.audit_files import audit_id, write_audit
from mithridate.auditing.campaigns import Campaign
from mithridate.auditing.data import DataAudit
from mithridate.auditing.groups import Group
from mithridate.evaluation.examples import thumbnail
from mithridate.report.html import environment, style
from mithridate.report.numbers import show, show_percent, show_short
from mithridate.report.review_pairs import write_review_pairs
from mithridate.text import one_line

_SHOWN = 12  # pairs of a group that are shown
_SIDE = 160
_CARDS = 60

# what the detectors cannot see, whatever they find
BLIND = (
    "poison whose captions fit their images, one caption an image and no two alike",
    "smooth warps of a picture",
    "patches that are turned, scaled or recoloured on every image",
)


@dataclass(frozen=True)
class Picture:
    """One pair on a card: a JPEG in base64, its uid, caption, scores and reasons."""

    uid: str
    source: str | None
    caption: Markup
    alt: str
    reasons: tuple[str, ...]


def review_page(audit: Audit, *, encoder: str, crops: Callable[[Group], np.ndarray | None] | None = None) -> str:
    """The page as one HTML file: it asks for nothing else, and can be read without a script.

    `crops(group)` gives the pixels (h, w, 3) uint8 of a recurring patch, None where there is none.
    """
    shown = cards(audit, crops)
    return (
        environment()
        .get_template("review.html.j2")
        .render(
            style=style(),
            audit_id=audit_id(audit),
            verdict=_verdict(audit),
            facts=_facts(audit, encoder),
            cards=shown,
            more=len(audit.campaigns) - len(shown),
            blind=BLIND,
            left_out=_left_out(audit),
            strongest=_unflagged(audit),
            capacity=_capacity(audit),
        )
    )


def write_review(done: DataAudit, folder: Path) -> None:
    """Write all that an audit leaves, its page among it, into `folder` (it exists)."""
    write_audit(done.audit, folder, encoder=done.encoder, weights=done.weights)
    page = review_page(done.audit, encoder=done.encoder, crops=done.crop)
    (folder / "report.html").write_text(page, encoding="utf-8")
    (folder / "review").mkdir()
    write_review_pairs(done.audit, folder / "review")


def cards(audit: Audit, crops: Callable[[Group], np.ndarray | None] | None) -> list[dict[str, Any]]:
    """What the page shows of each group, strongest first."""
    return [_card(audit, i, campaign, crops) for i, campaign in enumerate(audit.campaigns[:_CARDS])]


def _verdict(audit: Audit) -> str:
    n, groups = len(audit.pairs), len(audit.campaigns)
    if not groups:
        return f"Nothing found: none of {show(n)} pairs belongs to a group that looks planted."
    plural = "group of pairs looks" if groups == 1 else "groups of pairs look"
    return f"Suspicious: {groups} {plural} planted, {show(audit.flagged)} of {show(n)} pairs in all."


def audit_lines(audit: Audit) -> list[str]:
    """What the console says of an audit: the verdict, and the strongest groups."""
    lines = [_verdict(audit)]
    lines += [f"  {i + 1}. {title(c.lead)}: {sentence(c.lead)}" for i, c in enumerate(audit.campaigns[:5])]
    if len(audit.campaigns) > 5:
        lines.append(f"  and {len(audit.campaigns) - 5} more")
    if not audit.campaigns:
        lines += [f"  not flagged, the strongest: {said}" for said in _unflagged(audit)[:1]]
    lines += list(audit.notes)
    lines += [f"left out: {which}" for which in _left_out(audit)]
    return lines


def _left_out(audit: Audit) -> list[str]:
    """The detectors that were not run, those of one reason together."""
    reasons = dict.fromkeys(audit.left_out.values())
    names = {reason: [name for name, why in audit.left_out.items() if why == reason] for reason in reasons}
    return [f"{', '.join(those)} ({reason})" for reason, those in names.items()]


def _facts(audit: Audit, encoder: str) -> list[str]:
    facts = [f"Detectors: {', '.join(audit.evidence)}. Encoder: {one_line(encoder)}."]
    if audit.calibration is None:
        facts.append(
            "No clean pairs were given: groups are held against suspicions dealt out at random, and no pair has a "
            "p-value."
        )
    else:
        c = audit.calibration
        facts.append(
            f"Calibrated on {show(c.pairs)} clean pairs of {show(c.images)} images: no p-value is below "
            f"{show(c.floor)}, and a false discovery rate of 0.1 needs at least {show(c.fewest)} pairs there. "
            f"Rejected by it, on mismatch alone: {show(audit.rejected)}."
        )
    facts += list(audit.notes)
    facts.append(
        f"A group is flagged from a strength of {show_short(audit.flag)} (-log10 of the chance of seeing it). Dealt "
        f"out at random, the strongest group here has {show_short(audit.null)}."
    )
    facts.append(
        "Poison that is too thin for a group still ranks high as a rule: scores.parquet orders all pairs by suspicion."
    )
    return facts


def _unflagged(audit: Audit) -> list[str]:
    below = (g for e in audit.evidence.values() for g in e.groups if g.strength < audit.flag)
    groups = sorted(below, key=lambda group: -group.strength)
    return [sentence(group) for group in groups[:5]]


def _capacity(audit: Audit) -> list[str]:
    """Who holds how many pairs, against the counts at which attacks take."""
    held = audit.capacity
    if held is None or not held.holders:
        return []
    said = []
    if held.domains:
        known = "pairs and more, with which"
        said = [
            f"{show(held.could_backdoor)} of {show(held.domains)} domains hold {show(held.backdoor)} {known} a "
            "backdoor is known to take.",
            f"{show(held.could_target)} of them hold {show(held.targeted)} {known} an attack on one image is known to "
            "take.",
        ]
    for kind in ("domain", "concept", "shard"):
        largest = [holder for holder in held.holders if holder.kind == kind][:3]
        if largest:
            names = "; ".join(f"{one_line(h.value)} ({show(h.pairs)} of {show(h.of)} pairs)" for h in largest)
            said.append(f"Largest by {kind}: {names}.")
    return said


def sentence(group: Group) -> str:
    """What a group says, in one sentence."""
    value, expected = one_line(group.value), show_short(group.expected)
    worst = f"are among the worst {show_percent(group.level)} of the corpus; {expected} expected"
    match group.kind:
        case "word":
            said = f"{group.hits} of {group.images} images with “{value}” {worst}"
        case "captions of one image":
            many = f"{group.images} images have" if group.images > 1 else "One image has"
            said = f"{many} at least {group.hits} captions each; clean images have {expected}"
        case "images of one caption":
            many = f"{group.images} captions have" if group.images > 1 else f"The caption “{value}” has"
            said = f"{many} at least {group.hits} images each; clean ones have {expected}"
        case "images of nearly one caption":
            many = (
                f"{group.images} captions, reworded a little, have"
                if group.images > 1
                else f"Captions like “{value}” have"
            )
            said = f"{many} at least {group.hits} images among the worst; clean ones have {expected}"
        case "patch":
            said = f"The same small patch is in {group.images} images; {expected} expected"
        case "residual":
            said = f"{group.images} images carry one hidden pattern, which no clean image carries as clearly"
        case _:
            said = f"{group.hits} of {group.images} images of {group.kind} {value} {worst}"
    return f"{said} (strength {show_short(group.strength)})."


def title(group: Group) -> str:
    """A group in a few words."""
    value = one_line(group.value)
    names = {
        "word": f"captions with “{value}”",
        "captions of one image": f"images with {group.hits} captions and more",
        "images of one caption": f"captions with {group.hits} images and more",
        "images of nearly one caption": f"captions like “{value}”",
        "patch": f"a patch in {group.images} images",
        "residual": f"a hidden pattern in {group.images} images",
    }
    return names.get(group.kind, f"{group.kind} {value}")


def _card(
    audit: Audit, number: int, campaign: Campaign, crops: Callable[[Group], np.ndarray | None] | None
) -> dict[str, Any]:
    words = [group.value for group in campaign.groups if group.kind == "word"]
    order = campaign.drop[np.argsort(-audit.suspicion[campaign.drop], kind="stable")]
    first = np.zeros(len(order), bool)  # a person sees each image once before any twice
    first[np.unique(audit.pairs.image_index[order], return_index=True)[1]] = True
    order = np.concatenate([order[first], order[~first]])
    patch = next((group for group in campaign.groups if group.kind == "patch"), None)
    crop = crops(patch) if patch is not None and crops is not None else None
    return {
        "number": number + 1,
        "kind": campaign.lead.kind,
        "value": campaign.lead.value,
        "title": title(campaign.lead),
        "sentence": sentence(campaign.lead),
        "others": [sentence(group) for group in campaign.groups if group is not campaign.lead][:6],
        "pairs": show(len(campaign.drop)),
        "crop": None if crop is None else _png(crop),
        "pictures": [_picture(audit, int(row), words) for row in order[:_SHOWN]],
        "hidden": show(len(order) - min(len(order), _SHOWN)) if len(order) > _SHOWN else "",
    }


def _picture(audit: Audit, row: int, words: list[str]) -> Picture:
    place = audit.pairs.image[row].as_py()
    caption = one_line(audit.pairs.text[row].as_py() or "")
    reasons = (f"{name}: {evidence.reason[row]}" for name, evidence in audit.evidence.items() if evidence.reason[row])
    return Picture(
        audit.pairs.uid[row].as_py(),
        _thumbnail(place),
        _marked(caption, words),
        caption[:200],
        tuple(map(one_line, reasons)),
    )


def _marked(caption: str, words: list[str]) -> Markup:
    """The caption, escaped, with the suspicious words marked."""
    if not words:
        return escape(caption)
    pattern = re.compile("|".join(rf"\b{re.escape(word)}\b" for word in sorted(words, key=len, reverse=True)), re.I)
    parts, end = [], 0
    for found in pattern.finditer(caption):
        parts += [escape(caption[end : found.start()]), Markup("<mark>{}</mark>").format(found[0])]
        end = found.end()
    return Markup("").join([*parts, escape(caption[end:])])


def _thumbnail(location: str) -> str | None:
    encoded = thumbnail(location, side=_SIDE)
    return f"data:image/jpeg;base64,{encoded}" if encoded else None


def _png(pixels: np.ndarray) -> str:
    """A crop, enlarged so that its pixels show."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((104, 104), Image.Resampling.NEAREST).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
