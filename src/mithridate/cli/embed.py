"""`mithridate embed DATA --encoder E --out DIR`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from tyro.conf import OmitArgPrefixes

from mithridate.cli.common import CacheOptions, Data, Place, ReadOptions, Threads, emit, parse
from mithridate.cli.progress import display
from mithridate.cli.workers import EngineOptions
from mithridate.errors import DataError
from mithridate.folders import new_folder, refuse_existing
from mithridate.remote.paths import RemotePath
from mithridate.remote.uploads import workplace


@dataclass(frozen=True)
class Embed:
    """Embed a data set, in clip-retrieval's layout.

    Several tar shards or tables are embedded one by one, a part each: killed and started again, those that are done are
    not made again. --jobs and --ray share them out; the output is the same.
    """

    data: Data
    """The pairs: a table, tar shards, an annotation file, or a folder."""
    encoder: str
    """An open_clip model, mithridate-tiny, local-dir:FOLDER, hf-hub:ORG/REPO, or a run's folder."""
    out: Place
    """Folder to write."""
    pretrained: str | None = None
    """Its pretrained tag or checkpoint file."""
    read: OmitArgPrefixes[ReadOptions] = field(default_factory=ReadOptions)
    cache: OmitArgPrefixes[CacheOptions] = field(default_factory=CacheOptions)
    max_bad: float = 0.0
    """Share of the images (of a file, where there are several) that may fail to decode; their pairs are left out."""
    engine: OmitArgPrefixes[EngineOptions] = field(default_factory=EngineOptions)
    threads: Threads = None
    overwrite: bool = False
    """Replace what is in the output folder."""
    json: bool = False
    """One JSON object on the last line."""

    def run(self) -> None:
        from mithridate.data.read import separate_files

        refuse_existing(self.out, overwrite=self.overwrite)
        if not 0 <= self.max_bad < 1:
            raise DataError(f"max_bad must lie in [0, 1), got {self.max_bad}")
        work = workplace(self.out)
        partial = work.parent / f".{work.name}.partial"  # outlives a kill, and is deleted in the end
        files = separate_files(self.data)
        if any(isinstance(file, RemotePath) for file in files):
            files = []  # what is remote is read as a whole
        made = self._by_file(files, partial) if files else self._whole(partial)
        emit(
            {"out": str(self.out), **made},
            as_json=self.json,
            then=("audit", "--embeddings", self.out, "--out", f"{self.out}-audit"),
        )

    def _by_file(self, files: list[Path], partial: Path) -> dict[str, Any]:
        from mithridate.encoder.embed_shards import ShardEmbedder, embed_files, join_parts

        embedder = ShardEmbedder(
            self.encoder, self.pretrained, vars(self.read), self.cache.cache, self.cache.limit, self.max_bad
        )
        with display(quiet=self.json) as show:
            parts = embed_files(embedder, files, partial, engine=self.engine.engine, progress=show.stage)
        with new_folder(self.out, overwrite=self.overwrite, scratch=(partial,)) as folder:
            found = join_parts(parts, folder)
        made = {name: found[name] for name in ("pairs", "images", "width")}
        return {**made, **({"left_out": found["left_out"]} if found["left_out"] else {}), "files": len(files)}

    def _whole(self, partial: Path) -> dict[str, Any]:
        from mithridate.encoder.embed import embed
        from mithridate.encoder.embeddings import write_embeddings
        from mithridate.encoder.encoder import load_encoder

        if self.engine != EngineOptions():
            raise DataError(
                f"{self.data} is read as a whole, so --jobs, --ray and --max-errors have no use; pass several tar "
                "shards or tables (mithridate data convert writes shards)"
            )
        pairs = self.read.read(self.data)
        encoder = load_encoder(self.encoder, pretrained=self.pretrained)
        with display(quiet=self.json) as show:
            embedded = embed(
                encoder,
                pairs,
                cache=self.cache.folder,
                cache_limit=self.cache.limit,
                progress=show.stage,
                partial=partial,
                max_bad=self.max_bad,
            )
        bad = len(pairs) - len(embedded)
        if bad:
            pairs = pairs.where(pc.is_in(pairs.uid, embedded.uid.combine_chunks()).to_numpy())  # type: ignore[attr-defined]
        with new_folder(self.out, overwrite=self.overwrite, scratch=(partial,)) as folder:
            write_embeddings(embedded, pairs, folder)
        made = {"pairs": len(embedded), "images": len(embedded.image), "width": embedded.text.shape[1]}
        return {**made, **({"left_out": {"image-does-not-decode": bad}} if bad else {})}


def run(argv: Sequence[str]) -> None:
    parse(Embed, argv, prog="embed").run()
