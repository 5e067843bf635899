"""What large data sets would cost, from published throughputs of GPUs and unit costs measured by `bench.py`.

    python benchmarks/cost.py [--decode-ms 1.7] [--pixels-ms 1.5] [--cosine-us 2.0]

Nothing is measured here. Assumptions: GPUs add up (64 are eight machines of eight); one pass over all pairs; ViT-B/32
trains 700 pairs/s on an A100 (published: 634 to 729, OpenCLIP) and embeds 2,500 on one A100, 7,000 on eight, which
resizing limits there (clip-retrieval); a decoded image of 224 px takes 150,528 bytes; sixteen processor cores a GPU.
"""

import argparse

PAIRS = {"CC3M": 3_000_000, "CC12M": 12_000_000, "LAION-400M": 400_000_000, "DataComp-1B": 1_400_000_000}
GPUS = (1, 8, 64)
TRAINED = 700  # pairs/s and A100
EMBEDDED = {1: 2500, 8: 7000, 64: 56_000}  # pairs/s
CORES = 16
IMAGE_BYTES = 224 * 224 * 3


def duration(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decode-ms", type=float, default=1.7, help="JPEG to 224 px, one core")
    parser.add_argument("--pixels-ms", type=float, default=1.5, help="what an audit reads of an image, one core")
    parser.add_argument("--cosine-us", type=float, default=2.0, help="cosine distance of a pair, one core")
    options = parser.parse_args()
    print("| pairs | what | 1 GPU | 8 GPUs | 64 GPUs |\n|---|---|---|---|---|")
    for name, n in PAIRS.items():
        every = {
            "train, an epoch, ViT-B/32": [n / (TRAINED * gpus) for gpus in GPUS],
            "embed, ViT-B/32": [n / EMBEDDED[gpus] for gpus in GPUS],
            f"decode all JPEGs, {CORES} cores a GPU": [n * options.decode_ms / 1e3 / (CORES * gpus) for gpus in GPUS],
            f"read pixels for an audit, {CORES} cores a GPU": [n * options.pixels_ms / 1e3 / (CORES * g) for g in GPUS],
            "filter by cosine distance, one core": [n * options.cosine_us / 1e6] * len(GPUS),
        }
        for what, seconds in every.items():
            print(f"| {name} | {what} | {' | '.join(map(duration, seconds))} |")
        print(f"| {name} | image cache of 224 px on disk | {n * IMAGE_BYTES / 1e12:.2f} TB | | |")


if __name__ == "__main__":
    main()
