"""Both towers as they are run here, against open_clip's own calls on whole batches."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from harness import Row, compare

from mithridate.encoder.encoder import Encoder, load_encoder
from mithridate.encoder.towers import text_embedding

SENTENCE = "a small red sheep standing on the green grass near an old tree while two dogs run"


def images(encoder: Encoder, count: int, *, rounds: int) -> Row:
    """Embeddings without gradients, from uint8 pixels."""
    height, width = encoder.image_size
    pixels = torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8)
    ready = encoder.normalise(pixels).contiguous()  # what a stack of open_clip's transformed images is
    model: Any = encoder.model.eval()

    @torch.no_grad()
    def theirs() -> None:
        model.encode_image(ready)

    @torch.no_grad()
    def ours() -> None:
        encoder.image_embedding(pixels)

    what = f"{count} images of {width} px embedded, {encoder.name}"
    return compare(what, ours, theirs, "open_clip's encode_image on the whole batch", rounds=rounds)


def captions(encoder: Encoder, count: int, *, rounds: int) -> Row:
    """Forward and backward of a batch of captions about as long as Flickr8k's: 14 tokens on average, 7 to 32."""
    model: Any = encoder.copy().model.train()
    lengths = np.random.default_rng(0).gamma(9, 1.35, count).clip(5, 30).astype(int)  # without start and end
    tokens = encoder.tokenizer([" ".join((SENTENCE.split() * 2)[:length]) for length in lengths])

    def run(tower: Callable[[torch.Tensor], torch.Tensor]) -> None:
        model.zero_grad()
        tower(tokens).square().sum().backward()

    return compare(
        f"{count} captions forward and backward, {encoder.name}",
        lambda: run(lambda x: text_embedding(model, x)),
        lambda: run(model.encode_text),
        "open_clip's encode_text",
        rounds=rounds,
    )


def rows(name: str | None, *, quick: bool) -> Iterator[Row]:
    tiny = load_encoder("mithridate-tiny")
    yield images(tiny, 256, rounds=15)
    yield captions(tiny, 128, rounds=15)
    if name is not None:
        own = load_encoder(name)
        yield images(own, 64, rounds=3 if quick else 5)
        yield captions(own, 256, rounds=3 if quick else 5)
    if not quick:
        yield captions(load_encoder("ViT-B-32"), 64, rounds=3)
