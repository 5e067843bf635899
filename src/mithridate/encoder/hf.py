"""What Hugging Face's libraries build for an encoder: from checked files, without requests or a stranger's code."""

import importlib
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mithridate.encoder.model_config import read_json
from mithridate.errors import EncoderError, reason

TOKENIZER_CONFIG = "tokenizer_config.json"
# what a tokenizer is made of; nothing else of a folder is read for it
_VOCABULARIES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
TOKENIZER_FILES = (*_VOCABULARIES, TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json")
_MOST_BYTES = 2**27  # of one of them; SigLIP 2's has 34 million

_SPECIAL = {
    *("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"),
    *("additional_special_tokens", "extra_special_tokens", "added_tokens_decoder"),
}
# settings of the tokenizers that text towers use; `auto_map` and `trust_remote_code` are none
_SETTINGS = _SPECIAL | {
    *("add_bos_token", "add_eos_token", "add_prefix_space", "backend", "clean_up_tokenization_spaces", "do_lower_case"),
    *("do_basic_tokenize", "never_split", "strip_accents", "tokenize_chinese_chars", "errors", "extra_ids", "legacy"),
    *("model_max_length", "model_input_names", "padding_side", "truncation_side", "sp_model_kwargs", "src_lang"),
    *("spaces_between_special_tokens", "trim_offsets", "split_special_tokens", "tgt_lang", "language_codes"),
    *("max_length", "stride", "pad_to_multiple_of", "pad_token_type_id", "truncation_strategy", "keep_accents"),
    *("remove_space", "vocab_size", "use_fast", "tokenizer_class", "legacy_behaviour", "use_default_system_prompt"),
}
# of the machine that wrote it, or for chats: left out
_LEFT_OUT = {
    *("name_or_path", "tokenizer_file", "vocab_file", "merges_file", "special_tokens_map_file", "processor_class"),
    *("chat_template", "from_slow", "is_local", "local_files_only", "_commit_hash", "transformers_version"),
}

# of a text tower's config.json: what it holds besides the parameters of its class, and the embeddings do not depend on
_OF_OTHER_USES = {
    *("architectures", "transformers_version", "torch_dtype", "dtype", "id2label", "label2id", "_name_or_path"),
    *("output_attentions", "output_hidden_states", "return_dict", "problem_type", "finetuning_task", "tokenizer_class"),
    *("gradient_checkpointing", "output_past", "model_type", "use_cache", "task_specific_params", "max_length"),
    *("num_beams", "early_stopping", "num_hidden_layers_decoder", "forced_bos_token_id", "_num_labels", "n_positions"),
    *("pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type"),
    *(
        "directionality",
        "is_gated_act",
        "dense_act_fn",
        "normalize_before",
        "normalize_embedding",
        "add_final_layer_norm",
    ),
    *("num_labels", "static_position_embeddings", "add_bias_logits", "chunk_size_feed_forward"),
}
_ACTIVATIONS = re.compile(r"(gated-)?(gelu|gelu_new|relu|silu|quick_gelu|gelu_pytorch_tanh)")
_MOST_LAYERS, _LARGEST = 256, 2**22


@contextmanager
def offline() -> Iterator[None]:
    """Inside, Hugging Face's libraries make no request: what is not on the disk is an error."""
    from huggingface_hub import constants

    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    before, switch = {name: os.environ.get(name) for name in names}, constants.HF_HUB_OFFLINE
    os.environ.update(dict.fromkeys(names, "1"))
    constants.HF_HUB_OFFLINE = True  # read from the environment only when the library is first imported
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = switch
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def needs_transformers(what: str) -> Any:
    """The module transformers. Raises `EncoderError` where the extra `hf` is not installed."""
    try:
        return importlib.import_module("transformers")  # a type checker would read three thousand files for it
    except ImportError as error:
        raise EncoderError(f'{what} needs transformers; run: pip install "mithridate[hf]"') from error


def download(repository: str, patterns: list[str]) -> Path:
    """The folder in the hub's cache that holds the files of `repository` matching `patterns`, fetched where needed.

    Raises `EncoderError`.
    """
    import huggingface_hub

    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repository):
        raise EncoderError(f"{repository!r} is no repository of the Hugging Face hub; expected ORGANISATION/NAME")
    try:
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=patterns))
    except Exception as error:  # a dozen types, of the library and of what it makes requests with
        raise EncoderError(f"cannot fetch {repository} from the Hugging Face hub: {reason(error)}") from error


def tokenizer_files(folder: Path) -> dict[str, bytes]:
    """The files that a Hugging Face tokenizer in `folder` is made of, with settings checked.

    Raises `EncoderError` where there are none, and for settings that a text tower's tokenizer has no use for.
    """
    files = {}
    for name in TOKENIZER_FILES:
        if not (folder / name).is_file():
            continue
        if (folder / name).stat().st_size > _MOST_BYTES:
            raise EncoderError(f"{folder / name} holds more than {_MOST_BYTES} bytes; no tokenizer is as large")
        files[name] = (folder / name).read_bytes()
    if not files.keys() & set(_VOCABULARIES):
        raise EncoderError(
            f"{folder} holds no tokenizer; its text tower needs one beside {TOKENIZER_CONFIG}, such as tokenizer.json"
        )
    if TOKENIZER_CONFIG in files:
        settings = _tokenizer_settings(folder / TOKENIZER_CONFIG)
        files[TOKENIZER_CONFIG] = json.dumps(settings, indent=1, sort_keys=True).encode()
    if "special_tokens_map.json" in files and (
        extra := read_json(folder / "special_tokens_map.json").keys() - _SPECIAL
    ):
        raise EncoderError(f"{folder / 'special_tokens_map.json'}: {sorted(extra)[0]!r} is no special token")
    return files


def _tokenizer_settings(path: Path) -> dict[str, Any]:
    content = read_json(path)
    for key in content.keys() - _LEFT_OUT:
        if key not in _SETTINGS:
            why = (
                "would run code that comes with the model" if key in ("auto_map", "trust_remote_code") else "is unknown"
            )
            raise EncoderError(f"{path}: the setting {key!r} {why}; remove it if the tokenizer does not need it")
    name = content.get("tokenizer_class")
    if name is not None and (not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9]{1,60}", name)):
        raise EncoderError(f"{path}: tokenizer_class is {name!r:.80}, expected the name of a class of transformers")
    return {key: value for key, value in content.items() if key in _SETTINGS}


def build_tokenizer(files: dict[str, bytes], **options: Any) -> Any:
    """open_clip's `HFTokenizer` of these files; `options` are its own. Raises what transformers raises."""
    from open_clip.tokenizer import HFTokenizer

    needs_transformers("the tokenizer of this model")
    # a folder of nothing but these files: there is no module in it that could be run
    with tempfile.TemporaryDirectory(prefix="mithridate-tokenizer-") as folder, offline():
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        return HFTokenizer(folder, trust_remote_code=False, local_files_only=True, **options)


def text_config(path: Path) -> dict[str, Any]:
    """The `config.json` of a Hugging Face text tower with what decides its embeddings, checked.

    A decoder, which embeddings do not pass, is cut to one layer. Raises `EncoderError`.
    """
    import inspect

    from open_clip.hf_configs import arch_dict

    known_configs = needs_transformers("a Hugging Face text tower").CONFIG_MAPPING
    content = read_json(path)
    kind = content.get("model_type")
    if not isinstance(kind, str) or kind not in arch_dict:
        raise EncoderError(f"{path}: model_type is {kind!r:.80}, expected one of {', '.join(sorted(arch_dict))}")
    known = inspect.signature(known_configs[kind].__init__).parameters.keys() - _OF_OTHER_USES
    checked: dict[str, Any] = {"model_type": kind}
    for key, value in content.items():
        if key in known:
            checked[key] = _setting(path, key, value)
        elif key == "position_embedding_type" and value == "absolute":
            continue  # the only kind since transformers 5
        elif key not in _OF_OTHER_USES:
            raise EncoderError(f"{path}: the setting {key!r} is unknown; remove it if the text tower does not need it")
    for encoder, decoder in (
        ("encoder_ffn_dim", "decoder_ffn_dim"),
        ("encoder_attention_heads", "decoder_attention_heads"),
    ):
        if decoder in known and encoder in checked:
            checked[decoder] = checked[encoder]
    return checked | {key: 1 for key in ("num_decoder_layers", "decoder_layers") if key in known}


def _setting(path: Path, key: str, value: Any) -> Any:
    most = _MOST_LAYERS if "layers" in key else _LARGEST
    match value:
        case None | bool():
            fine = True
        case int():
            fine = 0 <= value <= most
        case float():
            fine = math.isfinite(value)
        case str():
            fine = _ACTIVATIONS.fullmatch(value) is not None
        case _:
            fine = False
    if not fine:
        raise EncoderError(
            f"{path}: {key} is {str(value)[:80]!r}; a text tower's {key} is a number up to {most}, or a name"
        )
    return value
