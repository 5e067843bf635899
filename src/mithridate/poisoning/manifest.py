"""The truth about a poisoned set, in a file outside it; `evaluate` alone reads it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json
from typing_extensions import TypedDict

from mithridate.errors import DataError
from mithridate.folders import write_atomically
from mithridate.poisoning.goals import AttackGoal

FORMAT = "mithridate-manifest/3"

POISONED = {
    "uid": pa.string(),
    "image": pa.string(),
    "text": pa.string(),
    "text_before": pa.string(),
    "sha256_before": pa.string(),
    "sha256": pa.string(),
    "added": pa.bool_(),
    "edit": pa.string(),
}


@dataclass(frozen=True)
class Manifest:
    """Attack, options, seed; `poisoned` has a row for each of the k pairs, with its image and text before and after.

    Column `edit` says what was done to its image (a trigger in its text form), null where the image is as it was.
    `goals`: what the attack wants of a model. `strength`: count (pairs), rate (of all
    pairs, poison included), class_share (images of class A used), always all three, and the rate of each of the
    `targets`. `data`: fingerprints of the set before and after. `dropped`: uids of pairs that were removed.
    `crafted`: how many images were altered, and what their containers lost. `preflight`: what was found before
    training, with warnings; empty where nobody looked.
    """

    attack: str
    options: dict[str, Any]
    seed: int
    goals: tuple[AttackGoal, ...]
    strength: dict[str, int | float]
    data: dict[str, str]
    versions: dict[str, str]
    poisoned: pa.Table
    dropped: tuple[str, ...] = ()
    crafted: dict[str, Any] = field(default_factory=dict)
    preflight: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.poisoned.num_rows


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write one JSON file; the columns of `poisoned` are lists, so that 300,000 pairs stay readable.

    Images below the folder of `path` are named relative to it: the folder may be moved.
    """
    home = f"{Path(path).parent.resolve()}{os.sep}"
    places = pa.array([place.removeprefix(home) for place in manifest.poisoned["image"].to_pylist()], pa.string())
    at = manifest.poisoned.column_names.index("image")
    manifest = replace(manifest, poisoned=manifest.poisoned.set_column(at, "image", places))
    plain = {name: getattr(manifest, name) for name in manifest.__dataclass_fields__ if name != "poisoned"}
    plain["goals"] = [asdict(goal) for goal in manifest.goals]
    plain["poisoned"] = manifest.poisoned.to_pydict()
    write_atomically(path, json.dumps({"format": FORMAT, **plain}, indent=1, ensure_ascii=False))


def read_manifest(path: Path) -> Manifest:
    """The manifest at `path` (or in that folder). Raises `DataError` where it is not one, or a field has a wrong type.

    The types of all fields are checked, down to the columns of `poisoned` and the shape of each goal.
    """
    path = Path(path)
    path = path / "manifest.json" if path.is_dir() else path
    try:
        raw = path.read_bytes()
        plain = from_json(raw)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is not a manifest: {getattr(error, 'strerror', None) or error}; give the folder that mithridate "
            "poison wrote, or its manifest.json"
        ) from error
    form = plain.get("format") if isinstance(plain, dict) else None
    if form != FORMAT:
        got = form if isinstance(form, str) else "something else"
        raise DataError(
            f"expected a manifest of format {FORMAT}, got {got} in {path}; mithridate poison writes it again with the "
            "same options and seed"
        )
    try:
        read = _FILE.validate_json(raw, strict=True)
        columns = dict(read.poisoned)
        columns["image"] = [_located(place, path.parent) for place in read.poisoned["image"]]
        poisoned = pa.table({name: pa.array(columns[name], kind) for name, kind in POISONED.items()})
    except ValidationError as error:
        raise DataError(f"{path} lacks or has a wrong field: {first_error(error)}") from error
    except (TypeError, ValueError, pa.ArrowInvalid) as error:
        raise DataError(f"{path} lacks or has a wrong field: {error}") from error
    fields: dict[str, Any] = {name: getattr(read, name) for name in Manifest.__dataclass_fields__}
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in read.options.items()}
    return Manifest(**fields | {"options": options, "poisoned": poisoned})


def first_error(error: ValidationError) -> str:
    """The first thing that pydantic complains about, as `goals.0.target: Field required`."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]


class _Columns(TypedDict):
    uid: list[str]
    image: list[str]
    text: list[str]
    text_before: list[str | None]
    sha256_before: list[str | None]
    sha256: list[str | None]
    added: list[bool]
    edit: list[str | None]


_Count = Annotated[int, Field(ge=0, lt=2**53)]
_Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Strength(TypedDict):
    count: _Count
    rate: _Share
    class_share: _Share
    targets: Annotated[int, Field(ge=1, lt=2**53)]
    rate_per_target: _Share
    images: _Count
    class_images: _Count
    pairs: Annotated[int, Field(ge=1, lt=2**53)]


class _Fingerprints(TypedDict):
    clean: str
    poisoned: str


@dataclass(frozen=True)
class _File:
    """A manifest as JSON has it."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    format: str
    attack: str
    options: dict[str, Any]
    seed: int
    goals: tuple[Annotated[AttackGoal, Field(discriminator="kind")], ...]
    strength: _Strength
    data: _Fingerprints
    versions: dict[str, str]
    poisoned: _Columns
    dropped: tuple[str, ...]
    crafted: dict[str, Any]
    preflight: dict[str, Any]


_FILE = TypeAdapter(_File)


def _located(place: str, folder: Path) -> str:
    """A place that is relative to the manifest's folder, made absolute where it is there."""
    there = folder.resolve() / place
    return str(there) if not os.path.isabs(place) and there.is_file() else place  # noqa: PTH117 (a place may be a span)
