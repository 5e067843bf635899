"""How long an audit of embeddings takes, detector by detector, and how that grows; densities beside the published path.

    OMP_NUM_THREADS=1 python benchmarks/audit_speed.py [--pairs 1000 10000 100000] [--out runs/audit_speed]

Pairs are drawn: five captions an image, captions of words with Zipf's frequencies, embeddings of 512 numbers in a
thousand soft clusters. A tenth of the smallest set, at least a thousand pairs, is known to be clean. Times are CPU
seconds of this process, memory is its peak. Exponents are slopes of log time over log pairs, between the last two sizes
and over all. The published path of the density detectors compares, in batches of 1,024 pairs, images with images and
captions and the reference with itself, sorted whole (2502.01385; commit 024f076).
"""

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
import torch

from mithridate.auditing.audit import audit_embeddings
from mithridate.auditing.corpus import Corpus, corpus_of
from mithridate.auditing.registry import DETECTORS, audit_detectors
from mithridate.data.arrays import working_array
from mithridate.data.pairs import Pairs, make_pairs
from mithridate.encoder.embeddings import Embeddings
from mithridate.randomness import stream

WIDTH, CAPTIONS, CLUSTERS, WORDS, BATCH = 512, 5, 1000, 20_000, 1024


def drawn(n: int, name: str) -> tuple[Pairs, Embeddings]:
    """n pairs."""
    rng = stream(0, f"audit speed {name}", n)
    images = max(1, n // CAPTIONS)
    middle = stream(0, "audit speed clusters").standard_normal((CLUSTERS, WIDTH), np.float32)
    image = middle[rng.integers(CLUSTERS, size=images)] + rng.standard_normal((images, WIDTH), np.float32)
    length = np.linalg.norm(image, axis=1)
    image /= length[:, None]
    index = np.arange(n) % images
    text = working_array((n, WIDTH))
    for low in range(0, n, 8192):
        part = image[index[low : low + 8192]] + 0.06 * rng.standard_normal((len(index[low : low + 8192]), WIDTH))
        text[low : low + 8192] = part / np.linalg.norm(part, axis=1, keepdims=True)
    words = np.minimum(rng.zipf(1.3, (n, 10)), WORDS)
    captions = [" ".join(f"w{word}" for word in row) for row in words.tolist()]
    pairs = make_pairs([f"{name}/{i}.jpg" for i in index.tolist()], captions, salt=name.encode())
    return pairs, Embeddings(pairs.uid, image, index, text, "drawn", "drawn", length, np.ones(n, np.float32))


def published(image: torch.Tensor, text: torch.Tensor, k: int = 16) -> None:
    """What one batch costs in the published code: DAO, of which the others are parts."""
    reference = torch.cat([image, text])
    apart = torch.cat([torch.cdist(image, image), torch.cdist(image, text)], dim=1)
    own = torch.zeros(apart.shape, dtype=torch.bool)
    own.fill_diagonal_(True)
    near, which = torch.sort(apart[~own].view(len(image), -1), dim=1)
    inside = torch.sort(torch.cdist(reference, reference), dim=1)[0]
    chosen = torch.stack([torch.index_select(inside, 0, row) for row in which[:, :k]])[:, :, k]
    (near[:, k, None] / chosen).mean(dim=1)


def densities(corpus: Corpus) -> dict[str, float]:
    """CPU seconds of each density detector, by one reference as the published code has, and of the published path."""
    found = {}
    for name in ("k-distance", "slof", "dao"):
        begin = time.process_time()
        DETECTORS[name](draws=1).examine(corpus, stream(0, "density"))  # type: ignore[call-arg]
        found[name] = time.process_time() - begin
    e = corpus.embeddings
    lengths = np.ones(len(e.image)) if e.image_length is None else e.image_length
    begin, few = time.process_time(), min(len(e), 8 * BATCH)
    for low in range(0, few - BATCH + 1, BATCH):
        index = e.image_index[low : low + BATCH]
        image = torch.from_numpy(e.image[index] * lengths[index, None]).float()
        published(image, torch.from_numpy(np.asarray(e.text[low : low + BATCH])))
    found["published, of as many pairs"] = (time.process_time() - begin) / max(few // BATCH * BATCH, 1) * len(e)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--out", type=Path, default=Path("runs/audit_speed"))
    parser.add_argument("--whole", action="store_true", help="the whole audit alone, as for a million pairs")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows: dict[str, dict[str, float]] = {}
    for n in options.pairs:
        pairs, embeddings = drawn(n, "corpus")
        clean = drawn(max(1000, min(n // 10, 5000)), "clean")
        corpus = corpus_of(embeddings, clean[1], pairs=pairs, clean_pairs=clean[0], trained=True)
        row: dict[str, float] = {}
        print(f"{n} pairs drawn, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20} GiB", flush=True)
        for name, detector in () if options.whole else audit_detectors().items():
            if corpus.lacks(detector.needs) is None:
                begin = time.process_time()
                detector.examine(corpus, stream(0, name))
                row[name] = time.process_time() - begin
        begin = time.process_time()
        audit_embeddings(pairs, embeddings, clean=clean)
        row["whole audit, encoder not trained on it"] = time.process_time() - begin
        if n >= BATCH and not options.whole:
            row |= {f"density: {name}": seconds for name, seconds in densities(corpus).items()}
        row["peak memory, GiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        rows[str(n)] = row
        print(n, json.dumps({name: round(value, 2) for name, value in row.items()}), flush=True)
        (options.out / "speed.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    sizes = sorted(int(n) for n in rows)
    for name in rows[str(sizes[0])]:
        if len(sizes) > 1 and name != "peak memory, GiB":
            first, before, last = (rows[str(n)][name] for n in (sizes[0], sizes[-2], sizes[-1]))
            whole = np.log(last / first) / np.log(sizes[-1] / sizes[0])
            late = np.log(last / before) / np.log(sizes[-1] / sizes[-2])
            print(f"{name}: exponent {round(float(late), 2)} over the last decade, {round(float(whole), 2)} over all")


if __name__ == "__main__":
    main()
