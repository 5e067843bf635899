"""Image-text encoders: any open_clip model with its preprocessing and tokenizer, as one value."""

import copy
import hashlib
import json
import logging
import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from jaxtyping import Float, Int, UInt8
from open_clip.transform import MaybeToTensor
from open_clip.transformer import QuickGELU
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.transforms import Compose, Normalize

from mithridate.encoder.towers import text_embedding
from mithridate.errors import EncoderError

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"

# our tiny models become names that open_clip itself knows
TINY_MODELS = Path(__file__).parent / "configs"
open_clip.add_model_config(TINY_MODELS)

# On a CPU without gradients so many go through the image tower at a time, eight images of 224 px: what one layer makes
# of them is still in the processor's cache when the next reads it. That makes MobileNetV2 twice as fast; fewer would
# make models for 64 and 32 px slower.
_PIXELS_AT_A_TIME = 8 * 224 * 224

_TOKENIZERS: dict[str, Any] = {}  # by text tower; to read one takes as long as to draw a small model


@dataclass(frozen=True)
class Encoder:
    """Model, preprocessing and tokenizer: (b, 3, h, w) -> (b, d) and b strings -> (b, d), unit length."""

    model: nn.Module
    tokenizer: Callable[[Sequence[str]], Tensor]
    config: dict[str, Any]  # what open_clip_config.json holds: model_cfg, preprocess_cfg
    name: str

    @property
    def image_size(self) -> tuple[int, int]:
        size = self.config["preprocess_cfg"]["size"]
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    @property
    def recipe(self) -> str:
        """Name of the preprocessing up to uint8: encoders with one recipe share one image cache."""
        cfg = self.config["preprocess_cfg"]
        return json.dumps({key: cfg[key] for key in ("size", "interpolation", "resize_mode", "fill_color")})

    def to_pixels(self, image: Image.Image) -> np.ndarray:
        """An RGB image resized and cropped for this encoder: (h, w, 3) uint8, open_clip's own transform."""
        return np.asarray(_resize(self.recipe)(image))

    def normalise(self, pixels: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 h w"]:
        """Whole batches of uint8 pixels as the model takes them; the result lies channels-last in memory."""
        cfg = self.config["preprocess_cfg"]
        b, height, width, _ = pixels.shape
        # a row of the picture at a time: along an axis of three nothing is vectorised
        scale = pixels.new_tensor([1 / (255 * s) for s in cfg["std"]] * width, dtype=torch.float32)
        shift = pixels.new_tensor([m / s for m, s in zip(cfg["mean"], cfg["std"])] * width, dtype=torch.float32)
        rows = pixels.reshape(b, height, 3 * width).float()
        return rows.mul_(scale).sub_(shift).view(b, height, width, 3).permute(0, 3, 1, 2)

    @property
    def context_length(self) -> int:
        return int(self.config["model_cfg"]["text_cfg"].get("context_length", 77))

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def encode_image(self, pixels: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b d"]:
        """Unit-length embeddings of pixels made by `to_pixels`."""
        return nn.functional.normalize(self.image_embedding(pixels.to(self.device)).float(), dim=-1)

    def image_embedding(self, pixels: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b d"]:
        """Embeddings of pixels that lie where the model does, at the length it gives them, with its gradients."""
        model: Any = self.model
        few = max(1, _PIXELS_AT_A_TIME // (pixels.shape[1] * pixels.shape[2]))
        if torch.is_grad_enabled() or model.visual.training or pixels.device.type != "cpu" or len(pixels) <= few:
            return model.encode_image(self.normalise(pixels))
        return torch.cat([model.encode_image(self.normalise(part)) for part in pixels.split(few)])

    def encode_tokens(self, tokens: Int[Tensor, "b length"]) -> Float[Tensor, "b d"]:
        """Unit-length embeddings of tokenised captions; padding is not computed where that is exact."""
        return nn.functional.normalize(text_embedding(self.model, tokens.to(self.device)).float(), dim=-1)

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "b d"]:
        """Unit-length embeddings of captions; over-long ones are cut and keep their end token."""
        return self.encode_tokens(self.tokenizer(list(texts)))

    def copy(self) -> "Encoder":
        """The same encoder with weights of its own."""
        return Encoder(copy.deepcopy(self.model), self.tokenizer, self.config, self.name)


@lru_cache(maxsize=8)
def _resize(recipe: str) -> Callable[[Image.Image], Image.Image]:
    cfg = json.loads(recipe)
    whole: Any = open_clip.image_transform(cfg.pop("size"), is_train=False, **cfg)
    # the part that works on PIL images: what follows (to tensor, normalise) we do on whole batches
    return Compose([step for step in whole.transforms if not isinstance(step, Normalize | MaybeToTensor)])


# what a damaged or foreign config or checkpoint raises, that wants to run code among them
_UNLOADABLE = (
    RuntimeError,
    ValueError,
    TypeError,
    OSError,
    KeyError,
    AttributeError,
    ImportError,
    pickle.UnpicklingError,
    SafetensorError,
)


def load_encoder(name: str, *, pretrained: str | None = None, seed: int = 0) -> Encoder:
    """Any open_clip model, in eval mode.

    `name`: an open_clip model (`ViT-B-32`, with `pretrained` a tag or a checkpoint file), one of ours
    (`mithridate-tiny`, ...), `local-dir:FOLDER` or the folder itself, `hf-hub:ORG/REPO`.
    Without weights the model is drawn from `seed`. Raises `EncoderError`.
    """
    name = _with_schema(name)
    _refuse_no_weights(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            with _quiet():
                model = open_clip.create_model(name, pretrained=pretrained, weights_only=True)
                model_cfg = _model_config(name)
                tokenizer = _tokenizer(name, model_cfg.get("text_cfg", {}))
        except _UNLOADABLE as error:
            raise EncoderError(_explain(name, pretrained, error)) from error
    preprocess = open_clip.get_model_preprocess_cfg(model)
    if any(isinstance(module, QuickGELU) for module in model.modules()):
        model_cfg["quick_gelu"] = True  # some pretrained tags imply it; the weights are wrong without
    for tower, key in (("vision_cfg", "timm_model_pretrained"), ("text_cfg", "hf_model_pretrained")):
        if key in model_cfg.get(tower, {}) or key == "timm_model_pretrained":
            model_cfg[tower][key] = False  # all weights are in the checkpoint
    label = f"{name}/{pretrained}" if pretrained else name
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess}
    return Encoder(model.float().eval(), tokenizer, config, label)


def _with_schema(name: str) -> str:
    if ":" not in name and (Path(name) / CONFIG).is_file():
        return f"local-dir:{name}"
    if ":" not in name and (Path(name) / "model" / CONFIG).is_file():  # what `mithridate train` writes
        return f"local-dir:{Path(name) / 'model'}"
    return name


def _refuse_no_weights(name: str) -> None:
    """open_clip draws weights at random where a folder has none."""
    schema, _, folder = name.partition(":")
    if schema != "local-dir" or not Path(folder).is_dir():
        return
    if not any(path.suffix in (".safetensors", ".bin", ".pth") for path in Path(folder).iterdir()):
        raise EncoderError(f"cannot load {name}: the folder has no weights; expected {WEIGHTS}")


def _model_config(name: str) -> dict[str, Any]:
    schema, _, rest = name.partition(":")
    if schema == "local-dir":
        config = json.loads((Path(rest) / CONFIG).read_text(encoding="utf-8"))["model_cfg"]
    elif schema == "hf-hub":
        config = open_clip.factory._get_hf_config(rest)["model_cfg"]
    else:
        config = open_clip.get_model_config(name.replace("/", "-")) or {}
    return copy.deepcopy(config)


def _tokenizer(name: str, text_cfg: dict[str, Any]) -> Any:
    """What turns captions into ids; CLIP's own is read once for all models with the same text tower."""
    if "hf_tokenizer_name" in text_cfg:  # its files may lie in the model's folder
        return open_clip.get_tokenizer(name)
    key = json.dumps(text_cfg, sort_keys=True)
    if key not in _TOKENIZERS:
        _TOKENIZERS[key] = open_clip.get_tokenizer(name)
    return _TOKENIZERS[key]


def _explain(name: str, pretrained: str | None, error: Exception) -> str:
    import difflib

    known = open_clip.list_models()
    if ":" not in name and name.replace("/", "-") not in known:
        if os.sep in name or name.startswith("."):
            return f"{name} is not a folder with {CONFIG}; expected a model's name, local-dir:FOLDER or hf-hub:ORG/REPO"
        near = difflib.get_close_matches(name, known, n=3) or ["mithridate-tiny", "ViT-B-32", "RN50"]
        return f"no open_clip model is called {name!r}; nearest: {', '.join(near)}"
    if pretrained is not None and "not a known tag" in str(error):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        return f"{name} has no pretrained weights {pretrained!r}, and no such file exists; its tags are {tags}"
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if not any(map(str.isalpha, first)):  # what a file that is no checkpoint stumbles over: a lone number
        first = f"it does not read as a checkpoint ({type(error).__name__}: {first})"
    return f"cannot load {name}{f' with pretrained={pretrained}' if pretrained else ''}: {first}"


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Write `folder` (it exists) in open_clip's release layout: `local-dir:FOLDER` loads it anywhere.

    Weights are safetensors: no code runs when they are loaded.
    """
    config = copy.deepcopy(encoder.config)
    keep = ("size", "mean", "std", "interpolation", "resize_mode")
    config["preprocess_cfg"] = {key: config["preprocess_cfg"][key] for key in keep}
    (folder / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
    state = {key: value.detach().cpu().contiguous().clone() for key, value in encoder.model.state_dict().items()}
    try:
        save_file(state, folder / WEIGHTS)
    except Exception as error:  # safetensors wraps what the disk says in a type of its own
        raise OSError(getattr(error, "errno", None) or 28, str(error), str(folder / WEIGHTS)) from error


def weights_fingerprint(model: nn.Module) -> str:
    """Hash of all parameters and buffers with their names: equal for models that are equal to the last bit."""
    digest = hashlib.blake2b(digest_size=12)
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class _quiet:
    """open_clip logs to the root logger, also what is no concern (`No pretrained weights loaded`)."""

    def __enter__(self) -> None:
        self.level = logging.getLogger().level
        logging.getLogger().setLevel(logging.CRITICAL)  # what it calls an error we say in a sentence

    def __exit__(self, *_: object) -> None:
        logging.getLogger().setLevel(self.level)
