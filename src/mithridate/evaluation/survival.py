"""What is left of an alteration once images are prepared as a trainer prepares them."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from mithridate.data.images import decode, read_bytes
from mithridate.threads import thread_count

CROPS = {"90-100 %": 0.9, "8-100 %": 0.08}  # of the area: the published code's, SimCLR's
_DRAWS = 50
_CLIP_SIZE = 224


@dataclass(frozen=True)
class Survival:
    """Of m images, each before and after it was altered, medians over them.

    `change`: mean absolute change of the prepared tensor in steps of 1/255, before colours are normalised; `largest`
    its largest; `kept`: that mean as a share of what it was at the image's own resolution, in the middle square.
    `crops`: for each range of areas the share of random crops that still contain the alteration, which are those
    with at least half of the change a pixel that the whole tensor has.
    """

    images: int
    change: float
    largest: float
    kept: float
    crops: dict[str, float]


def survival(
    before: Sequence[str],
    after: Sequence[str],
    *,
    to_pixels: Callable[[Image.Image], np.ndarray] | None = None,
    rng: np.random.Generator,
) -> Survival:
    """Compare the m images at `before` and `after`, same sizes, as `to_pixels` prepares them (default: CLIP's, 224)."""
    if not len(before) or len(before) != len(after):
        raise ValueError(f"survival needs as many images after as before, and one at least, got {len(after)}")
    prepare = clip_pixels if to_pixels is None else to_pixels

    def compare(i: int) -> tuple[Float[np.ndarray, "h w 3"], float]:
        pair = [decode(read_bytes(location), location) for location in (before[i], after[i])]
        plain = float(np.abs(_middle(np.asarray(pair[1])) - _middle(np.asarray(pair[0]))).mean())
        change = np.abs(prepare(pair[1]).astype(np.float32) - prepare(pair[0]).astype(np.float32))
        return change, plain

    with ThreadPoolExecutor(thread_count()) as pool:
        found = list(pool.map(compare, range(len(before))))
    kept = [float(change.mean()) / plain if plain else 0.0 for change, plain in found]
    crops = {
        name: float(np.mean([_contained(change.mean(axis=-1), low, rng) for change, _ in found]))
        for name, low in CROPS.items()
    }
    return Survival(
        len(found),
        float(np.median([change.mean() for change, _ in found])),
        float(np.median([change.max() for change, _ in found])),
        float(np.median(kept)),
        crops,
    )


def clip_pixels(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """CLIP's preparation: the shorter side to 224, bicubic, then the middle square."""
    scale = _CLIP_SIZE / min(image.size)
    size = [max(_CLIP_SIZE, int(side * scale)) for side in image.size]  # rounded down, as torchvision does
    return _middle(np.asarray(image.resize((size[0], size[1]), Image.Resampling.BICUBIC))).astype(np.uint8)


def _middle(pixels: np.ndarray) -> Any:
    h, w = pixels.shape[:2]
    side = min(h, w)
    top, left = round((h - side) / 2), round((w - side) / 2)
    return pixels[top : top + side, left : left + side].astype(np.int16)


def _contained(change: Float[np.ndarray, "h w"], low: float, rng: np.random.Generator) -> float:
    """Share of random crops, as torchvision draws them, with at least half the mean change of the whole."""
    h, w = change.shape
    whole = float(change.mean())
    if not whole:
        return 0.0
    # sums over any rectangle from one table
    table = np.pad(change.astype(np.float64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    area = h * w * rng.uniform(low, 1, _DRAWS)
    ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), _DRAWS))
    height = np.clip(np.rint(np.sqrt(area / ratio)), 1, h).astype(int)
    width = np.clip(np.rint(np.sqrt(area * ratio)), 1, w).astype(int)
    top, left = rng.integers(h - height + 1), rng.integers(w - width + 1)
    bottom, right = top + height, left + width
    inside = table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left]
    return float((inside / (height * width) >= whole / 2).mean())
