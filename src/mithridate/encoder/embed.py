"""Embed a data set: whole batches from the image cache, each distinct image and caption once."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from mithridate.data.cache import ImageSource, kept_array, open_images, save_array
from mithridate.data.jpeg import decoding, scaled_decoder
from mithridate.data.pairs import Pairs
from mithridate.encoder.embeddings import Embeddings
from mithridate.encoder.encoder import Encoder, weights_fingerprint
from mithridate.encoder.tokenizer import Tokenizer
from mithridate.encoder.towers import vocabulary_size
from mithridate.errors import DataError, EncoderError, OutputError
from mithridate.remote.caches import cache_folder

Progress = Callable[[str, int, int], None]  # what, done, of how many

_IMAGES, _CAPTIONS = 256, 512  # in a batch
_BATCHES_KEPT = 16  # whose embeddings are kept in one file: a minute's work for a large model on a CPU


def _silent(_what: str, _done: int, _total: int) -> None: ...


def image_source(
    encoder: Encoder,
    locations: pa.Array,
    *,
    cache: Path | str | None = "default",
    limit: int | None = None,
    progress: Progress = _silent,
) -> ImageSource:
    """The images at `locations` (m,) as this encoder takes them. `cache` None decodes at every use.

    JPEGs larger than needed are decoded at a part of their size, unless `decoding` says otherwise.
    """
    return open_images(
        locations,
        encoder.to_pixels,
        shape=(*encoder.image_size, 3),
        recipe=pixel_recipe(encoder),
        shortcut=scaled_decoder(encoder.recipe) if decoding() == "scaled" else None,
        folder=cache_folder() if cache == "default" else None if cache is None else Path(cache),
        limit=limit,
        progress=lambda done, total: progress("decoding images", done, total),
    )


def pixel_recipe(encoder: Encoder) -> str:
    """Name of all that decides an image's pixels: the encoder's preparation, and how JPEGs are decoded."""
    scaled = decoding() == "scaled" and scaled_decoder(encoder.recipe) is not None
    return f"{encoder.recipe} scaled" if scaled else encoder.recipe


def tokenise(
    encoder: Encoder, texts: pa.ChunkedArray | pa.Array, *, cache: Path | str | None = "default"
) -> tuple[np.ndarray, np.ndarray]:
    """Token ids of the distinct captions (t, context_length), and which of them each pair has: (n,).

    16 bits an id where the vocabulary allows. Over-long captions are cut and keep their end token: it is what the
    text tower pools. Raises `EncoderError` for an id that the text tower has no embedding of.
    """
    if isinstance(texts, pa.Array):
        texts = pa.chunked_array([texts])
    codes = texts.fill_null("").dictionary_encode().unify_dictionaries().combine_chunks()
    index = codes.indices.to_numpy(zero_copy_only=False)
    distinct: list[str] = codes.dictionary.to_pylist()
    path = None
    # a tokenizer of the caller's own has no content that a cache could be keyed by
    if cache is not None and isinstance(encoder.tokenizer, Tokenizer):
        folder = cache_folder() if cache == "default" else Path(cache)
        digest = hashlib.blake2b(f"{encoder.tokenizer.fingerprint} {len(distinct)} ".encode(), digest_size=12)
        for text in distinct:
            raw = text.encode(errors="surrogatepass")
            digest.update(b"%d " % len(raw) + raw)
        path = folder / f"token-ids-{digest.hexdigest()}.npy"
        kept = kept_array(path, mapped=True)
        if kept is not None:
            return kept, index
    vocabulary = vocabulary_size(encoder.model)
    tokens = np.empty((len(distinct), encoder.context_length), dtype=np.uint16 if vocabulary <= 2**16 else np.int32)
    for start in range(0, len(distinct), 4096):
        block = encoder.tokenizer(distinct[start : start + 4096]).numpy()
        if block.min() < 0 or block.max() >= vocabulary:
            row = int((block.max(axis=1) >= vocabulary).argmax())
            raise EncoderError(
                f"the caption {distinct[start + row][:80]!r} has the token {int(block[row].max())}, but the text tower "
                f"of {encoder.name} has embeddings of {vocabulary} tokens; remove it, or take the model's own tokenizer"
            )
        tokens[start : start + 4096] = block
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_array(path, tokens)
        except OSError as error:
            raise OutputError(f"cannot write the token cache {path}: {error.strerror or error}") from error
    return tokens, index


def embed_images(
    encoder: Encoder,
    source: ImageSource,
    count: int,
    *,
    batch_size: int = _IMAGES,
    progress: Progress = _silent,
    kept: Path | None = None,
) -> np.ndarray:
    """Unit-length embeddings of the `count` images of `source`: (count, d) float32. `kept`: see `embed`."""
    return _embed_images(encoder, source, count, batch_size, progress, kept)[0]


def _embed_images(
    encoder: Encoder, source: ImageSource, count: int, batch_size: int, progress: Progress, kept: Path | None
) -> tuple[np.ndarray, np.ndarray]:
    def encode(rows: np.ndarray) -> Tensor:
        return encoder.image_embedding(torch.from_numpy(source.gather(rows)).to(encoder.device))

    return _in_batches(encoder, count, batch_size, encode, "embedding images", progress, kept)


def embed_tokens(
    encoder: Encoder,
    tokens: np.ndarray,
    *,
    batch_size: int = _CAPTIONS,
    progress: Progress = _silent,
    kept: Path | None = None,
) -> np.ndarray:
    """Unit-length embeddings of token ids (t, context_length): (t, d) float32. `kept`: see `embed`."""
    return _embed_tokens(encoder, tokens, batch_size, progress, kept)[0]


def _embed_tokens(
    encoder: Encoder, tokens: np.ndarray, batch_size: int, progress: Progress, kept: Path | None
) -> tuple[np.ndarray, np.ndarray]:
    # captions of one length in one batch: what a batch costs is decided by its longest
    order = np.argsort(tokens.argmax(axis=1), kind="stable")

    def encode(rows: np.ndarray) -> Tensor:
        return encoder.token_embedding(torch.from_numpy(tokens[order[rows]].astype(np.int64)).to(encoder.device))

    out, length = _in_batches(encoder, len(tokens), batch_size, encode, "embedding captions", progress, kept)
    back = np.argsort(order)
    return out[back], length[back]


@contextmanager
def _on_gpu(encoder: Encoder) -> Iterator[None]:
    """Inside, the model lies on the GPU where there is one; afterwards again where it was."""
    home = encoder.device
    if not torch.cuda.is_available():
        yield
        return
    encoder.model.to("cuda")
    try:
        yield
    finally:
        encoder.model.to(home)


def _in_batches(
    encoder: Encoder, count: int, batch_size: int, encode, what: str, progress: Progress, kept: Path | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Unit-length rows (count, d), and the lengths that the encoder gave them: (count,)."""
    if encoder.model.training:
        raise DataError("the encoder is in training mode; call encoder.model.eval() before embedding")
    out, length = np.empty((count, 1), np.float32), np.empty(count, np.float32)
    with torch.no_grad(), _on_gpu(encoder):
        for start in range(0, count, _BATCHES_KEPT * batch_size):
            stop = min(start + _BATCHES_KEPT * batch_size, count)
            path = None if kept is None else kept / f"{what.split()[-1]}-{start:010d}.npy"
            block = None if path is None else kept_array(path)
            if block is not None:
                progress(what, stop, count)
            else:
                made = []
                for low in range(start, stop, batch_size):
                    high = min(low + batch_size, stop)
                    raw = encode(np.arange(low, high)).float()
                    unit = torch.nn.functional.normalize(raw, dim=-1)
                    made.append(torch.cat([unit, raw.norm(dim=-1, keepdim=True)], dim=1).cpu().numpy())
                    progress(what, high, count)
                block = np.concatenate(made)
                if path is not None:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    save_array(path, block)
            if not start:
                out = np.empty((count, block.shape[1] - 1), np.float32)
            out[start:stop], length[start:stop] = block[:, :-1], block[:, -1]
    return out, length


def embed(
    encoder: Encoder,
    pairs: Pairs,
    *,
    cache: Path | str | None = "default",
    cache_limit: int | None = None,
    progress: Progress = _silent,
    partial: Path | None = None,
    max_bad: float = 0.0,
) -> Embeddings:
    """Embed all pairs. Each distinct image and each distinct caption is computed once.

    In the folder `partial` blocks are kept as they are made, each whole or not there, so that a call that was killed
    goes on; what other weights, pairs or ways of decoding made is not taken. The caller deletes it in the end.
    Raises `DataError` where more than the share `max_bad` of the images do not decode: a gallery with a hole would
    change every rank. Pairs of the others are left out, as `uid` tells.
    """
    if not 0 <= max_bad < 1:
        raise DataError(f"max_bad must lie in [0, 1), got {max_bad}")
    if not len(pairs):
        raise DataError("there are no pairs to embed")
    source = image_source(encoder, pairs.images, cache=cache, limit=cache_limit, progress=progress)
    if source.bad:
        if len(source.bad) > max_bad * len(pairs.images):
            reasons = list(source.bad.values())
            raise DataError(
                f"{len(reasons)} of {len(pairs.images)} images do not decode ({'; '.join(reasons[:3])}); "
                "remove them or fetch them again (mithridate data doctor lists them), or allow some (--max-bad)"
            )
        pairs = pairs.where(~np.isin(pairs.image_index, list(source.bad)))
        source = image_source(encoder, pairs.images, cache=cache, limit=cache_limit, progress=progress)
    weights, kept = weights_fingerprint(encoder.model), None
    if partial is not None:
        decides = hashlib.blake2b(
            f"lengths {weights} {pairs.fingerprint} {pixel_recipe(encoder)}".encode(), digest_size=10
        )
        decides.update(b"" if source.keys is None else source.keys.tobytes())
        kept = partial / decides.hexdigest()
    image, image_length = _embed_images(encoder, source, len(pairs.images), _IMAGES, progress, kept)
    tokens, index = tokenise(encoder, pairs.text, cache=cache)
    text, text_length = _embed_tokens(encoder, tokens, _CAPTIONS, progress, kept)
    return Embeddings(
        pairs.uid, image, pairs.image_index, text[index], encoder.name, weights, image_length, text_length[index]
    )
