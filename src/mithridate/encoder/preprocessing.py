"""How images become pixels: what a pretrained tag, a folder or open_clip's defaults say of it."""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import open_clip
from open_clip.transform import MaybeToTensor, PreprocessCfg
from PIL import Image
from torchvision.transforms import Compose, Normalize

# of a pretrained tag, what decides besides the weights
OF_TAGS = ("mean", "std", "interpolation", "resize_mode", "fill_color")


def complete(said: dict[str, Any], size: int | tuple[int, int]) -> dict[str, Any]:
    """Every field of `PreprocessCfg`: those that `said` holds, else open_clip's defaults; lists become tuples."""
    fields = asdict(PreprocessCfg()) | {key: value for key, value in said.items() if value is not None}
    for key in ("mean", "std"):
        value = fields[key]
        fields[key] = tuple(map(float, value if isinstance(value, list | tuple) else [value] * 3))
    if fields["interpolation"] == "random":  # of training; open_clip prepares images for inference by its default
        fields["interpolation"] = "bicubic"
    return {key: fields[key] for key in asdict(PreprocessCfg())} | {"size": size}


def of_tag(name: str, tag: str) -> dict[str, Any]:
    """Preprocessing and `quick_gelu` that open_clip lists for a tag of the model `name`; {} where there is none."""
    listed = open_clip.get_pretrained_cfg(name, tag)
    if not listed:
        return {}
    fields = asdict(PreprocessCfg()) | {key: value for key, value in listed.items() if value is not None}
    return {key: fields[key] for key in OF_TAGS} | {"quick_gelu": bool(listed.get("quick_gelu"))}


def of_all_tags(name: str) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """What all published weights of the model `name` agree on; for the fields that differ, each "value (tags)"."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    listed = {tag: of_tag(name, tag) for tag in tags}
    agreed, differing = {}, {}
    for key in (*OF_TAGS, "quick_gelu"):
        values: dict[str, list[str]] = {}
        for tag, fields in listed.items():
            values.setdefault(json.dumps(fields[key]), []).append(tag)
        if len(values) == 1:
            agreed[key] = listed[tags[0]][key]
        elif values:
            differing[key] = [f"{value} ({', '.join(names)})" for value, names in values.items()]
    return agreed, differing


@lru_cache(maxsize=8)
def resizing(recipe: str) -> Callable[[Image.Image], Image.Image]:
    """The part of open_clip's transform that works on images, by an encoder's `recipe`."""
    cfg = json.loads(recipe)
    whole: Any = open_clip.image_transform(cfg.pop("size"), is_train=False, **cfg)
    # what follows (to tensor, normalise) is done on whole batches
    return Compose([step for step in whole.transforms if not isinstance(step, Normalize | MaybeToTensor)])
