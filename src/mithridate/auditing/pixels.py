"""What the pixel detectors read of every image, made in one pass: a hash, a small grey copy, and crops at corners."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import pdqhash
from jaxtyping import Float, UInt8
from numpy.lib.stride_tricks import sliding_window_view

SIDE = 64  # of the grey copy
CORNERS, CROP, CELL = 40, 13, 7  # corners an image, pixels of a crop, and of the crop as it is compared
_CROP_SPREAD = 25.0  # a flatter crop is sky
_QUALITY, _DISTANCE, _BLOCK = 0.05, 4, 3  # of Shi and Tomasi's corners
_IMAGES = 64  # read at once
_RISE = 1e-6


@dataclass(frozen=True)
class PixelFeatures:
    """Of m images as a model sees them: `hash` (m, 32) PDQ bits, `quality` (m,) of 0 to 100 how much it can be relied
    on, `grey` (m, 64, 64) 0 to 255; of c crops `crop` (c, 147) and `crop_image`, `crop_at` (c, 2): the image of each
    and its top left corner. `gather(rows)` gives the pixels themselves, (b, h, w, 3) uint8.
    """

    hash: UInt8[np.ndarray, "m 32"]
    quality: np.ndarray
    grey: UInt8[np.ndarray, "m 64 64"]
    crop: UInt8[np.ndarray, "c 147"]
    crop_image: np.ndarray
    crop_at: np.ndarray
    gather: Callable[[np.ndarray], np.ndarray]

    def take(self, images: np.ndarray) -> PixelFeatures:
        """The features of the images at `images` (k,), in that order."""
        order = np.argsort(self.crop_image, kind="stable")
        counts = np.bincount(self.crop_image, minlength=len(self.hash))
        start = np.cumsum(counts) - counts
        rows = np.concatenate([order[start[i] : start[i] + counts[i]] for i in images])
        return PixelFeatures(
            self.hash[images],
            self.quality[images],
            self.grey[images],
            self.crop[rows],
            np.repeat(np.arange(len(images)), counts[images]),
            self.crop_at[rows],
            lambda few: self.gather(images[few]),
        )


def concat_pixels(parts: Sequence[PixelFeatures], gather: Callable[[np.ndarray], np.ndarray]) -> PixelFeatures:
    """The features of the images of all parts, one after the other; `gather` gives the pixels of any."""
    start = np.cumsum([0, *(len(part.hash) for part in parts)])
    owners = [part.crop_image + first for part, first in zip(parts, start)]
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("hash", "quality", "grey", "crop", "crop_at")
    }
    return PixelFeatures(crop_image=np.concatenate(owners), gather=gather, **joined)


def read_pixels(
    gather: Callable[[np.ndarray], np.ndarray],
    count: int,
    *,
    threads: int = 1,
    progress: Callable[[str, int, int], None] = lambda what, done, of: None,
) -> PixelFeatures:
    """The features of `count` images; `gather(rows)` gives (b, h, w, 3) uint8. Images are read in blocks."""
    cv2.setNumThreads(1)
    hashes, quality = np.empty((count, 32), np.uint8), np.empty(count, np.float32)
    grey = np.empty((count, SIDE, SIDE), np.uint8)
    crops, owners, at = [], [], []
    with ThreadPoolExecutor(threads) as pool:
        for low in range(0, count, _IMAGES):
            rows = np.arange(low, min(low + _IMAGES, count))
            for row, (bits, good, small, crop, where) in zip(rows, pool.map(_one, gather(rows))):
                hashes[row], quality[row], grey[row] = bits, good, small
                crops.append(crop)
                at.append(where)
                owners.append(np.full(len(crop), row))
            progress("reading pixels", int(rows[-1]) + 1, count)
    return PixelFeatures(
        hashes, quality, grey, np.concatenate(crops), np.concatenate(owners), np.concatenate(at), gather
    )


def _one(image: UInt8[np.ndarray, "h w 3"]) -> tuple[np.ndarray, float, np.ndarray, np.ndarray, np.ndarray]:
    bits, quality = pdqhash.compute(image)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    crops, at = corner_crops(image, grey)
    return np.packbits(bits), float(quality), cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA), crops, at


def corner_crops(
    image: UInt8[np.ndarray, "h w 3"], grey: UInt8[np.ndarray, "h w"]
) -> tuple[UInt8[np.ndarray, "c 147"], np.ndarray]:
    """Crops of 13 pixels around corners, as 7x7x3 numbers, with their top left corners (c, 2); flat ones left out."""
    found = cv2.goodFeaturesToTrack(grey, CORNERS, _QUALITY, _DISTANCE, blockSize=_BLOCK)
    points = np.empty((0, 2), np.float32) if found is None else found.reshape(-1, 2)
    at = np.round(points[:, ::-1]).astype(np.int32) - CROP // 2
    at = at[(at >= 0).all(axis=1) & (at + CROP <= grey.shape).all(axis=1)]
    if not len(at):
        return np.empty((0, CELL * CELL * 3), np.uint8), at
    crops = sliding_window_view(image, (CROP, CROP), axis=(0, 1))[at[:, 0], at[:, 1]]  # type: ignore[call-overload]
    crops = crops.transpose(0, 2, 3, 1).astype(np.float32)
    flat = crops.reshape(len(crops), -1)
    kept = np.einsum("cx,cx->c", flat, flat) / flat.shape[1] - flat.mean(axis=1) ** 2 >= _CROP_SPREAD**2
    return describe_crops(crops[kept]), at[kept]


def describe_crops(crops: Float[np.ndarray, "c 13 13 3"]) -> UInt8[np.ndarray, "c 147"]:
    """Crops as the numbers that are compared: 7x7x3, areas averaged."""
    count = len(crops)
    rows = np.ascontiguousarray((_AREAS @ crops.reshape(count, CROP, CROP * 3)).reshape(count, CELL, CROP, 3))
    columns = _AREAS @ rows.reshape(count * CELL, CROP, 3)
    return np.rint(columns).astype(np.uint8).reshape(count, CELL * CELL * 3)


def _areas() -> Float[np.ndarray, "7 13"]:
    """How much of each of 13 pixels lies in each of 7 equal cells: rows sum to 1."""
    edges = np.arange(CELL + 1) * CROP / CELL
    pixel = np.arange(CROP)
    inside = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return (np.clip(inside, 0, None) * CELL / CROP).astype(np.float32)


_AREAS = _areas()


def amplitudes(grey: UInt8[np.ndarray, "m 64 64"]) -> Iterator[tuple[slice, Float[np.ndarray, "b 64 33"]]]:
    """Log amplitude at every frequency of the grey copies, block by block."""
    for low in range(0, len(grey), 1024):
        part = slice(low, low + 1024)
        values = grey[part].astype(np.float32)
        values -= values.mean(axis=(1, 2), keepdims=True)
        yield part, np.log(np.abs(np.fft.rfft2(values)) + 1.0).astype(np.float32)
