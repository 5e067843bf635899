"""An audit from data and an encoder: embeds, reads pixels once, runs the detectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from mithridate.auditing.audit import Audit, audit_embeddings
from mithridate.auditing.evidence import Detector
from mithridate.auditing.groups import Group
from mithridate.auditing.pixels import CROP, PixelFeatures, read_pixels
from mithridate.auditing.scores import Progress, silent
from mithridate.data.pairs import Pairs
from mithridate.encoder.embed import embed, image_source
from mithridate.encoder.embeddings import read_embedded_pairs, read_embeddings
from mithridate.encoder.encoder import Encoder
from mithridate.sealed import read_sealed_json
from mithridate.threads import thread_count


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
    detectors: Mapping[str, Detector] | None = None,
    trained: bool = False,
    flag: float = 6.0,
    allow: Iterable[tuple[str, str]] = (),
    seed: int = 0,
    cache: Path | str | None = "default",
    cache_limit: int | None = None,
    progress: Progress = silent,
) -> DataAudit:
    """Audit `pairs` as `encoder` sees them, which should not have been trained on them; see `audit_embeddings`.

    `trained` says that it was: detectors that need that are run too. Images are read as the encoder takes
    them: a trigger that does not survive that cannot be learned either.
    """
    options = {"cache": cache, "cache_limit": cache_limit, "progress": progress}
    embedded = embed(encoder, pairs, **options)
    beside = None if clean is None else (clean, embed(encoder, clean, **options))
    places = pa.concat_arrays([pairs.images, *([] if clean is None else [clean.images])])
    source = image_source(encoder, places, cache=cache, limit=cache_limit, progress=progress)
    pixels = read_pixels(source.gather, len(places), threads=thread_count(), progress=progress)
    found = audit_embeddings(
        pairs,
        embedded,
        clean=beside,
        pixels=pixels,
        detectors=detectors,
        trained=trained,
        flag=flag,
        allow=allow,
        seed=seed,
        progress=progress,
    )
    return DataAudit(found, pixels, embedded.encoder, embedded.weights)


def trained_on(encoder: str, pairs: Pairs) -> bool:
    """Whether `encoder` is the folder of a run that was trained on these very pairs, as its record says."""
    path = Path(encoder) / "run.json"
    record = read_sealed_json(path, required=False) if path.is_file() else None
    return record is not None and record.get("data") == pairs.fingerprint


def audit_folder(
    folder: Path,
    *,
    clean: Path | None = None,
    detectors: Mapping[str, Detector] | None = None,
    trained: bool = False,
    flag: float = 6.0,
    allow: Iterable[tuple[str, str]] = (),
    seed: int = 0,
    progress: Progress = silent,
) -> DataAudit:
    """Audit embeddings already made (`mithridate embed`, clip-retrieval), with the captions and provenance of their
    metadata and no images: detectors that need those are left out. `clean`: a folder of the same kind."""
    pairs, embedded = read_embedded_pairs(folder), read_embeddings(folder)
    beside = None if clean is None else (read_embedded_pairs(clean), read_embeddings(clean))
    found = audit_embeddings(
        pairs,
        embedded,
        clean=beside,
        detectors=detectors,
        trained=trained,
        flag=flag,
        allow=allow,
        seed=seed,
        progress=progress,
    )
    return DataAudit(found, None, embedded.encoder, embedded.weights)
