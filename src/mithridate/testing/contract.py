"""What the checks of all kinds share."""

import dataclasses
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

import yaml

from mithridate.errors import MithridateError, PluginError
from mithridate.studies.spec.build import build, options
from mithridate.studies.spec.located import parse_located

CLASSES = {"sheep": 45, "aeroplane": 25, "sofa": 45, "bird": 25, "dog": 38}
"""Images of each class that attacks are tried on; options `source` and `target` get the first two."""


class ContractError(PluginError):
    """What a plugin exports breaks the contract of its kind."""


def expect(holds: object, sentence: str) -> None:
    """Raise `ContractError` with `sentence` where something does not hold."""
    if not holds:
        raise ContractError(sentence)


def expect_frozen(value: Any) -> None:
    """Raise `ContractError` where `value` is not of a frozen dataclass."""
    kind = type(value)
    frozen = dataclasses.is_dataclass(value) and kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    expect(frozen, f"{kind.__name__} should be a frozen dataclass: @dataclass(frozen=True, kw_only=True)")


def options_from_yaml(value: Any) -> Any:
    """`value` written as the options of a study's section, and read back as `mithridate study` reads them."""
    plain = {f.name: getattr(value, f.name) for f in fields(value)}
    plain = {name: list(item) if isinstance(item, tuple) else item for name, item in plain.items()}
    try:
        node = parse_located(yaml.safe_dump(plain), "options.yaml")
        return build(type(value), node, options(node, "attack", type(value).__name__), type(value).__name__)
    except (MithridateError, yaml.YAMLError) as error:
        raise ContractError(f"a study cannot give these options: {error}") from error


def example_of(kind: type, examples: Mapping[str, Any] | None = None, name: str = "") -> Any:
    """An instance to check: of `examples` (the dict `EXAMPLES` of a plugin), else with as few options as it takes.

    Required options `source` and `target` get a class, `count` sixty pairs where the class has it. Raises
    `ContractError` where other options are required.
    """
    if examples and name in examples:
        return examples[name]
    known: dict[str, str] = dict(zip(("source", "target"), CLASSES))
    options = {f.name: f for f in fields(kind)}
    needed = [n for n, f in options.items() if f.init and f.default is f.default_factory is MISSING]
    lacking = [n for n in needed if n not in known]
    if lacking:
        raise ContractError(
            f"{kind.__name__} cannot be tried without {' and '.join(lacking)}; export EXAMPLES = {{{name!r}: "
            f"{kind.__name__}(...)}} with classes among {', '.join(CLASSES)}"
        )
    if "count" in options and options["count"].default is None:
        return kind(**{n: known[n] for n in needed}, count=60)
    return kind(**{n: known[n] for n in needed})
