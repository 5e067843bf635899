"""A figure as SVG inside a page, or as a file. Drawn by matplotlib, which is imported on the first figure."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from mithridate.evaluation.result import Curve, Figure
from mithridate.report.numbers import show_tick
from mithridate.report.text import one_line

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

# Okabe and Ito's colours, told apart by colour-blind readers; the dashes tell them apart in print. Dark
# enough for a white page and light enough for a black one.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
DASHES = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (6, 1.6, 1.2, 1.6)), (0, (9, 2)))
INK = "#767676"

SIZE = (5.6, 3.3)  # inches: at 360 pixels, a telephone's width, text is still 9 pixels high
LABEL_LIMIT = 48

_STYLE: Any = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.size": 10.5,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.9,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "mithridate",
    "pdf.fonttype": 42,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a caption is a dollar sign
    "xtick.color": INK,
    "ytick.color": INK,
}


def save_figure(figure: Figure, path: Path) -> None:
    """Write `figure` to `path`; its ending (`.svg`, `.png` or `.pdf`) says as what."""
    kinds = {
        ".svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
        ".png": {"Software": None},
        ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }
    path = Path(path)
    if path.suffix.lower() not in kinds:
        raise ValueError(f"a figure is saved as one of {', '.join(kinds)}, got {path.name!r}")
    with _drawn(figure) as canvas:
        canvas.savefig(path, dpi=200, metadata=kinds[path.suffix.lower()])


def figure_svg(figure: Figure, *, prefix: str) -> str:
    """`figure` as one `<svg>` element for an HTML page, in the page's colours.

    Its ids start with `prefix`, so that several figures share a page. Text takes `currentColor`, curve number i
    the CSS variable `--series-i` where the page sets one.
    """
    buffer = io.StringIO()
    with _drawn(figure) as canvas:
        canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for parent in root.iter():
        for child in list(parent):
            if child.tag.endswith("}style"):  # a style inside a page applies to the whole page
                parent.remove(child)
    used = {name for node in root.iter() for value in node.attrib.values() for name in _references(value)}
    for node in root.iter():
        node.tag = _local(node.tag)
        attributes = {_local(key): value for key, value in node.attrib.items()}
        if attributes.get("id") not in used:
            attributes.pop("id", None)
        node.attrib.clear()
        node.attrib.update({key: _adapt(key, value, prefix) for key, value in attributes.items()})
    view = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib.update({"viewBox": view, "role": "img", "aria-label": _described(figure)})
    return re.sub(r">\s+<", "><", ElementTree.tostring(root, encoding="unicode")).strip()


def _references(value: str) -> list[str]:
    return re.findall(r"(?:^|url\()#([\w.-]+)", value)


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _adapt(key: str, value: str, prefix: str) -> str:
    if key == "id":
        return f"{prefix}-{value}"
    if key == "href":
        return value.replace("#", f"#{prefix}-", 1)
    if key == "clip-path":
        return value.replace("url(#", f"url(#{prefix}-", 1)
    if key == "style":
        value = re.sub(r"font-family: [^;]*(; ?|$)", "", value).replace(INK, "currentColor")
        for i, colour in enumerate(SERIES):
            value = value.replace(colour, f"var(--series-{i + 1}, {colour})")
    return value


def _described(figure: Figure) -> str:
    labels = ", ".join(one_line(item.label) for item in (*figure.curves, *figure.marks)) or "no data"
    axes = f"{one_line(figure.y_label)} against {one_line(figure.x_label)}"
    return f"{one_line(figure.title)}: {axes}, for {labels}"


@contextmanager
def _drawn(figure: Figure) -> Iterator[Canvas]:
    """The drawn figure, with the style set until it is saved."""
    import matplotlib
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import FuncFormatter, NullFormatter

    with matplotlib.rc_context(), warnings.catch_warnings():
        # SVG holds text, not glyphs: who shows it has the fonts. In a PNG a missing glyph is a box one sees.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        matplotlib.rcdefaults()  # no matplotlibrc may change what is drawn
        matplotlib.rcParams.update(_STYLE)
        canvas = Canvas(figsize=SIZE, layout="constrained")
        axes = canvas.add_subplot()
        curves = [_clean(curve) for curve in figure.curves]
        if figure.kind == "scatter":
            handles = _draw_scatter(axes, curves, figure.curves)
        else:
            handles = _DRAW[figure.kind](axes, curves)
        marks = [mark for mark in figure.marks if abs(mark.x) < 1e30]
        handles += [axes.axvline(mark.x, color=INK, linestyle=DASHES[-2], linewidth=1.4) for mark in marks]
        if not any(np.isfinite(y).any() for _, y in curves):
            axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", va="center")
            axes.set(xticks=[], yticks=[])
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: show_tick(value)))
            axis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(one_line(figure.x_label, limit=60))
        axes.set_ylabel(one_line(figure.y_label, limit=40))
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        _label(canvas, handles, [one_line(item.label, limit=LABEL_LIMIT) for item in (*figure.curves, *marks)])
        yield canvas


def _clean(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """x, y; what is so large that axes cannot hold it is missing, as is what is not a number. y may be NaN."""
    x = np.array([np.nan if value is None else value for value in curve.x], dtype=float)
    y = np.array([np.nan if value is None else value for value in curve.y], dtype=float)
    kept = np.abs(x) < 1e30
    return x[kept], np.where(np.abs(y) < 1e30, y, np.nan)[kept]


def _label(canvas: Canvas, handles: list[Artist], labels: list[str]) -> None:
    if not handles:
        return
    columns = max(1, min(len(labels), 62 // (max(map(len, labels)) + 6)))
    rows = -(-len(labels) // columns)
    canvas.set_size_inches(SIZE[0], SIZE[1] + 0.23 * (rows - 1))  # a long legend does not eat the axes
    # The texts come afterwards: a legend leaves out a label that starts with an underscore.
    legend = canvas.legend(
        handles,
        ["·"] * len(handles),
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        handlelength=2.8,
    )
    for text, label in zip(legend.get_texts(), labels):
        text.set_text(label)


def _look(i: int) -> dict[str, Any]:
    return {"color": SERIES[i % len(SERIES)], "linestyle": DASHES[i % len(DASHES)]}


def _draw_line(axes: Axes, curves: list[tuple[np.ndarray, np.ndarray]]) -> list[Artist]:
    return [
        axes.plot(x, y, marker="o" if len(x) <= 12 else None, markersize=4, **_look(i))[0]
        for i, (x, y) in enumerate(curves)
    ]


def _draw_density(axes: Axes, curves: list[tuple[np.ndarray, np.ndarray]]) -> list[Artist]:
    handles: list[Artist] = []
    for i, (x, y) in enumerate(curves):
        look = _look(i)
        x, y = x[np.isfinite(y)], y[np.isfinite(y)]
        if len(x):
            # The last bin is as wide as the one before it.
            edges = np.append(x, 2 * x[-1] - x[-2] if len(x) > 1 else x[-1] + 1)
            axes.stairs(y, edges, fill=True, alpha=0.16, color=look["color"])
            axes.stairs(y, edges, linewidth=1.7, **look)
        handles.append(axes.plot([], [], **look)[0])
    axes.set_ylim(bottom=0)
    return handles


def _draw_step(axes: Axes, curves: list[tuple[np.ndarray, np.ndarray]]) -> list[Artist]:
    shown = [(x > 1e-30) & np.isfinite(y) for x, y in curves]
    curves = [(x[kept], y[kept]) for (x, y), kept in zip(curves, shown)]
    places = np.concatenate([x for x, _ in curves]) if curves else np.empty(0)
    axes.set_xscale("log")
    first, last = (places.min(), places.max()) if len(places) else (1.0, 10.0)
    last = max(1.25 * last, 10 * first)
    handles: list[Artist] = []
    for i, (x, y) in enumerate(curves):
        if len(x):
            x, y = np.concatenate([[first], x, [last]]), np.concatenate([[0.0], y, y[-1:]])
        handles.append(axes.plot(x, y, drawstyle="steps-post", **_look(i))[0])
    axes.set_xlim(first, last)
    top = max((float(y.max()) for _, y in curves if len(y)), default=1.0)
    axes.set_ylim(0, 1.03 * max(top, 1.0))
    return handles


def _draw_scatter(axes: Axes, points: list[tuple[np.ndarray, np.ndarray]], curves: tuple[Curve, ...]) -> list[Artist]:
    handles: list[Artist] = []
    for i, ((x, y), curve) in enumerate(zip(points, curves)):
        series = i if curve.series is None else curve.series
        shown = axes.plot(
            x,
            y,
            linestyle="none",
            marker="o" if curve.marker == "dot" else "x",
            markersize=3.2 if curve.marker == "dot" else 4,
            markeredgewidth=0 if curve.marker == "dot" else 1,
            color=SERIES[series % len(SERIES)] if series >= 0 else INK,
            alpha=0.75 if series >= 0 else 0.4,
        )
        handles.extend(shown)
    return handles


_DRAW = {"line": _draw_line, "density": _draw_density, "step": _draw_step}
