"""Streams of draws: one for each seed, purpose and index."""

import numpy as np
import pytest

from mithridate.randomness import stream, stream_seed

KEYS = [
    (5, "order"),
    (5, "order", 0),
    (5, "order", 0, 0),
    (5, "augment"),
    (5, "augment", 0),
    (6, "order"),
    (50, "rder"),
]


def test_no_two_keys_share_a_stream():
    draws = {tuple(stream(*key).integers(0, 2**63, 4).tolist()) for key in KEYS}
    assert len(draws) == len(KEYS)
    assert len({stream_seed(*key) for key in KEYS}) == len(KEYS)


def test_a_stream_is_the_same_each_time_and_takes_numpy_integers():
    assert stream(7, "x", 3).random() == stream(np.int64(7), "x", np.int64(3)).random()  # type: ignore[arg-type]
    assert stream(2**70, "x").random() != stream(2**70 + 1, "x").random()


@pytest.mark.parametrize("key", KEYS)
def test_a_seed_for_torch_has_63_bits(key):
    assert 0 <= stream_seed(*key) < 2**63
