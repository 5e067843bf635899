"""Make the picture of the README from a demo's report.

make demo
.venv/bin/python docs/make_figures.py runs/demo/measured docs/demo.png
"""

import base64
import io
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from mithridate.report.document import Figure, Hit, Report, read_report

COLOURS = {"poisoned": "#c1440e", "clean": "#0b6fa4", "repaired": "#7a5195", "random captions": "#4c8c2b"}
ROWS = ("clean", "poisoned", "repaired")


def picture(hit: Hit) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(hit.thumbnail))))


def curves(axes, figure: Figure) -> None:
    for curve in figure.curves:
        axes.step(curve.x, curve.y, where="post", label=curve.label, color=COLOURS.get(curve.label))
    axes.set(xscale="log", xlabel=figure.x_label, ylabel=figure.y_label, ylim=(0, 1.02), title="Captions of sheep")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def draw(report: Report, out: Path, *, queries: int = 2) -> None:
    figure = plt.figure(figsize=(11, 1.45 * len(ROWS) * queries), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.7, 1))
    for part, retrieval in zip(np.atleast_1d(left.subfigures(queries, 1)), report.retrievals):
        part.suptitle(f'"{retrieval.query}"', fontsize=10)
        cells = part.subplots(len(ROWS), len(retrieval.hits["clean"]))
        for row, name in zip(cells, ROWS):
            row[0].set_ylabel(name, fontsize=9)
            for cell, hit in zip(row, retrieval.hits[name]):
                cell.imshow(picture(hit), interpolation="nearest")
                cell.set(xticks=[], yticks=[])
                for spine in cell.spines.values():
                    spine.set(color=COLOURS["poisoned"], linewidth=3, visible=hit.is_target)
    curves(right.subplots(), next(f for f in report.figures if f.name == "ranks"))
    figure.savefig(out, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    draw(read_report(Path(sys.argv[1])), Path(sys.argv[2]))
