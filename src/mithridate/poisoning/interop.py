"""The truth about a poisoned set in the forms of others, read and written. Nothing that runs code is loaded.

Both name poisoned samples by position, so they only fit the very table they were made with; ours names them by uid.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from mithridate.data.arrays import read_values
from mithridate.data.pairs import Pairs
from mithridate.errors import DataError
from mithridate.folders import write_atomically
from mithridate.poisoning.goals import AttackGoal, TriggerToClass
from mithridate.poisoning.manifest import POISONED, Manifest, first_error, read_manifest, write_manifest
from mithridate.poisoning.patches import MOST, PixelPatch
from mithridate.poisoning.triggers import describe
from mithridate.version import __version__

MAX_BYTES = 2**30
_THEIR_SIDE = 224  # of the images that Detect-CLIP counts pixels of


def read_truth(path: Path, pairs: Pairs) -> Manifest:
    """A manifest of any form: ours, Detect-CLIP's `train_poison_info.json`, a poison indicator (`.npy`, `.pt`).

    `pairs`: the set it is about, which foreign forms count the rows of. Raises `DataError` where it is neither, or of
    another set.
    """
    path = Path(path)
    if path.is_dir():
        return read_manifest(path)
    if not path.is_file():
        raise DataError(f"{path} is not there; expected a manifest, a train_poison_info.json or a poison indicator")
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path} has {path.stat().st_size} bytes; at most {MAX_BYTES} are read")
    if path.suffix in (".npy", ".pt", ".pth"):
        return read_poison_indicator(path, pairs)
    try:
        raw = path.read_bytes()
        plain = from_json(raw)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not JSON: {error}; expected a manifest or a train_poison_info.json") from error
    if isinstance(plain, dict) and "poison_indices" in plain:
        return _from_detect_clip(raw, path, pairs)
    return read_manifest(path)


# --- Detect-CLIP ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _PoisonInfo:
    """`train_poison_info.json`; fields that are not named here are passed over."""

    poison_indices: list[int]
    poison_label: str
    poison_text: dict[str, str] | None = None
    trigger_position: dict[str, Any] | None = None
    patch_size: Any = None


_POISON_INFO = TypeAdapter(_PoisonInfo)


def _from_detect_clip(raw: bytes, path: Path, pairs: Pairs) -> Manifest:
    """Huang et al. (ICLR 2025) record positions, the class, captions and places by position, and how large a patch is.

    Their data are poisoned while they are loaded: images and captions on disk are the clean ones, and so is `image`.
    Of their patches the pixels are known (white where row and column are even), and become a trigger; other
    triggers lie in files beside, and are not known.
    """
    try:
        info = _POISON_INFO.validate_json(raw, strict=True)
    except ValidationError as error:
        raise DataError(f"{path} lacks or has a wrong field: {first_error(error)}") from error
    rows, label, patch = _positions(info.poison_indices, path, pairs), info.poison_label, info.patch_size
    texts, places = info.poison_text or {}, info.trigger_position or {}
    clean = pairs.text.take(pa.array(rows)).to_pylist()
    text = [texts.get(str(row), was or "") for row, was in zip(rows.tolist(), clean)]
    goals: tuple[AttackGoal, ...] = ()
    if isinstance(patch, int) and 0 < patch <= min(MOST, _THEIR_SIDE) and places:
        square = np.zeros((patch, patch, 3), np.uint8)
        square[::2, ::2] = 255
        # their test images have it at the centre, wherever it is in training
        trigger = PixelPatch.of(square, size=patch / _THEIR_SIDE, place="centre")
        goals = (TriggerToClass(describe(trigger, full=True), label),)
    edits = [json.dumps({"patch_size": patch, **_place(places.get(str(row)))}) if places else None for row in rows]
    options = {"form": "train_poison_info.json", "target": label}
    return _manifest("detect-clip", options, pairs, rows, text, clean, edits, goals)


def _place(place: Any) -> dict[str, int]:
    if not isinstance(place, dict):
        return {}
    return {key: int(place[key]) for key in ("w", "h") if isinstance(place.get(key), int | float)}


def write_detect_clip(manifest: Manifest, pairs: Pairs, path: Path) -> None:
    """`train_poison_info.json` with positions in `pairs` (the poisoned set), the class and the captions.

    Raises `DataError` where the manifest is of another set, or names no class or several. Where a patch stands in
    each image is only known to the pixels, so `trigger_position` is not written.
    """
    targets = {goal.target for goal in manifest.goals}
    if len(targets) != 1:
        classes = ", ".join(sorted(targets)) or "none"
        raise DataError(f"train_poison_info.json has room for one target class, the manifest has {classes}")
    rows = _rows(manifest, pairs)
    text = dict(zip(map(str, rows.tolist()), manifest.poisoned["text"].to_pylist()))
    info = {
        "poison_indices": sorted(rows.tolist()),
        "poison_label": targets.pop(),
        "poison_rate": len(rows) / len(pairs),
        "poison_text": text,
    }
    write_atomically(Path(path), json.dumps(info, ensure_ascii=False))


# --- BackdoorBench --------------------------------------------------------------------------------------------


def read_poison_indicator(path: Path, pairs: Pairs) -> Manifest:
    """An array (n,) of 0 and 1 in the order of `pairs`, as BackdoorBench has in `bd_train`: `.npy`, or a tensor `.pt`.

    BackdoorBench itself keeps it in a pickle with data sets and transforms, which would run code and is refused.
    """
    found = read_values(path, what="a 0 or a 1 for each pair") if path.suffix == ".npy" else _load_pt(path)
    if len(found) != len(pairs) or not np.isin(found, (0, 1)).all():
        raise DataError(
            f"{path} should hold a 0 or a 1 for each of the {len(pairs)} pairs, got {len(found)} values; it is of "
            "another set, or names samples otherwise"
        )
    rows = np.flatnonzero(found)
    text = pairs.text.take(pa.array(rows)).to_pylist()
    return _manifest("poison-indicator", {"form": path.name}, pairs, rows, text, text, [None] * len(rows), ())


def _load_pt(path: Path) -> np.ndarray:
    import pickle

    import torch

    try:
        found = torch.load(path, weights_only=True, map_location="cpu").numpy().reshape(-1)
        if found.dtype.kind not in "biuf":
            raise TypeError(f"it holds {found.dtype}")
        return found
    except (pickle.UnpicklingError, RuntimeError, AttributeError, OSError, EOFError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is not a tensor alone: what else BackdoorBench stores needs code that it brings, which is not "
            "run. Where you trust the file, take the indicator out and save it: "
            "numpy.save('poison_indicator.npy', torch.load(FILE, weights_only=False)['bd_train']['poison_indicator'])"
        ) from error


def write_poison_indicator(manifest: Manifest, pairs: Pairs, path: Path) -> None:
    """`.npy` (n,) uint8, 1 where a pair of `pairs` (the poisoned set) is poisoned."""
    import io

    indicator = np.zeros(len(pairs), np.uint8)
    indicator[_rows(manifest, pairs)] = 1
    out = io.BytesIO()
    np.save(out, indicator, allow_pickle=False)
    write_atomically(Path(path), out.getvalue())


def _write_ours(manifest: Manifest, pairs: Pairs, path: Path) -> None:
    write_manifest(manifest, Path(path))


FORMS: dict[str, Callable[[Manifest, Pairs, Path], None]] = {
    "manifest": _write_ours,
    "detect-clip": write_detect_clip,
    "poison-indicator": write_poison_indicator,
}


# --- shared -----------------------------------------------------------------------------------------------------


def _positions(found: list[int], path: Path, pairs: Pairs) -> np.ndarray:
    if len(set(found)) != len(found) or not found:
        raise DataError(f"poison_indices of {path} should be a list of distinct positions, at least one")
    rows = np.array(sorted(found), dtype=object)
    if rows[0] < 0 or rows[-1] >= len(pairs):
        raise DataError(
            f"{path} is of another set: it names position {rows[-1] if rows[0] >= 0 else rows[0]}, and there are "
            f"{len(pairs)} pairs"
        )
    return rows.astype(np.int64)


def _rows(manifest: Manifest, pairs: Pairs) -> np.ndarray:
    """Positions of the poisoned pairs. Raises `DataError` where `pairs` lack some."""
    rows = pc.index_in(manifest.poisoned["uid"], value_set=pairs.uid)
    if rows.null_count:
        raise DataError(
            f"the manifest is of another set: the pairs lack {rows.null_count} of its {len(manifest)} poisoned ones; "
            "give what the attack wrote"
        )
    return rows.to_numpy().astype(np.int64)


def _manifest(
    attack: str,
    options: dict[str, Any],
    pairs: Pairs,
    rows: np.ndarray,
    text: list[str],
    text_before: list[str],
    edits: list[str | None],
    goals: tuple[AttackGoal, ...],
) -> Manifest:
    at = pa.array(rows)
    k, nothing = len(rows), [None] * len(rows)
    columns = {
        "uid": pairs.uid.take(at).to_pylist(),
        "image": pairs.image.take(at).to_pylist(),
        "text": text,
        "text_before": text_before,
        "sha256_before": nothing,
        "sha256": nothing,
        "added": [False] * k,
        "edit": edits,
    }
    images = len(np.unique(pairs.image_index[rows]))
    return Manifest(
        attack=attack,
        options=options,
        seed=0,
        goals=goals,
        strength={
            "count": k,
            "rate": k / len(pairs),
            # which pairs could have been chosen is not recorded: all are taken for it
            "class_share": images / len(pairs.images),
            "targets": 1,
            "rate_per_target": k / len(pairs),
            "images": images,
            "class_images": len(pairs.images),
            "pairs": len(pairs),
        },
        data={"clean": pairs.fingerprint, "poisoned": pairs.fingerprint},
        versions={"mithridate": __version__},
        poisoned=pa.table({name: pa.array(columns[name], kind) for name, kind in POISONED.items()}),
    )
