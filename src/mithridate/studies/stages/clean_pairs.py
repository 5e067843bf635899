"""Clean pairs as stages take them: part of a toy dataset, or of data that lie outside the study."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mithridate.data.pairs import Pairs
from mithridate.data.read import read_pairs
from mithridate.randomness import stream
from mithridate.studies.spec.data import DataSpec
from mithridate.toy.toy import CAPTIONS_PER_IMAGE

if TYPE_CHECKING:
    from mithridate.studies.stages.toy_dataset import ToyDataset
    from mithridate.studies.store import Store

_UNKNOWN = 20_000  # pairs of data that were not read yet, for estimates of time


@dataclass(frozen=True)
class CleanPairs:
    """A part (train, test) of a toy dataset, or of data that are read; `share` of their images.

    It is no stage: nothing is written for it.
    """

    part: str
    toy: "ToyDataset | None" = None
    data: DataSpec | None = None
    fingerprint: str = ""  # of what is read: other pairs are another stage
    share: float = 1.0
    seed: int = 0  # that the share is drawn by
    captions: int | None = None  # of each image, its first

    def read(self, store: "Store") -> Pairs:
        """The pairs; read once and kept by the store."""
        return store.remember(self, self._read)

    def _read(self, store: "Store") -> Pairs:
        if self.toy is not None:
            pairs = self.toy.pairs(store, self.part)
        else:
            assert self.data is not None  # clean pairs are of one or the other
            pairs = read_data(self.data, self.part)
        pairs = pairs if self.captions is None else first_captions(pairs, self.captions)
        return pairs if self.share == 1 else share_of(pairs, self.share, self.seed)

    def manifest(self, store: "Store") -> None:
        """None: nothing was done to them."""

    @property
    def clean(self) -> "CleanPairs":
        """These pairs themselves; of poisoned and filtered ones those that they were made from."""
        return self

    def count(self) -> float:
        """About how many pairs, for estimates of time."""
        whole = _UNKNOWN if self.toy is None else self.toy.count()
        captions = 1.0 if self.captions is None else min(1.0, self.captions / CAPTIONS_PER_IMAGE)
        return self.share * captions * whole


def read_data(data: DataSpec, part: str) -> Pairs:
    """The pairs of a part (train, test) of data that lie outside. Raises what `read_pairs` raises."""
    name, split = (data.train, data.train_split) if part == "train" else (data.test, data.test_split)
    location = f"{data.path.rstrip('/')}/{name}" if data.path and name else data.path or name
    return read_pairs(
        location,
        split=split,
        image_root=data.image_root,
        caption_field=data.caption_field,
        label_field=data.label_field,
        label_rule=data.label_rule,
        exclude_coco=data.exclude_coco,
    )


def first_captions(pairs: Pairs, count: int) -> Pairs:
    """The first `count` pairs of each image."""
    order = np.argsort(pairs.image_index, kind="stable")
    first = np.searchsorted(pairs.image_index[order], pairs.image_index)
    place = np.empty(len(pairs), np.int64)
    place[order] = np.arange(len(pairs))
    return pairs.where(place - first < count)


def share_of(pairs: Pairs, share: float, seed: int) -> Pairs:
    """The pairs of `share` of the images of each class alike, drawn by `seed`; one image of each at least."""
    rng = stream(seed, "share of the images")
    first = np.unique(pairs.image_index, return_index=True)[1]
    classes = [(labels or [""])[0] for labels in pairs.labels.take(first).to_pylist()]
    of_class: dict[str, list[int]] = {}
    for image, name in enumerate(classes):
        of_class.setdefault(name, []).append(image)
    kept = np.zeros(len(pairs.images), dtype=bool)
    for images in of_class.values():
        kept[rng.permutation(images)[: max(1, round(share * len(images)))]] = True
    return pairs.where(kept[pairs.image_index])
