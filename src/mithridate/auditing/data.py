"""An audit from data and an encoder: embeds, reads pixels once, runs the detectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from mithridate.auditing.audit import Audit, AuditOptions, audit_embeddings
from mithridate.auditing.groups import Group
from mithridate.auditing.pixels import CROP, PixelFeatures, concat_pixels, read_pixels
from mithridate.auditing.scores import Progress, silent
from mithridate.data.cache import ImageSource
from mithridate.data.pairs import Pairs
from mithridate.encoder.embed import embed, image_source
from mithridate.encoder.embed_shards import ShardEmbedder, embed_files
from mithridate.encoder.embeddings import concat_embeddings, read_embedded_pairs, read_embeddings
from mithridate.encoder.encoder import Encoder
from mithridate.engine.calls import Engine
from mithridate.errors import FilterError
from mithridate.sealed import read_sealed_json
from mithridate.threads import thread_count

PIXELS = "pixels.npz"
_KEPT = ("hash", "quality", "grey", "crop", "crop_image", "crop_at")


@dataclass(frozen=True)
class DataAudit:
    """An audit, with the pixels it read, None where it saw embeddings alone, and what embedded the pairs."""

    audit: Audit
    pixels: PixelFeatures | None
    encoder: str
    weights: str | None

    def crop(self, group: Group) -> np.ndarray | None:
        """The pixels around a recurring patch: (26, 26, 3) uint8."""
        if group.crop is None or self.pixels is None:
            return None
        image, top, left = group.crop
        whole = self.pixels.gather(np.array([image]))[0]
        side, half = 2 * CROP, CROP // 2
        top = int(np.clip(top - half, 0, whole.shape[0] - side))
        left = int(np.clip(left - half, 0, whole.shape[1] - side))
        return whole[top : top + side, left : left + side]


def audit(
    pairs: Pairs,
    encoder: Encoder,
    *,
    clean: Pairs | None = None,
    options: AuditOptions = AuditOptions(),  # noqa: B008 (frozen)
    cache: Path | str | None = "default",
    cache_limit: int | None = None,
    progress: Progress = silent,
) -> DataAudit:
    """Audit `pairs` as `encoder` sees them, which should not have been trained on them; see `audit_embeddings`.

    Images are read as the encoder takes them: a trigger that does not survive that cannot be learned either.
    """
    caching = {"cache": cache, "cache_limit": cache_limit, "progress": progress}
    embedded = embed(encoder, pairs, **caching)
    beside = None if clean is None else (clean, embed(encoder, clean, **caching))
    places = pa.concat_arrays([pairs.images, *([] if clean is None else [clean.images])])
    source = image_source(encoder, places, cache=cache, limit=cache_limit, progress=progress)
    pixels = read_pixels(source.gather, len(places), threads=thread_count(), progress=progress)
    found = audit_embeddings(pairs, embedded, clean=beside, pixels=pixels, options=options, progress=progress)
    return DataAudit(found, pixels, embedded.encoder, embedded.weights)


def audit_files(
    files: Sequence[Path],
    partial: Path,
    pairs: Pairs,
    encoder: Encoder,
    embedder: ShardEmbedder,
    *,
    engine: Engine = Engine(),  # noqa: B008 (frozen)
    clean: Pairs | None = None,
    options: AuditOptions = AuditOptions(),  # noqa: B008 (frozen)
    progress: Progress = silent,
) -> DataAudit:
    """As `audit` of `pairs`, which are those of `files` in their order; each file is embedded, and its pixels read, on
    `engine`, into `partial`. Detectors run here, over all of it: groups and duplicates go across files.

    Tar shards only: an image of theirs is in one file. Raises `EngineError` where a file failed.
    """
    made = embed_files(replace(embedder, beside=write_pixels), files, partial, engine=engine, progress=progress)
    parts = [part for part in made if (part / PIXELS).is_file()]  # the others have no pair of the split
    embedded = concat_embeddings([read_embeddings(part) for part in parts])
    features = [read_kept_pixels(part) for part in parts]
    beside = None
    places = pairs.images
    if clean is not None:
        beside = (clean, embed(encoder, clean, cache=embedder.cache, cache_limit=embedder.cache_limit))
        source = image_source(encoder, clean.images, cache=embedder.cache, limit=embedder.cache_limit)
        features.append(read_pixels(source.gather, len(clean.images), threads=thread_count()))
        places = pa.concat_arrays([places, clean.images])

    def gather(rows: np.ndarray) -> np.ndarray:
        return image_source(encoder, places.take(pa.array(rows)), cache=None).gather(np.arange(len(rows)))

    pixels = concat_pixels(features, gather)
    found = audit_embeddings(pairs, embedded, clean=beside, pixels=pixels, options=options, progress=progress)
    return DataAudit(found, pixels, embedded.encoder, embedded.weights)


def write_pixels(source: ImageSource, count: int, folder: Path) -> None:
    """Read the features of a file's images and keep them in the folder of its part."""
    pixels = read_pixels(source.gather, count, threads=thread_count())
    arrays = {name: getattr(pixels, name) for name in _KEPT}
    with (folder / PIXELS).open("wb") as file:
        np.savez(file, **arrays)


def read_kept_pixels(folder: Path) -> PixelFeatures:
    """What `write_pixels` kept; the pixels themselves cannot be asked for."""

    def gather(rows: np.ndarray) -> np.ndarray:
        raise FilterError(f"{folder} keeps no pixels")

    with np.load(folder / PIXELS, allow_pickle=False) as kept:
        return PixelFeatures(gather=gather, **{name: kept[name] for name in _KEPT})


def trained_on(encoder: str, pairs: Pairs) -> bool:
    """Whether `encoder` is the folder of a run that was trained on these very pairs, as its record says."""
    path = Path(encoder) / "run.json"
    record = read_sealed_json(path, required=False) if path.is_file() else None
    return record is not None and record.get("data") == pairs.fingerprint


def audit_folder(
    folder: Path,
    *,
    clean: Path | None = None,
    options: AuditOptions = AuditOptions(),  # noqa: B008 (frozen)
    progress: Progress = silent,
) -> DataAudit:
    """Audit embeddings already made (`mithridate embed`, clip-retrieval), with the captions and provenance of their
    metadata and no images: detectors that need those are left out. `clean`: a folder of the same kind."""
    pairs, embedded = read_embedded_pairs(folder), read_embeddings(folder)
    beside = None if clean is None else (read_embedded_pairs(clean), read_embeddings(clean))
    found = audit_embeddings(pairs, embedded, clean=beside, options=options, progress=progress)
    return DataAudit(found, None, embedded.encoder, embedded.weights)
