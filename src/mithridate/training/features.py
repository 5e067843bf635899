"""What a frozen tower makes of images and captions: computed once, kept on disk, shared by every run."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from mithridate.data.cache import kept_array, save_array
from mithridate.encoder.embed import Progress
from mithridate.encoder.towers import Tower, tower_parameters
from mithridate.errors import OutputError
from mithridate.training.towers import TwoTower

_BATCH = 256
_LIMIT = 8 * 2**30  # bytes of features held in memory

Gather = Callable[[np.ndarray], np.ndarray]  # positions (b,) -> a batch of the tower's input


def frozen_features(
    towers: TwoTower,
    tower: Tower,
    keys: np.ndarray | None,
    count: int,
    gather: Gather,
    *,
    recipe: str,
    folder: Path | None,
    device: torch.device,
    progress: Progress,
) -> np.ndarray | None:
    """Features (count, width) float32 of everything the frozen `tower` will see; None where they would not fit.

    `keys` (count,) are hashes of the inputs' content. With them and a `folder` only what is not there yet is
    computed: a clean and a poisoned run share all but nothing. `recipe` names what else decides an input.
    """
    towers.eval()
    width = towers.features(tower, torch.from_numpy(gather(np.arange(1))).to(device)).shape[1]
    if count * width * 4 > _LIMIT:
        return None
    out = np.empty((count, width), np.float32)
    store = None if folder is None or keys is None else folder / f"features-{tower}-{_identity(towers, tower, recipe)}"
    missing = np.arange(count) if store is None or keys is None else _fill(out, keys, store)
    for low in range(0, len(missing), _BATCH):
        rows = missing[low : low + _BATCH]
        out[rows] = towers.features(tower, torch.from_numpy(gather(rows)).to(device)).float().cpu().numpy()
        progress(f"running the frozen {tower} tower", low + len(rows), len(missing))
    if store is not None and keys is not None and len(missing):
        _add(store, keys[missing], out[missing])
    return out


def _fill(out: np.ndarray, keys: np.ndarray, store: Path) -> np.ndarray:
    """Copy what `store` holds into `out`; gives back the positions that are missing."""
    missing = np.ones(len(keys), dtype=bool)
    for path in sorted(store.glob("*.keys.npy")):
        known = kept_array(path)
        rows = kept_array(path.with_name(path.name.replace(".keys.", ".rows.")), mapped=True)
        if known is None or rows is None or len(rows) != len(known):
            continue  # damaged: computed again
        order = np.argsort(known)
        at = order[np.searchsorted(known, keys, sorter=order).clip(max=len(known) - 1)]
        found = missing & (known[at] == keys)
        out[found] = rows[at[found]]
        missing &= ~found
    return np.flatnonzero(missing)


def _add(store: Path, keys: np.ndarray, rows: np.ndarray) -> None:
    name = hashlib.blake2b(np.ascontiguousarray(keys).tobytes(), digest_size=8).hexdigest()
    try:
        store.mkdir(parents=True, exist_ok=True)
        save_array(store / f"{name}.rows.npy", rows)
        save_array(store / f"{name}.keys.npy", keys)
    except OSError as error:
        raise OutputError(
            f"cannot write features in {store}: {error.strerror or error}; free some space, or choose another --cache"
        ) from error


def _identity(towers: TwoTower, tower: Tower, recipe: str) -> str:
    """Hash of the frozen weights, statistics included: a tower that differs anywhere has features of its own."""
    digest = hashlib.blake2b(f"{recipe} {towers.frozen[tower]}".encode(), digest_size=10)
    names = set(tower_parameters(towers.model, tower))
    roots = {name.split(".")[0] for name in names}
    trained = {name for name, p in towers.model.named_parameters() if p.requires_grad}
    for name, value in towers.model.state_dict().items():
        if name.split(".")[0] in roots and name not in trained:
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
