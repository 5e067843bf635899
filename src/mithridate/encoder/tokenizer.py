"""Tokenizers as one value: what turns captions into ids, what it is made of, and a first try of it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import open_clip
from jaxtyping import Int
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer, default_bpe
from torch import Tensor

from mithridate.encoder import hf
from mithridate.errors import EncoderError, reason

# what every tokenizer must take: no words, letters beyond ASCII, more words than any text tower reads
_PROBES = ["", "a photo of two grey sheep", "Ein Käse, 7 €; 羊 🐑", "word " * 300]


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """b strings -> ids (b, context_length), as open_clip's own tokenizer gives them.

    `files` are those of a Hugging Face tokenizer; CLIP's own, which open_clip brings, has none.
    """

    run: SimpleTokenizer | HFTokenizer
    files: dict[str, bytes] = field(default_factory=dict, repr=False)

    def __call__(self, texts: Sequence[str]) -> Int[Tensor, "b length"]:
        return self.run(list(texts))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that decides the ids of a caption: equal for tokenizers that give equal ids."""
        options = (type(self.run).__name__, self.run.context_length, self.run.clean_fn.__name__)
        digest = hashlib.blake2b(digest_size=12)
        digest.update(
            repr((*options, vars(self.run).get("tokenizer_mode"), vars(self.run).get("strip_sep_token"))).encode()
        )
        for name, content in sorted((self.files or {"bpe": Path(default_bpe()).read_bytes()}).items()):
            digest.update(f"{name} {len(content)} ".encode() + content)
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write the files it is made of into `folder`, where open_clip and transformers look for them."""
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


_CLIP: dict[tuple[int, str], Tokenizer] = {}  # to read its vocabulary takes as long as to draw a small model


def load_tokenizer(text_cfg: dict[str, Any], folder: Path | None) -> Tokenizer:
    """The tokenizer of a text tower: that in `folder`, or CLIP's own where `folder` is None.

    Raises `EncoderError` where its files are not fit for use.
    """
    length = int(text_cfg.get("context_length") or open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH)
    options = text_cfg.get("tokenizer_kwargs") or {}
    if folder is None:
        clean = options.get("clean", "lower")
        if (length, clean) not in _CLIP:
            _CLIP[length, clean] = Tokenizer(SimpleTokenizer(context_length=length, clean=clean))
        return _CLIP[length, clean]
    files = hf.tokenizer_files(folder)
    try:
        made = hf.build_tokenizer(
            files, context_length=length, tokenizer_mode=text_cfg.get("tokenizer_mode"), **options
        )
    except EncoderError:
        raise
    except Exception as error:  # whatever foreign files make transformers raise
        raise EncoderError(f"the tokenizer in {folder} cannot be loaded: {reason(error)}") from error
    return Tokenizer(made, files)


def try_tokenizer(tokenizer: Tokenizer, vocabulary: int) -> Int[Tensor, "b length"]:
    """Ids of a few captions, after a look at what they are.

    Raises `EncoderError` where captions of several lengths do not become rows of one length, or where an id is not
    below `vocabulary`, the number of tokens that the text tower has embeddings for.
    """
    try:
        ids = tokenizer(_PROBES)
    except Exception as error:  # whatever a foreign tokenizer raises
        raise EncoderError(f"the tokenizer cannot pad or cut captions to one length: {reason(error)}") from error
    length = tokenizer.run.context_length
    if tuple(ids.shape) != (len(_PROBES), length):
        raise EncoderError(f"the tokenizer gives ids of shape {tuple(ids.shape)}, expected ({len(_PROBES)}, {length})")
    if ids.is_floating_point() or int(ids.min()) < 0 or int(ids.max()) >= vocabulary:
        raise EncoderError(
            f"the tokenizer gives ids up to {int(ids.max())}, but the text tower has embeddings of {vocabulary} "
            "tokens; the tokenizer is another model's"
        )
    return ids
