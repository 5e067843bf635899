"""Training from the cache, against the bare step and against a loader that prepares every sample anew."""

import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import open_clip
import pyarrow as pa
import torch
from harness import Row, Spread, compare
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import mithridate as mt
from mithridate.data.pairs import Pairs, make_pairs
from mithridate.encoder.encoder import Encoder
from mithridate.training.clip import clip_loss
from mithridate.training.config import SCRATCH, TrainConfig
from mithridate.training.loop import _low_precision
from mithridate.training.towers import TwoTower, parameter_groups

CAPTION = "a small red sheep standing on the green grass near an old tree"


def photographs(folder: Path, pictures: Any, copies: int) -> Pairs:
    """Distinct JPEGs of 500x375, each with a caption."""
    places = []
    for number, raw in enumerate(itertools.chain(*(pictures.jpegs(500, 375) for _ in range(copies)))):
        place = folder / f"{number:05d}.jpg"
        place.write_bytes(raw + number.to_bytes(4, "little"))  # what follows the end of a JPEG is not looked at
        places.append(str(place))
    return make_pairs(pa.array(places), pa.array([f"{CAPTION} {i}" for i in range(len(places))]))


class PerSample(Dataset):
    """What research code does: everything of a sample in `__getitem__`."""

    def __init__(self, encoder: Encoder, pairs: Pairs) -> None:
        cfg = encoder.config["preprocess_cfg"]
        self.places, self.texts = pairs.image.to_pylist(), pairs.text.to_pylist()
        self.tokenizer = encoder.tokenizer
        self.transform: Any = open_clip.image_transform(
            cfg["size"], is_train=False, mean=cfg["mean"], std=cfg["std"], interpolation=cfg["interpolation"]
        )

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        with Image.open(self.places[i]) as image:
            pixels = self.transform(image.convert("RGB"))
        return pixels, self.tokenizer([self.texts[i]])[0]  # type: ignore[operator]


def per_sample_epoch(encoder: Encoder, pairs: Pairs, batch: int) -> None:
    """One epoch of a plain open_clip step in float32, fed by workers, one for each core."""
    model = encoder.copy().model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    criterion = open_clip.ClipLoss()
    loader = DataLoader(
        PerSample(encoder, pairs), batch, shuffle=True, drop_last=True, num_workers=len(os.sched_getaffinity(0))
    )
    for images, tokens in loader:
        image, text = model.encode_image(images, normalize=True), model.encode_text(tokens, normalize=True)  # type: ignore[operator]
        loss = criterion(image, text, model.get_parameter("logit_scale").exp())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


class BareStep:
    """The step on a batch that lies in memory, and nothing else."""

    def __init__(self, encoder: Encoder, config: TrainConfig, texts: list[str]) -> None:
        self.towers = TwoTower(encoder.copy(), config).train()
        self.optimizer = torch.optim.AdamW(parameter_groups(self.towers, config.weight_decay), lr=1e-4, fused=True)
        generator = torch.Generator().manual_seed(0)
        height, width = encoder.image_size
        self.images = torch.randint(0, 256, (len(texts), height, width, 3), dtype=torch.uint8, generator=generator)
        self.tokens = encoder.tokenizer(texts)
        self.low = _low_precision(config, torch.device("cpu"))

    def __call__(self) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.low):
            found, scale = self.towers([(self.images, self.tokens)])
        image, text = found[0]
        loss = clip_loss(image, text, scale)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def from_cache(encoder: Encoder, pairs: Pairs, config: TrainConfig, cache: Path) -> list[tuple[float, float]]:
    """(clock, processor seconds) at the end of each step."""
    ends: list[tuple[float, float]] = []
    mt.train(
        encoder,
        pairs,
        config=config,
        cache=cache,
        on_step=lambda *_: ends.append((time.perf_counter(), time.process_time())),
    )
    return ends


def beside_bare_step(encoder: Encoder, pairs: Pairs, batch: int, cache: Path, *, rounds: int, epochs: int) -> Row:
    """Steps of the loop fed from the cache, from the second epoch on, and bare steps, in turn."""
    config = TrainConfig(epochs=epochs, batch_size=batch, lr=1e-4, min_lr=0)
    bare = BareStep(encoder, config, pairs.text.slice(0, batch).to_pylist())
    bare()
    mine: list[list[float]] = [[], []]
    theirs: list[list[float]] = [[], []]
    steps = len(pairs) // batch
    for _ in range(rounds):
        ends = from_cache(encoder, pairs, config, cache)[steps - 1 :]
        count = len(ends) - 1
        begin = time.perf_counter(), time.process_time()
        for _ in range(count):
            bare()
        now = time.perf_counter(), time.process_time()
        for i in range(2):
            mine[i].append((ends[-1][i] - ends[0][i]) / count)
            theirs[i].append((now[i] - begin[i]) / count)
    ratios = [Spread.of([b / a for a, b in zip(mine[i], theirs[i])]) for i in range(2)]
    speed = batch / Spread.of(mine[0]).median
    return Row(
        f"step fed from the cache, {encoder.name}, batch {batch}",
        Spread.of(mine[0]).median,
        "the bare step on one batch",
        Spread.of(theirs[0]).median,
        ratios[0],
        ratios[1],
        note=f"{speed:,.0f} pairs/s",
    )


def rows(folder: Path, pictures: Any, *, quick: bool) -> Iterator[Row]:
    tiny = mt.load_encoder("mithridate-tiny")
    pairs = photographs(folder, pictures, 8 if quick else 32)
    cache, batch = folder / "cache", 128
    number = itertools.count()
    epoch = TrainConfig(**{**vars(SCRATCH), "epochs": 1})

    def first_epoch() -> None:
        mt.train(tiny, pairs, config=epoch, cache=folder / f"cache{next(number)}")

    def next_epoch() -> None:
        mt.train(tiny, pairs, config=epoch, cache=cache)

    def theirs() -> None:
        per_sample_epoch(tiny, pairs, batch)

    each: tuple[tuple[str, Callable[[], None]], ...] = (("first", first_epoch), ("second", next_epoch))
    for name, ours in each:
        yield compare(
            f"{name} epoch, tiny model at 64 px, {len(pairs):,} JPEGs of 500x375",
            ours,
            theirs,
            "per-sample loader, float32 step",
            rounds=3 if quick else 5,
        )
    yield beside_bare_step(tiny, pairs, batch, cache, rounds=3 if quick else 5, epochs=3)
    if not quick:
        yield beside_bare_step(mt.load_encoder("ViT-B-32"), pairs.take(range(32)), 16, cache, rounds=3, epochs=3)
