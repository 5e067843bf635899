"""Edits carried out: images read, altered and written again in the containers they were in, by all cores."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from mithridate.data.images import decode, read_bytes
from mithridate.data.pairs import hexadecimal
from mithridate.data.write import image_ending
from mithridate.folders import new_folder
from mithridate.poisoning.containers import encode_like, open_image
from mithridate.poisoning.plan import Draft, Edit, Edits

Progress = Callable[[str, int, int], None]  # what, done, of how many


def _silent(_what: str, _done: int, _total: int) -> None: ...


@dataclass(frozen=True)
class Crafted:
    """m altered images: their `places` (m,) and `sha256` (m,); `not_kept` counts by name what a container lost."""

    places: pa.Array
    sha256: tuple[str, ...]
    not_kept: dict[str, int]


@dataclass
class _Opened:
    raw: bytes
    image: Image.Image
    draft: Draft


def craft(
    edits: Edits, texts: Sequence[str], out: Path, *, seed: np.random.SeedSequence, progress: Progress = _silent
) -> Crafted:
    """Write the m images of `edits` into the new folder `out`, under names that mean nothing.

    `texts` (m,): the first caption of each. An image depends on its position, the seed and what it is made from, not
    on how many threads there are. Raises `DataError` and `AttackError` where one cannot be made; then nothing is left.
    """
    draws, names = seed.spawn(2)
    stems = hexadecimal(np.random.default_rng(names).integers(0, 256, (len(edits), 16), dtype=np.uint8)).to_pylist()
    bases = edits.base.to_pylist()
    lost: Counter[str] = Counter()
    made: list[tuple[str, str]] = [("", "")] * len(edits)

    def opened(i: int) -> _Opened:
        raw = read_bytes(bases[i])
        image, rgb = open_image(raw, bases[i])
        others = [decode(read_bytes(place), place) for place in (edits.others[i] if edits.others else ())]
        rng = np.random.default_rng(np.random.SeedSequence(draws.entropy, spawn_key=(*draws.spawn_key, i)))
        return _Opened(raw, image, Draft((rgb, *map(np.asarray, others)), texts[i], rng))

    def written(i: int, source: _Opened, altered: np.ndarray) -> tuple[str, str, list[str]]:
        wanted = source.draft.images[0].shape
        if altered.shape != wanted or altered.dtype != np.uint8:
            raise ValueError(f"an edit must give {wanted} uint8, got {altered.shape} {altered.dtype}")
        raw, not_kept = encode_like(source.raw, source.image, altered)
        name = f"{stems[i][:2]}/{stems[i]}.{image_ending(raw, bases[i])}"
        (folder / name).write_bytes(raw)
        os.utime(folder / name, (0, 0))  # the time of writing tells what was written together
        return name, hashlib.sha256(raw).hexdigest(), not_kept

    def alone(i: int, step: Edit) -> tuple[str, str, list[str]]:
        source = opened(i)
        return written(i, source, step.alter([source.draft])[0])

    with new_folder(out) as folder:
        for prefix in {stem[:2] for stem in stems}:
            (folder / prefix).mkdir()
        done = 0
        with _workers() as pool:
            for number, step in enumerate(edits.steps):
                chosen = np.flatnonzero(edits.step == number).tolist()
                size = step.batch_size
                # a block is what is in memory at once; single images are let go of as they are written
                for block in _blocks(chosen, 1024 if size == 1 else size):
                    if size == 1:
                        results = pool.map(alone, block, [step] * len(block))
                    else:
                        sources = list(pool.map(opened, block))
                        results = pool.map(written, block, sources, step.alter([source.draft for source in sources]))
                    for i, (name, digest, not_kept) in zip(block, results):
                        made[i] = (name, digest)
                        lost.update(not_kept)
                    done += len(block)
                    progress("altering images", done, len(edits))
    home = Path(out).resolve()
    places = pa.array([str(home / name) for name, _ in made], pa.string())
    return Crafted(places, tuple(digest for _, digest in made), dict(sorted(lost.items())))


@contextmanager
def _workers() -> Iterator[ThreadPoolExecutor]:
    """A pool of as many threads as there are cores; after an error what has not begun is not done."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pool = ThreadPoolExecutor(cores)
    try:
        yield pool
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


def _blocks(items: list[int], size: int) -> list[list[int]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
