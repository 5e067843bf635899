"""Training from the cache, against the bare step and against a loader that prepares every sample anew."""

import gc
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
from mithridate.training.clip_loss import clip_loss
from mithridate.training.config import SCRATCH, TrainConfig
from mithridate.training.loop import _low_precision
from mithridate.training.towers import TwoTower, parameter_groups
from mithridate.training.used_rows import UsedRowsAdamW, token_table

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
    """The step on a batch that lies in the memory of the device, and nothing else."""

    def __init__(self, encoder: Encoder, config: TrainConfig, texts: list[str]) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.towers = TwoTower(encoder.copy(), config).train().to(self.device)
        self.optimizer: torch.optim.AdamW = torch.optim.AdamW(
            parameter_groups(self.towers, config.weight_decay), lr=1e-4, fused=True
        )
        generator = torch.Generator().manual_seed(0)
        shape = (len(texts), *encoder.image_size, 3)
        self.images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(self.device)
        self.tokens = encoder.tokenizer(texts).to(self.device)
        self.low = _low_precision(config, self.device)

    def __call__(self) -> None:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.low):
            found, scale, _ = self.towers([(self.images, self.tokens)])
        image, text = found[0]
        loss = clip_loss(image, text, scale)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def table_rows(encoder: Encoder, texts: list[str], *, rounds: int) -> Row:
    """Steps whose optimizer visits the used rows of the token table, and steps that visit all of them, in turn."""
    batch, config = len(texts), TrainConfig(lr=1e-4, min_lr=0, precision="fp32")
    used, whole = (BareStep(encoder, config, texts) for _ in range(2))
    table = token_table(used.towers.model)
    used.optimizer = UsedRowsAdamW(parameter_groups(used.towers, config.weight_decay), table, lr=1e-4)
    with used.optimizer.running():
        return compare(
            f"step of {encoder.name}, batch {batch}: optimizer on used token rows",
            used,
            whole,
            "fused AdamW on the whole table",
            rounds=rounds,
        )


def now() -> tuple[float, float]:
    """(clock, processor seconds) once the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def from_cache(encoder: Encoder, pairs: Pairs, config: TrainConfig, cache: Path) -> list[tuple[float, float]]:
    """(clock, processor seconds) at the end of the first epoch and of the last."""
    ends: list[tuple[float, float]] = []
    steps = len(pairs) // config.batch_size
    done = itertools.count(1)

    def ended(*_: Any) -> None:
        if next(done) in (steps, config.epochs * steps):
            ends.append(now())  # nowhere else: to wait for the device at every step would slow what is measured

    mt.train(encoder, pairs, config=config, cache=cache, on_step=ended)
    return ends


def beside_bare_step(encoder: Encoder, pairs: Pairs, batch: int, cache: Path, *, rounds: int, epochs: int) -> Row:
    """Steps of the loop fed from the cache, from the second epoch on, and bare steps, in turn."""
    config = TrainConfig(epochs=epochs, batch_size=batch, lr=1e-4, min_lr=0)
    bare = BareStep(encoder, config, pairs.text.slice(0, batch).to_pylist())
    bare()
    mine: list[list[float]] = [[], []]
    theirs: list[list[float]] = [[], []]
    count = (epochs - 1) * (len(pairs) // batch)
    for _ in range(rounds):
        first, last = from_cache(encoder, pairs, config, cache)
        begin = now()
        for _ in range(count):
            bare()
        end = now()
        for i in range(2):
            mine[i].append((last[i] - first[i]) / count)
            theirs[i].append((end[i] - begin[i]) / count)
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
    for name, size in (("mithridate-micro", 128), ("mithridate-micro-byob", 64), ("mithridate-micro-vit", 128)):
        texts = [f"{CAPTION} {i}" for i in range(size)]
        yield table_rows(mt.load_encoder(name), texts, rounds=5 if quick else 25)
    if not quick:
        yield beside_bare_step(mt.load_encoder("ViT-B-32"), pairs.take(range(32)), 16, cache, rounds=3, epochs=3)


def largest_batch(encoder: Encoder) -> int:
    """The largest power of two whose bare step the GPU has memory for."""
    batch, config = 64, TrainConfig(lr=1e-4, min_lr=0)
    beside = BareStep(encoder, config, [CAPTION] * 2)  # the loop's own model lies beside that of the bare step
    beside()
    while True:
        try:
            BareStep(encoder, config, [CAPTION] * (2 * batch))()
        except torch.cuda.OutOfMemoryError:
            return batch
        finally:
            gc.collect()
            torch.cuda.empty_cache()
        batch *= 2


def gpu_rows(folder: Path, pictures: Any, *, quick: bool) -> Iterator[Row]:
    """ViT-B/32 at 224 px beside its bare step, at a batch of 256 and at the one that fills the card."""
    encoder = mt.load_encoder("ViT-B-32")
    for batch in (256,) if quick else (256, largest_batch(encoder)):
        pairs = photographs(folder, pictures, -(-4 * batch // 64))
        yield beside_bare_step(encoder, pairs, batch, folder / "cache", rounds=3 if quick else 5, epochs=3)
