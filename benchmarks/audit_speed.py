"""How long an audit takes, detector by detector, and how that grows; densities beside the published path.

    OMP_NUM_THREADS=1 python benchmarks/audit_speed.py [--pairs 1000 10000 100000] [--out runs/audit_speed]
    OMP_NUM_THREADS=1 python benchmarks/audit_speed.py --command --pairs 1000000
    OMP_NUM_THREADS=1 python benchmarks/audit_speed.py --images 3000 [--data SHARDS]

Pairs are drawn: five captions an image, captions of words with Zipf's frequencies, embeddings of 512 numbers in a
thousand soft clusters, URLs of a twentieth as many domains. A tenth of the smallest set, at least a thousand pairs, is
known to be clean. Times are CPU seconds of this process, memory is its peak; MinHash, a part of `contradictions`, is
timed by itself too, on the worst tenth of the pairs. Exponents are slopes of log time over log
pairs, between the last two sizes and over all. The published path of the density detectors compares, in batches of
1,024 pairs, images with images and captions and the reference with itself, sorted whole (2502.01385; commit 024f076).

`--command`: the embeddings are written as files, and `mithridate audit --embeddings` is run on them as a process of its
own; its wall and CPU seconds and its peak memory (resident, mapped files among it) are printed.
`--images`: the pixel detectors on as many pictures of 224 pixels, drawn (1/f noise with sharp shapes), or those of
`--data`. CPU seconds are also given per 100,000 pictures, in proportion to their number: what grows faster
(`recurring-patch` with the power 1.5, `residual-twins` up to 2) takes more than that.
"""

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import torch

from mithridate.auditing.audit import audit_embeddings
from mithridate.auditing.contradictions import Contradictions
from mithridate.auditing.corpus import Corpus, corpus_of
from mithridate.auditing.near_captions import near_captions
from mithridate.auditing.pixels import read_pixels
from mithridate.auditing.registry import DETECTORS, audit_detectors
from mithridate.data.arrays import working_array
from mithridate.data.images import decode, read_bytes, to_rgb
from mithridate.data.pairs import Pairs, make_pairs
from mithridate.data.read import read_pairs
from mithridate.encoder.embeddings import Embeddings, write_embeddings
from mithridate.randomness import stream

WIDTH, CAPTIONS, CLUSTERS, WORDS, BATCH, SIDE = 512, 5, 1000, 20_000, 1024, 224


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
    domain = rng.zipf(1.3, images) % max(1, n // 20)
    url = pa.array([f"https://img.site{domain[i]}.org/{i}.jpg" for i in index.tolist()])
    pairs = make_pairs([f"{name}/{i}.jpg" for i in index.tolist()], captions, salt=name.encode(), url=url)
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


def command(n: int, out: Path) -> dict[str, float]:
    """`mithridate audit` on n embedded pairs, in a process of its own: seconds, and GiB at its peak."""
    for name, count in (("corpus", n), ("clean", max(1000, min(n // 10, 5000)))):
        folder = out / f"{name}-{n}"
        if not folder.is_dir():
            folder.mkdir(parents=True)
            # in a process of its own: what this one holds would count as the command's peak
            drawing = multiprocessing.get_context("spawn").Process(target=write_drawn, args=(count, name, folder))
            drawing.start()
            drawing.join()
    words = ["audit", "--embeddings", out / f"corpus-{n}", "--clean", out / f"clean-{n}", "--out", out / f"audit-{n}"]
    run = [sys.executable, "-c", "import sys; from mithridate.cli import main; sys.exit(main(sys.argv[1:]))"]
    begin = time.perf_counter()
    process = subprocess.Popen([*run, *map(str, words), "--overwrite", "--json"])
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"mithridate audit failed with status {status}")
    seconds = {"wall seconds": time.perf_counter() - begin, "CPU seconds": used.ru_utime + used.ru_stime}
    return {**seconds, "peak memory, GiB": used.ru_maxrss / 2**20}


def write_drawn(n: int, name: str, folder: Path) -> None:
    """n pairs as `mithridate embed` leaves them."""
    pairs, embeddings = drawn(n, name)
    write_embeddings(embeddings, pairs, folder)


def photograph_like(count: int) -> np.ndarray:
    """Pictures of 1/f noise with ten sharp shapes each: (count, 224, 224, 3) uint8."""
    made = np.empty((count, SIDE, SIDE, 3), np.uint8)
    fx, fy = np.fft.rfftfreq(SIDE), np.fft.fftfreq(SIDE)
    fall = 1 / np.maximum(np.hypot(fy[:, None], fx), 1 / SIDE)
    for i, picture in enumerate(made):
        rng = stream(0, "audit speed picture", i)
        noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((3, SIDE, SIDE))) * fall, s=(SIDE, SIDE))
        noise += noise.mean(axis=0)  # channels of photographs go together
        picture[:] = np.clip(128 + 45 * noise / noise.std(), 0, 255).transpose(1, 2, 0)
        for _ in range(10):
            corners = (rng.integers(0, SIDE, 2) + rng.integers(-40, 40, (4, 2))).astype(np.int32)
            cv2.fillConvexPoly(picture, cv2.convexHull(corners), [int(c) for c in rng.integers(0, 256, 3)])
    return made


def photographs(data: str, count: int) -> np.ndarray:
    """The first pictures of a data set: (count, 224, 224, 3) uint8."""
    places = read_pairs(data).images[:count].to_pylist()
    found = [to_rgb(decode(read_bytes(place), place), place).resize((SIDE, SIDE)) for place in places]
    return np.stack([np.asarray(picture) for picture in found])


def pixel_detectors(pictures: np.ndarray) -> dict[str, float]:
    """CPU seconds of reading pictures and of each detector that looks at them, per 100,000."""
    m = len(pictures)
    pairs, embeddings = drawn(CAPTIONS * m, "pictures")
    begin = time.process_time()
    pixels = read_pixels(lambda rows: pictures[rows], m)
    row = {"reading": time.process_time() - begin}
    clean = embeddings.image_index >= m - m // 10
    corpus = Corpus(embeddings, clean, pairs, pixels)
    for name, detector in audit_detectors().items():
        if "pixels" in detector.needs or name == "contradictions":
            begin = time.process_time()
            detector.examine(corpus, stream(0, name))
            row[name] = time.process_time() - begin
    print(f"{m} pictures, {len(pixels.crop)} crops", flush=True)
    return {**row, "all": sum(row.values()), "all, per 100,000": sum(row.values()) * 100_000 / m}


def say(path: Path, name: str, row: dict[str, float], rows: dict[str, dict[str, float]]) -> None:
    """Print a row, and write down all."""
    rows[name] = row
    print(name, json.dumps({what: round(value, 2) for what, value in row.items()}), flush=True)
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--out", type=Path, default=Path("runs/audit_speed"))
    parser.add_argument("--command", action="store_true", help="the command on files, as for a million pairs")
    parser.add_argument("--images", type=int, default=0, help="the pixel detectors on so many pictures")
    parser.add_argument("--data", help="take these pictures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows: dict[str, dict[str, float]] = {}
    if options.images:
        made = photographs(options.data, options.images) if options.data else photograph_like(options.images)
        say(options.out / "pixels.json", str(len(made)), pixel_detectors(made), rows)
        return
    if options.command:
        for n in options.pairs:
            say(options.out / "command.json", str(n), command(n, options.out), rows)
        return
    for n in options.pairs:
        pairs, embeddings = drawn(n, "corpus")
        clean = drawn(max(1000, min(n // 10, 5000)), "clean")
        corpus = corpus_of(embeddings, clean[1], pairs=pairs, clean_pairs=clean[0], trained=True)
        row: dict[str, float] = {}
        print(f"{n} pairs drawn, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20} GiB", flush=True)
        for name, detector in audit_detectors().items():
            if corpus.lacks(detector.needs) is None:
                begin = time.process_time()
                detector.examine(corpus, stream(0, name))
                row[name] = time.process_time() - begin
        texts = pairs.text.take(pa.array(np.argsort(-corpus.mismatch[:n])[: n // 10])).to_pylist()
        begin = time.process_time()
        near_captions(texts, jaccard=Contradictions().jaccard)
        row["of contradictions: MinHash"] = time.process_time() - begin
        begin = time.process_time()
        audit_embeddings(pairs, embeddings, clean=clean)
        row["whole audit, encoder not trained on it"] = time.process_time() - begin
        if n >= BATCH:
            row |= {f"density: {name}": seconds for name, seconds in densities(corpus).items()}
        row["peak memory, GiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        say(options.out / "speed.json", str(n), row, rows)
    sizes = sorted(int(n) for n in rows)
    for name in rows[str(sizes[0])]:
        if len(sizes) > 1 and name != "peak memory, GiB":
            first, before, last = (rows[str(n)][name] for n in (sizes[0], sizes[-2], sizes[-1]))
            whole = np.log(last / first) / np.log(sizes[-1] / sizes[0])
            late = np.log(last / before) / np.log(sizes[-1] / sizes[-2])
            print(f"{name}: exponent {round(float(late), 2)} over the last decade, {round(float(whole), 2)} over all")


if __name__ == "__main__":
    main()
