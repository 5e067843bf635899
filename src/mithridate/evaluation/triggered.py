"""Images with a trigger, as an encoder sees them, and what they are taken for."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image

from mithridate.data.images import decode, read_bytes
from mithridate.data.pairs import Pairs
from mithridate.encoder.encoder import Encoder
from mithridate.errors import EvaluationError
from mithridate.metrics.attack_success import attack_success_rate
from mithridate.metrics.classification import class_scores, true_ranks
from mithridate.metrics.z_score import z_score
from mithridate.poisoning.triggers import Trigger, describe
from mithridate.randomness import stream
from mithridate.statistics.estimate import Estimate
from mithridate.threads import thread_count


@dataclass
class TriggeredImages:
    """Images stamped at full size and then prepared as the encoder's are; nothing is written to disk.

    An image's draws depend on `seed`, the trigger and the image's position only.
    """

    locations: Sequence[str]
    trigger: Trigger
    encoder: Encoder
    seed: int = 0
    bad: dict[int, str] = field(default_factory=dict)
    keys: np.ndarray | None = None

    def gather(self, index: np.ndarray) -> np.ndarray:
        """The images at `index` (b,): (b, h, w, 3) uint8."""
        with ThreadPoolExecutor(thread_count()) as pool:
            return np.stack(list(pool.map(self._one, index.tolist())))

    def _one(self, i: int) -> np.ndarray:
        location = self.locations[i]
        image = np.asarray(decode(read_bytes(location), location))
        stamped = self.trigger.stamp(
            image, stream(self.seed, f"test images with {describe(self.trigger, full=True)}", i)
        )
        return self.encoder.to_pixels(Image.fromarray(stamped))


@dataclass(frozen=True)
class LabelledImages:
    """The images of a test set that have one class: `image` (n,) positions in its images, `label` (n,) in `names`."""

    names: tuple[str, ...]
    image: Int[np.ndarray, " n"]
    label: Int[np.ndarray, " n"]
    left_out: int

    def index(self, name: str) -> int:
        """The position of a class. Raises `EvaluationError` where no test image is of it."""
        if name not in self.names:
            known = ", ".join(self.names[:20]) or "none"
            raise EvaluationError(f"no test image is labelled {name!r} alone; the classes are {known}")
        return self.names.index(name)


def classes_of_test(pairs: Pairs, counted: Bool[np.ndarray, " m"] | None = None) -> LabelledImages:
    """Images whose first pair has exactly one label; the others are left out, as are those not `counted`.

    Raises `EvaluationError` where there are fewer than two classes, or no images are left.
    """
    first = np.unique(pairs.image_index, return_index=True)[1]
    labels = [pairs.labels[int(row)].as_py() or [] for row in first]
    image = np.array([i for i, found in enumerate(labels) if len(found) == 1], np.int64)
    names = tuple(sorted({labels[i][0] for i in image}))
    if len(names) < 2:
        raise EvaluationError(
            f"success is measured by classification, which needs test images of at least two classes, got {len(names)}"
        )
    position = {name: number for number, name in enumerate(names)}
    left_out = len(labels) - len(image)
    if counted is not None:
        image = image[counted[image]]
        if not len(image):
            raise EvaluationError(
                "every test image is a target of the attack, so none is left to measure accuracy on; add test pairs"
            )
    label = np.array([position[labels[i][0]] for i in image], np.int64)
    return LabelledImages(names, image, label, left_out)


@dataclass(frozen=True)
class Success:
    """What a model makes of n triggered images of other classes than the target.

    `rate`: share taken for the target; `before`: share of the same images without the trigger; `rank` (n,) 0-based
    rank of the target for each; `z` Carlini & Terzis' score, None where it is not defined.
    """

    rate: Estimate
    before: Estimate
    rank: Int[np.ndarray, " n"]
    z: float | None


def success(
    untouched: Float[np.ndarray, "n d"],
    triggered: Float[np.ndarray, "n d"],
    label: Int[np.ndarray, " n"],
    weights: Float[np.ndarray, "c d"],
    *,
    target: int,
) -> Success:
    """Success of a trigger from embeddings of the same n images; ties count against the target."""
    ranks = [class_ranks(rows, weights, target) for rows in (untouched, triggered)]
    before, rate = (attack_success_rate(np.where(r == 0, target, -1), label, target=target) for r in ranks)
    others = label != target
    try:
        z = z_score(untouched[others], triggered[others])
    except ValueError:  # one image, or a model that embeds all to one point
        z = None
    return Success(rate, before, ranks[1][others], z)


def class_ranks(image: Float[np.ndarray, "n d"], weights: Float[np.ndarray, "c d"], target: int) -> np.ndarray:
    """0-based rank of class `target` for each image."""
    return true_ranks(class_scores(image, weights), np.full(len(image), target))
