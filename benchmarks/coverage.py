"""How often the 95 % intervals hold the truth: exact for rates, simulated for means, seeds and differences.

    OMP_NUM_THREADS=1 python benchmarks/coverage.py [--draws N]

Prints the tables of docs/statistics.md. Rates: every outcome is counted, so no figure has simulation noise.
"""

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np

from mithridate.statistics.differences import cluster_bootstrap, paired_difference
from mithridate.statistics.estimate import Estimate
from mithridate.statistics.intervals import bootstrap_mean, wilson
from mithridate.statistics.seeds import hierarchical_bootstrap, hierarchical_difference

RATES = np.linspace(0.01, 0.99, 981)
SIZES = (25, 50, 100, 125, 250, 500, 1000, 5000)
LOW, HIGH = 0.93, 0.97
RESAMPLES = 999

Draw = Callable[[np.random.Generator, int], np.ndarray]


def exact_coverage(rates: np.ndarray, n: int) -> np.ndarray:
    """Probability that Wilson's interval of n units holds each rate: a sum over all numbers of successes."""
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    outcomes = np.arange(n + 1)
    ways = logs[n] - logs - logs[::-1]
    ends = [wilson(int(k), n) for k in outcomes]
    low, high = np.array([e.low for e in ends], float), np.array([e.high for e in ends], float)
    found = np.empty(len(rates))
    for i, p in enumerate(rates):
        held = (low <= p) & (p <= high)
        found[i] = np.exp(ways[held] + outcomes[held] * np.log(p) + (n - outcomes[held]) * np.log1p(-p)).sum()
    return found


def neighbourhood(n: int, width: float = 0.5, points: int = 101) -> np.ndarray:
    """Coverage at 197 rates from 0.01 to 0.99, each averaged over `width` standard errors to either side."""
    found = []
    for p in np.linspace(0.01, 0.99, 197):
        near = p + width * np.sqrt(p * (1 - p) / n) * np.linspace(-1, 1, points)
        found.append(exact_coverage(near[(near > 0) & (near < 1)], n).mean())
    return np.array(found)


def simulated(truth: float, draws: int, once: Callable[[], Estimate]) -> float:
    """Share of `draws` intervals that hold `truth`."""
    inside = 0
    for _ in range(draws):
        found = once()
        assert found.low is not None and found.high is not None
        inside += found.low <= truth + 1e-12 and truth <= found.high + 1e-12
    return inside / draws


def rank_distributions() -> dict[str, tuple[Draw, float]]:
    """Ranks as evaluations give them, with their true means."""
    many = np.floor(np.exp(np.random.default_rng(1).normal(1, 1, 4_000_000)))
    return {
        "uniform on 0-499": (lambda rng, n: rng.integers(0, 500, n), 249.5),
        "geometric, mean 3": (lambda rng, n: rng.geometric(0.25, n) - 1, 3.0),
        "log-normal, sigma 1": (lambda rng, n: np.floor(np.exp(rng.normal(1, 1, n))), float(many.mean())),
        "0 in 90 %, else uniform": (lambda rng, n: np.where(rng.random(n) < 0.9, 0, rng.integers(0, 500, n)), 24.95),
        "share of 10, mean 0.2": (lambda rng, n: rng.binomial(10, rng.beta(0.5, 2, n)) / 10, 0.2),
    }


def rates(sizes: tuple[int, ...]) -> None:
    print("| n | mean | least | most | in 93-97 % | near a rate |\n|---:|---:|---:|---:|---:|---:|")
    for n in sizes:
        c = exact_coverage(RATES, n)
        near = neighbourhood(n) if n <= 1000 else neighbourhood(n, points=21)
        inside = ((c >= LOW) & (c <= HIGH)).mean()
        print(
            f"| {n} | {c.mean():.3f} | {c.min():.3f} at {RATES[c.argmin()]:.3f} | {c.max():.3f} at "
            f"{RATES[c.argmax()]:.3f} | {inside:.1%} | {near.min():.3f} to {near.max():.3f} |",
            flush=True,
        )


def means(rng: np.random.Generator, draws: int) -> None:
    sizes = (25, 50, 125, 500)
    print(f"| mean of | {' | '.join(f'n = {n}' for n in sizes)} |\n|---|{'---:|' * len(sizes)}")
    for name, (draw, truth) in rank_distributions().items():

        def once(n: int, draw: Draw = draw) -> Estimate:
            return bootstrap_mean(draw(rng, n), rng=rng, resamples=RESAMPLES)

        row = [simulated(truth, draws, partial(once, n)) for n in sizes]
        print(f"| {name} | {' | '.join(f'{c:.3f}' for c in row)} |", flush=True)


def levels(rng: np.random.Generator, draws: int) -> None:
    print("| what | coverage |\n|---|---:|")

    def captions(images: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        image = np.repeat(np.arange(images), 5)
        logit = rng.normal(size=images)[image]
        before, after = (rng.normal(size=len(image)) + logit > 0 for _ in range(2))
        return image, before, after

    def clustered(images: int) -> Estimate:
        image, before, _ = captions(images)
        return cluster_bootstrap(before, image, rng=rng, resamples=RESAMPLES)

    def ignoring(images: int) -> Estimate:
        return bootstrap_mean(captions(images)[1], rng=rng, resamples=RESAMPLES)

    def difference(images: int) -> Estimate:
        image, before, after = captions(images)
        return paired_difference(after, before, rng=rng, cluster=image, resamples=RESAMPLES, flips=99).estimate

    for images in (25, 100):
        told = {
            f"rate over {images} images of 5 captions, images resampled": (clustered, 0.5),
            "the same, captions resampled as if independent": (ignoring, 0.5),
            "paired difference of two such rates, images resampled": (difference, 0.0),
        }
        for what, (once, truth) in told.items():
            print(f"| {what} | {simulated(truth, draws, partial(once, images)):.3f} |", flush=True)
    few = draws // 4
    for seeds in (2, 3, 5):
        for spread, (of_seed, of_query) in {"seeds differ": (1, 1), "queries differ": (0.1, 1)}.items():

            def runs(query: np.ndarray, seeds: int = seeds, of_seed: float = of_seed) -> list[np.ndarray]:
                return list(of_seed * rng.normal(size=(seeds, 1)) + query + rng.normal(size=(seeds, len(query))))

            def mean(of_query: float = of_query, runs: Callable = runs) -> Estimate:
                return hierarchical_bootstrap(runs(of_query * rng.normal(size=60)), rng=rng, resamples=499)

            def gap(of_query: float = of_query, runs: Callable = runs) -> Estimate:
                query = of_query * rng.normal(size=60)
                return hierarchical_difference(runs(query), runs(query), rng=rng, resamples=499).estimate

            print(f"| {seeds} seeds x 60 queries, {spread}: mean | {simulated(0, few, mean):.3f} |", flush=True)
            print(
                f"| {seeds} seeds x 60 queries, {spread}: difference of two | {simulated(0, few, gap):.3f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    draws = parser.parse_args().draws
    rng = np.random.default_rng(0)
    rates(SIZES)
    print(f"\nSimulated {draws} times: two standard errors are {2 * np.sqrt(0.95 * 0.05 / draws):.3f}.\n")
    means(rng, draws)
    print()
    levels(rng, draws)


if __name__ == "__main__":
    main()
