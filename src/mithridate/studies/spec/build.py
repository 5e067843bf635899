"""From the sections of a study file to the dataclasses of the Python API, each option checked by pydantic.

What a section says is validated against the annotations of the very dataclass that it becomes; what that dataclass
refuses is passed on. Hyphens and underscores are one in names of options.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from mithridate.auditing.registry import DETECTORS
from mithridate.auditing.threshold import Above, Budget, CleanQuantile, Threshold
from mithridate.errors import AttackError, MithridateError
from mithridate.poisoning.combined import Combined
from mithridate.poisoning.plan import Attack
from mithridate.poisoning.registry import ATTACKS
from mithridate.studies.spec.data import DataSpec, ToySpec
from mithridate.studies.spec.located import Located, shown, suggestion
from mithridate.studies.spec.study import AuditSpec, FilterSpec, InspectSpec, RepairSpec, StartSpec
from mithridate.toy.toy import CLASSES
from mithridate.training.clip import Clip
from mithridate.training.config import PRESETS, TrainConfig
from mithridate.training.objective import Objective
from mithridate.training.registry import OBJECTIVES

T = TypeVar("T")

# what a section is called by where it says nothing but a name, and what its name is an option of
NAMED_BY = {
    "attack": "attack",
    "objective": "objective",
    "filter": "detector",
    "audit": "drop",
    "repair": "objective",
    "train": "preset",
    "start": "encoder",
}
SECTIONS = ("data", "test", "start", "train", "attack", "defence", "objective", "filter", "audit", "repair", "inspect")
THRESHOLDS: dict[str, Callable[[Any], Threshold]] = {
    "above": Above,
    "clean_quantile": CleanQuantile,
    "budget_pairs": lambda pairs: Budget(pairs=pairs),
    "budget_share": lambda share: Budget(share=share),
}
_OF_THRESHOLD = {"above": float, "clean_quantile": float, "budget_pairs": int, "budget_share": float}


def options(node: Located, section: str, what: str) -> dict[str, Located]:
    """What a section says, by option; a word alone is its name. `label` is no option."""
    if isinstance(node.value, str) and (section in NAMED_BY or section == "data"):
        name = "path" if section == "data" else NAMED_BY[section]
        if section == "data" and node.value == "toy":
            return {"toy": Located({}, node.line, node.file)}
        return {name: node}
    found: dict[str, Located] = {}
    for name, value in node.items(what).items():
        plain = name.replace("-", "_")
        if plain in found:
            value.fail(f"{what}.{name} is given twice")
        found[plain] = value
    found.pop("label", None)
    return found


def build(kind: type[T], node: Located, given: Mapping[str, Located], what: str, default: T | None = None) -> T:
    """A `kind` with the options `given`, the others as in `default`. Raises `StudyError` that names the option."""
    hints = _hints(kind)
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    values = {}
    for name, value in given.items():
        if name not in known:
            value.fail(f"{what} has no option {name!r}; {suggestion(name, known)}")
        values[name] = _field(hints[name], value, f"{what}.{name}")
    required = [f.name for f in fields(kind) if f.default is f.default_factory is MISSING]  # type: ignore[arg-type]
    missing = [name for name in required if name not in values and default is None]
    if missing:
        node.fail(f"{what} needs {missing[0]!r}")
    try:
        return kind(**values) if default is None else replace(default, **values)  # type: ignore[type-var]
    except (MithridateError, ValueError, TypeError) as error:
        culprit = next((given[name] for name in given if name in str(error)), node)
        culprit.fail(f"{what}: {error}")


def _field(hint: Any, node: Located, what: str) -> Any:
    inner = next((kind for kind in (ToySpec, DataSpec, TrainConfig) if kind is hint or kind in get_args(hint)), None)
    if inner is not None and node.value is not None:
        return {ToySpec: build_toy, DataSpec: build_data, TrainConfig: build_train}[inner](node, what)
    try:
        # as JSON, strictly: a list is a tuple, a whole number is a number, and nothing else is taken for another
        return _adapter(hint).validate_json(json.dumps(node.plain()), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = first["msg"].replace("Input should", "should")
        if first["type"] == "literal_error":
            expected = [str(word) for word in get_args(hint) if isinstance(word, str)] or [
                str(word) for part in get_args(hint) for word in get_args(part)
            ]
            if isinstance(node.value, str) and expected:
                message = f"should be {first['ctx']['expected']}, got {shown(node.value)}; "  # type: ignore[typeddict-item]
                node.fail(f"{what} {message}{suggestion(node.value, expected)}")
        node.fail(f"{what} {message}, got {shown(node.plain())}")


def value_of(kind: Any, node: Located, what: str) -> Any:
    """A value of the type `kind`. Raises `StudyError`."""
    return _field(kind, node, what)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


@cache
def _adapter(hint: Any) -> TypeAdapter:
    return TypeAdapter(hint)


def _pick(registry: Mapping[str, T], given: dict[str, Located], name: str, node: Located, what: str) -> T:
    """The entry of `registry` that the option `name` names; the option is taken out."""
    if name not in given:
        node.fail(f"{what} needs {name!r}: one of {', '.join(registry)}")
    chosen = given.pop(name)
    if not isinstance(chosen.value, str) or chosen.value not in registry:
        chosen.fail(f"unknown {name} {shown(chosen.plain())}; {suggestion(str(chosen.value), registry)}")
    return registry[chosen.value]


# --- sections ---------------------------------------------------------------------------------------


def build_attack(node: Located, what: str = "attack") -> Attack:
    given = options(node, "attack", what)
    if "attack" in given and given["attack"].value == Combined.name:
        del given["attack"]
        if set(given) != {"attacks"}:
            node.fail(f"{what}: combined attacks are a list, `attacks`, and nothing else")
        attacks = given["attacks"].entries(f"{what}.attacks")
        try:
            return Combined(attacks=tuple(build_attack(one, f"{what}.attacks") for one in attacks))
        except AttackError as error:
            node.fail(f"{what}: {error}")
    return build(_pick(ATTACKS, given, "attack", node, what), node, given, what)


def build_objective(node: Located, what: str = "objective") -> Objective:
    given = options(node, "objective", what)
    return build(_pick(OBJECTIVES, given, "objective", node, what), node, given, what)


def build_train(node: Located, what: str = "train", preset: str = "finetune") -> TrainConfig:
    given = options(node, "train", what)
    default = _pick(PRESETS, given, "preset", node, what) if "preset" in given else PRESETS[preset]
    for name in ("seed", "save_epochs"):
        if name in given:
            given[name].fail(f"{what}.{name} is set by the study; leave it out")
    return build(TrainConfig, node, given, what, default)


def build_toy(node: Located, what: str = "data.toy") -> ToySpec:
    given = options(node, "toy", what)
    for name in given["classes"].entries(f"{what}.classes") if "classes" in given else ():
        if name.value not in CLASSES:
            name.fail(f"the toy dataset has no class {shown(name.value)}; {suggestion(str(name.value), CLASSES)}")
    toy = build(ToySpec, node, given, what)
    if not 0 <= toy.people <= 0.95:
        given["people"].fail(f"{what}.people must lie in [0, 0.95], got {toy.people}")
    for name, least in (("train", 1), ("test", 1), ("size", 32), ("offset", 0)):
        if getattr(toy, name) < least:
            given[name].fail(f"{what}.{name} must be at least {least}, got {getattr(toy, name)}")
    return toy


def build_data(node: Located, what: str = "data") -> DataSpec:
    given = options(node, "data", what)
    data = build(DataSpec, node, given, what)
    if not 0 < data.share <= 1:
        given["share"].fail(f"{what}.share must lie in (0, 1], got {data.share}")
    if data.captions is not None and data.captions < 1:
        given["captions"].fail(f"{what}.captions must be at least 1, got {data.captions}")
    if data.toy is not None:
        if more := sorted(given.keys() & ({field.name for field in fields(DataSpec)} - {"toy", "share", "captions"})):
            given[more[0]].fail(f"{what}.{more[0]} has no effect with a toy dataset; leave it out")
    elif not (data.path or data.train or (what == "test" and data.test)):
        node.fail(f"{what} needs 'toy', or 'test'" if what == "test" else f"{what} needs 'toy', or 'train' and 'test'")
    return data


def build_start(node: Located, what: str = "start") -> StartSpec:
    given = options(node, "start", what)
    pretrain = given.pop("pretrain", None)
    start = build(StartSpec, node, given, what)
    if pretrain is None or pretrain.value is None:
        return start
    # `on` may stand beside the recipe or in it
    recipe = options(pretrain, "train", f"{what}.pretrain")
    on = recipe.pop("on", None)
    preset = "scratch" if bare(start) else "finetune"
    train = build_train(Located(recipe, pretrain.line, pretrain.file), f"{what}.pretrain", preset)
    data = start.on if on is None or on.value is None else build_data(on, f"{what}.pretrain.on")
    return replace(start, pretrain=train, on=data)


def build_filter(node: Located, what: str = "filter") -> FilterSpec:
    given = options(node, "filter", what)
    encoder = given.pop("encoder", None)
    levels = {name: given.pop(name) for name in THRESHOLDS if name in given}
    kind = _pick(DETECTORS, given, "detector", node, what)
    if "pixels" in kind.needs:
        node.fail(f"{what} cannot run {kind.name}, which needs images; a filter sees embeddings and captions")
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for name, value in given.items():
        if name not in known:
            every = ["detector", "encoder", *THRESHOLDS, *known]
            value.fail(f"{what} has no option {name!r}; {suggestion(name, every).replace('_', '-')}")
    detector = build(kind, node, given, what)
    if len(levels) > 1:
        node.fail(f"{what} has {' and '.join(levels)}; a filter has one threshold")
    if not levels and detector.own_level is None:
        node.fail(
            f"{what} needs one of above, clean-quantile, budget-pairs, budget-share: {kind.name} has no own level"
        )
    threshold: Threshold = Above(detector.own_level or 0.0)
    for name, value in levels.items():
        number = value_of(_OF_THRESHOLD[name], value, f"{what}.{name.replace('_', '-')}")
        try:
            threshold = THRESHOLDS[name](number)
        except MithridateError as error:
            value.fail(f"{what}: {error}")
    start = None if encoder is None or encoder.value is None else build_start(encoder, f"{what}.encoder")
    return FilterSpec(detector=detector, threshold=threshold, encoder=start)


def build_audit(node: Located, what: str = "audit") -> AuditSpec:
    given = options(node, "audit", what)
    encoder = given.pop("encoder", None)
    audit = build(AuditSpec, node, given, what)
    if isinstance(audit.drop, float) and not 0 < audit.drop < 1:
        given["drop"].fail(f"{what}.drop must be flagged or a share in (0, 1), got {audit.drop}")
    for name in audit.detectors:
        if name not in DETECTORS:
            given["detectors"].fail(f"{what}.detectors: unknown {shown(name)}; {suggestion(name, DETECTORS)}")
    start = None if encoder is None or encoder.value is None else build_start(encoder, f"{what}.encoder")
    return replace(audit, encoder=start)


def build_repair(node: Located, what: str = "repair") -> RepairSpec:
    given = options(node, "repair", what)
    train, on = given.pop("train", None), given.pop("on", None)
    if train is None:
        node.fail(f"{what} needs 'train': its recipe, such as train: {{preset: repair-1e-4}}")
    if "objective" in given and isinstance(given["objective"].value, dict):
        objective = build_objective(given["objective"], f"{what}.objective")
    elif given:
        objective = build_objective(Located(given, node.line, node.file), what)
    else:
        objective = Clip()
    data = None if on is None or on.value is None else build_data(on, f"{what}.on")
    return RepairSpec(train=build_train(train, f"{what}.train"), objective=objective, on=data)


def build_inspect(node: Located, what: str = "inspect") -> InspectSpec:
    from mithridate.repairing.registry import REPAIRS  # which loads torch

    given = options(node, "inspect", what)
    found = build(InspectSpec, node, given, what)
    if found.nulls < 0:
        given["nulls"].fail(f"{what}.nulls must be 0 or more, got {found.nulls}")
    if not found.repair and (found.told or not found.verify):
        node.fail(f"{what}.told and {what}.verify are of a repair, and {what}.repair is false; add repair: true")
    for name in found.methods:
        if name not in REPAIRS:
            given["methods"].fail(f"{what}.methods: no repair is called {shown(name)}; {suggestion(name, REPAIRS)}")
    if found.nulls and not found.start:
        given["nulls"].fail(f"{what}.nulls are fine-tunes of the start, and {what}.start is false; leave one out")
    return found


def bare(start: StartSpec) -> bool:
    """Whether a start has no weights: as `mithridate train` chooses its preset."""
    return start.pretrained is None and ":" not in start.encoder and not Path(start.encoder).is_dir()


# --- classes ----------------------------------------------------------------------------------------


def classes_of(attack: Attack) -> dict[str, tuple[str, ...]]:
    """The classes that an attack speaks of, by the option that names them."""
    if isinstance(attack, Combined):
        parts = [classes_of(one) for one in attack.attacks]
        return {"attacks": tuple(name for part in parts for names in part.values() for name in names)}
    found: dict[str, tuple[str, ...]] = {
        name: (getattr(attack, name),) for name in ("source", "target") if isinstance(getattr(attack, name, 0), str)
    }
    if isinstance(goals := getattr(attack, "goals", None), tuple):
        found["goals"] = tuple(part for goal in goals for part in str(goal).split(":", 1))
    if isinstance(classes := getattr(attack, "classes", None), tuple):
        found["classes"] = classes
    return found


def refuse_unknown_classes(attack: Attack, known: Iterable[str], where: str, node: Located) -> None:
    """Raise `StudyError` where the attack speaks of a class that the data do not have."""
    known = list(known)
    for option, names in classes_of(attack).items():
        for name in names:
            if name not in known:
                line = node.value.get(option, node) if isinstance(node.value, dict) else node
                line.fail(f"attack.{option}: {where} has no class {name!r}; {suggestion(name, known)}")
