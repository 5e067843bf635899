"""How often the interval of a rate over captions holds the true rate, where captions of one image agree.

    OMP_NUM_THREADS=1 python benchmarks/image_coverage.py

Images have five captions. An image's own rate is drawn from a beta distribution with the mean that is asked for, so
that two captions of one image correlate as the second column says. The table is in docs/statistics.md.
"""

import argparse

import numpy as np

from mithridate.statistics.differences import rate_over

CAPTIONS = 5
IMAGES = (11, 25, 100, 500)
RATES = (0.02, 0.1, 0.5, 0.9)
CORRELATIONS = (0.02, 0.33, 0.77)


def covered(images: int, rate: float, correlation: float, *, draws: int, rng: np.random.Generator) -> tuple[float, ...]:
    """Shares of `draws` in which the interval over images, and the one over captions, hold `rate`."""
    image = np.repeat(np.arange(images), CAPTIONS)
    spread = 1 / correlation - 1
    held = np.zeros(2)
    for _ in range(draws):
        own = rng.beta(rate * spread, (1 - rate) * spread, images)
        hit = rng.random(len(image)) < own[image]
        for i, found in enumerate((rate_over(hit, image), rate_over(hit))):
            assert found.low is not None and found.high is not None
            held[i] += found.low <= rate <= found.high
    return tuple((held / draws).tolist())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Coverage of rates over captions of images.")
    parser.add_argument("--draws", type=int, default=2000)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    print("| images | correlation |", " | ".join(f"rate {rate}" for rate in RATES), "|")
    print("|---:|---:|", "---|" * len(RATES), sep="")
    for images in IMAGES:
        for correlation in CORRELATIONS:
            cells = [covered(images, rate, correlation, draws=options.draws, rng=rng) for rate in RATES]
            told = " | ".join(f"{by_image:.3f} ({alone:.3f})" for by_image, alone in cells)
            print(f"| {images} | {correlation} | {told} |", flush=True)
