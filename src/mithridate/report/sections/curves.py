"""Figures of numbers that are there already: rank distributions, densities."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from mithridate.evaluation.measurement import Distribution
from mithridate.report.document import Curve, Figure, Mark

_BINS = 60


def rank_figure(name: str, title: str, ranks: Mapping[str, Int[np.ndarray, " _"]], note: str) -> Figure:
    """Share of queries whose best target stands at most at each position."""
    curves = []
    for label, values in ranks.items():
        x, counts = np.unique(values + 1, return_counts=True)  # 1-based: the axis is logarithmic
        curves.append(Curve(label, tuple(map(float, x)), tuple(map(float, counts.cumsum() / len(values)))))
    return Figure(
        name, title, "step", "position of the best target (1 = first)", "share of queries", tuple(curves), note
    )


def density_figure(
    name: str,
    title: str,
    x_label: str,
    values: Mapping[str, Float[np.ndarray, " _"]],
    note: str,
    *,
    marks: tuple[Mark, ...] = (),
) -> Figure:
    """One density a label, each integrating to one, over the same bins."""
    everything = np.concatenate(list(values.values()))
    edges = np.linspace(everything.min(), everything.max() + 1e-6, _BINS + 1)
    curves = tuple(
        Curve(label, tuple(edges[:-1].tolist()), tuple(np.histogram(each, edges, density=True)[0].tolist()))
        for label, each in values.items()
    )
    return Figure(name, title, "density", x_label, "density", curves, note, marks=marks)


def distribution_figure(name: str, title: str, x: str, distributions: Sequence[Distribution], note: str) -> Figure:
    """The same of distributions that are binned already."""
    curves = tuple(Curve(d.group, d.edges[:-1], d.density) for d in distributions)
    return Figure(name, title, "density", x, "density", curves, note)
