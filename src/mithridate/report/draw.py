"""How each kind of figure is drawn on matplotlib's axes; `figures` sets the style, the labels and the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mithridate.report.document import Curve, Figure
from mithridate.report.numbers import show, show_short
from mithridate.statistics.estimate import Estimate
from mithridate.text import one_line

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which colour-blind readers can tell apart; the dashes do so in print. Dark
# enough for a white page and light enough for a black one.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
DASHES = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (6, 1.6, 1.2, 1.6)), (0, (9, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK = "#767676"

HEAT = "YlGnBu"
DARK, LIGHT = "#10161c", "#f7f9fb"  # numbers on a cell, whichever its colour lets be read


@dataclass(frozen=True)
class Cleaned:
    """The numbers of a curve, all (p,). x is finite; y is NaN where it is missing; ends without an interval are NaN."""

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray
    x_low: np.ndarray
    x_high: np.ndarray


def cleaned(curve: Curve) -> Cleaned:
    """What is so large that axes cannot hold it is missing, as is what is not a number."""
    x = _finite(curve.x)
    kept = np.isfinite(x)
    ends = [
        _finite(getattr(curve, name))[kept] if getattr(curve, name) else np.full(kept.sum(), np.nan)
        for name in ("low", "high", "x_low", "x_high")
    ]
    return Cleaned(x[kept], _finite(curve.y)[kept], *ends)


def _finite(values: tuple[float, ...]) -> np.ndarray:
    found = np.array([np.nan if value is None else value for value in values], dtype=float)
    return np.where(np.abs(found) < 1e30, found, np.nan)


def _look(i: int) -> dict[str, Any]:
    return {"color": SERIES[i % len(SERIES)], "linestyle": DASHES[i % len(DASHES)]}


def _number(curve: Curve, i: int) -> int:
    return i if curve.series is None else curve.series


def _bars(middle: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray | None:
    """(2, p) lengths of error bars; None where there is no interval. A missing one has no length."""
    if not (np.isfinite(low) & np.isfinite(high)).any():
        return None
    return np.nan_to_num(np.maximum(0, np.stack([middle - low, high - middle])))


def _draw_line(axes: Axes, curves: list[Cleaned], figure: Figure) -> list[Artist]:
    named = bool(figure.ticks)
    handles: list[Artist] = []
    shown = [i for i, curve in enumerate(figure.curves) if curve.series != -1]
    for i, (c, curve) in enumerate(zip(curves, figure.curves)):
        series = _number(curve, i)
        if series < 0:
            handles += axes.plot(c.x, c.y, color=INK, linestyle=DASHES[2], linewidth=1.5, zorder=1)
            continue
        few = named or len(c.x) <= 12  # between names there is nothing that a band could cover
        look = {**_look(series), "marker": MARKERS[series % len(MARKERS)] if few else "", "markersize": 4.5}
        # names have no order that a line could follow; side by side they do not hide each other
        x = c.x + (0.07 * (shown.index(i) - (len(shown) - 1) / 2) if named else 0)
        if named:
            look["linestyle"] = "none"
        bars = _bars(c.y, c.low, c.high)
        handles += axes.plot(x, c.y, **look)
        if bars is not None and few:
            axes.errorbar(x, c.y, bars, fmt="none", ecolor=look["color"], elinewidth=1.1, capsize=2.5, alpha=0.75)
        elif bars is not None:
            axes.fill_between(x, c.y - bars[0], c.y + bars[1], color=look["color"], alpha=0.15, linewidth=0)
    if any(curve.low for curve in figure.curves):
        _rate_limits(axes, curves)
    if figure.log and not named:
        _logarithmic(axes, curves)
    values = np.unique(np.concatenate([c.x for c in curves])) if curves else np.empty(0)
    if not named and figure.log and 0 < len(values) <= 8:
        axes.set_xticks(values)
        axes.xaxis.minorticks_off()
    return handles


def _rate_limits(axes: Axes, curves: list[Cleaned]) -> None:
    """Rates are shown from 0 to 1, so that figures can be held against each other."""
    values = np.concatenate([c.y for c in curves])
    values = values[np.isfinite(values)]
    if len(values) and values.min() >= 0 and 0.2 < values.max() <= 1:
        axes.set_ylim(-0.03, 1.03)


def _logarithmic(axes: Axes, curves: list[Cleaned]) -> None:
    values = np.concatenate([c.x for c in curves]) if curves else np.empty(0)
    above = values[values > 0]
    if not len(above):
        return
    if (values < 0).any():
        raise ValueError(f"a logarithmic axis needs numbers of at least 0, got {values.min()}")
    if (values == 0).any():  # 0 has a place of its own, left of the least number
        axes.set_xscale("symlog", linthresh=float(above.min()), linscale=0.6)
        axes.set_xlim(left=-0.25 * float(above.min()))
    else:
        axes.set_xscale("log")


def _draw_density(axes: Axes, curves: list[Cleaned], figure: Figure) -> list[Artist]:
    handles: list[Artist] = []
    for i, c in enumerate(curves):
        look = _look(i)
        x, y = c.x[np.isfinite(c.y)], c.y[np.isfinite(c.y)]
        if len(x):
            # The last bin is as wide as the one before it.
            edges = np.append(x, 2 * x[-1] - x[-2] if len(x) > 1 else x[-1] + 1)
            axes.stairs(y, edges, fill=True, alpha=0.16, color=look["color"])
            axes.stairs(y, edges, linewidth=1.7, **look)
        handles.append(axes.plot([], [], **look)[0])
    axes.set_ylim(bottom=0)
    return handles


def _draw_step(axes: Axes, curves: list[Cleaned], figure: Figure) -> list[Artist]:
    shown = [(c.x > 1e-30) & np.isfinite(c.y) for c in curves]
    points = [(c.x[kept], c.y[kept]) for c, kept in zip(curves, shown)]
    values = np.concatenate([x for x, _ in points]) if points else np.empty(0)
    axes.set_xscale("log")
    first, last = (values.min(), values.max()) if len(values) else (1.0, 10.0)
    last = max(1.25 * last, 10 * first)
    handles: list[Artist] = []
    for i, (x, y) in enumerate(points):
        if len(x):
            x, y = np.concatenate([[first], x, [last]]), np.concatenate([[0.0], y, y[-1:]])
        handles.append(axes.plot(x, y, drawstyle="steps-post", **_look(i))[0])
    axes.set_xlim(first, last)
    top = max((float(y.max()) for _, y in points if len(y)), default=1.0)
    axes.set_ylim(0, 1.03 * max(top, 1.0))
    return handles


def _draw_scatter(axes: Axes, curves: list[Cleaned], figure: Figure) -> list[Artist]:
    handles: list[Artist] = []
    for i, (c, curve) in enumerate(zip(curves, figure.curves)):
        series = _number(curve, i)
        shown = axes.plot(
            c.x,
            c.y,
            linestyle="none",
            marker="o" if curve.marker == "dot" else "x",
            markersize=3.2 if curve.marker == "dot" else 4,
            markeredgewidth=0 if curve.marker == "dot" else 1,
            color=SERIES[series % len(SERIES)] if series >= 0 else INK,
            alpha=0.75 if series >= 0 else 0.4,
        )
        handles.extend(shown)
    return handles


def _draw_points(axes: Axes, curves: list[Cleaned], figure: Figure) -> list[Artist]:
    handles: list[Artist] = []
    for i, (c, curve) in enumerate(zip(curves, figure.curves)):
        series = _number(curve, i)
        colour = SERIES[series % len(SERIES)] if series >= 0 else INK
        bars = _bars(c.y, c.low, c.high), _bars(c.x, c.x_low, c.x_high)
        axes.errorbar(c.x, c.y, *bars, fmt="none", ecolor=colour, elinewidth=1, alpha=0.45)
        marker = MARKERS[series % len(MARKERS)] if series >= 0 else "o"
        handles += axes.plot(c.x, c.y, linestyle="none", marker=marker, markersize=6, color=colour)
    return handles


def heat_size(figure: Figure) -> tuple[float, float]:
    """Inches that leave room for the number in every cell and the names beside."""
    longest = max((len(one_line(row.label, limit=24)) for row in figure.curves), default=0)
    below = max((len(name) for name in figure.ticks), default=0)
    width = 0.9 + 0.085 * longest + max(0.5 * len(figure.ticks), 2.5)
    return width, 0.9 + 0.06 * min(below, 24) + 0.34 * max(len(figure.curves), 2)


def cell_name(row: int, column: int) -> str:
    """What a cell of a matrix is called in a drawing."""
    return f"cell-{row}-{column}"


def cell_titles(figure: Figure) -> dict[str, str]:
    """What each cell of a matrix says when it is pointed at, by its name: row, column, number, interval."""
    if figure.kind != "heat":
        return {}
    titles = {}
    for i, row in enumerate(figure.curves):
        for j, value in enumerate(row.y):
            ends = (row.low[j], row.high[j]) if row.low and row.high else (None, None)
            estimate = Estimate(value, *ends) if value is not None and np.isfinite(value) else None
            shown = show(estimate)
            titles[cell_name(i, j)] = f"{one_line(row.label)}, {one_line(figure.ticks[j])}: {shown}"
    return titles


def _draw_heat(axes: Axes, curves: list[Cleaned], figure: Figure) -> list[Artist]:
    """A coloured cell with its number in it; the first row at the top."""
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    if not curves or not figure.ticks:
        return []
    table = np.stack([_finite(row.y) for row in figure.curves])  # (rows, columns)
    known = table[np.isfinite(table)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0  # rates
    colours = colormaps[HEAT]
    size = 8.5 if len(figure.ticks) > 8 else 9.5
    for (row, column), value in np.ndenumerate(table):
        missing = not np.isfinite(value)
        shade = 0 if missing else (value - low) / max(high - low, 1e-9)
        red, green, blue, _ = colours(shade)
        bright = 0.3 * red + 0.59 * green + 0.11 * blue > 0.55
        ink = INK if missing else DARK if bright else LIGHT
        text = show_short(float(value))
        text = f"({text})" if column in figure.curves[row].bracketed else text
        name = cell_name(row, column)
        if not missing:
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colours(shade), linewidth=0, gid=name))
        axes.text(column, row, text, color=ink, ha="center", va="center", fontsize=size, gid=name)
    axes.set(xlim=(-0.5, table.shape[1] - 0.5), ylim=(table.shape[0] - 0.5, -0.5))
    axes.set_yticks(range(len(curves)), [one_line(row.label, limit=24) for row in figure.curves])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(one_line(figure.z_label, limit=60), loc="left", fontsize=10.5)
    return []


Draw = Callable[["Axes", list[Cleaned], Figure], "list[Artist]"]
DRAW: dict[str, Draw] = {
    "line": _draw_line,
    "density": _draw_density,
    "step": _draw_step,
    "scatter": _draw_scatter,
    "points": _draw_points,
    "heat": _draw_heat,
}
