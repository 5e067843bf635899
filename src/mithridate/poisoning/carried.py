"""How much of an edit an image still shows after it was written: containers and modes lose colours and detail."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image


@dataclass(frozen=True)
class Change:
    """What an edit does to the pixels from (`top`, `left`) on: from `before` to `after`, both (h, w, 3)."""

    before: UInt8[np.ndarray, "h w 3"]
    after: UInt8[np.ndarray, "h w 3"]
    top: int = 0
    left: int = 0


def carried(changes: Sequence[Change], written: Image.Image) -> float:
    """The share of the changes that `written`, an RGB image, shows: 1 where all of it is there, 0 where nothing is.

    The least-squares factor of (written - before) on (after - before) over all changed pixels, clipped to [0, 1];
    1 where the edit changes nothing. Derived here.
    """
    shown = wanted = 0.0
    for change in changes:
        height, width = change.before.shape[:2]
        box = (change.left, change.top, change.left + width, change.top + height)
        before = change.before.astype(np.float32)
        edit, difference = change.after - before, np.asarray(written.crop(box)) - before
        shown += float(np.vdot(edit, difference))
        wanted += float(np.vdot(edit, edit))
    return min(1.0, max(0.0, shown / wanted)) if wanted else 1.0
