"""Image-text encoders: any open_clip model with its preprocessing and tokenizer, as one value."""

import copy
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from jaxtyping import Float, Int, UInt8
from open_clip import CLIP, CoCa, CustomTextCLIP
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from mithridate.data.images import narrowed
from mithridate.encoder.checkpoint import fit, read_checkpoint
from mithridate.encoder.hf import offline
from mithridate.encoder.model_config import CONFIG
from mithridate.encoder.preprocessing import complete, resizing
from mithridate.encoder.source import HF_CONFIG, WEIGHTS, Source, find_source
from mithridate.encoder.tokenizer import Tokenizer, load_tokenizer, try_tokenizer
from mithridate.encoder.towers import image_embedding, text_embedding, vocabulary_size
from mithridate.errors import EncoderError, reason
from mithridate.randomness import stream_seed

# our tiny models become names that open_clip itself knows
TINY_MODELS = Path(__file__).parent / "configs"
open_clip.add_model_config(TINY_MODELS)

# On a CPU without gradients so many go through the image tower at a time, eight images of 224 px: what one layer makes
# of them is still in the processor's cache when the next reads it. That makes MobileNetV2 twice as fast; fewer would
# make models for 64 and 32 px slower.
_PIXELS_AT_A_TIME = 8 * 224 * 224


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
        return np.asarray(resizing(self.recipe)(narrowed(image)))

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
            return image_embedding(model, self.normalise(pixels))
        return torch.cat([image_embedding(model, self.normalise(part)) for part in pixels.split(few)])

    def encode_tokens(self, tokens: Int[Tensor, "b length"]) -> Float[Tensor, "b d"]:
        """Unit-length embeddings of tokenised captions; padding is not computed where that is exact."""
        return nn.functional.normalize(self.token_embedding(tokens.to(self.device)).float(), dim=-1)

    def token_embedding(self, tokens: Int[Tensor, "b length"]) -> Float[Tensor, "b d"]:
        """Embeddings of tokens that lie where the model does, at the length it gives them, with its gradients."""
        return text_embedding(self.model, tokens)

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "b d"]:
        """Unit-length embeddings of captions; over-long ones are cut and keep their end token."""
        return self.encode_tokens(self.tokenizer(list(texts)))

    def copy(self) -> "Encoder":
        """The same encoder with weights of its own."""
        return Encoder(copy.deepcopy(self.model), self.tokenizer, self.config, self.name)


def load_encoder(name: str, *, pretrained: str | None = None, seed: int = 0) -> Encoder:
    """Any open_clip model, in eval mode.

    `name` is one of

    - an open_clip model (`ViT-B-32`) or one of ours (`mithridate-tiny`, ...), with `pretrained` a tag (`openai`), a
      checkpoint file, or `TAG=FILE` for a file whose activation and preprocessing are those of a tag;
    - a folder, also as `local-dir:FOLDER`: open_clip's layout, a run of `mithridate train`, or Hugging Face's
      CLIPModel; `pretrained` names a checkpoint to take in place of the folder's own;
    - `hf-hub:ORGANISATION/NAME`.

    Without weights the model is drawn from `seed`. A folder is read without a request to any network and without
    running anything in it. Raises `EncoderError`.
    """
    source = find_source(name, pretrained)
    try:
        return _build(source, seed)
    except EncoderError as error:
        raise EncoderError(f"cannot load {source.label}: {error}") from error


def _build(source: Source, seed: int) -> Encoder:
    # a stranger's weights are held against shapes alone, before memory is taken for a model
    state = None if source.weights is None else read_checkpoint(source.weights)
    if state is not None and not source.trusted:
        with torch.device("meta"):
            state = fit(state, _model(source), label=source.label)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "initial weights"))
        model = _model(source)
    if state is not None:
        model.load_state_dict(fit(state, model, label=source.label) if source.trusted else state)
    model = model.float().eval()
    tokenizer = load_tokenizer(source.model_cfg["text_cfg"], source.tokenizer)
    tokens = try_tokenizer(tokenizer, vocabulary_size(model))
    visual: Any = model.get_submodule("visual")
    config = {
        "model_cfg": _without_places(source),
        "preprocess_cfg": complete(source.preprocess, visual.image_size),
        **({"text_model": source.text_model} if source.text_model else {}),
    }
    encoder = Encoder(model, tokenizer, config, source.label)
    if not source.trusted:
        _try(encoder, tokens[-1:])  # the longest caption
    return encoder


def _model(source: Source) -> nn.Module:
    """The model as it is drawn, of open_clip's class for its configuration."""
    config = copy.deepcopy(source.model_cfg)
    custom = config.pop("custom_text", False) or bool(source.text_model)
    kind: Any = CoCa if custom and "multimodal_cfg" in config else CustomTextCLIP if custom else CLIP
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False
    with tempfile.TemporaryDirectory(prefix="mithridate-text-") as folder, offline():
        if source.text_model:
            (Path(folder) / HF_CONFIG).write_text(json.dumps(source.text_model), encoding="utf-8")
            config["text_cfg"] |= {"hf_model_name": folder, "hf_model_pretrained": False}
        try:
            return kind(**config)
        except Exception as error:  # whatever sizes that do not go together raise
            raise EncoderError(f"its configuration describes no model: {reason(error)}") from error


def _without_places(source: Source) -> dict[str, Any]:
    """The configuration without the paths and repositories that parts of the model were read from."""
    config = copy.deepcopy(source.model_cfg)
    config["vision_cfg"]["timm_model_pretrained"] = False  # all weights are in the checkpoint
    text = config["text_cfg"]
    if source.text_model:
        text |= {"hf_model_name": source.text_model["model_type"], "hf_model_pretrained": False}
    if os.sep in str(text.get("hf_tokenizer_name", "")) and Path(text["hf_tokenizer_name"]).is_absolute():
        text["hf_tokenizer_name"] = "."
    return config


def _try(encoder: Encoder, tokens: Int[Tensor, "b length"]) -> None:
    """Embed one image and one caption: what only fails, or gives no vectors, when it runs is found now."""
    width = encoder.config["model_cfg"]["embed_dim"]
    black = torch.zeros(1, *encoder.image_size, 3, dtype=torch.uint8)
    with torch.no_grad():
        for run, given in ((encoder.encode_image, black), (encoder.encode_tokens, tokens)):
            try:
                shape = tuple(run(given).shape)
            except Exception as error:  # whatever towers that do not go together raise
                raise EncoderError(f"it is built, but does not embed: {reason(error)}") from error
            if shape != (1, width):
                raise EncoderError(f"it gives embeddings of shape {shape}, expected (1, {width})")


def save_encoder(encoder: Encoder, folder: Path, *, location: Path | None = None) -> None:
    """Write `folder` (it exists) in open_clip's release layout, with all that it takes to load it without a network.

    Weights are safetensors: no code runs when they are loaded. `location` is where the folder will lie in the end, if
    not there: open_clip finds the configuration of a Hugging Face text tower by its full path alone (this function's
    counterpart here finds it wherever the folder is).
    """
    config = copy.deepcopy(encoder.config)
    if text_model := config.pop("text_model", None):
        config["model_cfg"]["text_cfg"]["hf_model_name"] = str((location or folder).absolute())
        (folder / HF_CONFIG).write_text(json.dumps(text_model, indent=1), encoding="utf-8")
    (folder / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
    if isinstance(encoder.tokenizer, Tokenizer):
        encoder.tokenizer.save(folder)
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
