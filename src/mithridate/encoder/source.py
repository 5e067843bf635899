"""Where a model comes from: a name that open_clip knows, a folder, or a repository of the Hugging Face hub."""

import difflib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip

from mithridate.encoder import hf, hf_clip, preprocessing
from mithridate.encoder.checkpoint import SUFFIXES
from mithridate.encoder.model_config import CONFIG, ModelConfig, Preprocessing, check, read_config
from mithridate.errors import EncoderError, reason

WEIGHTS = "open_clip_model.safetensors"
HF_CONFIG = "config.json"

# open_clip's own order among the weights in a folder
_PREFERRED = (
    WEIGHTS,
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """What a model is built of. `trusted`: its configuration is open_clip's own, and need not be tried out."""

    label: str
    model_cfg: dict[str, Any]
    preprocess: dict[str, Any]
    weights: Path | None  # None: to be drawn
    tokenizer: Path | None = None  # the folder of a Hugging Face tokenizer; None: CLIP's own
    text_model: dict[str, Any] | None = None  # the configuration of a Hugging Face text tower
    trusted: bool = False


def find_source(name: str, pretrained: str | None) -> Source:
    """What `load_encoder` loads for these arguments; see there. Raises `EncoderError`."""
    schema, _, rest = name.partition(":")
    if schema == "hf-hub":
        if pretrained is not None:
            raise EncoderError(f"{name} brings its own weights; leave --pretrained {pretrained} out")
        return _of_hub(name, rest)
    folder = Path(rest if schema == "local-dir" else name)
    named = name.replace("/", "-") in open_clip.list_models()
    if folder.is_dir() and (holder := _holder(folder)) is not None:
        return _of_folder(holder, pretrained)
    if schema == "local-dir" or (folder.exists() and not named):
        raise EncoderError(f"cannot load {name}: {_what_is_there(folder)}")
    return _of_name(name, pretrained)


def _holder(folder: Path) -> Path | None:
    """`folder`, or the part of a run's that holds the model; None where there is no model's configuration."""
    for holder in (folder, folder / "model"):  # the second is what `mithridate train` writes
        if (holder / CONFIG).is_file() or (holder / HF_CONFIG).is_file():
            return holder
    return None


def _what_is_there(path: Path) -> str:
    if path.is_file():
        return f"{path} is a file; for a checkpoint, name its model and give the file as --pretrained"
    expected = f"expected {CONFIG} beside its weights, or the config.json of Hugging Face's CLIPModel"
    if not path.is_dir():
        return f"there is no folder {path}; {expected}"
    names = sorted(entry.name for entry in path.iterdir())
    return f"the folder holds {', '.join(names[:5]) or 'nothing'}{', ...' if len(names) > 5 else ''}; {expected}"


def _of_name(name: str, pretrained: str | None) -> Source:
    known = name.replace("/", "-")
    config = open_clip.get_model_config(known)
    if config is None:
        if os.sep in name or name.startswith("."):
            raise EncoderError(
                f"{name} is not a folder with {CONFIG}; expected a model's name, local-dir:FOLDER or hf-hub:ORG/REPO"
            )
        near = difflib.get_close_matches(name, open_clip.list_models(), n=3) or ["mithridate-tiny", "ViT-B-32", "RN50"]
        raise EncoderError(f"no open_clip model is called {name!r}; nearest: {', '.join(near)}")
    weights, said = _weights_of_name(known, pretrained)
    # open_clip only warns where a tag wants another activation than the name has
    quick = bool(config.get("quick_gelu")) or bool(said.pop("quick_gelu", False))
    text = config["text_cfg"]
    return Source(
        label=f"{name}/{pretrained}" if pretrained else name,
        model_cfg=config | ({"quick_gelu": True} if quick else {}),
        preprocess=said,
        weights=weights,
        tokenizer=hf.download(text["hf_tokenizer_name"], list(hf.TOKENIZER_FILES))
        if text.get("hf_tokenizer_name")
        else None,
        text_model=_text_model_of_hub(text),
        trusted=True,
    )


def _weights_of_name(name: str, pretrained: str | None) -> tuple[Path | None, dict[str, Any]]:
    """The checkpoint that `pretrained` means for the model `name`, and what is known of it besides."""
    if pretrained is None:
        return None, {}
    if said := preprocessing.of_tag(name, pretrained):
        try:
            return Path(open_clip.download_pretrained(open_clip.get_pretrained_cfg(name, pretrained))), said
        except Exception as error:  # a dozen types, of the hub's library and of what it makes requests with
            raise EncoderError(f"cannot load {name}/{pretrained}: cannot fetch its weights: {reason(error)}") from error
    file, tag = Path(pretrained), None
    if not file.is_file():
        tag, _, path = pretrained.partition("=")
        if path and preprocessing.of_tag(name, tag):
            file = Path(path)
    if file.is_dir():
        raise EncoderError(f"--pretrained {pretrained} is a folder; give it as the model, or name the checkpoint in it")
    if not file.is_file():
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise EncoderError(
            f"{name} has no pretrained weights {pretrained!r}, and no such file exists; its tags are {tags}"
        )
    if tag and file != Path(pretrained):
        return file, preprocessing.of_tag(name, tag)
    agreed, differing = preprocessing.of_all_tags(name)
    for key, values in differing.items():
        _LOG.warning(
            "%s has published weights of different %s: %s; %s is read with %s. If it was made from one of them, say "
            "which: --pretrained TAG=FILE",
            name,
            key,
            " or ".join(values),
            file,
            "the name's own" if key == "quick_gelu" else "CLIP's own",
        )
    return file, agreed


def _of_folder(folder: Path, pretrained: str | None) -> Source:
    label = f"local-dir:{folder}"
    weights = _weights_in(folder, label) if pretrained is None else _file_for(folder, label, pretrained)
    try:
        return _read_folder(folder, label if pretrained is None else f"{label}/{pretrained}", weights)
    except EncoderError as error:
        raise EncoderError(f"cannot load {label}: {error}") from error


def _read_folder(folder: Path, label: str, weights: Path) -> Source:
    """The model that the files of `folder` describe; names of other places in them are not followed."""
    if (folder / CONFIG).is_file():
        model, preprocess = read_config(folder / CONFIG)
        text = model["text_cfg"]
        tokenizer = folder if text.get("hf_tokenizer_name") else None
        text_model = hf.text_config(folder / HF_CONFIG) if text.get("hf_model_name") else None
    else:
        model, preprocess = hf_clip.read_hf_clip(folder)
        check(folder / HF_CONFIG, "config", model, ModelConfig)
        check(folder / "preprocessor_config.json", "config", preprocess, Preprocessing)
        text_model = None
        tokenizer = folder if any((folder / name).is_file() for name in hf.TOKENIZER_FILES) else None
        if tokenizer is not None:
            model["text_cfg"]["hf_tokenizer_name"] = "."
    return Source(label, model, preprocess, weights, tokenizer, text_model)


def _weights_in(folder: Path, label: str) -> Path:
    checkpoints = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    for name in _PREFERRED:
        if folder / name in checkpoints:
            return folder / name
    if len(checkpoints) == 1:
        return checkpoints[0]
    names = ", ".join(path.name for path in checkpoints[:5])
    if checkpoints:
        raise EncoderError(
            f"cannot load {label}: it holds {len(checkpoints)} checkpoints ({names}); name one as --pretrained"
        )
    if list(folder.glob("*.index.json")):
        raise EncoderError(f"cannot load {label}: its weights are in several parts; save them as one {WEIGHTS}")
    raise EncoderError(f"cannot load {label}: the folder has no weights; expected {WEIGHTS}, or a file as --pretrained")


def _file_for(folder: Path, label: str, pretrained: str) -> Path:
    for file in (Path(pretrained), folder / pretrained):
        if file.is_file():
            return file
    raise EncoderError(
        f"cannot load {label}: --pretrained {pretrained} is no file; beside a folder, expected a checkpoint"
    )


def _of_hub(name: str, repository: str) -> Source:
    settings = [CONFIG, HF_CONFIG, "preprocessor_config.json", *hf.TOKENIZER_FILES]
    folder = hf.download(repository, settings)
    kept = _PREFERRED[:4] if (folder / CONFIG).is_file() else _PREFERRED[4:]
    for weights in kept:  # one of them: a release may hold the same weights in several formats
        folder = hf.download(repository, [*settings, weights])
        if (folder / weights).is_file():
            break
    else:
        raise EncoderError(f"cannot load {name}: it holds none of {', '.join(kept)}")
    try:
        if not (folder / CONFIG).is_file():
            return _read_folder(folder, name, folder / weights)
        model, preprocess = read_config(folder / CONFIG)
        text = model["text_cfg"]
        own = text.get("hf_tokenizer_name")
        tokenizer = None if not own else folder if own == repository else hf.download(own, list(hf.TOKENIZER_FILES))
        return Source(name, model, preprocess, folder / weights, tokenizer, _text_model_of_hub(text))
    except EncoderError as error:
        raise EncoderError(f"cannot load {name}: {error}") from error


def _text_model_of_hub(text_cfg: dict[str, Any]) -> dict[str, Any] | None:
    name = text_cfg.get("hf_model_name")
    return hf.text_config(hf.download(name, [HF_CONFIG]) / HF_CONFIG) if name else None
