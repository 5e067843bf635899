"""What is fast, against what a user would run instead. `make bench`, `make bench-quick`.

    python benchmarks/bench.py [--quick] [--only WORD ...] [--out runs/bench] [--photographs SHARDS] [--encoder E]

Prints a table, and writes it as bench.json and bench.md. With photographs (tar shards or a table) the JPEGs are made
from them, enlarged to the sizes named, and else drawn; with an encoder the effect of scaled decoding on embeddings is
told, and its towers are run. The heavy row (50,000 x 50,000) runs without --quick only, once each side.
"""

import argparse
import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from harness import Row, compare, machine, table, write
from PIL import Image

import mithridate as mt
from mithridate.data.images import decode, read_bytes
from mithridate.data.jpeg import scaled_decoder
from mithridate.encoder.encoder import load_encoder


class Pictures:
    """RGB pictures of any size, from photographs where there are some."""

    def __init__(self, photographs: str | None, count: int) -> None:
        if photographs is None:
            rng = np.random.default_rng(0)
            cells = [rng.integers(0, 256, (12, 16, 3), dtype=np.uint8) for _ in range(count)]
            self.images = [Image.fromarray(cell).resize((224, 168), Image.Resampling.BICUBIC) for cell in cells]
        else:
            places = mt.read_pairs(photographs).images.to_pylist()[:count]
            self.images = [decode(read_bytes(place), place) for place in places]

    def jpegs(self, wide: int, tall: int) -> list[bytes]:
        """Enlarged, with a fine grain, at quality 90."""
        rng, coded = np.random.default_rng(1), []
        for image in self.images:
            large = np.asarray(image.resize((wide, tall), Image.Resampling.LANCZOS), np.int16)
            grained = np.clip(large + rng.integers(-4, 5, (tall, wide, 1)), 0, 255).astype(np.uint8)
            file = io.BytesIO()
            Image.fromarray(grained).save(file, "JPEG", quality=90)
            coded.append(file.getvalue())
        return coded


def jpeg_rows(options: argparse.Namespace) -> Iterator[Row]:
    """One thread: JPEG to 224-px pixels, against Pillow's decode and bicubic resize."""
    encoder = load_encoder(options.encoder or "ViT-B-32")
    decoder = scaled_decoder(encoder.recipe)
    assert decoder is not None  # every encoder of CLIP's own kind has one
    pictures = Pictures(options.photographs, 24 if options.quick else 100)
    for wide, tall in ((500, 375), (1024, 768)):
        raws = pictures.jpegs(wide, tall)

        def exact(raws=raws) -> list[np.ndarray]:
            return [encoder.to_pixels(decode(raw)) for raw in raws]

        def ours(raws=raws) -> list[np.ndarray]:
            found = []
            for raw in raws:
                pixels = decoder(raw)
                assert pixels is not None
                found.append(pixels)
            return found

        def decoded(raws=raws) -> None:
            for raw in raws:
                decode(raw)

        whole, scaled = np.stack(exact()), np.stack(ours())
        error = np.mean((whole.astype(np.float32) - scaled) ** 2, axis=(1, 2, 3))
        decibels = 10 * np.log10(255**2 / error)
        note = f"{np.median(decibels):.1f} dB, at least {decibels.min():.1f}"
        if options.encoder:
            with torch.no_grad():
                one, other = (encoder.encode_image(torch.from_numpy(x)) for x in (whole, scaled))
            cosine = (one * other).sum(dim=1)
            note += f"; cosine of embeddings {cosine.mean():.5f}, at least {cosine.min():.5f}"
        yield compare(
            f"{len(raws)} JPEGs of {wide}x{tall} to 224 px",
            ours,
            exact,
            "Pillow: decode, bicubic",
            floor=decoded,
            floor_name="Pillow: decode alone",
            note=note,
        )


def search_rows(options: argparse.Namespace) -> Iterator[Row]:
    """Ranks and matching, of random unit vectors 512 wide."""
    from ranks import TARGETS, embeddings, loop, product

    from mithridate.metrics.ranks import best_ranks, ranks_both_ways
    from mithridate.training.pool import nearest

    rng = np.random.default_rng(0)
    n = 1500 if options.quick else 5000
    query, gallery = embeddings(n, rng), embeddings(n, rng)
    targets, own = np.sort(rng.choice(n, TARGETS, replace=False)), rng.permutation(n)
    equal = np.mean(best_ranks(query, gallery, targets) == loop(query, gallery, targets))
    yield compare(
        f"Hit@K, MinRank: {n:,} x {n:,}, {TARGETS} targets",
        lambda: best_ranks(query, gallery, targets),
        lambda: loop(query, gallery, targets),
        "argsort and search per query",
        floor=lambda: product(query, gallery),
        floor_name="matrix product",
        rounds=3 if options.quick else 5,
        note=f"{equal:.1%} equal ranks",
    )
    yield compare(
        f"recall both ways: {n:,} x {n:,}",
        lambda: ranks_both_ways(query, gallery, own),
        lambda: full_recall(query, gallery, own),
        "whole similarity matrix, top-k both ways",
        floor=lambda: product(query, gallery),
        floor_name="matrix product",
    )
    size = 20_000 if options.quick else 50_000
    pool, left = (torch.from_numpy(embeddings(k, rng)) for k in (size, 512))

    def bare() -> None:
        for start in range(0, size, 2048):
            torch.mm(left, pool[start : start + 2048].T)

    same = (nearest(left, pool) == published_match(left, pool)).float().mean()
    yield compare(
        f"RoCLIP's matching: 512 in a pool of {size:,}",
        lambda: nearest(left, pool),
        lambda: published_match(left, pool),
        "bank cloned and normalised, all similarities, argmax",
        floor=bare,
        floor_name="product",
        note=f"{same:.2%} the same neighbour",
    )
    if not options.quick:
        query, gallery = embeddings(50_000, rng), embeddings(50_000, rng)
        yield compare(
            f"Hit@K, MinRank: 50,000 x 50,000, {TARGETS} targets",
            lambda: best_ranks(query, gallery, targets),
            lambda: product(query, gallery),
            "matrix product alone",
            rounds=1,
            warm=False,
        )


def full_recall(query: np.ndarray, gallery: np.ndarray, own: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Recall@10 both ways from the whole matrix."""
    similarity = torch.from_numpy(query) @ torch.from_numpy(gallery).T
    index, back = torch.from_numpy(own), torch.from_numpy(np.argsort(own))
    found = (similarity.topk(10, dim=1).indices == index[:, None]).any(dim=1)
    other = (similarity.T.topk(10, dim=1).indices == back[:, None]).any(dim=1)
    return found.float().mean(), other.float().mean()


def published_match(query: torch.Tensor, pool: torch.Tensor) -> torch.Tensor:
    """The bank is cloned and normalised in every call, and all similarities are there at once."""
    bank = torch.nn.functional.normalize(pool.clone(), dim=1)
    similarity = torch.nn.functional.normalize(query, dim=1) @ bank.T
    return similarity.argmax(dim=1)


def training_rows(options: argparse.Namespace) -> Iterator[Row]:
    from training_side import rows

    with tempfile.TemporaryDirectory() as folder:
        yield from rows(Path(folder), Pictures(options.photographs, 64), quick=options.quick)


def tower_rows(options: argparse.Namespace) -> Iterator[Row]:
    from tower_side import rows

    yield from rows(options.encoder, quick=options.quick)


def gpu_rows(options: argparse.Namespace) -> Iterator[Row]:
    from training_side import gpu_rows as rows

    if not torch.cuda.is_available():
        print("GPU left out: torch finds none")
        return
    with tempfile.TemporaryDirectory() as folder:
        yield from rows(Path(folder), Pictures(options.photographs, 64), quick=options.quick)


def start_rows(options: argparse.Namespace) -> Iterator[Row]:
    """How long a command takes before it does anything."""
    import subprocess
    import sys

    def started(*arguments: str) -> Callable[[], None]:
        def job() -> None:
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)

        return job

    for arguments in (("--help",), ("data", "describe", "--help"), ("poison", "--help"), ("report", "--help")):
        yield compare(
            f"mithridate {' '.join(arguments)}",
            started("-m", "mithridate", *arguments),
            started("-c", "import torch"),
            "import torch",
            floor=started("-c", "pass"),
            floor_name="python alone",
            rounds=3 if options.quick else 5,
        )


GROUPS = {
    "jpeg": jpeg_rows,
    "search": search_rows,
    "towers": tower_rows,
    "training": training_rows,
    "gpu": gpu_rows,
    "start": start_rows,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, without the heavy rows")
    parser.add_argument("--only", nargs="*", choices=list(GROUPS), help="groups of rows")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--photographs", help="shards or a table whose images become the JPEGs")
    parser.add_argument("--encoder", help="to tell the effect of scaled decoding on embeddings, and to run")
    options = parser.parse_args()
    rows: list[Row] = []
    for name in options.only or GROUPS:
        for row in GROUPS[name](options):
            print(f"{row.what}: {row.ratio} times {row.alternative}", flush=True)
            rows.append(row)
            write(rows, options.out)  # what is measured stays, whatever comes after
    print(f"\n{machine()}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
