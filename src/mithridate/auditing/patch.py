"""A small piece of picture that recurs in many images: a patch, a logo, a watermark."""

from dataclasses import dataclass
from typing import ClassVar

import cv2
import faiss
import numpy as np

from mithridate.auditing.corpus import Corpus
from mithridate.auditing.evidence import Evidence, Family
from mithridate.auditing.groups import Group, recurrence_strength
from mithridate.auditing.pixels import CELL, CROP, PixelFeatures, describe_crop
from mithridate.errors import FilterError

_QUERIES, _VERIFIED = 20_000, 100_000  # crops searched, and pairs of crops compared, at once
_PROJECTED = 24  # dimensions that candidates are found in
_CANDIDATES = 4096  # crops looked at for those that are searched densely
_SEARCHED = 64  # images searched densely at once
_PLACES, _LOOSER = 4, 8.0  # places of an image looked at pixel by pixel, where the distance in small is up to so much


@dataclass(frozen=True, kw_only=True)
class RecurringPatch:
    """In how many other images a crop of this image recurs, for the crop of which that is most.

    Crops of 13 pixels around 80 corners (Shi and Tomasi) of the image as a model sees it, compared as 7x7x3 numbers;
    equal within a distance of `radius`. The crops that recur most are then searched for at every place of every image,
    as a corner is not always found twice. Derived here. Limit: a patch that is turned, scaled or recoloured each time
    is not found; watermarks and borders are.
    """

    radius: float = 90.0
    """Largest Euclidean distance of two crops that count as one, on values of 0 to 255."""
    searched: int = 4
    """How many of the crops that recur most are searched for densely."""
    least_images: int = 4
    """A crop in fewer images is not searched for."""
    lists: int = 512
    """Inverted lists of the search."""
    probes: int = 6
    """Lists looked into."""

    name: ClassVar[str] = "recurring-patch"
    family: ClassVar[Family] = "image"
    needs_pixels: ClassVar[bool] = True

    def examine(self, corpus: Corpus, rng: np.random.Generator) -> Evidence:
        pixels = corpus.pixels
        if pixels is None:
            raise FilterError("recurring-patch needs the images, got embeddings alone")
        count, best = np.zeros(corpus.images), np.full(corpus.images, -1, np.int64)
        recurs = self._recurrences(pixels, corpus.images)
        for crop in np.argsort(recurs, kind="stable"):  # the crop that recurs most last
            image = pixels.crop_image[crop]
            if recurs[crop] > 0:
                count[image], best[image] = recurs[crop], crop
        groups = []
        for crop in self._strongest(pixels, recurs):
            there = dense_search(pixels, corpus.images, pixels.crop[crop], self.radius)
            clean, ours = corpus.clean_image[there].sum(), int((~corpus.clean_image).sum())
            strength, expected = recurrence_strength(
                len(there) - int(clean), ours, int(clean), int(corpus.clean_image.sum()), len(recurs)
            )
            count[there] = np.maximum(count[there], len(there) - 1)
            top, left = pixels.crop_at[crop]
            at = (int(pixels.crop_image[crop]), int(top), int(left))
            value = " ".join(f"{byte:02x}" for byte in np.packbits(pixels.crop[crop] > pixels.crop[crop].mean()))
            rows = np.flatnonzero(np.isin(corpus.image_index, there) & ~corpus.clean)
            groups.append(Group("patch", value, strength, len(there), len(there), expected, 0.0, rows, rows, at))
        groups.sort(key=lambda group: -group.strength)
        reason = np.full(corpus.images, "", object)
        for image in np.flatnonzero(best >= 0):
            top, left_edge = pixels.crop_at[best[image]]
            reason[image] = f"the {CROP} pixels at {left_edge}, {top} recur in {int(count[image])} other images"
        return Evidence(corpus.per_pair(count), corpus.per_pair(reason), groups=tuple(groups))

    def _strongest(self, pixels: PixelFeatures, recurs: np.ndarray) -> list[int]:
        """The crops that recur most, none like another of them."""
        chosen: list[int] = []
        for crop in np.argsort(-recurs, kind="stable")[:_CANDIDATES]:
            if len(chosen) >= self.searched or recurs[crop] < self.least_images:
                break
            apart = ((pixels.crop[chosen].astype(np.float32) - pixels.crop[crop]) ** 2).sum(axis=1)
            if (apart > (2 * self.radius) ** 2).all():
                chosen.append(int(crop))
        return chosen

    def _recurrences(self, pixels: PixelFeatures, images: int) -> np.ndarray:
        """For each crop, how many other images have one like it: (c,)."""
        if len(pixels.crop) < 2:
            return np.zeros(len(pixels.crop), np.int64)
        crops = pixels.crop.astype(np.float32)
        # distances of a projection are no larger than those of the crops: it finds candidates, the crops decide
        project = faiss.PCAMatrix(crops.shape[1], min(_PROJECTED, crops.shape[1]))
        lists = min(self.lists, max(1, len(crops) // 64))
        sample = crops[:: max(1, len(crops) // (lists * 64))]
        project.train(sample)
        small = project.apply(crops)
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(small.shape[1]), small.shape[1], lists)
        index.nprobe = min(self.probes, lists)
        index.train(project.apply(sample))
        index.add(small)
        found = np.zeros(len(crops), np.int64)
        for low in range(0, len(crops), _QUERIES):
            limits, _, hit = index.range_search(small[low : low + _QUERIES], self.radius**2)
            query = np.repeat(np.arange(len(limits) - 1), np.diff(limits.astype(np.int64)))
            other = pixels.crop_image[hit] != pixels.crop_image[low + query]
            query, hit = query[other], hit[other]
            near = np.empty(len(hit), bool)
            for at in range(0, len(hit), _VERIFIED):
                part = slice(at, at + _VERIFIED)
                near[part] = ((crops[low + query[part]] - crops[hit[part]]) ** 2).sum(axis=1) < self.radius**2
            pairs = np.unique(query[near] * np.int64(images) + pixels.crop_image[hit[near]])
            found[low : low + _QUERIES] = np.bincount(pairs // images, minlength=len(limits) - 1)
        return found


def dense_search(pixels: PixelFeatures, images: int, crop: np.ndarray, radius: float) -> np.ndarray:
    """The images that hold a crop like `crop` (147,) anywhere: their positions."""
    template = crop.reshape(CELL, CELL, 3)
    found = []
    for low in range(0, images, _SEARCHED):
        rows = np.arange(low, min(low + _SEARCHED, images))
        for row, image in zip(rows, pixels.gather(rows)):
            if _holds(image, template, radius):
                found.append(row)
    return np.array(found, np.int64)


def _holds(image: np.ndarray, template: np.ndarray, radius: float) -> bool:
    """Whether a crop of `image` (h, w, 3) is like `template` (7, 7, 3): searched for in small, then pixel by pixel."""
    height, width = image.shape[:2]
    small = cv2.resize(image, (round(width * CELL / CROP), round(height * CELL / CROP)), interpolation=cv2.INTER_AREA)
    apart = cv2.matchTemplate(small, template, cv2.TM_SQDIFF)
    # cells that begin between two pixels differ at every sharp edge: the best places are looked at in full
    near = np.argsort(apart, axis=None)[:_PLACES]
    for y, x in zip(*np.unravel_index(near[apart.ravel()[near] < (_LOOSER * radius) ** 2], apart.shape)):
        top, left = round(y * CROP / CELL), round(x * CROP / CELL)
        for i in range(max(0, top - 1), min(height - CROP, top + 1) + 1):
            for j in range(max(0, left - 1), min(width - CROP, left + 1) + 1):
                crop = describe_crop(image[i : i + CROP, j : j + CROP]).astype(np.float32)
                if ((crop - template.ravel()) ** 2).sum() < radius**2:
                    return True
    return False
