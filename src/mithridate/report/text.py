"""Text from strangers on its way to a page: what is invisible or reorders its surroundings is replaced."""

from __future__ import annotations

import json
import re
from typing import Any

# Control characters (a terminal obeys ESC), halves of surrogate pairs, overrides of the writing direction,
# and what XML forbids.
_UNSAFE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


def one_line(text: object, *, limit: int | None = None) -> str:
    """`text` on one line without control characters; where longer than `limit`, cut with an ellipsis."""
    line = _UNSAFE.sub("\ufffd", " ".join(str(text).split()))
    return line if limit is None or len(line) <= limit else line[: limit - 1].rstrip() + "…"


def indented_json(value: Any) -> str:
    """`value` to the last digit, for people to read; what is not visible is escaped."""
    record = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", record)
