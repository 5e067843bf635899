"""Hugging Face's `CLIPModel` as open_clip has it: configuration, preprocessing and names of weights.

Names and meanings were read in transformers' `modeling_clip.py` and open_clip's `transformer.py`; that embeddings are
the same is tested.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mithridate.encoder.model_config import read_json
from mithridate.errors import EncoderError

_NORMS = {"pre_layrnorm": "ln_pre", "post_layernorm": "ln_post", "final_layer_norm": "ln_final"}
_BLOCK = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
_TOWERS = {"vision_model": ("visual.", "visual.transformer"), "text_model": ("", "transformer")}
_RESAMPLING = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def is_state_of(state: dict[str, Tensor]) -> bool:
    """Whether these are the weights of a `CLIPModel`."""
    return "text_model.embeddings.token_embedding.weight" in state and "visual_projection.weight" in state


def convert_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a `CLIPModel` under open_clip's names; a name that it does not have stays as it is."""
    made: dict[str, Tensor] = {}
    for name, value in state.items():
        tower, _, rest = name.partition(".")
        if tower == "logit_scale":
            made[name] = value
        elif name == "visual_projection.weight":
            made["visual.proj"] = value.T
        elif name == "text_projection.weight":
            made["text_projection"] = value.T
        elif tower not in _TOWERS:
            made[name] = value
        else:
            _convert(made, tower, rest, value, state)
    return made


def _convert(made: dict[str, Tensor], tower: str, name: str, value: Tensor, state: dict[str, Tensor]) -> None:
    here, blocks = _TOWERS[tower]
    if name.startswith("embeddings."):
        key = {
            "embeddings.class_embedding": "class_embedding",
            "embeddings.patch_embedding.weight": "conv1.weight",
            "embeddings.position_embedding.weight": "positional_embedding",
            "embeddings.token_embedding.weight": "token_embedding.weight",
        }.get(name)
        if name != "embeddings.position_ids":  # a buffer that was kept before transformers 4.31
            made[f"{here}{key}" if key else f"{tower}.{name}"] = value
        return
    first, _, rest = name.partition(".")
    if first in _NORMS:
        made[f"{here}{_NORMS[first]}.{rest}"] = value
        return
    block = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
    if block is None:
        made[f"{tower}.{name}"] = value
        return
    number, part, kind = block.groups()
    to = f"{blocks}.resblocks.{number}"
    if part in _BLOCK:
        made[f"{to}.{_BLOCK[part]}.{kind}"] = value
    elif part == "self_attn.out_proj":
        made[f"{to}.attn.out_proj.{kind}"] = value
    elif part == "self_attn.q_proj":  # the three lie in one array there
        names = [f"{tower}.encoder.layers.{number}.self_attn.{x}_proj.{kind}" for x in "qkv"]
        if all(each in state for each in names):
            made[f"{to}.attn.in_proj_{kind}"] = torch.cat([state[each] for each in names])
    elif part not in ("self_attn.k_proj", "self_attn.v_proj"):
        made[f"{tower}.{name}"] = value


def read_hf_clip(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """`model_cfg` and `preprocess_cfg` of the `CLIPModel` in `folder`; not yet checked against their ranges.

    Raises `EncoderError` for another model, and for settings that open_clip's CLIP does not have.
    """
    path = folder / "config.json"
    content = read_json(path)
    if content.get("model_type") != "clip":
        raise EncoderError(
            f"{path} describes a {content.get('model_type')!r:.60} model; of Hugging Face's models, only CLIPModel is "
            "converted; for others take open_clip's own release (hf-hub:ORGANISATION/NAME)"
        )
    vision, text = (content.get(f"{name}_config") or {} for name in ("vision", "text"))
    if not isinstance(vision, dict) or not isinstance(text, dict):
        raise EncoderError(f"{path}: vision_config and text_config are not objects of settings")
    acts = {str(tower.get("hidden_act", "quick_gelu")) for tower in (vision, text)}
    if acts not in ({"quick_gelu"}, {"gelu"}):
        raise EncoderError(f"{path}: hidden_act is {sorted(acts)}; open_clip has quick_gelu or gelu in both towers")
    width, text_width = _size(path, vision, "hidden_size", 768), _size(path, text, "hidden_size", 512)
    heads = _size(path, vision, "num_attention_heads", 12)
    vocabulary, end = _size(path, text, "vocab_size", 49408), text.get("eos_token_id", 49407)
    # a model of before transformers 4.24 says 2, and reads captions off at the largest id all the same
    pooled = {} if end in (2, vocabulary - 1) else {"pool_type": "eos", "eos_id": end}
    model = {
        "embed_dim": _size(path, content, "projection_dim", 512),
        "quick_gelu": acts == {"quick_gelu"},
        "vision_cfg": {
            "image_size": _size(path, vision, "image_size", 224),
            "patch_size": _size(path, vision, "patch_size", 32),
            "layers": _size(path, vision, "num_hidden_layers", 12),
            "width": width,
            "head_width": max(width // heads, 1),
            "mlp_ratio": _size(path, vision, "intermediate_size", 3072) / width,
            **_norm(vision),
        },
        "text_cfg": {
            "context_length": _size(path, text, "max_position_embeddings", 77),
            "vocab_size": vocabulary,
            "layers": _size(path, text, "num_hidden_layers", 12),
            "width": text_width,
            "heads": _size(path, text, "num_attention_heads", 8),
            "mlp_ratio": _size(path, text, "intermediate_size", 2048) / text_width,
            **pooled,
            **_norm(text),
        },
    }
    return model, _preprocessing(folder / "preprocessor_config.json")


def _size(path: Path, section: dict[str, Any], key: str, default: int) -> int:
    value = section.get(key, default)
    if type(value) is not int or not 1 <= value <= 2**22:
        raise EncoderError(f"{path}: {key} is {str(value)[:80]!r}, expected a whole number from 1")
    return value


def _norm(section: dict[str, Any]) -> dict[str, Any]:
    epsilon = section.get("layer_norm_eps", 1e-5)
    return {} if epsilon == 1e-5 else {"norm_kwargs": {"eps": epsilon}}  # torch's own


def _preprocessing(path: Path) -> dict[str, Any]:
    """What CLIP's image processor says; CLIP's own preparation where there is no such file."""
    if not path.is_file():
        return {}
    content = read_json(path)
    size, crop = content.get("size", 224), content.get("crop_size", 224)
    squashed = isinstance(size, dict) and "height" in size and not content.get("do_center_crop", True)
    if isinstance(size, dict):
        size = size.get("shortest_edge", size.get("height"))
    if isinstance(crop, dict):
        crop = crop.get("height")
    switched_off = [key for key in ("do_resize", "do_rescale", "do_normalize") if content.get(key, True) is not True]
    if switched_off or (not squashed and size != crop) or content.get("resample", 3) not in (2, 3):
        what = switched_off[0] if switched_off else "its size, crop_size or resample"
        raise EncoderError(
            f"{path}: {what} is not what open_clip can do: resize to the size of the crop, crop the middle"
        )
    return {
        "mean": content.get("image_mean"),
        "std": content.get("image_std"),
        "interpolation": _RESAMPLING[content.get("resample", 3)],
        "resize_mode": "squash" if squashed else "shortest",
    }
