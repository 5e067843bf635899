"""Numbers are formatted in `report/numbers.py` alone."""

import ast
import re
import string
from pathlib import Path

import pytest

import mithridate

SOURCE = Path(mithridate.__file__).parent

PERCENT = re.compile(r"%(?![%srdi]|0\d+[dx])[#0\- +]*[\d*]*(?:\.[\d*]+)?[a-zA-Z]")


def number_formats(tree):
    """(line, format) of every place where a number is formatted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FormattedValue) and node.format_spec is not None and node.conversion == -1:
            parts = node.format_spec.values  # pyright: ignore[reportAttributeAccessIssue]
            # a width that is computed counts as a digit
            spec = "".join(str(part.value) if isinstance(part, ast.Constant) else "9" for part in parts)
            if not is_allowed(spec):
                yield node.lineno, spec
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod) and isinstance(node.left, ast.Constant):
            if isinstance(node.left.value, str) and PERCENT.search(node.left.value):
                yield node.lineno, node.left.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "format":
            spec = node.args[1] if len(node.args) > 1 else None
            if spec is not None and not (isinstance(spec, ast.Constant) and is_allowed(spec.value)):
                yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
            text = node.func.value.value if isinstance(node.func.value, ast.Constant) else None
            fields = string.Formatter().parse(text) if isinstance(text, str) else ()
            yield from ((node.lineno, spec) for *_, spec, _ in fields if spec and not is_allowed(spec))


def is_allowed(spec):
    """Zero-padded whole numbers (file names, digits of a hash), and text aligned in columns."""
    return bool(re.fullmatch(r"(.?[<>^])?(#?0\d+)?\d*[dxs]?", spec))


def modules():
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE)
        if name != Path("report/numbers.py"):
            yield pytest.param(path, id=str(name))


@pytest.mark.parametrize("path", list(modules()))
def test_no_number_is_formatted_outside_the_one_place(path):
    assert list(number_formats(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "code",
    [
        'f"{x:.3f}"',
        'f"{n:,}"',
        'f"{r:.2%}"',
        'f"{x:g}"',
        'f"{x:+d}"',
        'f"{x:.{k}f}"',
        'f"{x:>10.2f}"',
        'f"{x:e}"',
        '"{:.3f}".format(x)',
        '"{name:,}".format(name=x)',
        'format(x, ".3f")',
        "format(x, spec)",
        '"%.3f" % x',
        '"%g of %5.1f" % (x, y)',
    ],
)
def test_a_number_format_is_noticed(code):
    assert list(number_formats(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        'f"{epoch:03d}"',
        'f"{i:0{width}d}"',
        'f"{byte:02x}"',
        'f"{name:<13}"',
        'f"{name:<{width}} {count:>5}"',
        'f"{n} of {x}"',
        'f"{name!r}"',
        'f"{name!r:.80}"',  # text by then: cut, not rounded
        '"%s" % name',
        '"%d of %s, 100 %%" % (n, name)',
        'f"{share} %"',
        "7 % 3",
    ],
)
def test_padding_and_alignment_are_no_number_formats(code):
    assert list(number_formats(ast.parse(code))) == []
