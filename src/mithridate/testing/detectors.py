"""The contract of detectors."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pyarrow as pa

from mithridate.auditing.corpus import Corpus, Need
from mithridate.auditing.evidence import Detector, Evidence
from mithridate.data.pairs import Pairs, make_pairs
from mithridate.encoder.embeddings import Embeddings
from mithridate.testing.contract import expect, expect_frozen, options_from_yaml

_WORDS = [
    "red",
    "boat",
    "field",
    "near",
    "man",
    "dog",
    "runs",
    "blue",
    "old",
    "street",
    "two",
    "child",
    "plays",
    "tree",
]
_SIDE = 64  # of the example's pictures


def example_corpus(n: int = 300, *, width: int = 16, seed: int = 0, pixels: bool = False) -> Corpus:
    """`n` pairs, two an image, whose captions lie near their images, but for every tenth, which is of another.

    The last third is known to be clean. Vectors have lengths, and the encoder is said to have been trained on the
    pairs: a detector finds all that it may need. `pixels`: images too.
    """
    rng = np.random.default_rng(seed)
    m = n // 2
    index = np.arange(n) % m
    image = rng.standard_normal((m, width))
    text = image[index] + 0.5 * rng.standard_normal((n, width))
    text[::10] = np.roll(text[::10], 1, axis=0)
    length = np.linalg.norm(image, axis=1), np.linalg.norm(text, axis=1)
    uid = pa.chunked_array([pa.array([f"{i:032x}" for i in rng.permutation(n)])])
    embeddings = Embeddings(
        uid,
        (image / length[0][:, None]).astype(np.float32),
        index,
        (text / length[1][:, None]).astype(np.float32),
        "example",
        None,
        *(values.astype(np.float32) for values in length),
    )
    captions = [" ".join(rng.choice(_WORDS, 5, replace=False)) for _ in range(n)]
    pairs = make_pairs([f"{i}.png" for i in index.tolist()], captions, uid=uid)
    return Corpus(embeddings, index >= m - m // 3, pairs, _pixels(m) if pixels else None, trained=True)


@lru_cache(maxsize=1)
def _pixels(count: int) -> Any:
    from mithridate.auditing.pixels import read_pixels

    rng = np.random.default_rng(1)
    coarse = rng.integers(40, 215, (count, 8, 8, 3))
    fine = np.kron(coarse, np.ones((1, _SIDE // 8, _SIDE // 8, 1))) + rng.normal(0, 12, (count, _SIDE, _SIDE, 3))
    images = np.clip(fine, 0, 255).astype(np.uint8)
    return read_pixels(lambda rows: images[rows], count)


def rearranged(corpus: Corpus, order: np.ndarray, images: np.ndarray, *, cuts: int = 1) -> Corpus:
    """The same corpus with its pairs in `order` (n,), its images in the order `images` (m,), columns cut in `cuts`."""
    e, place = corpus.embeddings, np.argsort(images)
    table = corpus.known_pairs.table.take(pa.array(order))
    edges = np.linspace(0, len(order), cuts + 1).astype(int)
    table = pa.concat_tables([table.slice(low, high - low) for low, high in pairwise(edges)])
    moved = Embeddings(
        table["uid"],
        e.image[images],
        place[e.image_index[order]],
        e.text[order],
        e.encoder,
        e.weights,
        None if e.image_length is None else e.image_length[images],
        None if e.text_length is None else e.text_length[order],
    )
    pixels = None if corpus.pixels is None else corpus.pixels.take(images)
    return replace(corpus, embeddings=moved, clean=corpus.clean[order], pairs=Pairs(table), pixels=pixels)


def check_detector(detector: Any) -> None:
    """Raise `ContractError` where `detector`, an instance with its options, breaks the contract of detectors."""
    for _, check in detector_checks(detector):
        check()


def detector_checks(detector: Any) -> Iterator[tuple[str, Callable[[], None]]]:
    """The checks of `check_detector` by name."""
    yield "is a frozen dataclass that says what it measures and needs", lambda: _detector_declares(detector)
    yield "one finite suspicion and one reason a pair, the same each time", lambda: _finite(detector)
    yield "permuting and splitting the corpus changes no suspicion", lambda: _permuted(detector)
    yield (
        "options come back from YAML",
        lambda: expect(options_from_yaml(detector) == detector, f"options do not come back from YAML: {detector}"),
    )


def _detector_declares(detector: Any) -> None:
    expect_frozen(detector)
    expect(
        isinstance(detector, Detector), f"{type(detector).__name__} lacks name, measures, own_level, needs or examine"
    )
    expect(isinstance(detector.measures, str) and detector.measures, "measures should say what a suspicion is")
    level = detector.own_level
    expect(level is None or np.isfinite(level), f"own_level should be a finite number or None, got {level!r}")
    unknown = [need for need in detector.needs if need not in get_args(Need)]
    expect(not unknown, f"needs should be of {', '.join(get_args(Need))}, got {', '.join(map(str, unknown))}")


def _corpus(detector: Detector) -> Corpus:
    return example_corpus(pixels="pixels" in detector.needs)


def _finite(detector: Detector) -> None:
    corpus = _corpus(detector)
    n, e = len(corpus), corpus.embeddings
    before = [e.image.copy(), e.text.copy()]
    first, again = (detector.examine(corpus, np.random.default_rng(0)) for _ in range(2))
    expect(isinstance(first, Evidence), f"examine should give Evidence, got {type(first).__name__}")
    expect(first.suspicion.shape == (n,), f"expected {n} suspicions, got shape {first.suspicion.shape}")
    expect(first.reason.shape == (n,), f"expected {n} reasons, got shape {first.reason.shape}")
    expect(all(isinstance(reason, str) for reason in first.reason), "reasons should be texts")
    inside = first.p is None or (first.p.shape == (n,) and ((first.p > 0) & (first.p <= 1)).all())
    expect(inside, f"p should be {n} numbers in (0, 1], or None")
    same = (first.suspicion == again.suspicion).all()
    expect(same, "the suspicions differ between two calls with one seed; draw from `rng` alone")
    same = (e.image == before[0]).all() and (e.text == before[1]).all()
    expect(same, "the detector changed the embeddings that it was given")


def _permuted(detector: Detector) -> None:
    corpus, rng = _corpus(detector), np.random.default_rng(7)
    order = rng.permutation(len(corpus))
    other = rearranged(corpus, order, rng.permutation(corpus.images), cuts=4)
    plain, moved = (detector.examine(c, np.random.default_rng(0)).suspicion for c in (corpus, other))
    near = np.allclose(plain[order], moved, rtol=1e-4, atol=1e-5)
    expect(near, "permuting the pairs or images should permute the suspicions; break ties and draw by `corpus.order`")
