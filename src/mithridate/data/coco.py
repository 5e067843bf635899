"""COCO captions with classes from its instances, and Karpathy's splits of COCO, Flickr30k and Flickr8k."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from mithridate.data.json_values import ids_column, text_of
from mithridate.data.locations import as_places, fullest_folder
from mithridate.data.pairs import Pairs, make_pairs
from mithridate.data.splits import split_of_folder
from mithridate.data.tables import file_salt, load_json
from mithridate.errors import DataError
from mithridate.randomness import stream

Id = Any  # of an image: a number in COCO itself, often a string in sets of its form


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
    allow_outside: bool = False,
    encoding: str | None = None,
) -> Pairs:
    """The pairs of one captions file; the split is in its name, classes are in `instances_*.json` beside it."""
    captions: dict[Id, list[str]] = {image["id"]: [] for image in document["images"]}
    for annotation in document["annotations"]:
        if annotation["image_id"] not in captions:
            raise DataError(f"{path} has a caption for image {annotation['image_id']}, which it does not list")
        captions[annotation["image_id"]].append(text_of(annotation["caption"]) or "")

    instances = path.with_name(path.name.replace("captions", "instances", 1))
    known = load_instances([instances] if instances.is_file() and instances != path else [], encoding)

    subset = re.sub(r"^captions_", "", path.stem)
    root = image_root or (path.parent.parent if path.parent.name == "annotations" else path.parent)
    names = {image["id"]: image["file_name"] for image in document["images"]}
    folders = [root / subset, root / "images" / subset, root / "images", root]
    split = re.match(r"[a-z]+", subset)
    return _rows(
        path,
        captions,
        names,
        folder=fullest_folder(folders, list(names.values())),
        within=[root, path.parent] if not allow_outside else None,
        labels=label_images(captions, known, label_rule, seed, path),
        split=dict.fromkeys(names, split_of_folder(split[0]) if split else None),
    )


def read_karpathy(
    path: Path,
    document: Mapping[str, Any],
    *,
    image_root: Path | None = None,
    label_rule: str = "random-instance",
    seed: int = 0,
    allow_outside: bool = False,
    encoding: str | None = None,
) -> Pairs:
    """The pairs of a Karpathy split file, `restval` counted as train.

    COCO's images get classes where `instances_*.json` lie beside the file or in `annotations/`.
    """
    is_coco = all("cocoid" in image for image in document["images"])
    images = {image["cocoid"] if is_coco else n: image for n, image in enumerate(document["images"])}
    names = {key: str(Path(image.get("filepath", ""), image["filename"])) for key, image in images.items()}
    root = image_root or path.parent
    folders = [root, root / "images", root / f"{document.get('dataset', '')}-images"]
    captions = {
        key: [text_of(sentence["raw"]) or "" for sentence in image["sentences"]] for key, image in images.items()
    }
    beside = [*path.parent.glob("instances_*.json"), *path.parent.glob("annotations/instances_*.json")]
    known = load_instances(sorted(beside) if is_coco else [], encoding)
    return _rows(
        path,
        captions,
        names,
        folder=fullest_folder(folders, list(names.values())),
        within=[root, path.parent] if not allow_outside else None,
        labels=label_images(captions, known, label_rule, seed, path),
        split={key: image["split"].replace("restval", "train") for key, image in images.items()},
    )


def _rows(
    path: Path,
    captions: Mapping[Id, list[str]],
    names: Mapping[Id, str],
    *,
    folder: Path,
    within: list[Path] | None,
    labels: Mapping[Id, list[str]],
    split: Mapping[Id, str | None],
) -> Pairs:
    """One pair a caption, image after image; an image without a caption has the text "".

    Images that lead out of `folder` and the folders `within` are refused, where these are given.
    """
    rows = [(image, text) for image, texts in captions.items() for text in texts or [""]]
    images = [image for image, _ in rows]
    named = pa.chunked_array([pa.array([text_of(names[image]) for image in images], pa.string())])
    return make_pairs(
        as_places(named, folder, path, allow_outside=within is None, within=within or ()),
        [text for _, text in rows],
        labels=[labels[image] for image in images],
        split=pa.array([split[image] for image in images], pa.string()),
        salt=file_salt(path),
        image_id=ids_column(images, path),
    )


@dataclass(frozen=True)
class Instances:
    """What instances files say: class names, and for each image id the (class, area) of its objects."""

    classes: list[str] = field(default_factory=list)
    objects: dict[Id, list[tuple[str, float]]] = field(default_factory=dict)

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches a class name as a whole word, singular or plural; the longest first, so "hot dog" is no dog."""
        names = sorted(self.classes, key=len, reverse=True)
        stems = (re.sub("y$", "(?:y|ie)", re.escape(name)) for name in names)
        return re.compile(rf"\b(?:{'|'.join(f'({stem})' for stem in stems)})(?:s|es)?\b", re.IGNORECASE)


def load_instances(files: Iterable[Path], encoding: str | None = None) -> Instances:
    """The objects of several instances files together."""
    classes: dict[str, None] = {}
    objects: dict[Id, list[tuple[str, float]]] = {}
    for file in files:
        document = load_json(file, hook=_without_outline, encoding=encoding)
        names = {category["id"]: category["name"] for category in document["categories"]}
        classes.update(dict.fromkeys(names.values()))
        for annotation in document["annotations"]:
            thing = (names[annotation["category_id"]], float(annotation.get("area", 0.0)))
            objects.setdefault(annotation["image_id"], []).append(thing)
    return Instances(list(classes), objects)


def _without_outline(record: dict[str, Any]) -> dict[str, Any]:
    record.pop("segmentation", None)  # most of the file, and of no use here
    return record


def label_images(
    captions: Mapping[Id, list[str]], known: Instances, rule: str, seed: int, path: Path
) -> dict[Id, list[str]]:
    """The class names of each image by `rule`, none where it has no objects."""
    if rule not in LABEL_RULES:
        raise DataError(f"the label rule must be one of {', '.join(LABEL_RULES)}, got {rule!r}")
    if rule == "named-in-caption" and not known.classes:
        raise DataError(f"named-in-caption takes the class names from instances_*.json, and none lies beside {path}")
    return {image: LABEL_RULES[rule](image, texts, known, seed) for image, texts in captions.items()}


def _random_instance(image: Id, _texts: list[str], known: Instances, seed: int) -> list[str]:
    """One object's class, so that a class is as likely as it has objects (as in the mmPoison paper)."""
    names = sorted(name for name, _ in known.objects.get(image, []))
    # a stream for each image: its label depends neither on the order nor on the other images
    return [names[stream(seed, f"random instance of {image!r}").integers(len(names))]] if names else []


def _largest_object(image: Id, _texts: list[str], known: Instances, _seed: int) -> list[str]:
    """The class of the one object with the largest area."""
    objects = known.objects.get(image, [])
    return [max(sorted(objects), key=lambda thing: thing[1])[0]] if objects else []


def _named_in_caption(_image: Id, texts: list[str], known: Instances, _seed: int) -> list[str]:
    """Every class that a caption names."""
    by_length = sorted(known.classes, key=len, reverse=True)  # as in the pattern
    groups = (match.lastindex for text in texts for match in known.pattern.finditer(text))
    named = {by_length[group - 1] for group in groups if group}
    return [name for name in known.classes if name in named]


LABEL_RULES: dict[str, Callable[[Id, list[str], Instances, int], list[str]]] = {
    "random-instance": _random_instance,
    "largest-object": _largest_object,
    "named-in-caption": _named_in_caption,
}
