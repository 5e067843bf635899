"""Figures of numbers that are there already: rank distributions, densities of distances."""

import numpy as np
from jaxtyping import Float, Int

from mithridate.report.document import Curve, Figure

_BINS = 60


def rank_figure(name: str, title: str, ranks: dict[str, Int[np.ndarray, " q"]], note: str) -> Figure:
    """Share of queries whose best target stands at most at each position."""
    curves = []
    for label, values in ranks.items():
        x, counts = np.unique(values + 1, return_counts=True)  # 1-based: the axis is logarithmic
        curves.append(Curve(label, tuple(map(float, x)), tuple(map(float, counts.cumsum() / len(values)))))
    return Figure(
        name, title, "step", "position of the best target (1 = first)", "share of queries", tuple(curves), note
    )


def density_figure(name: str, title: str, distances: dict[str, Float[np.ndarray, " n"]], note: str) -> Figure:
    """Densities of cosine distances, each integrating to one."""
    everything = np.concatenate(list(distances.values()))
    edges = np.linspace(everything.min(), everything.max() + 1e-6, _BINS + 1)
    curves = tuple(
        Curve(label, tuple(edges[:-1].tolist()), tuple(np.histogram(values, edges, density=True)[0].tolist()))
        for label, values in distances.items()
    )
    return Figure(name, title, "density", "cosine distance of image and caption", "density", curves, note)
