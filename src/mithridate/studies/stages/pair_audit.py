"""What an audit says of pairs before they are trained on."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from mithridate.auditing.audit import AuditOptions, audit_embeddings
from mithridate.auditing.audit_files import summary
from mithridate.auditing.evidence import Detector
from mithridate.auditing.pixels import read_pixels
from mithridate.data.jpeg import decoding
from mithridate.encoder.embed import image_source
from mithridate.studies.stages.stage import Stage

if TYPE_CHECKING:
    from mithridate.studies.stages.embedded_pairs import EmbeddedPairs
    from mithridate.studies.store import Store

SCORES, FOUND = "scores.npz", "found.json"


@dataclass(frozen=True)
class PairAudit(Stage):
    """The audit of `embedded` pairs, whose images it reads too, held against `clean` pairs under the same encoder."""

    embedded: "EmbeddedPairs"
    clean: "EmbeddedPairs"
    detectors: tuple[Detector, ...]
    seed: int

    kind: ClassVar[str] = "audits"
    work: ClassVar[str | None] = "audits"

    def run(self, store: "Store") -> None:
        """Run the detectors; ranking and proposal are written, with the cosine distance beside them."""
        with store.new(self) as folder:
            pairs, embedded = self.embedded.pairs.read(store), self.embedded.read(store)
            clean = self.clean.pairs.read(store), self.clean.read(store)
            encoder = self.embedded.encoder.load(store)
            places = pa.concat_arrays([pairs.images, clean[0].images])
            source = image_source(encoder, places, cache=store.cache(self.embedded.pairs), limit=store.cache_limit)
            pixels = read_pixels(source.gather, len(places))
            running = {detector.name: detector for detector in self.detectors}
            options = AuditOptions(detectors=running, seed=self.seed)
            found = audit_embeddings(pairs, embedded, clean=clean, pixels=pixels, options=options)
            scores = {"suspicion": found.suspicion, "cosine-distance": 1 - embedded.similarity()}
            np.savez_compressed(folder / SCORES, kept=found.kept, image_index=embedded.image_index, **scores)  # type: ignore[arg-type]
            (folder / FOUND).write_text(json.dumps(summary(found)), encoding="utf-8")

    def scores(self, store: "Store") -> dict[str, np.ndarray]:
        """Of each pair `suspicion`, `cosine-distance`, `kept` and `image_index`."""
        with np.load(store.folder(self) / SCORES, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}

    def record(self, store: "Store") -> dict[str, Any]:
        """Verdict and groups."""
        return json.loads((store.folder(self) / FOUND).read_text(encoding="utf-8"))

    def conditions(self) -> dict[str, str]:
        return {"decoding": decoding()}
