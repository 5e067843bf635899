"""Images that are in training and in test data: at one location, of equal bytes, or nearly the same picture."""

import hashlib
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int, UInt64
from PIL import Image

from mithridate.data.images import decode, read_bytes, split_place
from mithridate.data.pairs import Pairs
from mithridate.errors import DataError
from mithridate.evaluation.measurement import Warning
from mithridate.remote.paths import file_size
from mithridate.threads import thread_count

# Of 64 bits. A picture saved again or scaled differs in 0 to 2; unrelated photographs in 32 on average.
NEAR = 2
# Grey levels, standard deviation over the 9x8 pixels: the hash of a plain picture is noise.
PLAIN = 4.0


@dataclass(frozen=True)
class SharedImages:
    """k test images that training has too: positions in both sets' `images`, and which are equal to the last byte."""

    test: Int[np.ndarray, " k"]
    train: Int[np.ndarray, " k"]
    exact: Bool[np.ndarray, " k"]


def difference_hash(image: Image.Image) -> int | None:
    """64 bits: is each of 9x8 grey pixels brighter than its right neighbour. None for a picture that is nearly plain.

    Survives scaling, another compression and small changes of colour; not a crop, a mirror or a rotation.
    """
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    if grey.std() < PLAIN:
        return None
    return int.from_bytes(np.packbits(grey[:, :-1] > grey[:, 1:]).tobytes(), "big")


def nearest(
    query: UInt64[np.ndarray, " q"], known: UInt64[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " q"], Int[np.ndarray, " q"]]:
    """(position, Hamming distance) of the nearest of `known` to each query, the first of equals."""
    import faiss

    faiss.omp_set_num_threads(thread_count())
    index: Any = faiss.IndexBinaryFlat(64)
    index.add(known.view(np.uint8).reshape(-1, 8))
    distance, position = index.search(query.view(np.uint8).reshape(-1, 8), 1)
    return position[:, 0], distance[:, 0].astype(np.int64)


def find_shared(train: Pairs, test: Pairs, *, ignore: Collection[str] = ()) -> SharedImages:
    """Test images that are among the training images; test images at the locations in `ignore` are not looked at.

    Reads and decodes every image of both sets once. What does not decode is left out: nobody trained on it.
    """
    train_seen, test_seen = (_seen(pairs.images) for pairs in (train, test))
    ignored = set(ignore)
    asked = np.array([location not in ignored for location in test.images.to_pylist()], dtype=bool)
    by_digest = {}
    for number, (digest, _) in enumerate(train_seen):
        if digest is not None:
            by_digest.setdefault(digest, number)
    found: dict[int, tuple[int, bool]] = {}
    for number, (digest, _) in enumerate(test_seen):
        if asked[number] and digest in by_digest:
            found[number] = (by_digest[digest], True)
    known = [number for number, (_, bits) in enumerate(train_seen) if bits is not None]
    left = [n for n, (_, bits) in enumerate(test_seen) if asked[n] and bits is not None and n not in found]
    if known and left:
        at, distance = nearest(
            np.array([test_seen[number][1] for number in left], np.uint64),
            np.array([train_seen[number][1] for number in known], np.uint64),
        )
        found |= {left[i]: (known[at[i]], False) for i in np.flatnonzero(distance <= NEAR).tolist()}
    rows = sorted(found)
    return SharedImages(
        np.array(rows, np.int64),
        np.array([found[row][0] for row in rows], np.int64),
        np.array([found[row][1] for row in rows], bool),
    )


def shared_images(train: Pairs, test: Pairs, *, ignore: Collection[str] = ()) -> list[Warning]:
    """The warning `shared-images`, with counts and up to three examples, where there are any; see `find_shared`."""
    shared = find_shared(train, test, ignore=ignore)
    count, exact = len(shared.test), int(shared.exact.sum())
    if not count:
        return []
    examples = "; ".join(
        f"{test.images[t].as_py()} {'equals' if same else 'resembles'} {train.images[r].as_py()}"
        for t, r, same in list(zip(shared.test.tolist(), shared.train.tolist(), shared.exact.tolist()))[:3]
    )
    numbers = {"count": count, "images": len(test.images), "exact": exact, "near": count - exact, "bits": NEAR}
    return [Warning(code="shared-images", values={**numbers, "examples": examples})]


def _seen(locations: pa.Array) -> list[tuple[bytes | None, int | None]]:
    """(SHA-256, difference hash) of each image; (None, None) where it does not decode."""

    def look(location: str) -> tuple[bytes | None, int | None]:
        try:
            raw = read_bytes(location)
            return hashlib.sha256(raw).digest(), difference_hash(decode(raw, location))
        except DataError:
            return None, None

    with ThreadPoolExecutor(thread_count()) as pool:  # decoding leaves Python's lock
        return list(pool.map(look, locations.to_pylist(), chunksize=1))


# --- train and test share no image ---------------------------------------------------------------------------


def refuse_overlap(train: Pairs, test: Pairs) -> None:
    """Raise `DataError` if an image is in both: at the same location, or elsewhere with the same bytes.

    Limit: an image that was encoded anew, or resized, is another one here; see `find_shared`.
    """
    known = set(train.images.to_pylist())
    both = [location for location in test.images.to_pylist() if location in known]
    how = "file"
    if not both:
        both, how = _same_bytes(train, test), "bytes"
    if both:
        raise DataError(
            f"{len(both)} of the {len(test.images)} test images are among the training images of the probe (same "
            f"{how}), such as {both[0]}; a probe must not be tested on what it was trained on: remove them from one set"
        )


def refuse_twins(pairs: Pairs) -> None:
    """Raise `DataError` if two images have the same bytes: folds would then share an image."""
    sizes = [locations for locations in _by_size(pairs.images.to_pylist()).values() if len(locations) > 1]
    first: dict[bytes, str] = {}
    with ThreadPoolExecutor(thread_count()) as pool:
        for location, digest in zip(chain(*sizes), pool.map(_digest, chain(*sizes))):
            if first.setdefault(digest, location) != location:
                raise DataError(f"{location} has the same bytes as {first[digest]}; keep one of them to cross-validate")


def _same_bytes(train: Pairs, test: Pairs) -> list[str]:
    """Test images whose bytes a training image has; only what is of one size is read."""
    sides = [_by_size(pairs.images.to_pylist()) for pairs in (train, test)]
    common = sides[0].keys() & sides[1].keys()
    trained, tested = ([location for size in sorted(common) for location in side[size]] for side in sides)
    with ThreadPoolExecutor(thread_count()) as pool:
        known = set(pool.map(_digest, trained))
        found = list(pool.map(_digest, tested))
    return [location for location, digest in zip(tested, found) if digest in known]


def _by_size(locations: list[str]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for location in locations:
        path, _, size = split_place(location)
        try:
            found.setdefault(size if size is not None else file_size(path), []).append(location)
        except OSError as error:
            raise DataError(f"cannot read {location}: {error.strerror or error}") from error
    return found


def _digest(location: str) -> bytes:
    return hashlib.blake2b(read_bytes(location), digest_size=16).digest()
