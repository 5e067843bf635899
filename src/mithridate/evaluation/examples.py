"""What captions retrieve, as small pictures."""

import base64
import io
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from jaxtyping import Int, UInt8
from PIL import Image

from mithridate.data.images import decode, read_bytes
from mithridate.data.pairs import Pairs
from mithridate.encoder.embeddings import Embeddings
from mithridate.errors import DataError
from mithridate.evaluation.measurement import RetrievedExamples, RetrievedImage
from mithridate.metrics.ranks import top

_SIDE = 96  # pixels; four queries of two models then weigh about 120 kB


def thumbnail(location: str, *, side: int = _SIDE) -> str:
    """A small JPEG of the image, base64; empty where it cannot be read."""
    try:
        image = decode(read_bytes(location), location)
    except DataError:
        return ""
    return encoded(np.asarray(image), side=side)


def encoded(pixels: UInt8[np.ndarray, "h w 3"], *, side: int = _SIDE) -> str:
    """The pixels as a small JPEG, base64."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()


def retrieved_examples(
    pairs: Pairs,
    embeddings: Mapping[str, Embeddings],
    rows: Int[np.ndarray, " r"],
    targets: Int[np.ndarray, " t"],
    *,
    shown: int = 5,
) -> tuple[RetrievedExamples, ...]:
    """For the captions at `rows` what each model finds; `targets` are positions in `pairs.images`."""
    locations = pairs.images.to_pylist()
    first = np.unique(pairs.image_index, return_index=True)[1]
    labels = pairs.labels.take(pa.array(first)).to_pylist()
    chosen = set(targets.tolist())
    found = {name: top(e.text[rows], e.image, shown) for name, e in embeddings.items()}
    return tuple(
        RetrievedExamples(
            query=pairs.text[int(row)].as_py(),
            images={
                name: tuple(
                    RetrievedImage(
                        thumbnail=thumbnail(locations[i]),
                        labels=tuple(labels[i] or ()),
                        similarity=float(s),
                        is_target=i in chosen,
                    )
                    for i, s in zip(index[number].tolist(), similarity[number])
                )
                for name, (index, similarity) in found.items()
            },
        )
        for number, row in enumerate(rows)
    )
