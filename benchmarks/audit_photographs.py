"""What an audit finds on real photographs, attack by attack: the tables of docs/audit.md.

    OMP_NUM_THREADS=1 python benchmarks/audit_photographs.py --data ../shared/data --out runs/audit

Flickr8k shards 003-005 are poisoned with the defaults of each attack, `dev-000` is clean, `mnv2-lit` looks. Rows
"..., one caption" are of the same pictures with one caption each, and no caption or picture used twice by the attack:
nothing can be counted. Every image and caption is embedded once, whatever sets it is in. `--only NAME ...`: some of the
rows. Prints a row an attack and adds it to OUT/audit.json.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

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
BACKDOOR = mt.Backdoor(target="boat", rate=0.01)
LABEL = mt.SingleLabel(source="bicycle", target="boat")
ATTACKS = {
    "clean": None,
    "single-label": LABEL,
    "best-match": replace(LABEL, pairing="best-match"),
    "single-image": mt.SingleImage(source="bicycle", target="boat"),
    "targeted": mt.Targeted(images=8, per_target=16, classes=("bicycle", "dog", "person", "boat"), mode="replace"),
    "text-trigger": mt.TextTrigger(target="boat", trigger="zx quorling", count=150),
    "patch 1 %": BACKDOOR,
    "patch, label-consistent": replace(BACKDOOR, captions="label-consistent"),
    "corner 1 %": replace(BACKDOOR, trigger=CORNER),
    "corner 0.3 %": replace(BACKDOOR, trigger=CORNER, rate=0.003),
    "blended 1 %": replace(BACKDOOR, trigger="blended"),
    "blended 0.3 %": replace(BACKDOOR, trigger="blended", rate=0.003),
    "sig 1 %": replace(BACKDOOR, trigger="sig"),
    "warp 1 %": replace(BACKDOOR, trigger="warp"),
    "clean, one caption": None,
    "single-label, one caption": replace(LABEL, reuse=False, count=50),
    "best-match, one caption": replace(LABEL, reuse=False, count=50, pairing="best-match"),
    "text-trigger, one caption": mt.TextTrigger(target="boat", trigger="zx quorling", count=30),
    "patch 1 %, one caption": replace(BACKDOOR, reuse=False),
    "blended 1 %, one caption": replace(BACKDOOR, reuse=False, trigger="blended"),
    "clean 000-002": None,
}
BARS = {
    "single-label": {"combined": 0.80},
    "best-match": {"combined": 0.65},
    "text-trigger": {"combined": 0.80},
    "patch 1 %": {"combined": 0.65, "recurring-patch": 0.55, "echo": 0.50},
    "patch, label-consistent": {"recurring-patch": 0.55},
    "corner 1 %": {"combined": 0.95, "residual-twins": 0.95},
    "corner 0.3 %": {"residual-twins": 0.95},
    "blended 1 %": {"residual-twins": 0.95},
    "blended 0.3 %": {"residual-twins": 0.95},
    "sig 1 %": {"spectral-peak": 0.50},
    "warp 1 %": {"echo": 0.45},
    "targeted": {"contradictions": 0.95},
    "single-image": {"combined": 0.80, "contradictions": 0.95},
}
"""Average precision that each row must reach."""


class Embedder:
    """Embeds each distinct image and caption once, and keeps what it has for the next call."""

    def __init__(self, encoder: mt.Encoder, out: Path) -> None:
        self.encoder, self.cache, self.file = encoder, out / "cache", out / "embedded.npz"
        self.image: dict[str, np.ndarray] = {}
        self.text: dict[str, np.ndarray] = {}
        if self.file.is_file():
            kept = np.load(self.file, allow_pickle=False)
            self.image = dict(zip(kept["places"].tolist(), kept["image"]))
            self.text = dict(zip(kept["texts"].tolist(), kept["text"]))

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
            kept: dict[str, Any] = {"image": np.stack([*self.image.values()]), "text": np.stack([*self.text.values()])}
            np.savez(self.file, places=np.array([*self.image]), texts=np.array([*self.text]), **kept)
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
    known = mt.read_pairs(flickr / "dev-000.tar")
    encoder = mt.load_encoder(str(options.data / "weights" / "mnv2-lit"))
    see = Embedder(encoder, options.out)
    kept = options.out / "audit.json"
    rows = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    for name in options.only:
        shards = "000..002" if name == "clean 000-002" else "003..005"
        corpus, clean = mt.read_pairs(str(flickr / f"train-{{{shards}}}.tar")), known
        if name.endswith("one caption"):
            corpus, clean = (p.take(np.unique(p.image_index, return_index=True)[1]) for p in (corpus, clean))
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
            "below its bar": sorted(
                key
                for key, bar in BARS.get(name, {}).items()
                if average_precision_score(bad, found.suspicion if key == "combined" else found.evidence[key].suspicion)
                < bar
            ),
            "poisoned": int(bad.sum()),
            "flagged": found.flagged,
            "poisoned among them": int((bad & ~found.kept).sum()),
            "clean at p <= 0.05": float((found.p_value[~bad] <= 0.05).mean()),
            "clean at p <= 0.01": float((found.p_value[~bad] <= 0.01).mean()),
            "warnings": list(found.notes),
            "first group": f"{found.campaigns[0].lead.kind} {found.campaigns[0].lead.value}" if found.campaigns else "",
            "BH at 0.1 on mismatch: rejected": found.rejected,
            "strongest dealt out": round(found.null, 1),
            "CPU seconds": round(time.process_time() - begin, 1),
        }
        rows[name] = row
        print(name, json.dumps(row), flush=True)
        kept.write_text(json.dumps(rows, indent=1), encoding="utf-8")


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
        surrogate=SurrogateEncoder(encoder) if name.startswith("best-match") else None,
        images=images if isinstance(attack, mt.Backdoor) else None,
    )
    bad = np.isin(poisoned.pairs.uid.to_pylist(), poisoned.manifest.poisoned["uid"].to_pylist())
    return poisoned.pairs, bad


if __name__ == "__main__":
    main()
