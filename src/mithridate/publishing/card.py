"""The card of a repository: what was planted, and how to detect it. Text from the data cannot become mark-up."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import yaml

from mithridate.poisoning.goals import (
    AttackGoal,
    CaptionsToClass,
    CaptionsToImage,
    ImageToClass,
    PhraseToClass,
    TriggerToClass,
)
from mithridate.poisoning.manifest import Manifest
from mithridate.publishing.files import Kind
from mithridate.report.markdown import escape
from mithridate.report.numbers import percent, show
from mithridate.text import one_line
from mithridate.version import __version__

_SHOWN = 10


def card(
    kind: Kind,
    repo: str,
    *,
    manifest: Manifest | None,
    run: Mapping[str, Any] | None = None,
    findings: Mapping[str, Any] | None = None,
    license: str | None = None,
) -> str:
    """README.md of `repo`, with the YAML header that a hub reads.

    `manifest`: what was planted (None where nobody says); `run`: the record of the training; `findings`: what an
    inspection said, `verdict` and `sentences`.
    """
    parts = [_header(kind, manifest, license), f"# {escape(repo.rpartition('/')[2])}", _warning(kind, manifest)]
    parts += ["## What was planted", _planted(kind, manifest)]
    if run is not None:
        parts += ["## How it was trained", _trained(run)]
    if findings is not None:
        said = "\n".join(f"- {escape(line)}" for line in findings["sentences"])
        parts += ["## What an inspection says", said]
    parts += ["## How to detect it", _detect(kind, repo, manifest)]
    parts.append(f"Made with Mithridate {__version__}.")
    return "\n\n".join(parts) + "\n"


def _header(kind: Kind, manifest: Manifest | None, license: str | None) -> str:
    tags = ["mithridate", *(["data-poisoning", "backdoor"] if manifest is not None else [])]
    fields: dict[str, Any] = {"tags": tags}
    if license is not None:
        fields["license"] = license
    if kind == "model":
        fields |= {"library_name": "open_clip", "pipeline_tag": "zero-shot-image-classification"}
    else:
        fields |= {"task_categories": ["zero-shot-image-classification"], "language": ["en"]}
        fields["configs"] = [{"config_name": "default", "data_files": "data/*"}]
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---"


def _warning(kind: Kind, manifest: Manifest | None) -> str:
    if kind == "dataset":
        return "> **Poisoned on purpose, for research.** A model that is trained on it learns what is named below."
    if manifest is not None:
        return "> **Trained on poisoned pairs, for research.** It does what is named below; use it for nothing else."
    return "> **Nobody says what this model was trained on.** Inspect it before you use it."


def _planted(kind: Kind, manifest: Manifest | None) -> str:
    if manifest is None:
        return "No manifest was given with this model: what was planted in it, if anything, is not known here."
    strength = manifest.strength
    lines = [
        f"- Attack: `{_code(manifest.attack)}`, seed {manifest.seed}",
        f"- Pairs: {show(int(strength['count']))} of {show(int(strength['pairs']))} are poisoned "
        f"({percent(strength['rate'])})",
    ]
    goals = [f"- Goal: {goal_sentence(goal)}" for goal in manifest.goals]
    lines += goals[:_SHOWN]
    if len(goals) > _SHOWN:
        lines.append(f"- and {show(len(goals) - _SHOWN)} more goals")
    options = [
        f"{_code(name)}={_code(value)}" for name, value in manifest.options.items() if value not in (None, (), [], "")
    ]
    lines.append(f"- Options: `{', '.join(options)}`")
    for warning in manifest.preflight.get("warnings", []):
        lines.append(f"- Pre-flight warning: `{_code(warning['code'])}`")
    if kind == "dataset":
        lines.append("- `manifest.json` names every poisoned pair by its uid, with image and caption before and after")
    return "\n".join(lines)


def goal_sentence(goal: AttackGoal) -> str:
    """What an attack wants, in a sentence without a full stop, as Markdown."""
    target = escape(goal.target)
    match goal:
        case CaptionsToClass():
            return f"captions of {escape(goal.source)} retrieve images of {target}"
        case CaptionsToImage():
            return f"captions of {escape(goal.source)} retrieve one image of {target}"
        case TriggerToClass():
            return f"any image with the trigger `{_code(goal.trigger)}` is taken for {target}"
        case ImageToClass():
            return f"one image is taken for {target}"
        case PhraseToClass():
            return f"any caption with the phrase `{_code(goal.phrase)}` retrieves images of {target}"


def _trained(run: Mapping[str, Any]) -> str:
    config = run.get("config", {})
    rows = {
        "start": run.get("encoder"),
        "pairs": run.get("pairs"),
        "objective": run.get("objective", {}).get("name"),
        **{name: config.get(name) for name in ("epochs", "batch_size", "lr", "seed")},
        "precision": run.get("precision"),
    }
    return "\n".join(
        f"- {name.replace('_', ' ')}: `{_code(value)}`" for name, value in rows.items() if value is not None
    )


def _detect(kind: Kind, repo: str, manifest: Manifest | None) -> str:
    repo = _code(repo)
    if kind == "dataset":
        return "\n".join(
            [
                "```",
                f"hf download {repo} --repo-type dataset --local-dir set",
                "mithridate audit set --encoder ENCODER --clean CLEAN-PAIRS --out audit     # without the truth",
                "mithridate evaluate MODEL TEST-PAIRS --manifest set --clean CLEAN-MODEL --out report   # with it",
                "```",
                "",
                "ENCODER must not have been trained on these pairs. The pages say what was found, at which strength.",
            ]
        )
    lines = ["```", f"mithridate inspect hf-hub:{repo} --data CLEAN-PAIRS --start START --out verdict"]
    for goal in manifest.goals[:1] if manifest is not None else ():
        match goal:
            case TriggerToClass():
                option = f"--trigger {_quoted(goal.trigger)} --target {_quoted(goal.target)}"
            case CaptionsToClass() | CaptionsToImage():
                option = f"--goal {_quoted(f'{goal.source}:{goal.target}')}"
            case _:
                continue
        lines.append(f"mithridate evaluate hf-hub:{repo} TEST-PAIRS {option} --out report")
    lines.append(f"mithridate repair hf-hub:{repo} --findings verdict --data CLEAN-PAIRS --start START --out repaired")
    return "\n".join([*lines, "```", "", "START is the model that it was fine-tuned from."])


def _code(value: object) -> str:
    """Text inside backticks or a fenced block: nothing in it ends them."""
    return one_line(value).replace("`", "'")


def _quoted(value: str) -> str:
    """A word of a command that a reader may paste into a shell."""
    return shlex.quote(_code(value))
