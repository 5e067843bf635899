"""How similar each pair is to the strangers in its random batches: every product is taken once for all draws.

Two pairs that share a batch in several draws are compared once, and captions of one image with that image's row. With
S the similarities of m images to n captions, E = exp(S / t) is summed over groups (a batch of a draw) by one more
product with a matrix of members, for images over captions and for captions over images.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

_ROWS, _COLUMNS = 256, 4096  # images and captions compared at once: 4 MiB, which stay in a cache
_RANGE = 150.0  # natural logarithm of what float32 spans between too small and too large a sum
_ROUND = 2**40  # multiplications from which on products are rounded to bf16 where the processor multiplies it


def stranger_similarity(
    image: Float[np.ndarray, "m d"],
    text: Float[np.ndarray, "n d"],
    image_index: Int[np.ndarray, " n"],
    group: Int[np.ndarray, "draws n"],
    *,
    temperature: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Float[np.ndarray, " n"] | None:
    """Soft maximum of each pair's image over captions of its group and of its caption over images, mean over draws.

    Soft maximum: t log of the mean of exp(s / t). A pair counts itself, and no other pair of its image. `group`:
    numbers from 0, no two draws share one. None where float32 does not span exp(s / t) of these similarities, as at
    very low temperatures. Large sets are rounded to bf16 where the processor multiplies that: a
    similarity is then off by 4e-4 at most, and a mean over many by far less (derived here).
    """
    n, m, groups = len(text), len(image), int(group.max()) + 1
    if 2 / temperature > 2 * _RANGE:
        return None
    member = np.zeros((n, groups), np.float32)
    member[np.arange(n), group] = 1
    copies = np.zeros((m, groups), np.float32)  # pairs of each image in each group
    np.add.at(copies, (image_index, group), 1)
    size = member.sum(axis=0)
    by_image = np.zeros((len(group), n))
    by_text = np.zeros((n, groups))
    order = np.argsort(image_index, kind="stable")
    starts = np.searchsorted(image_index[order], np.arange(m + 1))
    top = 1.0 - _RANGE / 2 * temperature  # similarities are at most 1, and the largest sums stay finite
    left, right = torch.from_numpy(member), torch.from_numpy(copies)
    with torch.no_grad(), _rounded(n * m * image.shape[1] >= _ROUND):
        for low in range(0, m, _ROWS):
            rows = slice(low, min(low + _ROWS, m))
            own = order[starts[rows.start] : starts[rows.stop]]  # the pairs of these images
            sums = torch.zeros(rows.stop - rows.start, groups)
            for start, apart in _tiles(image[rows], text, temperature, top):
                stop = start + apart.shape[1]
                inside = own[(own >= start) & (own < stop)]
                apart[image_index[inside] - low, inside - start] = 0
                sums += apart @ left[start:stop]
                by_text[start:stop] += (apart.T @ right[rows]).numpy()
            by_image[:, own] = sums.numpy()[image_index[own] - low, group[:, own]]
            progress(rows.stop, m)
    itself = np.empty(n)
    for low in range(0, n, _ROWS):
        part = slice(low, low + _ROWS)
        itself[part] = np.einsum("nd,nd->n", image[image_index[part]], text[part])
    itself = np.exp((itself - top) / temperature)
    strangers = size[group] - copies[image_index, group] + 1  # (draws, n), the pair itself counted
    total = np.zeros(n)
    for draw, members in enumerate(group):
        for sums in (by_image[draw], by_text[np.arange(n), members]):
            sums = sums + itself
            if not (np.isfinite(sums).all() and (sums > 0).all()):
                return None
            total += top + temperature * np.log(sums / strangers[draw])
    return total / (2 * len(group))


def _tiles(
    image: Float[np.ndarray, "r d"], text: Float[np.ndarray, "n d"], temperature: float, top: float
) -> Iterator[tuple[int, Float[Tensor, "r c"]]]:
    """exp((s - top) / t) of some images with all captions, some captions at a time: where they begin, and (r, c)."""
    rows, shift = torch.from_numpy(image), torch.tensor(-top / temperature)
    for start in range(0, len(text), _COLUMNS):
        columns = torch.from_numpy(text[start : start + _COLUMNS]).T
        yield start, torch.addmm(shift, rows, columns, alpha=1 / temperature).exp_()


@contextmanager
def _rounded(rounded: bool) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    try:
        if rounded:
            torch.set_float32_matmul_precision("medium")
        yield
    finally:
        torch.set_float32_matmul_precision(before)
