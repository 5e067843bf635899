"""Embeddings of a data set in many files, each by itself: the parts of clip-retrieval's layout."""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mithridate.data.cache import ImageSource
from mithridate.data.jpeg import decoding
from mithridate.data.pairs import Pairs
from mithridate.data.read import read_pairs
from mithridate.data.splits import pairs_of_split
from mithridate.encoder.embed import embed, image_source
from mithridate.encoder.embeddings import write_embeddings
from mithridate.encoder.encoder import Encoder, load_encoder, weights_fingerprint
from mithridate.engine.calls import Engine
from mithridate.engine.run import failed_message, map_shards
from mithridate.errors import DataError, EngineError
from mithridate.folders import new_folder

PART = "part.json"
"""In the folder of each shard that is done: how many pairs, images, dimensions, and pairs left out."""


Beside = Callable[[ImageSource, int, Path], None]
"""A function of a module, called with a file's images, their number and the folder of its part."""


@dataclass(frozen=True)
class ShardEmbedder:
    """Embeds the pairs of one file into a folder in clip-retrieval's layout, with one encoder a worker.

    `read`: options of `read_pairs`. `cache` None decodes images into the part's own folder, from which they go when it
    is done. `max_bad`: the share of a file's images that may fail to decode. `beside` writes more into the part while
    its images are at hand.
    """

    encoder: str
    pretrained: str | None
    read: Mapping[str, Any]
    cache: Path | None = None
    cache_limit: int | None = None
    max_bad: float = 0.0
    beside: Beside | None = None

    def begin(self) -> Callable[[Path, Path], None]:
        encoder = load_encoder(self.encoder, pretrained=self.pretrained)
        return lambda shard, path: self.embed(encoder, shard, path)

    def embed(self, encoder: Encoder, shard: Path, path: Path) -> None:
        """Embed `shard` into the new folder `path`."""
        pairs = read_pairs(shard, **{**self.read, "split": None})
        if self.read.get("split") is not None:
            pairs = pairs_of_split(pairs, self.read["split"])
        with new_folder(path) as folder:
            record = {"pairs": len(pairs), "images": len(pairs.images), "width": 0, "bad": 0}
            if len(pairs):
                own = folder / "images"
                cache, limit = self.cache or own, self.cache_limit
                made = embed(encoder, pairs, cache=cache, cache_limit=limit, max_bad=self.max_bad)
                bad = len(pairs) - len(made)
                kept = _kept(pairs, made.uid) if bad else pairs
                write_embeddings(made, kept, folder)
                if self.beside is not None:
                    self.beside(image_source(encoder, kept.images, cache=cache, limit=limit), len(kept.images), folder)
                shutil.rmtree(own, ignore_errors=True)
                record = {"pairs": len(kept), "images": len(made.image), "width": made.text.shape[1], "bad": bad}
            left_out = {reason: entry.count for reason, entry in pairs.report.left_out.items()}
            (folder / PART).write_text(json.dumps({**record, "left_out": left_out}), encoding="utf-8")

    def decides(self, weights: str) -> str:
        """A name of all that decides what is made of a file, but for the file."""
        options = {**self.read, "encoder": weights, "decoding": decoding(), "max_bad": self.max_bad}
        options["beside"] = getattr(self.beside, "__qualname__", None)
        return _digest(json.dumps(options, sort_keys=True, default=str))


def _kept(pairs: Pairs, uid: pa.ChunkedArray) -> Pairs:
    return pairs.where(pc.is_in(pairs.uid, uid.combine_chunks()).to_numpy())  # type: ignore[attr-defined]


def embed_files(
    embedder: ShardEmbedder,
    files: Sequence[Path],
    partial: Path,
    *,
    engine: Engine = Engine(),  # noqa: B008 (frozen)
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Path]:
    """The folders with the parts of `files`, in their order, made below `partial` where they are not there.

    A part's bytes depend on the file, the weights, the options and the number of threads of a worker, and on nothing
    else: one process or many, killed and started again. Raises `EngineError` where files failed; the others are done.
    """
    weights = weights_fingerprint(load_encoder(embedder.encoder, pretrained=embedder.pretrained).model)
    folder = partial.absolute() / embedder.decides(weights)
    folder.mkdir(parents=True, exist_ok=True)
    parts = {file.absolute(): folder / _identity(file) for file in files}
    if len(parts) < len(files):
        raise DataError(f"{len(files) - len(parts)} of the {len(files)} files are named twice; give every file once")
    found = map_shards(
        embedder,
        parts,
        out=lambda file: parts[file],
        engine=engine,
        progress=lambda done, total: progress("embedding files", done, total),
    )
    if found.done + found.there < len(parts):
        failed = failed_message(found.failed, len(parts), "files")
        raise EngineError(f"{failed}. The others are kept: run the same command again to go on")
    return list(parts.values())


def join_parts(parts: Sequence[Path], folder: Path) -> dict[str, Any]:
    """Gather parts into `folder` (it exists) as `img_emb/img_emb_0.npy` and so on; gives back what they hold in all.

    Files are linked, so the parts stay until they are deleted. Raises `DataError` where no part has a pair.
    """
    records = [json.loads((part / PART).read_text(encoding="utf-8")) for part in parts]
    full = [part for part, record in zip(parts, records) if record["pairs"]]
    if not full:
        raise DataError(f"none of the {len(parts)} files has a pair of this split; see mithridate data describe")
    for name, ending in (("img_emb", "npy"), ("text_emb", "npy"), ("metadata", "parquet")):
        (folder / name).mkdir()
        for number, part in enumerate(full):
            _link(part / name / f"{name}_0.{ending}", folder / name / f"{name}_{number}.{ending}")
    _link(full[0] / "encoder.json", folder / "encoder.json")
    total: dict[str, Any] = {name: sum(record[name] for record in records) for name in ("pairs", "images", "bad")}
    left_out: dict[str, int] = {}
    for record in records:
        for reason, count in record["left_out"].items():
            left_out[reason] = left_out.get(reason, 0) + count
    if total["bad"]:
        left_out["image-does-not-decode"] = total["bad"]
    return {**total, "width": max(record["width"] for record in records), "left_out": left_out}


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def _identity(file: Path) -> str:
    status = file.stat()
    return _digest(f"{file.absolute()} {status.st_size} {status.st_mtime_ns}")


def _digest(text: str) -> str:
    return blake2b(text.encode(errors="surrogateescape"), digest_size=10).hexdigest()
