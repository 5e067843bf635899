"""What the memory allocator does with what was freed."""

import ctypes
import sys

# glibc's names (mallopt(3)) and values: what a step frees the next one takes again
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT, _LARGEST = 256 << 20, 32 << 20


def keep_freed_memory() -> bool:
    """Keep up to 256 MiB of freed memory in this process; gives back whether its allocator can be told so.

    glibc gives the top of its heap back to the system when a step ends, and the next step has it zeroed again, page by
    page.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return bool(mallopt and mallopt(_MMAP_THRESHOLD, _LARGEST) and mallopt(_TRIM_THRESHOLD, _KEPT))
