"""The contract of detectors."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from mithridate.auditing.scores import Detector
from mithridate.encoder.embeddings import Embeddings
from mithridate.testing.contract import expect, expect_frozen, options_from_yaml


def example_embeddings(n: int = 300, *, width: int = 16, seed: int = 0) -> Embeddings:
    """Unit embeddings of `n` pairs whose captions lie near their images, but for every tenth, which is of another."""
    rng = np.random.default_rng(seed)
    image = rng.standard_normal((n, width))
    text = image + 0.5 * rng.standard_normal((n, width))
    text[::10] = np.roll(text[::10], 1, axis=0)
    image, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text))
    uid = pa.chunked_array([pa.array([f"{i:032x}" for i in rng.permutation(n)])])
    return Embeddings(uid, image.astype(np.float32), np.arange(n), text.astype(np.float32), "example", None)


def check_detector(detector: Any) -> None:
    """Raise `ContractError` where `detector`, an instance with its options, breaks the contract of detectors."""
    for _, check in detector_checks(detector):
        check()


def detector_checks(detector: Any) -> Iterator[tuple[str, Callable[[], None]]]:
    """The checks of `check_detector` by name."""
    yield "is a frozen dataclass that says what it measures", lambda: _detector_declares(detector)
    yield "one finite suspicion a pair, the same each time", lambda: _finite(detector)
    yield "permuting the pairs permutes the suspicions", lambda: _permuted(detector)
    yield (
        "options come back from YAML",
        lambda: expect(options_from_yaml(detector) == detector, f"options do not come back from YAML: {detector}"),
    )


def _detector_declares(detector: Any) -> None:
    expect_frozen(detector)
    expect(isinstance(detector, Detector), f"{type(detector).__name__} lacks name, measures, own_level or suspicion")
    expect(isinstance(detector.measures, str) and detector.measures, "measures should say what a suspicion is")
    level = detector.own_level
    expect(level is None or np.isfinite(level), f"own_level should be a finite number or None, got {level!r}")


def _finite(detector: Detector) -> None:
    embeddings = example_embeddings()
    before = [embeddings.image.copy(), embeddings.text.copy()]
    first, again = (detector.suspicion(embeddings, np.random.default_rng(0)) for _ in range(2))
    expect(first.shape == (len(embeddings),), f"expected {len(embeddings)} suspicions, got shape {first.shape}")
    expect(np.isfinite(first).all(), f"{int((~np.isfinite(first)).sum())} suspicions are not finite")
    expect((first == again).all(), "the suspicions differ between two calls with one seed; draw from `rng` alone")
    same = (embeddings.image == before[0]).all() and (embeddings.text == before[1]).all()
    expect(same, "the detector changed the embeddings that it was given")


def _permuted(detector: Detector) -> None:
    embeddings = example_embeddings()
    order = np.random.default_rng(7).permutation(len(embeddings))
    other = Embeddings(
        embeddings.uid.take(pa.array(order)),
        embeddings.image,
        embeddings.image_index[order],
        embeddings.text[order],
        embeddings.encoder,
        embeddings.weights,
    )
    plain, permuted = (detector.suspicion(e, np.random.default_rng(0)) for e in (embeddings, other))
    near = np.allclose(plain[order], permuted, rtol=1e-4, atol=1e-6)
    expect(near, "permuting the pairs should permute the suspicions; break ties by uid, and draw by uid")
