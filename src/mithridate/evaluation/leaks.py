"""Images that are in training and in test data: equal bytes, or nearly the same picture."""

import hashlib
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int, UInt64
from PIL import Image

from mithridate.data.images import decode, read_bytes
from mithridate.data.pairs import Pairs
from mithridate.errors import DataError
from mithridate.report.document import Warning
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
    """Test images that are among the training images; test images at the places in `ignore` are not looked at.

    Reads and decodes every image of both sets once. What does not decode is left out: nobody trained on it.
    """
    train_seen, test_seen = (_seen(pairs.images) for pairs in (train, test))
    ignored = set(ignore)
    asked = np.array([place not in ignored for place in test.images.to_pylist()], dtype=bool)
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
    """The warning `shared-images`, with counts and examples, where there are any."""
    shared = find_shared(train, test, ignore=ignore)
    count, exact = len(shared.test), int(shared.exact.sum())
    if not count:
        return []
    examples = "; ".join(
        f"{test.images[t].as_py()} is {'' if same else 'nearly '}{train.images[r].as_py()}"
        for t, r, same in list(zip(shared.test.tolist(), shared.train.tolist(), shared.exact.tolist()))[:3]
    )
    return [
        Warning(
            "shared-images",
            f"{count} of {len(test.images)} test images are training images: {exact} to the last byte, "
            f"{count - exact} nearly (at most {NEAR} of 64 bits of a difference hash differ); {examples}",
        )
    ]


def _seen(places: pa.Array) -> list[tuple[bytes | None, int | None]]:
    """(SHA-256, difference hash) of each image; (None, None) where it does not decode."""

    def look(place: str) -> tuple[bytes | None, int | None]:
        try:
            raw = read_bytes(place)
            return hashlib.sha256(raw).digest(), difference_hash(decode(raw, place))
        except DataError:
            return None, None

    with ThreadPoolExecutor(thread_count()) as pool:  # decoding leaves Python's lock
        return list(pool.map(look, places.to_pylist(), chunksize=1))
