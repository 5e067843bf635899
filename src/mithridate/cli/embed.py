"""`mithridate embed DATA --encoder E --out DIR`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tyro.conf import OmitArgPrefixes

from mithridate.cli.common import CacheOptions, Data, Place, ReadOptions, Threads, emit, parse
from mithridate.cli.progress import display
from mithridate.folders import new_folder, refuse_existing
from mithridate.uploads import workplace


@dataclass(frozen=True)
class Embed:
    """Embed a data set, in clip-retrieval's layout."""

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
    threads: Threads = None
    overwrite: bool = False
    """Replace what is in the output folder."""
    json: bool = False
    """One JSON object on the last line."""

    def run(self) -> None:
        from mithridate.encoder.embed import embed
        from mithridate.encoder.embeddings import write_embeddings
        from mithridate.encoder.encoder import load_encoder

        refuse_existing(self.out, overwrite=self.overwrite)
        pairs = self.read.read(self.data)
        encoder = load_encoder(self.encoder, pretrained=self.pretrained)
        work = workplace(self.out)
        partial = work.parent / f".{work.name}.partial"  # outlives a kill, and is deleted in the end
        with display(quiet=self.json) as show:
            embedded = embed(
                encoder,
                pairs,
                cache=self.cache.folder,
                cache_limit=self.cache.limit,
                progress=show.stage,
                partial=partial,
            )
        with new_folder(self.out, overwrite=self.overwrite, scratch=(partial,)) as folder:
            write_embeddings(embedded, pairs, folder)
        emit(
            {
                "out": str(self.out),
                "pairs": len(embedded),
                "images": len(embedded.image),
                "width": embedded.text.shape[1],
            },
            as_json=self.json,
            then=("audit", "--embeddings", self.out, "--out", f"{self.out}-audit"),
        )


def run(argv: Sequence[str]) -> None:
    parse(Embed, argv, prog="embed").run()
