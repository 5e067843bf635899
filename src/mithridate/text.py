"""Text from strangers on its way to a terminal or a page: what is invisible or reorders its surroundings is replaced.

Split names, paths, class names, endings and captions come from files that somebody else wrote, and a terminal obeys
what they hold. All that commands print goes through `say`; what pages show through `one_line` and `visible_json`.
"""

import json
import re
import shutil
import sys
import textwrap
from typing import Any

# Control characters (a terminal obeys ESC and CSI), halves of surrogate pairs, overrides of the writing direction,
# and what XML forbids.
_UNSAFE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\u2028-\u202e\u2066-\u2069\ufffe\uffff]")
_BREAKS = re.compile("\r\n|[\t-\r\x85\u2028\u2029]")
_WHOLE = re.compile(r"next: |Example: |\{|\[")
_COLUMN = re.compile(r" *\S+ {2,}")  # the name in a list of names
_INDENT = re.compile(" *")


def one_line(text: object, *, limit: int | None = None) -> str:
    """`text` on one line without control characters; where longer than `limit`, cut with an ellipsis."""
    line = _UNSAFE.sub("\ufffd", " ".join(str(text).split()))
    return line if limit is None or len(line) <= limit else line[: limit - 1].rstrip() + "…"


def shortened(text: str, limit: int = 1500) -> str:
    """`text`, cut in the middle where longer than `limit`: what is wrong stands first, what to do about it last."""
    return text if len(text) <= limit else f"{text[: limit // 2]} … {text[-(limit // 2) :]}"


def say(*lines: object, stderr: bool = False) -> None:
    """Print lines, each of them one: what would break it, or what a terminal would obey, is replaced.

    A terminal that is too narrow for a line gets it broken between words; commands to copy, and JSON, stay whole.
    """
    stream = sys.stderr if stderr else sys.stdout
    width = shutil.get_terminal_size().columns if stream.isatty() else None
    for line in lines:
        plain = _UNSAFE.sub("\ufffd", _BREAKS.sub(" ", str(line)))
        for part in [plain] if width is None or _WHOLE.match(plain) else folded(plain, width):
            print(part, file=stream, flush=True)


def folded(line: str, width: int) -> list[str]:
    """`line` broken between words where longer than `width`; what hangs stands below its first word, or its second
    column where the line is of a list."""
    if len(line) <= width:
        return [line]
    begins = _COLUMN.match(line) or _INDENT.match(line)
    hanging = " " * (0 if begins is None else min(begins.end(), width // 2))
    return textwrap.wrap(line, width, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False)


def visible_json(value: Any, *, indent: int | None = None) -> str:
    """`value` to the last digit, for a terminal or a page; what is not visible is escaped."""
    record = json.dumps(value, indent=indent, ensure_ascii=False, default=str)
    return _UNSAFE.sub(lambda unsafe: f"\\u{ord(unsafe[0]):04x}", record)
