"""A small piece of picture that recurs in many images: a patch, a logo, a watermark."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int, UInt8
from numpy.lib.stride_tricks import sliding_window_view

from mithridate.auditing.corpus import Corpus
from mithridate.auditing.evidence import Evidence, Need
from mithridate.auditing.groups import Group, recurrence_strength
from mithridate.auditing.pixels import CELL, CROP, PixelFeatures, describe_crops
from mithridate.errors import FilterError

_QUERIES, _VERIFIED = 20_000, 100_000  # crops searched, and pairs of crops compared, at once
_PROJECTED = 24  # dimensions that candidates are found in
_CANDIDATES = 4096  # crops looked at for those that are searched densely
_SEARCHED = 64  # images searched densely at once
_PLACES, _LOOSER = 6, 5.0  # places of an image looked at pixel by pixel, where the distance in small is up to so much
_AROUND = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1], indexing="ij"), axis=-1).reshape(-1, 2)


@dataclass(frozen=True, kw_only=True)
class RecurringPatch:
    """In how many other images a crop of this image recurs, for the crop of which that is most.

    Crops of 13 pixels around 40 corners (Shi and Tomasi) of the image as a model sees it, compared as 7x7x3 numbers;
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
    """Inverted lists of the search, of many crops more."""
    probes: int = 6
    """Lists looked into."""

    name: ClassVar[str] = "recurring-patch"
    measures: ClassVar[str] = "other images that a crop of it recurs in"
    own_level: ClassVar[float | None] = None
    needs: ClassVar[tuple[Need, ...]] = ("pixels",)

    def examine(self, corpus: Corpus, rng: np.random.Generator) -> Evidence:
        pixels = corpus.known_pixels
        if pixels is None:
            raise FilterError("recurring-patch needs the images, got embeddings alone")
        count, best = np.zeros(corpus.images), np.full(corpus.images, -1, np.int64)
        recurs = self._recurrences(pixels, corpus.images)
        for crop in np.argsort(recurs, kind="stable"):  # the crop that recurs most last
            image = pixels.crop_image[crop]
            if recurs[crop] > 0:
                count[image], best[image] = recurs[crop], crop
        groups = []
        strongest = self._strongest(pixels, recurs)
        everywhere = dense_search(pixels, corpus.images, pixels.crop[strongest], self.radius)
        for crop, there in zip(strongest, everywhere):
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
        import faiss

        if len(pixels.crop) < 2:
            return np.zeros(len(pixels.crop), np.int64)
        crops = pixels.crop
        # distances of a projection are no larger than those of the crops: it finds candidates, the crops decide
        project = faiss.PCAMatrix(crops.shape[1], min(_PROJECTED, crops.shape[1]))
        lists = min(max(self.lists, int(2 * len(crops) ** 0.5)), max(1, len(crops) // 64))
        sample = crops[:: max(1, len(crops) // (lists * 64))].astype(np.float32)
        project.train(sample)
        small = np.empty((len(crops), project.d_out), np.float32)
        for low in range(0, len(crops), _QUERIES):
            small[low : low + _QUERIES] = project.apply(crops[low : low + _QUERIES].astype(np.float32))
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
                apart = crops[low + query[part]].astype(np.float32) - crops[hit[part]]
                near[part] = np.einsum("pd,pd->p", apart, apart) < self.radius**2
            pairs = np.unique(query[near] * np.int64(images) + pixels.crop_image[hit[near]])
            found[low : low + _QUERIES] = np.bincount(pairs // images, minlength=len(limits) - 1)
        return found


def dense_search(
    pixels: PixelFeatures, images: int, crops: UInt8[np.ndarray, "t 147"], radius: float
) -> list[Int[np.ndarray, " k"]]:
    """For each of t crops the images that hold one like it anywhere: their positions."""
    import cv2

    templates = [crop.reshape(CELL, CELL, 3) for crop in crops]
    grey = [cv2.cvtColor(template, cv2.COLOR_RGB2GRAY) for template in templates]
    found: list[list[int]] = [[] for _ in templates]
    for low in range(0, images, _SEARCHED) if templates else ():
        rows = np.arange(low, min(low + _SEARCHED, images))
        for row, image in zip(rows.tolist(), pixels.gather(rows)):
            height, width = (round(side * CELL / CROP) for side in image.shape[:2])
            small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (width, height), interpolation=cv2.INTER_AREA)
            for holders, template, plain in zip(found, templates, grey):
                apart = cv2.matchTemplate(small, plain, cv2.TM_SQDIFF)
                if apart.min() < (_LOOSER * radius) ** 2 and _holds(image, template, apart, radius):
                    holders.append(row)
    return [np.array(holders, np.int64) for holders in found]


def _holds(image: np.ndarray, template: np.ndarray, apart: np.ndarray, radius: float) -> bool:
    """Whether a crop of `image` (h, w, 3) is like `template` (7, 7, 3), near the places where `apart` is least.

    `apart`: squared distances in small and grey. Cells that begin between two pixels differ at every sharp edge, so the
    best places are looked at pixel by pixel.
    """
    flat = apart.ravel()
    best = np.argpartition(flat, min(_PLACES, len(flat) - 1))[:_PLACES]
    place = np.stack(np.unravel_index(best, apart.shape), axis=1)
    top_left = np.round(place * CROP / CELL).astype(int)[:, None] + _AROUND
    height, width = image.shape[:2]
    at = np.unique(np.clip(top_left.reshape(-1, 2), 0, (height - CROP, width - CROP)), axis=0)
    crops = sliding_window_view(image, (CROP, CROP), axis=(0, 1))[at[:, 0], at[:, 1]]  # type: ignore[call-overload]
    described = describe_crops(crops.transpose(0, 2, 3, 1).astype(np.float32)).astype(np.float32)
    return bool((((described - template.ravel()) ** 2).sum(axis=1) < radius**2).any())
