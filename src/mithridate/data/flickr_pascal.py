"""Flickr-PASCAL, the set of the mmPoison paper: Flickr30k and half of the PASCAL sentences to train on, the
other half to test on."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mithridate.data.encodings import decode_text
from mithridate.data.pairs import Pairs, concat_pairs, make_pairs
from mithridate.data.splits import spellings
from mithridate.errors import DataError
from mithridate.randomness import stream


def join_flickr_pascal(flickr: Pairs, pascal: Pairs, *, seed: int = 0) -> Pairs:
    """Split train: the train split of `flickr` and half of each class of `pascal`, drawn; split test: the rest.

    All of `flickr` is taken where it names no split. A class with an odd number of images tests on one more.
    """
    if not pascal.classes:
        raise DataError("the PASCAL sentences need the class of each image: give a table with a class column")
    if flickr.split.null_count < len(flickr):
        flickr = flickr.where(pc.is_in(pc.utf8_lower(flickr.split), pa.array(spellings("train"))).to_numpy())
    if len(flickr) == 0:
        raise DataError("Flickr30k has no pair in its train split; give it with its training images")
    halves = np.where(_half(pascal, seed), "train", "test")
    whole = pa.repeat(pa.scalar("train"), len(flickr))
    return concat_pairs([flickr.with_columns(split=whole), pascal.with_columns(split=pa.array(halves))])


def _half(pairs: Pairs, seed: int) -> np.ndarray:
    """For each pair whether its image is in the drawn half of its class: (n,) bool."""
    chosen = np.zeros(len(pairs.images), dtype=bool)
    first = np.unique(pairs.image_index, return_index=True)[1]
    labels = pairs.labels.take(pa.array(first)).to_pylist()
    # by name, not by folder: the draw must not change when the data are moved
    names = [Path(place).name for place in pairs.images.to_pylist()]
    for name in sorted(pairs.classes):
        members = sorted((i for i, of in enumerate(labels) if of[:1] == [name]), key=lambda i: names[i])
        drawn = stream(seed, f"half of the class {name}").permutation(len(members))[: len(members) // 2]
        chosen[[members[i] for i in drawn]] = True
    return chosen[pairs.image_index]


def flickr_and_pascal(folder: Path) -> list[Path]:
    """Both sources where `folder` holds `dataset_flickr30k.json` or `flickr30k*/`, and `pascal*/`; else nothing."""
    folders = sorted(path for path in folder.iterdir() if path.is_dir())
    flickr = [path for path in folders if path.name.lower().startswith("flickr30k")]
    pascal = [path for path in folders if path.name.lower().startswith("pascal")]
    split = folder / "dataset_flickr30k.json"
    if split.is_file():
        flickr = [split]
    return [flickr[0], pascal[0]] if flickr and pascal else []


def pascal_sentence_files(folder: Path) -> list[Path]:
    """`sentence/CLASS/IMAGE.txt`: the captions of PASCAL sentences as published."""
    return sorted(folder.glob("sentence/*/*.txt")) or sorted(folder.glob("sentences/*/*.txt"))


def read_pascal_sentences(folder: Path, *, image_root: Path | None = None, encoding: str | None = None) -> Pairs:
    """The pairs of PASCAL sentences as published: images in `CLASS/` or `dataset/CLASS/`, one caption a line."""
    root = (image_root or folder).resolve()
    root = root / "dataset" if (root / "dataset").is_dir() else root
    images, texts, labels = [], [], []
    for file in pascal_sentence_files(folder):
        name = file.parent.name
        lines = [line.strip() for line in decode_text(file.read_bytes(), str(file), encoding).splitlines()]
        lines = [line for line in lines if line] or [""]
        candidates = (root / name / f"{file.stem}{ending}" for ending in (".jpg", ".jpeg", ".png"))
        place = next((image for image in candidates if image.is_file()), root / name / f"{file.stem}.jpg")
        texts += lines
        images += [str(place)] * len(lines)
        labels += [[name]] * len(lines)
    salt = hashlib.blake2b("\n".join(texts).encode()).digest()
    return make_pairs(images, texts, labels=labels, salt=salt)
