"""Tables for a paper: what LaTeX makes of them, which row is the clean one, which number is bold."""

import re
import shutil
import subprocess

import pytest

from mithridate.report.document import Published, Table
from mithridate.report.latex import TEXT_WIDTH, to_latex
from mithridate.statistics.estimate import Estimate


def rate(value, spread=0.04):
    return Estimate(value, max(value - spread, 0.0), min(value + spread, 1.0), 144)


def by_model(first="attack"):
    """Two attacks or defences at two counts; the clean model is the same for all."""
    clean = (rate(0.10), rate(0.84), Estimate(80.0, 74.2, 86.7, 144))
    rows = []
    for name, high in (("single-label", 0.98), ("backdoor", 0.60)):
        for count, share in ((40, 0.5), (160, 1.0)):
            rows.append((name, count, "poisoned", rate(high * share), rate(0.80), Estimate(9 / share, 6.1, 20.2, 144)))
            rows.append((name, count, "clean", *clean))
    rows.append(("all", "all", "chance", Estimate(0.1), Estimate(0.02), None))
    return Table(
        "attack-1", "Success and utility", (first, "attack.count", "model", "ASR", "IR@10", "MinRank"), tuple(rows),
        "Means over 3 seeds; 95 % intervals over seeds and test units.",
    )  # fmt: skip


def wide():
    """Eight measures with published numbers beside: no form of it is one tabular."""
    measures = tuple(f"Hit@{k}" for k in (1, 5, 10, 20, 30, 50))
    columns = ("attack", "model", *measures, "IR@10 published, Flickr-PASCAL", "TR@10 published, COCO")
    published = Published(0.5, -0.25, False)
    row = tuple(rate(0.1 * i) for i in range(1, 7))
    return Table("wide-1", "Wide", columns, tuple((name, "poisoned", *row, published, published) for name in "ab"))


def sentences():
    said = "Held: ASR is 0.978 [0.96, 0.99] on the poisoned model; the difference is 0.886 (p < 0.001, 3 seeds)."
    rows = (("attack", "A backdoor beats the clean model.", "held", said, "Paper, Table 1"),) * 3
    return Table("claims", "Claims", ("experiment", "claim", "verdict", "what was measured", "source"), rows)


def body(page):
    return page[page.index(r"\midrule") : page.index(r"\bottomrule")]


def test_the_clean_model_stands_once_above_chance():
    rows = [line for line in body(to_latex(by_model())).splitlines() if "clean" in line or "chance" in line]
    assert [row.split("&")[2].strip() for row in rows] == ["clean", "chance"]
    table = by_model()
    other = (*table.rows[1][:3], rate(0.2), *table.rows[1][4:])  # one clean model of its own
    changed = Table(table.name, table.title, table.columns, (table.rows[0], other, *table.rows[2:]))
    assert body(to_latex(changed)).count("clean") == 4


def test_the_best_of_comparable_rows_is_bold():
    """For attacks the more successful, for defences the other; utility and ties are not for sale."""
    assert re.findall(r"\\textbf\{(.+?)\}", to_latex(by_model())) == ["0.490", "0.980"]
    assert re.findall(r"\\textbf\{(.+?)\}", to_latex(by_model("objective"))) == ["0.300", "0.600"]
    for first, arrows in (
        ("attack", ("ASR $\\uparrow$", "MinRank $\\downarrow$")),
        ("objective", ("ASR $\\downarrow$",)),
    ):
        page = to_latex(by_model(first))
        assert all(arrow in page for arrow in (*arrows, "IR@10 $\\uparrow$"))


def test_the_caption_says_what_the_signs_mean():
    (caption,) = re.findall(r"\\caption\{(.+)\}", to_latex(by_model("objective")))
    for part in (
        "Success and utility.",
        "Means over 3 seeds",
        "In small type: intervals.",
        "better for the defence",
        "best objective",
    ):
        assert part in caption
    assert "Bold" not in to_latex(wide()) and "Arrows" not in to_latex(sentences())


def test_columns_have_labels_and_groups_are_told_apart():
    page = to_latex(by_model())
    assert "Attack & Poisoned pairs & Model & ASR" in page
    assert page.count("single-label") == 1 and page.count(r"\addlinespace") == 1


def test_a_table_that_is_too_wide_is_continued_below_itself():
    page = to_latex(wide())
    assert page.count(r"\begin{tabular}") > 1 and page.count("Attack & Model") == page.count(r"\begin{tabular}")
    assert to_latex(wide(), width=2000.0).count(r"\begin{tabular}") == 1


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("pdflatex") or shutil.which("tectonic")), reason="no pdflatex or tectonic here")
def test_latex_compiles_and_no_box_is_too_wide(tmp_path):
    tables = "\n".join(map(to_latex, (by_model(), by_model("objective"), wide(), sentences())))
    packages = r"\usepackage[T1]{fontenc}\usepackage{booktabs}"
    text = rf"\documentclass{{article}}{packages}\begin{{document}}{tables}\showthe\textwidth\end{{document}}"
    (tmp_path / "paper.tex").write_text(text, encoding="utf-8")
    latex = ["pdflatex", "-interaction=nonstopmode"] if shutil.which("pdflatex") else ["tectonic", "--keep-logs"]
    subprocess.run([*latex, "paper.tex"], cwd=tmp_path, capture_output=True, check=False, timeout=120)
    log = (tmp_path / "paper.log").read_text(encoding="utf-8", errors="replace")
    assert f"> {TEXT_WIDTH}pt" in log  # the width that tables are made for
    assert (tmp_path / "paper.pdf").is_file()
    assert not re.findall(r"^(?:Overfull|! (?!OK)).*", log, flags=re.MULTILINE)


# --- figures for a paper ------------------------------------------------------------------------------


def line(x, **more):
    from mithridate.report.document import Curve, Figure

    curve = Curve("poisoned model", tuple(map(float, x)), tuple(0.1 * i for i in range(len(x))))
    return Figure("f", "Success", "line", "epoch", "ASR", (curve,), **more)


def ticks(figure, tmp_path):
    from xml.etree import ElementTree

    from mithridate.report.figures import save_figure

    save_figure(figure, tmp_path / "f.svg")
    tree = ElementTree.parse(tmp_path / "f.svg")
    axis = next(node for node in tree.iter() if node.get("id") == "matplotlib.axis_1")
    texts = [node.text or "" for node in axis.iter("{http://www.w3.org/2000/svg}text")]
    return [text for text in texts if text != "epoch"]


def test_what_is_counted_has_whole_numbers_on_its_axis(tmp_path):
    assert all("." not in tick for tick in ticks(line((1, 2, 3)), tmp_path))
    assert any("." in tick for tick in ticks(line((1, 2.5, 3)), tmp_path))


def test_a_figure_is_as_wide_as_a_column_and_in_the_font_that_is_asked_for(tmp_path):
    from PIL import Image

    from mithridate.report.figures import FigureStyle, save_figure

    save_figure(line((1, 2, 3)), tmp_path / "f.png", tmp_path / "f.svg", style=FigureStyle(3.25, 8.0, "DejaVu Serif"))
    with Image.open(tmp_path / "f.png") as image:
        assert image.width == 650  # at 200 dots an inch
    drawn = (tmp_path / "f.svg").read_text()
    assert "DejaVu Serif" in drawn and "8px" in drawn


def test_a_figure_that_cannot_be_drawn_is_refused():
    from mithridate.errors import MithridateError
    from mithridate.report.figures import FigureStyle

    with pytest.raises(MithridateError, match=r"width must be 1 to 40, got 0\.0"):
        FigureStyle(0.0)
    with pytest.raises(MithridateError, match="no font of this machine is called 'Nonesuch Sans'"):
        FigureStyle(font="Nonesuch Sans")
