"""`defence` of a study file: bundles of what is done against an attack. And entries `plugged`, which plugins fill."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from mithridate.auditing.registry import DETECTORS
from mithridate.plugins import plugged
from mithridate.poisoning.registry import ATTACKS
from mithridate.studies.spec.located import Located, suggestion

PARTS = ("filter", "audit", "objective", "repair", "inspect")
"""What a defence may be made of: before training, while training, afterwards."""

PLUGGED = "plugged"


def unbundled(sections: Mapping[str, Located]) -> dict[str, Located]:
    """The sections with the parts of their defence in place of their own. Raises `StudyError` for other parts."""
    found = {name: section for name, section in sections.items() if name != "defence"}
    defence = sections.get("defence")
    if defence is None or defence.value is None:
        return found
    given = {name: part for name, part in defence.items("a defence").items() if name != "label"}
    for name, part in given.items():
        if name not in PARTS:
            part.fail(f"a defence has no part {name!r}; {suggestion(name, PARTS)}")
    if not given:
        defence.fail(f"a defence needs one of {', '.join(PARTS)}; none is `null`")
    return {**found, **given}


def with_plugged(section: str, node: Located) -> Located:
    """A list of attacks or defences, with one entry for each class of a plugin in place of its entry `plugged`."""
    if section not in ("attack", "defence") or not isinstance(node.value, list):
        return node
    made = _attacks if section == "attack" else _defences
    found: list[Located] = []
    for entry in node.value:
        if isinstance(entry.value, dict) and PLUGGED in entry.value:
            found += made(entry.value[PLUGGED])
        else:
            found.append(entry)
    return replace(node, value=found)


def _attacks(options: Located) -> list[Located]:
    """Each attack of a plugin, with those of `options` that it has."""
    given = options.items("attack.plugged")
    found = []
    for name in plugged("ATTACKS"):
        known = {field.name for field in fields(ATTACKS[name])}  # type: ignore[arg-type]
        own = {option: value for option, value in given.items() if option.replace("-", "_") in known}
        found.append(_made(options, {"attack": name, **own}))
    return found


def _defences(options: Located) -> list[Located]:
    """Each objective, detector and repair of a plugin, with the options that its part has in `options`."""
    given = options.items("defence.plugged")
    for part, value in given.items():
        if part not in PARTS:
            value.fail(f"defence.plugged has no field {part!r}; {suggestion(part, PARTS)}")
    plain = {part: value.items(f"defence.plugged.{part}") for part, value in given.items()}
    found = [
        {"label": name, "objective": {**plain.get("objective", {}), "objective": name}}
        for name in plugged("OBJECTIVES")
    ]
    for name in plugged("DETECTORS"):
        kind: Any = DETECTORS[name]
        if "pixels" in kind.needs:  # a filter sees embeddings and captions alone
            found.append({"label": name, "audit": {**plain.get("audit", {}), "detectors": [name]}})
        else:
            level = plain.get("filter", {}) if getattr(kind, "own_level", None) is None else {}
            found.append({"label": name, "filter": {**level, "detector": name}})
    found += [
        {"label": name, "inspect": {**plain.get("inspect", {}), "methods": [name], "repair": True}}
        for name in plugged("REPAIRS")
    ]
    return [_made(options, defence) for defence in found]


def _made(node: Located, value: Any) -> Located:
    """A value that the file does not hold, as if it stood where `node` does."""
    if isinstance(value, Located):
        return value
    if isinstance(value, dict):
        return replace(node, value={name: _made(node, inner) for name, inner in value.items()})
    return replace(node, value=[_made(node, inner) for inner in value] if isinstance(value, list) else value)
