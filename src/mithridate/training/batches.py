"""The training data as whole batches: order from (seed, epoch), gathered ahead of the step."""

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mithridate.data.cache import ImageSource
from mithridate.randomness import stream
from mithridate.training.loss import PLAIN, View

# rows of pairs (b,), epoch, number of the view -> token ids (b, length)
AugmentTexts = Callable[[np.ndarray, int, int], Tensor]
Batch = tuple[Tensor, tuple[Tensor, ...], Tensor]  # images, texts of each view, rows


@dataclass(frozen=True)
class TrainingSet:
    """n usable pairs. Images are `source` (uint8 by position) or `image_features` (m, width) of a frozen tower;
    texts are `tokens` (t, length), or `text_features` (t, width)."""

    rows: np.ndarray  # (n,) row of each in the pairs it came from
    image_index: np.ndarray  # (n,)
    text_index: np.ndarray  # (n,)
    tokens: np.ndarray
    source: ImageSource | None
    image_features: np.ndarray | None = None
    text_features: np.ndarray | None = None
    augment_texts: AugmentTexts | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def gather(self, chosen: np.ndarray, *, views: Sequence[View] = (PLAIN,), epoch: int = 0) -> Batch:
        """Images, texts as each view wants them, and rows of the pairs `chosen` (b,)."""
        plain = self.texts(self.text_index[chosen]) if any(view.text == "plain" for view in views) else None
        rows = self.rows[chosen]
        texts = []
        for number, view in enumerate(views):
            if view.text == "plain":
                texts.append(plain)
            else:
                assert self.augment_texts is not None  # is there where a view asks for it
                # what is fixed is drawn before any epoch
                when = (0, 0) if view.text == "fixed" else (epoch + 1, number)
                texts.append(self.augment_texts(rows, *when))
        return self.images(self.image_index[chosen]), tuple(texts), torch.from_numpy(rows.astype(np.int64))

    def images(self, at: np.ndarray) -> Tensor:
        """Pixels (b, h, w, 3), or features, of the images at `at` (b,)."""
        if self.image_features is not None:
            return torch.from_numpy(self.image_features[at])
        assert self.source is not None  # one of the two is there
        return torch.from_numpy(self.source.gather(at))

    def texts(self, at: np.ndarray) -> Tensor:
        """Token ids (b, length), or features, of the captions at `at` (b,)."""
        if self.text_features is not None:
            return torch.from_numpy(self.text_features[at])
        return torch.from_numpy(self.tokens[at].astype(np.int64))


def epoch_order(n: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order of n pairs in an epoch: (n,), from seed and epoch alone."""
    return stream(seed, "epoch order", epoch).permutation(n)


def grouped_order(order: np.ndarray, groups: np.ndarray, *, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """`order` (n,) changed so that pairs of one of the `groups` (n,) share batches, but for one batch between two.

    Batches come in random order; what is over at the end is left out of the epoch, as ever.
    """
    order = order[np.argsort(groups[order], kind="stable")]
    whole = len(order) // batch_size
    turn = stream(seed, "batch order", epoch).permutation(whole)
    full = order[: whole * batch_size].reshape(whole, batch_size)[turn].reshape(-1)
    return np.concatenate([full, order[whole * batch_size :]])


def batches(
    data: TrainingSet,
    *,
    batch_size: int,
    seed: int,
    start: int,
    stop: int,
    part: int = 0,
    parts: int = 1,
    views: Sequence[View] = (PLAIN,),
    groups: np.ndarray | None = None,
) -> Generator[tuple[int, Batch], None, None]:
    """(step, batch) for the steps `start` to `stop`; of each batch the `part`-th of `parts` equal slices.

    `groups` (n,) of the pairs of `data`: see `grouped_order`.

    A thread gathers two batches ahead, so that reading overlaps with the step.
    """
    per_epoch, local = len(data) // batch_size, batch_size // parts
    ready: queue.Queue = queue.Queue(maxsize=2)
    stopped = threading.Event()

    def work() -> None:
        try:
            order, known = np.empty(0, np.int64), -1
            for step in range(start, stop):
                epoch, i = divmod(step, per_epoch)
                if epoch != known:
                    order, known = epoch_order(len(data), seed=seed, epoch=epoch), epoch
                    if groups is not None:
                        order = grouped_order(order, groups, batch_size=batch_size, seed=seed, epoch=epoch)
                low = i * batch_size + part * local
                _put(ready, (step, data.gather(order[low : low + local], views=views, epoch=epoch)), stopped)
                if stopped.is_set():
                    return
            _put(ready, None, stopped)
        except Exception as error:
            _put(ready, error, stopped)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()


def _put(ready: queue.Queue, item: object, stopped: threading.Event) -> None:
    while not stopped.is_set():
        try:
            ready.put(item, timeout=0.1)
            return
        except queue.Full:
            continue


def crop_windows(b: int, *, generator: torch.Generator, low: float = 0.9) -> Float[Tensor, "b 2 3"]:
    """Random windows of `low` to 1 of the area and aspect 3/4 to 4/3, as maps from the output to the picture.

    What would stick out of the picture is cut to its edge, as torchvision's RandomResizedCrop does in the end.
    """
    area = torch.empty(b).uniform_(low, 1, generator=generator)
    ratio = torch.empty(b).uniform_(float(np.log(3 / 4)), float(np.log(4 / 3)), generator=generator).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    windows = torch.zeros(b, 2, 3)
    windows[:, 0, 0], windows[:, 1, 1] = width, height
    windows[:, 0, 2] = (torch.rand(b, generator=generator) * 2 - 1) * (1 - width)
    windows[:, 1, 2] = (torch.rand(b, generator=generator) * 2 - 1) * (1 - height)
    return windows


def crop(pixels: UInt8[Tensor, "b h w 3"], windows: Float[Tensor, "b 2 3"]) -> UInt8[Tensor, "b h w 3"]:
    """Each image's window resized to the image's size (bicubic), in one resampling of the whole batch."""
    b, height, width, _ = pixels.shape
    # where the pixels are: the grid is larger than they
    grid = torch.nn.functional.affine_grid(windows.to(pixels.device), [b, 3, height, width], align_corners=False)
    image = pixels.permute(0, 3, 1, 2).float()
    out = torch.nn.functional.grid_sample(image, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return out.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
