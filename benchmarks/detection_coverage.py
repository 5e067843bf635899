"""How often the 95 % intervals of a detector's measures hold the truth, over images and over pairs.

    OMP_NUM_THREADS=1 python benchmarks/detection_coverage.py [--draws N]

Drawn worlds: images of five captions whose suspicions agree within an image (standard deviations 0.8 between images,
0.6 within); poisoned ones lie higher by a shift. The truth is the value in one world of 300 times as many images.
Prints the table of docs/filtering.md.
"""

import argparse

import numpy as np

from mithridate.metrics.detection import average_precision, detection, roc_area
from mithridate.statistics.estimate import Estimate

CAPTIONS = 5
WORLDS = ((10, 500, 2.0), (20, 300, 1.2), (20, 300, 3.0), (100, 600, 1.2))  # poisoned, clean images, shift


def draw(rng: np.random.Generator, poisoned: int, clean: int, shift: float) -> tuple[np.ndarray, ...]:
    image = np.repeat(np.arange(poisoned + clean), CAPTIONS)
    truth = image < poisoned
    own = 0.8 * rng.normal(size=poisoned + clean)[image] + 0.6 * rng.normal(size=len(image))
    return own + shift * truth, truth, image


def holds(estimate: Estimate, value: float) -> bool:
    assert estimate.low is not None and estimate.high is not None
    return bool(estimate.low <= value <= estimate.high)


def main() -> None:
    parser = argparse.ArgumentParser(description="Coverage of the intervals of AUROC and average precision.")
    parser.add_argument("--draws", type=int, default=2000)
    draws = parser.parse_args().draws
    rng = np.random.default_rng(0)
    print("| poisoned, clean images | AUROC | covered | pairs as units | average precision | covered |")
    print("|---|---:|---:|---:|---:|---:|")
    for poisoned, clean, shift in WORLDS:
        suspicion, truth, _ = draw(np.random.default_rng(99), 300 * poisoned, 300 * clean, shift)
        area, precision = roc_area(suspicion, truth)[0], average_precision(suspicion, truth)[0]
        held = np.zeros(3)
        for _ in range(draws):
            suspicion, truth, image = draw(rng, poisoned, clean, shift)
            found = detection(suspicion, truth, image, budgets=(), recalls=())
            pairs = detection(suspicion, truth, budgets=(), recalls=())
            held += [holds(found.auroc, area), holds(pairs.auroc, area), holds(found.average_precision, precision)]
        a, b, c = held / draws
        print(f"| {poisoned}, {clean} | {area:.3f} | {a:.3f} | {b:.3f} | {precision:.3f} | {c:.3f} |", flush=True)


if __name__ == "__main__":
    main()
