"""The training data as whole batches: order from (seed, epoch), gathered ahead of the step."""

import queue
import threading
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mithridate.data.cache import ImageSource


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

    def __len__(self) -> int:
        return len(self.rows)

    def gather(self, chosen: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Images, texts and rows of the pairs `chosen` (b,)."""
        images, texts = self.image_index[chosen], self.text_index[chosen]
        if self.image_features is not None:
            image = torch.from_numpy(self.image_features[images])
        else:
            assert self.source is not None  # one of the two is there
            image = torch.from_numpy(self.source.gather(images))
        if self.text_features is not None:
            text = torch.from_numpy(self.text_features[texts])
        else:
            text = torch.from_numpy(self.tokens[texts].astype(np.int64))
        return image, text, torch.from_numpy(self.rows[chosen].astype(np.int64))


def epoch_order(n: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order of n pairs in an epoch: (n,), from seed and epoch alone."""
    return np.random.default_rng([seed, epoch]).permutation(n)


def batches(
    data: TrainingSet, *, batch_size: int, seed: int, start: int, stop: int, part: int = 0, parts: int = 1
) -> Generator[tuple[int, tuple[Tensor, Tensor, Tensor]], None, None]:
    """(step, batch) for the steps `start` to `stop`; of each batch the `part`-th of `parts` equal slices.

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
                low = i * batch_size + part * local
                _put(ready, (step, data.gather(order[low : low + local])), stopped)
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
    grid = torch.nn.functional.affine_grid(windows, [b, 3, height, width], align_corners=False).to(pixels.device)
    image = pixels.permute(0, 3, 1, 2).float()
    out = torch.nn.functional.grid_sample(image, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return out.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
