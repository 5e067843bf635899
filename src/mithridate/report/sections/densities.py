"""Densities of a number over pairs."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from mithridate.report.document import Curve, Figure, Mark

_BINS = 60


def density_figure(
    name: str,
    title: str,
    x_label: str,
    values: dict[str, Float[np.ndarray, " n"]],
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
