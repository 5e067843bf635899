"""Help as it reads best: what an option takes, without the programmer's None."""

import re
from collections.abc import Sequence

_ABSENT = re.compile(r"\{None\}\|(\S+)")
_CHOICE = re.compile(r"\{None,([^}\s]*\})")
_EMPTY = re.compile(r"\(default: *(None)?\)")
_OPEN, _CLOSE = re.compile(r"\(default:(?=\s*[│|]?$)"), re.compile(r"^([│|]?\s+)(None)?\)")
_BLANK = re.compile(r"[│|]?\s*[│|]?")


def without_none(lines: Sequence[str]) -> list[str]:
    """Lines of help in which no option takes or defaults to None: `STR`, and no default where there is none.

    Frames stay as wide as they are; a line that only told of such a default goes.
    """
    kept: list[str] = []
    for line in lines:
        new = _ABSENT.sub(lambda found: found[1].ljust(len(found[0])), line)
        new = _CHOICE.sub(lambda found: f"{{{found[1]}".ljust(len(found[0])), new)
        new = _EMPTY.sub(lambda found: " " * len(found[0]), new)
        if kept and _OPEN.search(kept[-1]) and _CLOSE.match(new):
            kept[-1] = _OPEN.sub(lambda found: " " * len(found[0]), kept[-1])
            new = _CLOSE.sub(lambda found: found[1] + " " * (len(found[0]) - len(found[1])), new)
            if _BLANK.fullmatch(kept[-1]):
                kept.pop()
        if new == line or not _BLANK.fullmatch(new):
            kept.append(new)
    return kept
