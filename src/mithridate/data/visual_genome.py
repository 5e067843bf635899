"""Visual Genome's region descriptions: one pair a phrase."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from mithridate.data.json_values import ids_column, text_of
from mithridate.data.locations import as_places
from mithridate.data.pairs import Pairs, make_pairs
from mithridate.data.tables import file_salt, load_json
from mithridate.errors import DataError

IMAGE_FOLDERS = ("VG_100K", "VG_100K_2")


def read_visual_genome(
    path: Path,
    document: Sequence[Mapping[str, Any]],
    *,
    image_root: Path | None = None,
    exclude_coco: bool = False,
    allow_outside: bool = False,
    encoding: str | None = None,
) -> Pairs:
    """The pairs of `region_descriptions.json`, as published (regions by image) or as a plain list of regions.

    `exclude_coco` leaves out the images that COCO has too, which `image_data.json` beside the file tells:
    half of Visual Genome is COCO, so that a repair on it would see the test images.
    """
    regions = [region for entry in document for region in entry.get("regions", [entry])]
    about = _image_data(path, encoding)
    if exclude_coco:
        if not about:
            raise DataError(f"exclude_coco needs image_data.json, which says what COCO has too, beside {path}")
        regions = [region for region in regions if about.get(region["image_id"], {}).get("coco_id") is None]
    images = [region["image_id"] for region in regions]
    root = image_root or path.parent
    places = _places(set(images), about, root)
    named = pa.chunked_array([pa.array([places[image] for image in images], pa.string())])
    return make_pairs(
        as_places(named, root, path, allow_outside=allow_outside, within=[path.parent]),
        [text_of(region["phrase"]) or "" for region in regions],
        salt=file_salt(path),
        image_id=ids_column(images, path),
    )


def _image_data(path: Path, encoding: str | None) -> dict[Any, dict[str, Any]]:
    file = path.with_name("image_data.json")
    records = load_json(file, encoding=encoding) if file.is_file() else []
    # the first release called the number `id`
    return {record.get("image_id", record.get("id")): record for record in records}


def _places(images: set[Any], about: Mapping[Any, Mapping[str, Any]], root: Path) -> dict[Any, str]:
    """Where each image lies: in the folder that has it, else in the one its address names."""
    root = (root / "images" if (root / "images").is_dir() else root).resolve()
    there = {
        file.name: str(file)
        for folder in IMAGE_FOLDERS
        if (root / folder).is_dir()
        for file in (root / folder).iterdir()
    }

    def place(image: Any) -> str:
        stated = re.search(r"VG_100K(_2)?(?=/)", str(about.get(image, {}).get("url", "")))
        return there.get(f"{image}.jpg") or str(root / (stated[0] if stated else IMAGE_FOLDERS[0]) / f"{image}.jpg")

    return {image: place(image) for image in images}


def thin_region(record: dict[str, Any]) -> dict[str, Any]:
    """A JSON object without what is not needed here: five million regions with their boxes fill the memory."""
    if "phrase" in record and "region_id" in record:
        return {"phrase": record["phrase"], "image_id": record.get("image_id")}
    return record
