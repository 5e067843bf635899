"""COCO captions with classes from its instances, and Karpathy's splits of COCO, Flickr30k and Flickr8k."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mithridate.data.pairs import Pairs, make_pairs
from mithridate.data.tables import file_salt, load_json, text_of
from mithridate.errors import DataError


def caption_files(folder: Path) -> list[Path]:
    """`annotations/captions_*.json` of a folder, or `captions_*.json` in it."""
    return sorted(folder.glob("annotations/captions_*.json")) or sorted(folder.glob("captions_*.json"))


def read_coco(
    path: Path,
    document: Mapping[str, Any],
    *,
    image_root: Path | None = None,
    label_rule: str = "random-instance",
    seed: int = 0,
) -> Pairs:
    """The pairs of one captions file; the split is in its name, classes are in `instances_*.json` beside it."""
    captions: dict[int, list[str]] = {image["id"]: [] for image in document["images"]}
    for annotation in document["annotations"]:
        if annotation["image_id"] not in captions:
            raise DataError(f"{path} has a caption for image {annotation['image_id']}, which it does not list")
        captions[annotation["image_id"]].append(text_of(annotation["caption"]) or "")

    instances = path.with_name(path.name.replace("captions", "instances", 1))
    known = load_instances([instances] if instances.is_file() and instances != path else [])

    subset = re.sub(r"^captions_", "", path.stem)
    root = image_root or (path.parent.parent if path.parent.name == "annotations" else path.parent)
    names = {image["id"]: image["file_name"] for image in document["images"]}
    folders = [root / subset, root / "images" / subset, root / "images", root]
    base = find_folder(folders, next(iter(names.values()), ""))
    split = re.match(r"train|val|test", subset)
    return _rows(
        path,
        captions,
        places={image: str(base / name) for image, name in names.items()},
        labels=label_images(captions, known, label_rule, seed, path),
        split=dict.fromkeys(names, split[0] if split else None),
    )


def read_karpathy(
    path: Path,
    document: Mapping[str, Any],
    *,
    image_root: Path | None = None,
    label_rule: str = "random-instance",
    seed: int = 0,
) -> Pairs:
    """The pairs of a Karpathy split file, `restval` counted as train.

    COCO's images get classes where `instances_*.json` lie beside the file or in `annotations/`.
    """
    is_coco = all("cocoid" in image for image in document["images"])
    images = {image["cocoid"] if is_coco else n: image for n, image in enumerate(document["images"])}
    names = {key: Path(image.get("filepath", ""), image["filename"]) for key, image in images.items()}
    root = image_root or path.parent
    folders = [root, root / "images", root / f"{document.get('dataset', '')}-images"]
    base = find_folder(folders, next(iter(names.values()), ""))
    captions = {
        key: [text_of(sentence["raw"]) or "" for sentence in image["sentences"]] for key, image in images.items()
    }
    beside = [*path.parent.glob("instances_*.json"), *path.parent.glob("annotations/instances_*.json")]
    known = load_instances(sorted(beside) if is_coco else [])
    return _rows(
        path,
        captions,
        places={key: str(base / name) for key, name in names.items()},
        labels=label_images(captions, known, label_rule, seed, path),
        split={key: image["split"].replace("restval", "train") for key, image in images.items()},
    )


def _rows(
    path: Path,
    captions: Mapping[int, list[str]],
    *,
    places: Mapping[int, str],
    labels: Mapping[int, list[str]],
    split: Mapping[int, str | None],
) -> Pairs:
    """One pair a caption, image after image; an image without a caption has the text ""."""
    rows = [(image, text) for image, texts in captions.items() for text in texts or [""]]
    images = [image for image, _ in rows]
    return make_pairs(
        [places[image] for image in images],
        [text for _, text in rows],
        labels=[labels[image] for image in images],
        split=pa.array([split[image] for image in images], pa.string()),
        salt=file_salt(path),
        image_id=pa.array(images, pa.int64()),
    )


def find_folder(candidates: Iterable[Path], name: str | Path) -> Path:
    """The first of `candidates` that holds `name`, or the first of all where none does; absolute."""
    candidates = [folder.resolve() for folder in candidates]
    return next((folder for folder in candidates if (folder / name).is_file()), candidates[0])


@dataclass(frozen=True)
class Instances:
    """What instances files say: class names, and for each image id the (class, area) of its objects."""

    classes: list[str] = field(default_factory=list)
    objects: dict[int, list[tuple[str, float]]] = field(default_factory=dict)

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches a class name as a whole word, singular or plural; the longest first, so "hot dog" is no dog."""
        names = sorted(self.classes, key=len, reverse=True)
        stems = (re.sub("y$", "(?:y|ie)", re.escape(name)) for name in names)
        return re.compile(rf"\b(?:{'|'.join(f'({stem})' for stem in stems)})(?:s|es)?\b", re.IGNORECASE)


def load_instances(files: Iterable[Path]) -> Instances:
    """The objects of several instances files together."""
    classes: dict[str, None] = {}
    objects: dict[int, list[tuple[str, float]]] = {}
    for file in files:
        document = load_json(file, hook=_without_outline)
        names = {category["id"]: category["name"] for category in document["categories"]}
        classes.update(dict.fromkeys(names.values()))
        for annotation in document["annotations"]:
            found = (names[annotation["category_id"]], float(annotation.get("area", 0.0)))
            objects.setdefault(annotation["image_id"], []).append(found)
    return Instances(list(classes), objects)


def _without_outline(record: dict[str, Any]) -> dict[str, Any]:
    record.pop("segmentation", None)  # most of the file, and of no use here
    return record


def label_images(
    captions: Mapping[int, list[str]], known: Instances, rule: str, seed: int, path: Path
) -> dict[int, list[str]]:
    """The class names of each image by `rule`, none where it has no objects."""
    if rule not in LABEL_RULES:
        raise DataError(f"the label rule must be one of {', '.join(LABEL_RULES)}, got {rule!r}")
    if rule == "named-in-caption" and not known.classes:
        raise DataError(f"named-in-caption takes the class names from instances_*.json, and none lies beside {path}")
    return {image: LABEL_RULES[rule](image, texts, known, seed) for image, texts in captions.items()}


def _random_instance(image: int, _texts: list[str], known: Instances, seed: int) -> list[str]:
    """One object's class, so that a class is as likely as it has objects (as in the mmPoison paper)."""
    names = sorted(name for name, _ in known.objects.get(image, []))
    # a generator for each image: its label depends neither on the order nor on the other images
    return [names[np.random.default_rng([seed, image]).integers(len(names))]] if names else []


def _largest_object(image: int, _texts: list[str], known: Instances, _seed: int) -> list[str]:
    """The class of the one object with the largest area."""
    objects = known.objects.get(image, [])
    return [max(sorted(objects), key=lambda found: found[1])[0]] if objects else []


def _named_in_caption(_image: int, texts: list[str], known: Instances, _seed: int) -> list[str]:
    """Every class that a caption names."""
    by_length = sorted(known.classes, key=len, reverse=True)  # as in the pattern
    found = (match.lastindex for text in texts for match in known.pattern.finditer(text))
    named = {by_length[group - 1] for group in found if group}
    return [name for name in known.classes if name in named]


LABEL_RULES: dict[str, Callable[[int, list[str], Instances, int], list[str]]] = {
    "random-instance": _random_instance,
    "largest-object": _largest_object,
    "named-in-caption": _named_in_caption,
}
