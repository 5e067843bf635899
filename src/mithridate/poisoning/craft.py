"""Edits carried out: images read, altered and written again in the containers they were in, by all cores."""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.random.bit_generator import ISeedSequence
from PIL import Image

from mithridate.data.images import FORMATS, decode, read_bytes, to_rgb
from mithridate.data.pairs import hexadecimal
from mithridate.data.write import image_ending
from mithridate.errors import AttackError, DataError
from mithridate.folders import new_folder
from mithridate.poisoning.carried import Change, carried
from mithridate.poisoning.containers import colours, encode_like, in_mode, open_image
from mithridate.poisoning.plan import Draft, Edit, Edits, LocalEdit
from mithridate.randomness import stream
from mithridate.threads import thread_count

Progress = Callable[[str, int, int], None]  # what, done, of how many

_AT_ONCE = 16  # images that a thread takes in one go: handing over each by itself costs a tenth of its time


def _silent(_what: str, _done: int, _total: int) -> None: ...


@dataclass(frozen=True)
class Crafted:
    """m altered images: their `places` (m,) and `sha256` (m,); `not_kept` counts by name what a container lost."""

    places: pa.Array
    sha256: tuple[str, ...]
    not_kept: dict[str, int]


_LEAST_CARRIED = 0.1  # of a change; an image that shows less does not carry the trigger
_HALF = 0.5

# name, SHA-256, what the container lost
_Made = tuple[str, str, list[str]]


@dataclass
class _Opened:
    raw: bytes
    image: Image.Image
    draft: Draft


def craft(edits: Edits, texts: Sequence[str], out: Path, *, seed: int, progress: Progress = _silent) -> Crafted:
    """Write the m images of `edits` into the new folder `out`, under names that mean nothing.

    `texts` (m,): the first caption of each. An image depends on its position, the seed and what it is made from, not
    on how many threads there are. Raises `DataError` and `AttackError` where one cannot be made; then nothing is left.
    """
    names = stream(seed, "names of altered images").integers(0, 256, (len(edits), 16), dtype=np.uint8)
    stems = hexadecimal(names).to_pylist()
    words = stream(seed, "altered images").integers(0, 2**64, (len(edits), 4), dtype=np.uint64)
    bases = edits.base.to_pylist()
    lost: Counter[str] = Counter()
    made: list[tuple[str, str]] = [("", "")] * len(edits)

    def drafted(i: int, image: Image.Image) -> Draft:
        others = [decode(read_bytes(place), place) for place in (edits.others[i] if edits.others else ())]
        return Draft((colours(image), *map(np.asarray, others)), texts[i], _rng(words[i]))

    def read(i: int) -> tuple[bytes, Image.Image]:
        try:
            raw = read_bytes(bases[i])
            return raw, open_image(raw, bases[i])
        except DataError as error:
            raise DataError(
                f"an image to be altered is not there as it should be: {error}; mend it, or take its rows out "
                "(mithridate data doctor lists all)"
            ) from error

    def opened(i: int) -> _Opened:
        raw, image = read(i)
        return _Opened(raw, image, drafted(i, image))

    def fitted(source: _Opened, altered: np.ndarray) -> Image.Image:
        wanted = source.draft.images[0].shape
        if altered.shape != wanted or altered.dtype != np.uint8:
            raise ValueError(f"an edit must give {wanted} uint8, got {altered.shape} {altered.dtype}")
        return in_mode(altered, source.image)

    def written(i: int, source: bytes, image: Image.Image, new: Image.Image, changes: Sequence[Change]) -> _Made:
        raw, not_kept = encode_like(source, image, new)
        share = carried(changes, to_rgb(Image.open(io.BytesIO(raw), formats=FORMATS)))
        if share < _LEAST_CARRIED:
            raise AttackError(
                f"{bases[i]} does not show the trigger any more after it was written as {image.format} of mode "
                f"{image.mode}: {round(share, 3)} of the change is left; take its rows out, convert it to RGB, "
                "or choose a stronger trigger"
            )
        if share < _HALF:
            not_kept = [*not_kept, "half of the trigger"]
        name = f"{stems[i]}.{image_ending(raw, bases[i])}"
        path = os.path.join(folder, name)  # noqa: PTH118 (a Path for each image takes longer than its hash)
        with open(path, "wb", buffering=0) as file:  # noqa: PTH123
            file.write(raw)
        os.utime(path, (0, 0))  # the time of writing tells what was written together
        return name, hashlib.sha256(raw).hexdigest(), not_kept

    def alone(i: int, step: Edit, local: LocalEdit | None) -> _Made:
        raw, image = read(i)
        pieces = None
        if local is not None and image.mode == "RGB":
            pieces = local.pieces((image.height, image.width), _rng(words[i]))
        if pieces is None:
            source = _Opened(raw, image, drafted(i, image))
            (altered,) = step.alter([source.draft])
            return written(i, raw, image, fitted(source, altered), [Change(source.draft.images[0], altered)])
        changes = []
        for top, left, piece in pieces:
            height, width = piece.shape[:2]
            before = image.crop((left, top, left + width, top + height))
            changes.append(Change(np.asarray(before), piece, top, left))
            image.paste(Image.fromarray(piece), (left, top))
        return written(i, raw, image, image, changes)

    def together(rows: list[int], step: Edit, pool: ThreadPoolExecutor) -> Iterable[_Made]:
        sources = list(pool.map(opened, rows))
        results = step.alter([source.draft for source in sources])
        if len(results) != len(rows):
            raise ValueError(f"an edit must give an image for each of {len(rows)} drafts, got {len(results)}")

        def finished(i: int, source: _Opened, altered: np.ndarray) -> _Made:
            change = Change(source.draft.images[0], altered)
            return written(i, source.raw, source.image, fitted(source, altered), [change])

        return pool.map(finished, rows, sources, results)

    with new_folder(out) as folder:
        done = 0
        with _workers() as pool:
            for number, step in enumerate(edits.steps):
                chosen = np.flatnonzero(edits.step == number).tolist()
                blocks = _blocks(chosen, _AT_ONCE if step.batch_size == 1 else step.batch_size)
                local = step if isinstance(step, LocalEdit) else None  # asked of a protocol this takes a while
                every = (
                    pool.map(lambda rows, step=step, local=local: [alone(i, step, local) for i in rows], blocks)
                    if step.batch_size == 1
                    else (together(block, step, pool) for block in blocks)
                )
                for block, results in zip(blocks, every):
                    for i, (name, digest, not_kept) in zip(block, results):
                        made[i] = (name, digest)
                        lost.update(not_kept)
                    done += len(block)
                    progress("altering images", done, len(edits))
    home = Path(out).resolve()
    places = pa.array([f"{home}{os.sep}{name}" for name, _ in made], pa.string())
    return Crafted(places, tuple(digest for _, digest in made), dict(sorted(lost.items())))


class _Words(ISeedSequence):
    """Random words as they are: drawn for all images at once, which takes a tenth of the time of one by one."""

    def __init__(self, words: np.ndarray) -> None:
        self._words = words

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        return self._words


def _rng(words: np.ndarray) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(_Words(words)))  # pyright: ignore[reportArgumentType]


@contextmanager
def _workers() -> Iterator[ThreadPoolExecutor]:
    """A pool of threads; after an error what has not begun is not done."""
    pool = ThreadPoolExecutor(thread_count())
    try:
        yield pool
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


def _blocks(items: list[int], size: int) -> list[list[int]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
