"""What a model's configuration may say: keys, types and ranges, checked before anything is built.

A configuration comes with a model of unknown origin, and open_clip passes its sections on as keyword arguments to timm,
transformers and the tokenizers. What is not listed here never reaches them.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mithridate.errors import EncoderError

CONFIG = "open_clip_config.json"

_MOST_BYTES = 2**20  # of a configuration: real ones hold a few kilobytes
_MOST_PATCHES = 2**14  # of an image: ViT-bigG at 448 px has 1,024

Width = Annotated[int, Field(ge=1, le=16384)]
Layers = Annotated[int, Field(ge=1, le=256)]
Share = Annotated[float, Field(ge=0, le=1)]
Ratio = Annotated[float, Field(gt=0, le=64)]
ImageSize = Annotated[int, Field(ge=1, le=2048)]
Activation = dict[Literal["approximate"], Literal["none", "tanh"]]
NormOptions = dict[Literal["eps"], Annotated[float, Field(gt=0, le=0.01)]]
Channel = Annotated[float, Field(ge=-10, le=10)]
Deviation = Annotated[float, Field(ge=1e-3, le=100)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class TokenizerOptions(_Section):
    """`tokenizer_kwargs`: how captions are cleaned, nothing that a tokenizer class would take."""

    clean: Literal["canonicalize", "lower", "whitespace"] = "whitespace"
    strip_sep_token: bool = False


class _Tower(_Section):
    """What both towers may say. Names and meanings are open_clip's (`CLIPVisionCfg`, `CLIPTextCfg`)."""

    width: Width = 512
    mlp_ratio: Ratio = 4.0
    ls_init_value: Share | None = None
    final_ln_after_pool: bool = False
    output_tokens: bool = False
    act_kwargs: Activation | None = None
    norm_kwargs: NormOptions | None = None
    block_type: Literal["default", "custom"] | None = None
    qk_norm: bool = False
    scaled_cosine_attn: bool = False
    scale_heads: bool = False
    scale_attn_inner: bool = False
    scale_attn: bool = False
    scale_fc: bool = False


class VisionTower(_Tower):
    width: Width = 768
    layers: Layers | Annotated[list[Layers], Field(min_length=4, max_length=4)] = 12
    head_width: Width = 64
    patch_size: ImageSize | None = 16
    image_size: ImageSize | Annotated[list[ImageSize], Field(min_length=2, max_length=2)] = 224
    patch_dropout: Share = 0.0
    attentional_pool: bool | Literal["parallel", "cascade"] = False
    attn_pooler_queries: Annotated[int, Field(ge=1, le=4096)] = 256
    attn_pooler_heads: Annotated[int, Field(ge=1, le=256)] = 8
    no_ln_pre: bool = False
    pos_embed_type: Literal["learnable", "sin_cos_2d"] = "learnable"
    pool_type: Literal["tok", "avg", "none"] = "tok"
    timm_model_name: str | None = None
    timm_model_pretrained: bool = False
    timm_pool: str | None = "avg"
    timm_proj: Literal["linear", "mlp", "none", ""] | None = "linear"
    timm_proj_bias: bool = False
    timm_drop: Share = 0.0
    timm_drop_path: Share | None = None

    @field_validator("timm_model_name")
    @classmethod
    def _is_of_timm(cls, name: str | None) -> str | None:
        """A name that timm itself knows: `hf-hub:` and `local-dir:` would fetch or read other things."""
        import timm

        if name and (not re.fullmatch(r"[A-Za-z0-9_.]+", name) or not timm.is_model(name.split(".")[0])):
            raise ValueError("expected the name of a timm model")
        return name

    @field_validator("timm_pool")
    @classmethod
    def _is_a_word(cls, name: str | None) -> str | None:
        if name and not re.fullmatch(r"[a-z_]{1,20}", name):
            raise ValueError("expected the name of a pooling of timm's")
        return name

    @model_validator(mode="after")
    def _patches(self) -> "VisionTower":
        sizes = self.image_size if isinstance(self.image_size, list) else [self.image_size] * 2
        if not self.timm_model_name and isinstance(self.layers, int):
            patch = self.patch_size or 16
            if patch > min(sizes) or (sizes[0] // patch) * (sizes[1] // patch) > _MOST_PATCHES:
                raise ValueError(f"an image of {sizes[0]}x{sizes[1]} in patches of {patch} is not a model's input")
        return self


class TextTower(_Tower):
    context_length: Annotated[int, Field(ge=4, le=4096)] = 77
    vocab_size: Annotated[int, Field(ge=4, le=2**22)] = 49408
    heads: Annotated[int, Field(ge=1, le=1024)] = 8
    layers: Layers = 12
    embed_cls: bool = False
    pad_id: Annotated[int, Field(ge=0, le=2**22)] = 0
    eos_id: Annotated[int, Field(ge=0, le=2**22)] = 2
    no_causal_mask: bool = False
    pool_type: Literal["first", "last", "argmax", "eos", "none"] = "argmax"
    proj_bias: bool = False
    proj_type: Literal["linear", "none"] | None = "linear"
    hf_tokenizer_name: str | None = None  # names are for people: a folder's tokenizer lies in the folder
    tokenizer_mode: Literal["clips"] | None = None
    tokenizer_kwargs: TokenizerOptions | None = None
    hf_model_name: str | None = None
    hf_model_pretrained: bool = True
    hf_proj_type: Literal["linear", "mlp"] | None = "mlp"
    hf_pooler_type: Literal["mean_pooler", "max_pooler", "cls_pooler", "cls_last_hidden_state_pooler"] | None = (
        "mean_pooler"
    )


class Decoder(TextTower):
    """CoCa's `multimodal_cfg`: kept and saved; embeddings do not depend on it."""

    mlp_ratio: Ratio = 4
    dim_head: Width = 64
    n_queries: Annotated[int, Field(ge=1, le=4096)] = 256
    attn_pooler_heads: Annotated[int, Field(ge=1, le=256)] = 8


class ModelConfig(_Section):
    embed_dim: Width
    vision_cfg: VisionTower
    text_cfg: TextTower
    multimodal_cfg: Decoder | None = None
    custom_text: bool = False
    quick_gelu: bool = False
    init_logit_scale: Annotated[float, Field(ge=-20, le=20)] = 2.6592
    init_logit_bias: Annotated[float, Field(ge=-1000, le=1000)] | None = None
    nonscalar_logit_scale: bool = False
    pad_id: Annotated[int, Field(ge=0, le=2**22)] = 0  # CoCa's


class Preprocessing(_Section):
    """How an image becomes pixels; see `open_clip.transform.PreprocessCfg`."""

    size: ImageSize | Annotated[list[ImageSize], Field(min_length=2, max_length=2)] | None = None
    mode: Literal["RGB"] | None = None
    mean: Channel | Annotated[list[Channel], Field(min_length=3, max_length=3)] | None = None
    std: Deviation | Annotated[list[Deviation], Field(min_length=3, max_length=3)] | None = None
    interpolation: Literal["bicubic", "bilinear", "random"] | None = None
    resize_mode: Literal["shortest", "longest", "squash"] | None = None
    fill_color: Annotated[int, Field(ge=0, le=255)] | None = None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a small JSON file of a model. Raises `EncoderError`."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
        if len(raw) > _MOST_BYTES:
            raise EncoderError(
                f"{path} holds more than {_MOST_BYTES} bytes; a model's configuration holds a few thousand"
            )
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise EncoderError(f"{path} is no JSON: {error}; fetch the model again") from error
    except OSError as error:
        raise EncoderError(f"{path} cannot be read: {error.strerror or error}") from error
    if not isinstance(content, dict):
        raise EncoderError(f"{path} holds a {type(content).__name__}, expected an object of settings")
    return content


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """`model_cfg` and `preprocess_cfg` of an `open_clip_config.json`, as they stand there and checked.

    Raises `EncoderError` naming the key, its value and what is allowed.
    """
    content = read_json(path)
    if "model_cfg" not in content:
        raise EncoderError(f"{path} has no model_cfg; expected open_clip's model_cfg and preprocess_cfg")
    model = check(path, "model_cfg", content["model_cfg"], ModelConfig)
    preprocess = check(path, "preprocess_cfg", content.get("preprocess_cfg") or {}, Preprocessing)
    return model, preprocess


def check(path: Path | str, name: str, section: Any, schema: type[_Section]) -> dict[str, Any]:
    """`section` of the file `path`, if `schema` allows it; raises `EncoderError` with the first thing it forbids."""
    try:
        schema.model_validate(section)
    except ValidationError as error:
        # of a union's, the one that says more than that the type is not the other
        first = min(error.errors(include_url=False), key=lambda e: (e["type"].endswith("_type"), -len(e["loc"])))
        # the types that a union tries are no keys of the file
        keys = [str(part) for part in first["loc"] if isinstance(part, int) or re.fullmatch(r"[a-z_]+", part)]
        key = ".".join([name, *(part for part in keys if part not in ("int", "list", "float", "bool", "literal"))])
        what = "is no setting of a model" if first["type"] == "extra_forbidden" else f"is wrong: {first['msg']}"
        raise EncoderError(f"{path}: {key} {what}, got {str(first['input'])[:80]!r}") from error
    return section
