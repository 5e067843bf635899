"""A figure as SVG inside a page, or as a file. Drawn by matplotlib, which is imported on the first figure."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from mithridate.errors import MithridateError
from mithridate.report.document import Figure
from mithridate.report.draw import DASHES, DRAW, INK, SERIES, Cleaned, cell_titles, cleaned, heat_size
from mithridate.report.numbers import show_tick
from mithridate.text import one_line

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

SIZE = (5.6, 3.3)  # inches: at 360 pixels, a telephone's width, text is still 9 pixels high


@dataclass(frozen=True)
class FigureStyle:
    """How wide a figure is and how its text looks, for a paper. Raises `MithridateError` for what cannot be drawn."""

    width: float = SIZE[0]
    """Inches: 3.25 for a column of a two-column paper."""
    font_size: float = 10.5
    """Points."""
    font: str | None = None
    """Family, as matplotlib names it (`Times New Roman`, `serif`); by default matplotlib's own."""

    def __post_init__(self) -> None:
        for name, low, high in (("width", 1, 40), ("font_size", 3, 40)):
            if not low <= getattr(self, name) <= high:
                raise MithridateError(f"{name} must be {low} to {high}, got {getattr(self, name)}")
        if self.font is not None:
            from matplotlib.font_manager import FontProperties, findfont

            try:
                findfont(FontProperties(family=self.font), fallback_to_default=False)
            except ValueError as error:
                raise MithridateError(f"no font of this machine is called {self.font!r}") from error


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


def save_figure(figure: Figure, *paths: Path, style: FigureStyle | None = None) -> None:
    """Write `figure` to each of `paths`; its ending (`.svg`, `.png` or `.pdf`) says as what."""
    kinds = {
        ".svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
        ".png": {"Software": None},
        ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }
    for path in map(Path, paths):
        if path.suffix.lower() not in kinds:
            raise ValueError(f"a figure is saved as one of {', '.join(kinds)}, got {path.name!r}")
    with _drawn(figure, style or FigureStyle()) as canvas:
        for path in map(Path, paths):
            canvas.savefig(path, dpi=200, metadata=kinds[path.suffix.lower()])


def figure_svg(figure: Figure, *, prefix: str) -> str:
    """`figure` as one `<svg>` element for an HTML page, in the page's colours.

    Its ids start with `prefix`, so that several figures share a page. Text takes `currentColor`, curve number i
    the CSS variable `--series-i` where the page sets one.
    """
    buffer = io.StringIO()
    with _drawn(figure, FigureStyle()) as canvas:
        canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for parent in root.iter():
        for child in list(parent):
            if child.tag.endswith("}style"):  # a style inside a page applies to the whole page
                parent.remove(child)
    titles = cell_titles(figure)
    for node in root.iter():
        if node.get("id") in titles:
            ElementTree.SubElement(node, "title").text = titles[node.attrib["id"]]
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
    if figure.kind == "heat":
        axes = f"{one_line(figure.z_label)} by {one_line(figure.y_label)} and {one_line(figure.x_label)}"
    return f"{one_line(figure.title)}: {axes}, for {labels}"


@contextmanager
def _drawn(figure: Figure, style: FigureStyle) -> Iterator[Canvas]:
    """The drawn figure, with the style set until it is saved."""
    import matplotlib
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    with matplotlib.rc_context(), warnings.catch_warnings():
        # SVG holds text, not glyphs: who shows it has the fonts. In a PNG a missing glyph is a box one sees.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        matplotlib.rcdefaults()  # no matplotlibrc may change what is drawn
        matplotlib.rcParams.update({**_STYLE, "font.size": style.font_size})
        if style.font is not None:
            matplotlib.rcParams["font.family"] = [style.font, "sans-serif"]
        heat = figure.kind == "heat"
        size = heat_size(figure) if heat else SIZE
        size = (style.width, size[1] * style.width / SIZE[0]) if style.width != SIZE[0] else size
        canvas = Canvas(figsize=size, layout="constrained")
        axes = canvas.add_subplot()
        curves = [cleaned(curve) for curve in figure.curves]
        handles = DRAW[figure.kind](axes, curves, figure)
        marks = [mark for mark in figure.marks if abs(mark.x) < 1e30]
        handles += [axes.axvline(mark.x, color=INK, linestyle=DASHES[-2], linewidth=1.4) for mark in marks]
        if not any(np.isfinite(curve.y).any() for curve in curves):
            axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", va="center")
            axes.set(xticks=[], yticks=[])
        elif figure.ticks:
            _name_places(axes, [one_line(name, limit=24) for name in figure.ticks], wide=heat)
        axes.set_xlabel(one_line(figure.x_label, limit=60))
        axes.set_ylabel(one_line(figure.y_label, limit=40))
        if not heat:
            for axis in (axes.xaxis, axes.yaxis):
                if axis is axes.yaxis or not figure.ticks:
                    axis.set_major_formatter(FuncFormatter(lambda value, _: show_tick(value)))
                axis.set_minor_formatter(NullFormatter())
            if _whole(figure, curves):
                axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(axis="y")
            axes.set_axisbelow(True)
        labels = [one_line(item.label, limit=LABEL_LIMIT) for item in (*figure.curves, *marks)]
        _label(canvas, handles, labels[-len(handles) :] if handles else [], style)
        yield canvas


def _whole(figure: Figure, curves: list[Cleaned]) -> bool:
    """Whether x counts something, epochs for example: then no tick stands between two numbers."""
    values = np.concatenate([curve.x for curve in curves]) if curves else np.empty(0)
    if figure.kind != "line" or figure.log or figure.ticks or not len(values):
        return False
    return bool((values == np.round(values)).all())


def _name_places(axes: Axes, names: list[str], *, wide: bool) -> None:
    """Names instead of numbers at 0, 1, 2 ... of the x axis, slanted where they would touch."""
    room = 11 if wide and len(names) <= 6 else 4 if wide else 56 / max(1, len(names))
    slanted = max(map(len, names)) > room
    look = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    axes.set_xticks(range(len(names)), names, **look)
    if not wide:
        axes.set_xlim(-0.5, len(names) - 0.5)


def _label(canvas: Canvas, handles: list[Artist], labels: list[str], style: FigureStyle) -> None:
    if not handles:
        return
    room = round(62 * style.width / SIZE[0] * 10.5 / style.font_size)  # letters in a line
    columns = max(1, min(len(labels), room // (max(map(len, labels)) + 6)))
    rows = -(-len(labels) // columns)
    width, height = canvas.get_size_inches()
    canvas.set_size_inches(width, height + 0.022 * style.font_size * (rows - 1))  # a long legend does not eat the axes
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
