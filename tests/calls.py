"""Work counted as calls, which another machine and a busy one count alike; seconds would not do."""

import sys
from collections.abc import Callable


def calls(function: Callable[[], object]) -> int:
    """Calls of Python and C functions that `function` makes on this thread."""
    count, before = 0, sys.getprofile()

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count
