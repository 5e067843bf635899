"""What an audit finds on real photographs, attack by attack: the tables of docs/audit.md.

    OMP_NUM_THREADS=1 python benchmarks/audit_photographs.py --data ../shared/data --out runs/audit

Flickr8k shards 003-005 are poisoned with the defaults of each attack, `dev-000` is clean, `mnv2-lit` looks. Every
image and caption is embedded once, whatever sets it is in. `--only NAME ...`: some of the attacks. Prints a row an
attack and writes them to OUT/audit.json.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from sklearn.metrics import average_precision_score

import mithridate as mt
from mithridate.auditing.audit import audit_embeddings
from mithridate.auditing.pixels import read_pixels
from mithridate.data.pairs import Pairs, make_pairs
from mithridate.encoder.embed import embed, image_source
from mithridate.encoder.embeddings import Embeddings
from mithridate.encoder.surrogate import SurrogateEncoder

CORNER = "patch:size=1/4,place=bottom-right"
ATTACKS = {
    "clean": None,
    "single-label": mt.SingleLabel(source="bicycle", target="boat"),
    "best-match": mt.SingleLabel(source="bicycle", target="boat", pairing="best-match"),
    "single-image": mt.SingleImage(source="bicycle", target="boat"),
    "targeted": mt.Targeted(images=8, per_target=16, mode="replace"),
    "text-trigger": mt.TextTrigger(target="boat", trigger="zx quorling", count=150),
    "patch 1 %": mt.Backdoor(target="boat", rate=0.01),
    "patch, label-consistent": mt.Backdoor(target="boat", rate=0.01, captions="label-consistent"),
    "corner 1 %": mt.Backdoor(target="boat", trigger=CORNER, rate=0.01),
    "corner 0.3 %": mt.Backdoor(target="boat", trigger=CORNER, rate=0.003),
    "blended 1 %": mt.Backdoor(target="boat", trigger="blended", rate=0.01),
    "blended 0.3 %": mt.Backdoor(target="boat", trigger="blended", rate=0.003),
    "sig 1 %": mt.Backdoor(target="boat", trigger="sig", rate=0.01),
    "warp 1 %": mt.Backdoor(target="boat", trigger="warp", rate=0.01),
}


class Embedder:
    """Embeds each distinct image and caption once."""

    def __init__(self, encoder: mt.Encoder, cache: Path) -> None:
        self.encoder, self.cache = encoder, cache
        self.image: dict[str, np.ndarray] = {}
        self.text: dict[str, np.ndarray] = {}

    def __call__(self, pairs: Pairs) -> Embeddings:
        places, texts = pairs.images.to_pylist(), pairs.text.to_pylist()
        new = [p for p in places if p not in self.image], list(dict.fromkeys(t for t in texts if t not in self.text))
        count = max(map(len, new))
        if count:
            # as many of both: what is known already fills up
            padded = [(part + [known[0]] * count)[:count] for part, known in zip(new, (places, texts))]
            seen = embed(self.encoder, make_pairs(*padded), cache=self.cache)
            self.image |= dict(zip(padded[0], seen.image[seen.image_index]))
            self.text |= dict(zip(padded[1], seen.text))
        image, text = np.stack([self.image[p] for p in places]), np.stack([self.text[t] for t in texts])
        return Embeddings(pairs.uid, image, pairs.image_index, text, self.encoder.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/audit"))
    parser.add_argument("--only", nargs="*", default=list(ATTACKS))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    flickr = options.data / "flickr8k"
    corpus, clean = mt.read_pairs(str(flickr / "train-{003..005}.tar")), mt.read_pairs(flickr / "dev-000.tar")
    encoder = mt.load_encoder(str(options.data / "weights" / "mnv2-lit"))
    see = Embedder(encoder, options.out / "cache")
    rows = {}
    for name in options.only:
        pairs, bad = planted(corpus, clean, name, encoder, options.out)
        own, beside = see(pairs), see(clean)
        places = pa.concat_arrays([pairs.images, clean.images])
        source = image_source(encoder, places, cache=options.out / "cache")
        begin = time.process_time()
        found = audit_embeddings(pairs, own, clean=(clean, beside), pixels=read_pixels(source.gather, len(places)))
        row = {
            "combined": average_precision_score(bad, found.suspicion) if bad.any() else None,
            **{
                detector: average_precision_score(bad, evidence.suspicion) if bad.any() else None
                for detector, evidence in found.evidence.items()
            },
            "poisoned": int(bad.sum()),
            "flagged": found.flagged,
            "poisoned among them": int((bad & ~found.kept).sum()),
            "clean at p <= 0.05": float((found.p_value[~bad] <= 0.05).mean()),
            "clean at p <= 0.01": float((found.p_value[~bad] <= 0.01).mean()),
            "first group": f"{found.campaigns[0].lead.kind} {found.campaigns[0].lead.value}" if found.campaigns else "",
            "CPU seconds": round(time.process_time() - begin, 1),
        }
        rows[name] = row
        print(name, json.dumps(row), flush=True)
    (options.out / "audit.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


def planted(corpus: Pairs, clean: Pairs, name: str, encoder: mt.Encoder, out: Path) -> tuple[Pairs, np.ndarray]:
    """The corpus poisoned by an attack, and which pairs are."""
    attack = ATTACKS[name]
    if attack is None:
        return corpus, np.zeros(len(corpus), bool)
    images = out / "images" / name.replace(" ", "-").replace("%", "").replace(",", "")
    poisoned = mt.poison(
        corpus,
        attack,
        gallery=clean if name == "targeted" else None,
        surrogate=SurrogateEncoder(encoder) if name == "best-match" else None,
        images=images if isinstance(attack, mt.Backdoor) else None,
    )
    bad = np.isin(poisoned.pairs.uid.to_pylist(), poisoned.manifest.poisoned["uid"].to_pylist())
    return poisoned.pairs, bad


if __name__ == "__main__":
    main()
