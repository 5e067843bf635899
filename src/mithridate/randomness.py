"""The one place that turns a seed into a stream of draws."""

from hashlib import blake2b

import numpy as np


def stream_seed(seed: int, purpose: str, *index: int) -> int:
    """A seed of 63 bits for `torch.Generator.manual_seed` and its like; see `stream`."""
    return _digest(seed, purpose, index) >> 65


def stream(seed: int, purpose: str, *index: int) -> np.random.Generator:
    """The draws that `seed` gives for one purpose, and for the thing numbered `index` within it.

    Two purposes, two indices and two numbers of indices never share a stream, so that a table or an attack which draws
    more, or is added, changes no other. (`numpy.random.default_rng([seed, 3])` and `[seed, 3, 0]` are the same
    stream: numpy pads lists with zeros.)
    """
    return np.random.default_rng(_digest(seed, purpose, index))


def _digest(seed: int, purpose: str, index: tuple[int, ...]) -> int:
    """128 bits that differ wherever the arguments do."""
    plain = repr((int(seed), purpose, tuple(map(int, index)))).encode()
    return int.from_bytes(blake2b(plain, digest_size=16).digest())
