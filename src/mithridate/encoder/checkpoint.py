"""Checkpoints as people have them: read without running code, and fitted to a model name by name."""

import logging
import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed
from safetensors.torch import load_file
from torch import Tensor, nn

from mithridate.encoder import hf_clip
from mithridate.errors import EncoderError

_LOG = logging.getLogger(__name__)

SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_MOST_PICKLE = 2**26  # bytes of a checkpoint's structure, without its tensors
# settings that OpenAI's archives hold among their weights
_NO_WEIGHTS = {"input_resolution", "context_length", "vocab_size"}
_NAMED = 3  # of differing names, as many are said


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors in a checkpoint by name, out of the wrappers that training programs put around them.

    The format follows the content: safetensors, or what `torch.save` writes, of which nothing but tensors and plain
    values is unpickled. Raises `EncoderError`.
    """
    if not path.is_file():
        raise EncoderError(f"{path.name} is not a file" if path.exists() else f"there is no file {path}")
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise EncoderError(f"{path.name} is empty")
    if start.startswith(b"version https://git-lfs"):
        raise EncoderError(f"{path.name} is a pointer of Git LFS, not the weights; run: git lfs pull")
    try:
        if start[8:9] == b"{":
            return load_file(path)
        if start.startswith(b"PK"):
            _refuse_archive(path)
            content = _unpickle(path, mapped=True)
        else:
            content = _unpickle(path, mapped=False)
    except EncoderError:
        raise
    except Exception as error:  # whatever a foreign file makes a reader raise
        raise EncoderError(f"{path.name} cannot be read as a checkpoint: {_reason(error)}") from error
    return _tensors(path, content)


def _unpickle(path: Path, *, mapped: bool) -> Any:
    # scalars of numpy are what a loss or an accuracy was kept as
    scalars = [np.dtype, *{type(np.dtype(code)) for code in "?bhilqBHILQefd"}]
    named = [(np._core.multiarray.scalar, "numpy.core.multiarray.scalar"), np._core.multiarray.scalar]  # pyright: ignore
    with torch.serialization.safe_globals([*named, *scalars]):
        # mapped: a record that promises more than the file holds is never read beyond it
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def _refuse_archive(path: Path) -> None:
    """Raise `EncoderError` for archives that `torch.save` does not write."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if any("/code/" in name or name.endswith("constants.pkl") for name in names):
        raise EncoderError(
            f"{path.name} is a TorchScript program, which is not run; where you trust it, save its weights alone: "
            "torch.save(torch.jit.load(FILE, 'cpu').state_dict(), 'weights.pt')"
        )
    pickled = [entry for entry in entries if entry.filename.endswith("data.pkl")]
    if not pickled:
        raise EncoderError(f"{path.name} is a zip archive, but not one that torch.save writes")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or pickled[0].file_size > _MOST_PICKLE:
        raise EncoderError(f"{path.name} is a checkpoint that torch.save did not write; save it again with torch.save")


def _reason(error: Exception) -> str:
    unsafe = re.search(r"GLOBAL ([\w.]+)", str(error))
    if unsafe:
        return (
            f"it holds a {unsafe[1]}, and unpickling that may run code; where you trust it, save its weights alone: "
            "torch.save(torch.load(FILE, weights_only=False)['state_dict'], 'weights.pt')"
        )
    first = str(error).strip().splitlines()[0] if str(error).strip() else ""
    # what a foreign file stumbles over may be a lone number, or advice to unpickle it unsafely
    return f"it is damaged or of another format ({type(error).__name__}" + (
        f": {first[:200]})" if any(map(str.isalpha, first)) and "weights_only" not in first else ")"
    )


def _tensors(path: Path, content: Any) -> dict[str, Tensor]:
    for _ in range(3):
        if not isinstance(content, Mapping):
            raise EncoderError(f"{path.name} holds a {type(content).__name__}, expected a dictionary of weights")
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    weights = {}
    for name, value in content.items():
        if not isinstance(name, str) or name in _NO_WEIGHTS or not isinstance(value, Tensor):
            continue
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise EncoderError(f"{path.name}: {name} is not a plain array; save the checkpoint with dense weights")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise EncoderError(f"{path.name}: {name} of shape {tuple(value.shape)} holds fewer values than that")
        weights[name] = value
    if not weights:
        keys = ", ".join(map(str, list(content)[:5])) or "nothing"
        raise EncoderError(f"{path.name} holds no weights; it holds {keys[:200]}")
    return weights


def fit(state: dict[str, Tensor], model: nn.Module, *, label: str) -> dict[str, Tensor]:
    """`state` under the names that `model` (it may lie on the meta device) has.

    `module.` and `_orig_mod.`, repeated, and one prefix before all names (Lightning's `model.`) are taken off; names of
    Hugging Face's `CLIPModel` and of Apple's MobileCLIP are translated. Raises `EncoderError` with the names that are
    missing, unexpected or of another shape.
    """
    expected = model.state_dict()
    state = _without_prefixes(state, expected)
    if hf_clip.is_state_of(state):
        state = hf_clip.convert_state(state)
    try:
        state = convert_state_dict(model, state)  # type: ignore[arg-type]
    except (KeyError, RuntimeError, AttributeError) as error:
        raise EncoderError(f"the checkpoint looks like Apple's MobileCLIP, but {label} is another model") from error
    state = _as_open_clip_keeps_them(state, model, expected)
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    both = [name for name in expected if name in state]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in both
        if state[name].shape != expected[name].shape
    ]
    kinds = [
        f"{name} of {str(state[name].dtype).removeprefix('torch.')}"
        for name in both
        if state[name].is_floating_point() != expected[name].is_floating_point()
    ]
    if missing or unexpected or shapes or kinds:
        parts = (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", shapes),
            ("of another type", kinds),
        )
        said = "; ".join(f"{len(names)} {what} ({_few(names)})" for what, names in parts if names)
        raise EncoderError(f"the checkpoint does not fit the model {label}: {said}; name the model it was made with")
    return state


def _few(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _without_prefixes(state: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, Tensor]:
    plain = {re.sub(r"^(module\.)+", "", name.replace("_orig_mod.", "")): value for name, value in state.items()}
    if len(plain) < len(state):  # two weights under one name: neither may be lost
        return state
    if plain.keys() & expected.keys():
        return plain
    for name in sorted(expected, key=len, reverse=True)[:5]:  # the longest are nobody else's by chance
        prefixes = {key.removesuffix(name) for key in plain if key.endswith(f".{name}")}
        prefix = prefixes.pop() if len(prefixes) == 1 else None
        if prefix is not None and all(key.startswith(prefix) for key in plain):
            return {key.removeprefix(prefix): value for key, value in plain.items()}
    return plain


def _as_open_clip_keeps_them(
    state: dict[str, Tensor], model: nn.Module, expected: dict[str, Tensor]
) -> dict[str, Tensor]:
    """What open_clip does itself when it loads weights (`open_clip.factory.load_checkpoint`).

    Unlike there, positions of the text tower are not stretched to another number: captions would be embedded wrongly.
    """
    if "positional_embedding" in state and "positional_embedding" not in expected:
        state = convert_to_custom_text_state_dict(state)
    # a buffer that transformers kept before 4.31
    state = {name: x for name, x in state.items() if name in expected or not name.endswith("embeddings.position_ids")}
    for name in ("logit_scale", "logit_bias"):
        if name in state and name in expected and state[name].numel() == 1:
            state[name] = state[name].reshape(expected[name].shape)
    if "logit_bias" in expected and "logit_bias" not in state and "logit_scale" in state:
        state["logit_bias"] = torch.zeros(expected["logit_bias"].shape)  # trained without one
    name = "visual.positional_embedding"
    if name in state and name in expected and state[name].shape[1:] == expected[name].shape[1:]:
        before = len(state[name])
        if before != len(expected[name]) and math.isqrt(before - 1) ** 2 == before - 1:
            resize_pos_embed(state, model)
            _LOG.warning(
                "the checkpoint was made for images of %d patches, the model takes %d: positions were interpolated",
                before - 1,
                len(expected[name]) - 1,
            )
    return state
