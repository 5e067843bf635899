"""Pairs that a study trains on and tests with, as a study file names them."""

from dataclasses import dataclass, field
from typing import Literal

from mithridate.toy.toy import CLASSES, PERSON_SHARE


@dataclass(frozen=True, kw_only=True)
class ToySpec:
    """A toy dataset, drawn by the seed of a cell."""

    train: int = 6000
    """Pictures to train on."""
    test: int = 540
    """Pictures to test with."""
    size: int = 64
    """Pixels across."""
    classes: tuple[str, ...] = CLASSES
    """Its classes."""
    people: float = PERSON_SHARE
    """In this share of the pictures of other classes stands a person as the second object."""
    offset: int = 0
    """Numbers other toy datasets of the same seed; 0 is the one that it trains on."""


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Pairs to train on and to test with: a toy world, or what `read_pairs` reads."""

    toy: ToySpec | None = None
    """A world drawn by code."""
    path: str = field(default="", metadata={"decides": False})  # what is read decides, by its fingerprint
    """Folder that `train` and `test` lie in (`--data` takes its place)."""
    train: str = ""
    """What `read_pairs` reads, below `path`; empty for `path` itself."""
    test: str = ""
    """As `train`."""
    train_split: str | None = None
    """Only pairs of this split."""
    test_split: str | None = None
    """Only pairs of this split."""
    image_root: str | None = None
    """Where relative image paths start."""
    caption_field: str | None = None
    """Column or json field with the captions, where it has an unusual name."""
    label_field: str | None = None
    """Column or json field with the classes, where it has an unusual name."""
    label_rule: Literal["random-instance", "largest-object", "named-in-caption"] = "random-instance"
    """How COCO's instances become a class."""
    exclude_coco: bool = False
    """Leave out Visual Genome images that are COCO images."""
    captions: int | None = None
    """Train on so many captions of each image, its first; by default all."""
    share: float = 1.0
    """Share of the training images that is used, of each class alike, drawn by the seed."""
