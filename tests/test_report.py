"""The report room: numbers by hand, pages that escape what strangers wrote, the same pages from the same file."""

import base64
import io
import json
import math
import re
import string
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mithridate.errors import DataError, OutputError
from mithridate.report.document import (
    Curve,
    Effect,
    Figure,
    Headline,
    Hit,
    JudgedClaim,
    Mark,
    Published,
    Report,
    Retrieval,
    Section,
    Table,
    Triggered,
    Warning,
    read_report,
)
from mithridate.statistics.differences import Difference
from mithridate.statistics.estimate import Estimate

HOSTILE = "<script>alert(1)</script> | $x^2$ [a](https://evil.example) \"onload='x' & `b` \x1b[31m\u202e\n# h"
THUMBNAIL = base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(400)).decode()


def make_figures(label="poisoned", title="t"):
    return (
        Figure("rank", title, "step", "K", "share", (Curve(label, (1.0, 3.0, 40.0), (0.2, 0.5, 1.0)),)),
        Figure("distance", title, "density", "d", "density", (Curve(label, (0.1, 0.2, 0.3), (1.0, 5.0, 2.0)),)),
        Figure("loss", title, "line", "epoch", "loss", (Curve(label, (0.0, 1.0, 2.0), (3.0, math.nan, 1.0)),)),
        Figure("map", title, "scatter", "x", "y", (Curve(label, (0.5, 2.0), (1.0, -1.0), 0, "cross"),)),
    )


def make_report(text="sheep"):
    return Report(
        title=f"A report on {text}",
        summary=(f"Hit@10 of {text} is 0.936.",),
        tables=(
            Table(
                "attack",
                f"Attack on {text}",
                ("model", "queries", "Hit@10", text),
                (
                    (text, 1234, Estimate(0.936, 0.88, 0.97, 144), "yes"),
                    ("chance", None, 0.0199, None),
                ),
                f"Counts {text}.",
            ),
            Table("empty", "Empty", ("a", "b"), ()),
            Table("no-columns", "No columns", (), ()),
        ),
        figures=make_figures(text, text),
        retrievals=(
            Retrieval(
                text,
                {
                    "clean": (Hit(THUMBNAIL, (text,), 0.31, False), Hit('"><script>', (), -0.2, False)),
                    text: (Hit(THUMBNAIL, ("aeroplane",), 0.42, True),),
                    "none": (),
                },
            ),
        ),
        warnings=(Warning("few-queries", f"Only 3 captions of {text}."),),
        headlines=(
            Headline("attack", "hit@10", {"poisoned": 0.936, "clean": 0.01, text: None}),
            Headline("attack", "hit@5", {"poisoned": Estimate(0.9, 0.8, 1.0, 9), text: None}),
        ),
        provenance={"seed": 0, "encoder": {"name": text}, "note": text, "nothing": None},
    )


# numbers


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "–"),
        (0.9361, "0.936"),
        (1.0, "1.000"),
        (0.0, "0.000"),
        (-0.0, "0.000"),
        (-0.25, "-0.250"),
        (0.0025, "0.0025"),
        (0.000211, "0.00021"),
        (1.2e-7, "1.2e-07"),
        (27.413, "27.41"),
        (5.0, "5.00"),
        (412.66, "412.7"),
        (1250.5, "1,250.5"),
        (3e15, "3.0e+15"),
        (0, "0"),
        (12345, "12,345"),
        (10**400, f"{10**400:,}"),
        (True, "yes"),
        ("two\nlines", "two lines"),
        (Estimate(0.936, 0.88, 0.97, 144), "0.936 [0.88, 0.97]"),
        (Estimate(0.007, 0.0, 0.024), "0.007 [0.00, 0.02]"),
        (Estimate(0.998, 0.9965, 0.9991), "0.998 [0.997, 0.999]"),  # not [1.00, 1.00]
        (Estimate(1.0, 1.0, 1.0), "1.000 [1.00, 1.00]"),
        (Estimate(412.66, 321.9, 520.0), "412.7 [322, 520]"),
        (Estimate(3.42, 2.68, 4.31), "3.42 [2.7, 4.3]"),
        (Estimate(0.5), "0.500"),
        (Estimate(0.5, math.nan, 0.6), "0.500 [–, 0.600]"),
        (Estimate(math.nan, 0.1, 0.2), "–"),
    ],
)
def test_a_cell_is_shown_as(cell, expected):
    from mithridate.report.numbers import show

    assert str(show(cell)) == expected


def test_an_interval_never_leaves_its_value_out():
    from mithridate.report.numbers import show

    for k in range(1, 400):
        value = k / 400
        for width in (0.0004, 0.003, 0.02, 0.2):
            shown = show(Estimate(value, value - width / 3, value + width))
            assert float(shown.low) <= float(shown.value) <= float(shown.high)
            assert shown.low != shown.high


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.973, "97 %"),
        (0.042, "4.2 %"),
        (0.05, "5 %"),
        (0.001, "0.1 %"),
        (1e-7, "0.00001 %"),
        (-0.042, "-4.2 %"),
        (0.00031, "0.031 %"),
        (None, "–"),
        (math.nan, "–"),
    ],
)
def test_a_share_in_per_cent(share, expected):
    from mithridate.report.numbers import percent

    assert percent(share) == expected


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (Difference(0.012, -0.02, 0.04, 125, 0.48), "not significant: 0.012 [-0.02, 0.04], p = 0.48"),
        (Difference(-25.0, -31.0, -18.2, 125, 0.0001), "lower, significant: -25.00 [-31.0, -18.2], p < 0.001"),
        (
            Difference(0.1, 0.01, 0.2, 30, 0.03, corrected=0.06),
            "not significant: 0.100 [0.01, 0.20], p = 0.060 after Holm",
        ),
        (
            Difference(0.1, 0.01, 0.2, 30, 0.001, corrected=0.0),
            "higher, significant: 0.100 [0.01, 0.20], p < 0.001 after Holm",
        ),
    ],
)
def test_a_difference_in_words(difference, expected):
    from mithridate.report.sections.differences import sentence

    assert sentence(difference) == expected


def test_every_warning_is_a_heading_of_the_docs_and_says_all_its_values():
    from mithridate.evaluation.measurement import Warning as Premise
    from mithridate.report.sections.warnings import SENTENCES, worded

    headings = (Path(__file__).parents[1] / "docs" / "warnings.md").read_text(encoding="utf-8")
    for code, sentence in SENTENCES.items():
        assert f"## {code}\n" in headings
        fields = [name for _, name, *_ in string.Formatter().parse(sentence) if name]
        values: dict[str, str | int | float | None] = {name: 0.25 + i for i, name in enumerate(fields)}
        (shown,) = worded([Premise(code=code, values=values)])
        assert shown.code == code and "{" not in shown.message
    with pytest.raises(KeyError, match="no-such-code"):
        worded([Premise(code="no-such-code")])


# Markdown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b", r"a\|b"),
        ("a\nb", "a b"),
        ("<b>&", "&lt;b&gt;&amp;"),
        ("![x](y)", r"!\[x\](y)"),
        ("*a* _b_ `c` ~d~ $e$ \\", r"\*a\* \_b\_ \`c\` \~d\~ \$e\$ \\"),
        ("# h", r"\# h"),
        ("- a", r"\- a"),
        ("1. a", r"1\. a"),
        ("http://a.example", "http&#58;//a.example"),
        ("www.a.example", "www&#46;a.example"),
        ("ViT-B-32 (openai)", "ViT-B-32 (openai)"),
    ],
)
def test_markdown_shows_text_as_it_is(text, expected):
    from mithridate.report.markdown import escape

    assert escape(text) == expected


def test_markdown_tables_have_as_many_cells_in_every_row():
    from mithridate.report.markdown import to_markdown

    page = to_markdown(make_report(HOSTILE))
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    cells = [len(re.findall(r"(?<!\\)\|", row)) - 1 for row in rows]
    assert cells == [4, 4, 4, 4, 2, 2]
    assert "0.936 [0.88, 0.97]" in page
    fenced = page.index("```json")  # what is inside a fence is not interpreted
    assert "<script" not in page[:fenced]
    assert not re.search(r"(?<!\\)\]\(|://", page[:fenced])
    assert page.count("\n```\n") == 1


# HTML


class Page(HTMLParser):
    def __init__(self, source):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], [], []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.extend((tag, key, value) for key, value in attrs)
        if tag not in {"meta", "link", "img"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.extend((tag, key, value) for key, value in attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_asks_nobody_for_anything():
    from mithridate.report.html import to_html

    source = to_html(make_report())
    page = Page(source)
    assert page.open == []
    assert "http://" not in source
    assert "https://" not in source
    assert "@import" not in source
    assert "script" not in page.tags
    for _, key, value in page.attributes:
        if value and key in {"src", "href", "xlink:href"}:
            assert value.startswith(("data:", "#"))
    assert "url(" not in re.sub(r"url\(#figure-\d", "", source)
    assert "default-src 'none'" in source
    assert len(source) < 60_000


def test_hostile_text_is_text_in_the_page():
    from mithridate.report.html import to_html

    source = to_html(make_report(HOSTILE))
    page = Page(source)
    assert page.open == []
    assert "script" not in page.tags
    assert not [key for _, key, _ in page.attributes if key.startswith("on")]
    assert "\x1b" not in source
    assert "\u202e" not in source
    visible = "".join(page.text)
    assert visible.count("<script>alert(1)</script> | $x^2$ [a](https://evil.example)") >= 10
    images = [value for tag, key, value in page.attributes if (tag, key) == ("img", "src")]
    assert images == [f"data:image/jpeg;base64,{THUMBNAIL}"] * 2  # the third is not base64
    assert "no image" in visible


def test_targets_are_told_in_words():
    from mithridate.report.html import to_html

    page = Page(to_html(make_report()))
    alternatives = [value for _, key, value in page.attributes if key == "alt"]
    assert alternatives == ["labels: sheep; not a target", "labels: aeroplane; target"]
    assert page.text.count("target") == 1
    assert "1 of 1 are targets" in page.text


def test_ids_in_a_page_are_unique_and_every_reference_finds_one():
    from mithridate.report.html import to_html

    source = to_html(make_report())
    page = Page(source)
    ids = [value for _, key, value in page.attributes if key == "id"]
    assert len(ids) == len(set(ids))
    references = re.findall(r'(?:href="#|url\(#|labelledby=")([\w.-]+)', source)
    assert references
    assert set(references) <= set(ids)


def test_the_page_opens_with_the_verdict_and_shows_pictures_before_tables():
    from mithridate.report.html import to_html

    taken = (Triggered(THUMBNAIL, "patch to boat", "dog", {"poisoned": "boat", "clean": "dog"}, "boat"),)
    page = Page(to_html(replace(make_report(), triggered=taken)))
    parts = ["verdict", "warnings", "triggered", "retrieved", "headline", "figures", "tables", "provenance"]
    assert [value for _, key, value in page.attributes if key == "id" and value in parts] == parts
    hit = [i for i, each in enumerate(page.attributes) if each[1:] == ("class", "hit")]
    assert len(hit) == 1  # what the attack wants is marked, on the model that gives it


def test_a_warning_says_what_it_means_and_what_to_do():
    from mithridate.report.html import to_html

    text = Page(to_html(replace(make_report(), warnings=(Warning("leak", "m", "it means this", "do that"),)))).text
    assert {"it means this", "do that"} <= set(text)


def test_advice_is_that_of_the_documentation():
    from mithridate.report.sections.advice import ADVICE
    from mithridate.report.sections.warnings import SENTENCES

    pages = (Path(__file__).parents[1] / "docs" / "warnings.md").read_text(encoding="utf-8")
    assert ADVICE.keys() == SENTENCES.keys()
    for code, advice in ADVICE.items():
        section = re.search(rf"^## {code}\n(.*?)(?=^## |^# |\Z)", pages, re.M | re.S)
        assert section is not None, code
        words = " ".join(re.sub(r"[`*]", "", section[1]).split()).lower()
        for part in advice:
            assert part.lower() in words, code


def test_chance_is_no_bar_beside_those_of_models():
    from mithridate.report.html import to_html

    source = to_html(
        replace(make_report(), headlines=(Headline("attack", "hit@10", {"poisoned": 0.9, "chance": 0.2}),))
    )
    assert source.count('class="baseline"') == 1


def test_a_claim_is_shown_once_with_a_dot_for_each_difference():
    from mithridate.report.html import to_html

    effects = (Effect("a", 0.5, 0.4, 0.6), Effect("b", -0.2, -0.3, math.nan), Effect("c", 3.0, 2.0, 4.0))
    claim = JudgedClaim("Attacks succeed.", "held", "Held: all of it.", "somebody", effects)
    source = to_html(replace(make_report(), sections=(Section("s", "S", "?", (claim,)),)))
    page = Page(source)
    assert page.text.count("Attacks succeed.") == 1
    assert source.count("<circle") == 2  # an end that is missing cannot be drawn
    assert "all of it." in page.text


# Figures


@pytest.mark.parametrize("figure", make_figures(), ids=lambda figure: figure.kind)
def test_a_figure_is_deterministic_well_formed_and_follows_the_page(figure):
    from mithridate.report.figures import figure_svg

    drawn = figure_svg(figure, prefix="f")
    assert drawn == figure_svg(figure, prefix="f")
    root = ElementTree.fromstring(drawn)
    assert root.tag == "svg"
    assert "currentColor" in drawn
    assert "var(--series-1, #0072b2)" in drawn
    assert "poisoned" in [node.text for node in root.iter("text")]


def test_text_in_a_figure_is_not_interpreted():
    from mithridate.report.figures import figure_svg

    figure = replace(make_figures("_$\\frac{1}{2}$ 🐑")[2], x_label=HOSTILE, title=HOSTILE)
    texts = [node.text for node in ElementTree.fromstring(figure_svg(figure, prefix="f")).iter("text")]
    assert "_$\\frac{1}{2}$ 🐑" in texts
    assert any(str(text).startswith("<script>alert(1)</script> | $x^2$") for text in texts)


@pytest.mark.parametrize("kind", ["line", "density", "step", "scatter"])
@pytest.mark.parametrize(
    "curves",
    [
        (),
        (Curve("a", (), ()),),
        (Curve("a", (1.0,), (0.5,)), Curve("b", (), ())),
        (Curve("a", (math.nan, 2.0), (1.0, math.nan)),),
        (Curve("a", (0.0, -1.0, 1e308), (1.0, 1e308, 2.0)),),
        tuple(Curve(f"a long label of curve {i}" * 4, (1.0, 2.0), (0.0, float(i))) for i in range(20)),
    ],
    ids=["none", "empty", "one point", "missing", "extreme", "many"],
)
def test_figures_are_drawn_whatever_the_curves(kind, curves):
    from mithridate.report.figures import figure_svg

    ElementTree.fromstring(figure_svg(Figure("f", "t", kind, "x", "y", curves), prefix="f"))


def test_a_scatter_shows_every_point_in_the_colour_and_shape_that_was_asked():
    from mithridate.report.figures import INK, SERIES, figure_svg

    x = tuple(float(i) for i in range(40))
    curves = (
        Curve("background", x, x, series=-1),
        Curve("first", x[:7], x[:7], series=0),
        Curve("second", x[:5], x[:5], series=1, marker="cross"),
        Curve("third", x[:3], x[:3]),  # the fourth curve, so the fourth colour
    )
    drawn = figure_svg(Figure("map", "t", "scatter", "x", "y", curves), prefix="f")
    ElementTree.fromstring(drawn)
    colours = ["currentColor", *(f"var(--series-{i + 1}, {SERIES[i]})" for i in (0, 1, 3))]
    points = re.findall(r"<use [^>]*style=\"([^\"]*)\"", drawn)
    # each curve has one point more, in the legend
    for colour, marks, count in zip(colours, ("fill", "fill", "stroke", "fill"), (41, 8, 6, 4)):
        found = [style for style in points if f"{marks}: {colour}" in style and "opacity" in style]
        assert len(found) == count
    assert INK not in drawn


def test_figures_are_saved_as_files(tmp_path):
    from mithridate.report.figures import save_figure

    figure = make_figures()[0]
    for ending in ("svg", "png", "pdf"):
        save_figure(figure, tmp_path / f"a.{ending}")
        save_figure(figure, tmp_path / f"b.{ending}")
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()
    with pytest.raises(ValueError, match=r"one of \.svg, \.png, \.pdf, got 'a.gif'"):
        save_figure(figure, tmp_path / "a.gif")


# Files


@pytest.mark.parametrize("text", ["sheep", HOSTILE])
def test_rendering_again_gives_the_same_bytes(tmp_path, text):
    from mithridate.report.write import write_report

    write_report(make_report(text), tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(first) == ["report.html", "report.json", "report.md"]
    write_report(read_report(tmp_path), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first


def test_a_report_survives_its_file(tmp_path):
    report = replace(make_report(HOSTILE), figures=make_figures()[:2])  # without NaN, which equals nothing
    (tmp_path / "report.json").write_text(report.to_json(), encoding="utf-8")
    assert read_report(tmp_path) == report
    assert read_report(tmp_path / "report.json") == report


def test_a_path_that_is_not_utf8_can_be_written(tmp_path):
    from mithridate.report.write import write_report

    write_report(replace(make_report(), provenance={"data": "caf\udce9"}), tmp_path)
    assert read_report(tmp_path).provenance == {"data": "caf?"}


def test_a_report_goes_into_a_folder(tmp_path):
    from mithridate.report.write import write_report

    with pytest.raises(OutputError, match="does not exist; create it first"):
        write_report(make_report(), tmp_path / "none")


def test_an_empty_report_is_a_page(tmp_path):
    from mithridate.report.console import print_report
    from mithridate.report.write import write_report

    report = Report("", (), ())
    write_report(report, tmp_path)
    Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    print_report(report)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format": "other"}, "not a report of format"),
        ({"title": 3}, r"title: Input should be a valid string"),
        ({"title": "\ud800"}, "surrogates"),
        ({"summary": "text"}, r"summary: Input should be a valid"),
        ({"tables": [{"name": "a"}]}, r"tables\[0\]\.title: Field required"),
        ({"tables": [{"name": "a", "title": "", "columns": ["x"], "rows": [[1, 2]]}]}, "1 columns, got a row of 2"),
        ({"tables": [{"name": "a", "title": "", "columns": ["x"], "rows": [[[]]]}]}, r"rows\[0\]\[0\]"),
        ({"tables": [{"name": "a", "title": "", "columns": ["x"], "rows": [[{"value": "<b>"}]]}]}, r"\.value"),
        ({"tables": [{"name": "a", "title": "", "columns": ["x"], "rows": [[{"value": True}]]}]}, r"\.value"),
        ({"tables": [{"name": "a", "title": "", "columns": ["x"], "rows": [[{}]]}]}, r"rows\[0\]\[0\]"),
        ({"figures": [{"kind": "pie"}]}, r"figures\[0\]\.kind: Input should be 'line'"),
        ({"figures": [{"curves": [{"label": "a", "x": [1.0], "y": []}]}]}, "1 x, got 0 y"),
        (
            {"figures": [{"curves": [{"label": "a", "x": [10**400], "y": [1]}]}]},
            r"x\[0\]: Input should be a valid number",
        ),
        ({"figures": [{"curves": [{"label": "a", "x": ["1"], "y": [1]}]}]}, r"x\[0\]"),
        ({"retrievals": [{"query": "a", "hits": []}]}, r"retrievals\[0\]\.hits: Input should be"),
        ({"warnings": [{"code": "a", "message": "b", "__class__": "c"}]}, r"__class__: Unexpected"),
        ({"warnings": [{"code": "a", "message": "b", "\x1b[2J": "c"}]}, r"\['\\x1b\[2J'\]: Unexpected"),
        ({"report": "no field of that name"}, r"report: Unexpected"),
        ({"headlines": {}}, r"headlines: Input should be"),
        ({"headlines": [{"group": "a", "measure": "b", "values": {"c": {}}}]}, r"values\.c"),
        ({"headline": {}}, r"headline: Unexpected"),
        ({"provenance": json.loads("[" * 40 + "]" * 40)}, "at most 32 deep"),
    ],
)
def test_a_wrong_report_is_refused(tmp_path, change, match):
    raw = {**json.loads(make_report().to_json()), **change}
    (tmp_path / "report.json").write_text(json.dumps(raw))
    with pytest.raises(DataError, match=match) as caught:
        read_report(tmp_path)
    assert str(caught.value).isprintable()


def test_numbers_come_back_as_they_were_and_what_is_missing_too(tmp_path):
    cells = (
        1,
        1.0,
        True,
        "1",
        None,
        10**400,
        Estimate(0.5),
        Estimate(1.0, 0.0, 1.0, 3),
        Published(0.5),
        Published(None, 1.0),
    )
    curve = Curve("a", (1.0, 2.0), (0.0, 1e300), low=(-1.0, 0.0), high=(1.0, 2.0))
    report = Report(
        "t",
        (),
        (Table("a", "", ("x",), tuple((cell,) for cell in cells)),),
        figures=(Figure("f", "t", "line", "x", "y", (curve,), marks=(Mark("m", 3.0),)),),
    )
    (tmp_path / "report.json").write_text(report.to_json())
    again = read_report(tmp_path)
    assert again == report
    assert [type(row[0]) for row in again.tables[0].rows] == [type(cell) for cell in cells]
    assert again.to_json() == report.to_json()
    lacking = replace(report, figures=(Figure("f", "t", "line", "x", "y", (Curve("a", (1.0,), (math.inf,)),)),))
    (tmp_path / "report.json").write_text(lacking.to_json())
    assert math.isnan(read_report(tmp_path).figures[0].curves[0].y[0])


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 200_000, b'{"format": 1}'])
def test_a_file_that_is_no_report_is_refused(tmp_path, content):
    (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(DataError):
        read_report(tmp_path)


# Headline and console


def test_the_headline_that_json_prints_is_nested_by_group_model_and_measure():
    report = Report(
        "t",
        (),
        (),
        headlines=(
            Headline("attack", "hit@10", {"mine": 0.5, "clean": None}),
            Headline("cost", "fall", {"mine": Estimate(-0.1, -0.2, 0.0, 9)}),
            Headline("attack", "min rank", {"mine": 3.4, "chance": 40.0}),
        ),
    )
    assert report.headline == {
        "attack": {"mine": {"hit@10": 0.5, "min rank": 3.4}, "clean": {"hit@10": None}, "chance": {"min rank": 40.0}},
        "cost": {"mine": {"fall": {"value": -0.1, "low": -0.2, "high": 0.0, "n": 9}}},
    }
    assert {group: [each.measure for each in found] for group, found in report.groups().items()} == {
        "attack": ["hit@10", "min rank"],
        "cost": ["fall"],
    }


def printed(report, width):
    from rich.console import Console

    from mithridate.report.console import print_report

    console = Console(width=width, file=io.StringIO(), record=True)
    print_report(report, console)
    return console.export_text()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_console_shows_every_cell_of_a_wide_table(width):
    columns = ("model", *(f"Hit@{k}" for k in range(12)))
    rows = tuple(
        (name, *(Estimate(0.1 + k / 100 + i / 1000, 0.05, 0.9) for k in range(12)))
        for i, name in enumerate(("poisoned", "clean"))
    )
    text = printed(Report("t", (), (Table("attack", "Attack", columns, rows),)), width)
    assert max(map(len, text.splitlines())) <= width
    for k in range(12):
        assert f"Hit@{k} " in text or f"Hit@{k}\n" in text
        assert f"{0.1 + k / 100:.3f} [0.05, 0.90]" in text
        assert f"{0.101 + k / 100:.3f} [0.05, 0.90]" in text
    assert "95 % intervals" in text


def test_in_brief_a_report_takes_twenty_lines_of_eighty_columns():
    from rich.console import Console

    from mithridate.report.console import print_brief

    claims = tuple(JudgedClaim(f"Claim {i} " + "w" * 90, "open", "why") for i in range(30))
    warnings = tuple(Warning(f"code-{i}", "m" * 200) for i in range(9))
    long = tuple(f"Sentence {i}: {'word ' * 30}" for i in range(9))
    report = replace(make_report(), summary=long, warnings=warnings, sections=(Section("s", "S", "?", claims),))
    console = Console(width=200, file=io.StringIO(), record=True)
    print_brief(report, console)
    lines = console.export_text().splitlines()
    assert len(lines) <= 18  # the page and what is next follow
    assert max(map(len, lines)) <= 80
    assert "more on the page" in lines[-1]


def test_the_console_obeys_no_stranger_and_says_what_it_leaves_out():
    long = Table("long", "Long", ("class", "count"), tuple((f"c{i}", i) for i in range(30)))
    report = make_report("[red]x[/red] \x1b[31m :smile:")
    text = printed(replace(report, tables=(*report.tables, long)), 80)
    assert "\x1b" not in text
    assert "[red]x[/red]" in text
    assert ":smile:" in text
    assert "and 6 more rows, in report.md" in text
    assert "are in report.html" in text


def test_importing_the_room_draws_no_figure():
    import subprocess
    import sys

    code = "import mithridate.report.write, mithridate.report.console, sys; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
