"""What pages show that has to be embedded or read for it: what captions retrieve, distances of the poison."""

import base64
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from mithridate.data.images import decode, read_bytes
from mithridate.data.pairs import Pairs, make_pairs
from mithridate.encoder.embed import embed
from mithridate.encoder.embeddings import Embeddings
from mithridate.encoder.encoder import Encoder
from mithridate.errors import DataError
from mithridate.evaluation.checks import missing_poison
from mithridate.evaluation.curves import density_figure
from mithridate.metrics.ranks import top
from mithridate.poisoning.manifest import Manifest
from mithridate.report.document import Figure, Hit, Retrieval, Warning

_SIDE = 96  # pixels; four queries of two models then weigh about 120 kB
_DENSITY_PAIRS = 5000  # a density of more looks the same


def thumbnail(place: str) -> str:
    """A small JPEG of the image, base64; empty where it cannot be read."""
    try:
        image = decode(read_bytes(place), place)
    except DataError:
        return ""
    image.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()


def retrievals(
    pairs: Pairs,
    embeddings: dict[str, Embeddings],
    rows: Int[np.ndarray, " r"],
    targets: Int[np.ndarray, " t"],
    *,
    shown: int = 5,
) -> tuple[Retrieval, ...]:
    """For the captions at `rows` what each model finds; `targets` are positions in `pairs.images`."""
    places = pairs.images.to_pylist()
    first = np.unique(pairs.image_index, return_index=True)[1]
    labels = pairs.labels.take(pa.array(first)).to_pylist()
    chosen = set(targets.tolist())
    found = {name: top(e.text[rows], e.image, shown) for name, e in embeddings.items()}
    return tuple(
        Retrieval(
            pairs.text[int(row)].as_py(),
            {
                name: tuple(
                    Hit(thumbnail(places[i]), tuple(labels[i] or ()), float(s), i in chosen)
                    for i, s in zip(index[number].tolist(), similarity[number])
                )
                for name, (index, similarity) in found.items()
            },
        )
        for number, row in enumerate(rows)
    )


def poison_density(
    encoder: Encoder,
    label: str,
    embedded: dict[str, Embeddings],
    pairs: Pairs,
    manifest: Manifest,
    rng: np.random.Generator,
    cache: Path | str | None,
    cache_limit: int | None,
) -> tuple[list[Figure], list[Warning]]:
    """Cosine distances of the poisoned pairs and of clean test pairs, under a model that trained on neither."""
    table = manifest.poisoned
    if len(table) > _DENSITY_PAIRS:
        table = table.take(pa.array(np.sort(rng.choice(len(table), _DENSITY_PAIRS, replace=False))))
    try:
        poison = embed(encoder, make_pairs(table["image"], table["text"]), cache=cache, cache_limit=cache_limit)
    except DataError as error:
        return [], missing_poison(str(error))
    distances = {"clean test pairs": 1 - embedded[label].similarity(), "poisoned pairs": 1 - poison.similarity()}
    medians = {name: float(np.median(d)) for name, d in distances.items()}
    told = ", ".join(f"{name} {median:.3f}" for name, median in medians.items())
    return [
        density_figure(
            "densities",
            "Cosine distance of clean and poisoned pairs",
            distances,
            f"Under the {label} model. Medians: {told}. What a similarity filter would see.",
        )
    ], []
