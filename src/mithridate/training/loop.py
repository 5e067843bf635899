"""Train an encoder on pairs, with any objective, from any moment on."""

import hashlib
import logging
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn

from mithridate.data.cache import cache_folder
from mithridate.data.pairs import Pairs
from mithridate.encoder.embed import Progress, _silent, image_source, tokenise
from mithridate.encoder.encoder import Encoder
from mithridate.errors import DataError, MithridateError
from mithridate.training.batches import TrainingSet, batches, crop, crop_windows
from mithridate.training.clip import Clip, EncodedBatch
from mithridate.training.config import TrainConfig
from mithridate.training.features import frozen_features
from mithridate.training.run import Run
from mithridate.training.towers import TwoTower, cosine_lr, parameter_groups

_LOG = logging.getLogger(__name__)

MAX_LOGIT_SCALE = float(np.log(100))
_LOG_EVERY = 10  # steps between two reads of the loss: each waits for the device


def train(
    encoder: Encoder,
    pairs: Pairs,
    *,
    objective: nn.Module | None = None,
    config: TrainConfig | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    cache: Path | str | None = "default",
    cache_limit: int | None = None,
    progress: Progress = _silent,
    on_step: Callable[[int, int, int], None] = lambda step, total, batch_size: None,
) -> Encoder:
    """Train a copy of `encoder` on `pairs` and give it back in eval mode; `objective` is plain CLIP by default.

    With `out`, metrics, states and the final model are written there, and a run that was killed goes on from its
    last state to the same weights; `out` with another or a finished run in it is refused without `overwrite`.
    Under `torchrun` each process takes its slice of every batch. Raises `DataError` where pairs or images do not
    suffice.
    """
    config, objective = config or TrainConfig(), objective or Clip()
    if not len(pairs):
        raise DataError("there are no pairs to train on")
    # its own mixed precision is fixed once a process; two runs in one process may differ, so autocast is ours
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    with accelerator.main_process_first():
        replace = overwrite and accelerator.is_main_process  # the others find the folder made
        run = Run.open(out, encoder, pairs, objective, config, overwrite=replace)
    encoder = encoder.copy()
    if config.batch_size % accelerator.num_processes:
        raise MithridateError(
            f"batch_size must be a multiple of the {accelerator.num_processes} processes, got {config.batch_size}"
        )
    towers = TwoTower(encoder, config).to(accelerator.device)
    objective.to(accelerator.device)
    data = _training_set(encoder, towers, pairs, config, accelerator, cache, cache_limit, progress)
    groups = parameter_groups(nn.ModuleList([towers, objective]), config.weight_decay)
    if not groups:
        raise MithridateError("nothing is left to train: everything is frozen; leave out a part of --freeze")
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        start = run.restore(encoder.model, objective, optimizer)
        _steps(encoder, towers, data, objective, config, optimizer, accelerator, run, start, on_step)
    encoder.model.eval()
    if accelerator.is_main_process:
        run.finish(encoder)
    return encoder


def _steps(encoder, towers, data, objective, config, optimizer, accelerator, run, start, on_step) -> None:
    per_epoch = len(data) // config.batch_size
    total = per_epoch * config.epochs
    rank, world = accelerator.process_index, accelerator.num_processes
    low_precision = _low_precision(config, accelerator.device)
    step_module = accelerator.prepare(towers)
    step_module.train()
    objective.train()
    waiting: list[tuple[int, float, Tensor]] = []
    clock = time.perf_counter()
    stream = batches(
        data, batch_size=config.batch_size, seed=config.seed, start=start, stop=total, part=rank, parts=world
    )
    with closing(stream):  # ends its thread, also when a step raises
        for step, (images, texts, rows) in stream:
            lr = cosine_lr(step, total, peak=config.lr, floor=config.min_lr, warmup=config.warmup)
            for group in optimizer.param_groups:
                group["lr"] = lr
            if config.augment == "crop" and images.dtype == torch.uint8:
                # drawn for the whole batch, so that it does not matter how many processes share it
                drawn = torch.Generator().manual_seed(_mix(config.seed, step))
                windows = crop_windows(config.batch_size, generator=drawn)
                images = crop(images, windows[rank * len(images) : (rank + 1) * len(images)])
            with torch.autocast(accelerator.device.type, dtype=torch.bfloat16, enabled=low_precision):
                image, text, scale = step_module(images.to(accelerator.device), texts.to(accelerator.device))
            if world > 1:
                image, text = (_gather(x, rank, world) for x in (image, text))
                rows = accelerator.gather(rows.to(accelerator.device))
            loss = objective(EncodedBatch(image, text, scale, rows, step // per_epoch, step))
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            with torch.no_grad():
                encoder.model.get_parameter("logit_scale").clamp_(0, MAX_LOGIT_SCALE)

            done = step + 1
            waiting.append((step, lr, loss.detach()))
            last, save = done == total, done % config.checkpoint_every == 0
            if done % _LOG_EVERY == 0 or save or last:  # what a state stands on is written before it
                losses = torch.stack([x for *_, x in waiting]).float().tolist()
                if not np.isfinite(losses).all():
                    first = waiting[int(np.isfinite(losses).argmin())][0]
                    raise MithridateError(
                        f"the loss is not finite at step {first}: training diverged; lower --lr, or --precision fp32"
                    )
                seconds, clock = time.perf_counter() - clock, time.perf_counter()
                speed = len(waiting) * config.batch_size / max(seconds, 1e-9)
                if accelerator.is_main_process:
                    run.log([(s, r, x) for (s, r, _), x in zip(waiting, losses)], per_epoch=per_epoch, speed=speed)
                waiting = []
            on_step(done, total, config.batch_size)
            if accelerator.is_main_process:
                if done % per_epoch == 0 and config.save_epochs:
                    run.save_epoch(encoder, done // per_epoch)
                if save and not last:
                    run.save(done, encoder.model, objective, optimizer)


def _gather(local: Tensor, rank: int, world: int) -> Tensor:
    """The embeddings of all processes, with a gradient through this one's.

    Every process computes the whole loss; DDP then takes the mean over processes of gradients that each hold one
    share of the sum, so that share is scaled up here. (Scaling the loss would scale the temperature's gradient too.)
    """
    parts = [torch.empty_like(local) for _ in range(world)]
    dist.all_gather(parts, local.detach().contiguous())
    own = local.view_as(local)
    if own.requires_grad:
        own.register_hook(lambda gradient: gradient * world)
    parts[rank] = own
    return torch.cat(parts)


def _training_set(encoder, towers, pairs, config, accelerator, cache, cache_limit, progress) -> TrainingSet:
    """Decode, tokenise, leave out what is bad, and run frozen trunks once."""
    # one process fills the cache, the others find it filled
    with accelerator.main_process_first():
        source = image_source(encoder, pairs.images, cache=cache, limit=cache_limit, progress=progress)
        tokens, text_index = tokenise(encoder, pairs.text, cache=cache)
    if source.bad:
        _refuse_bad(source.bad, len(pairs.images), config.max_bad)
        _LOG.warning("%s; they are left out", _told(source.bad, len(pairs.images)))
    usable = ~np.isin(pairs.image_index, list(source.bad))
    rows = np.flatnonzero(usable)
    if len(rows) < config.batch_size:
        raise DataError(
            f"a batch needs {config.batch_size} pairs and there are {len(rows)}; lower --batch-size or give more data"
        )
    image_features = text_features = None
    folder = cache_folder() if cache == "default" else None if cache is None else Path(cache)

    def run_frozen(tower, keys, count, gather, recipe) -> np.ndarray | None:
        with accelerator.main_process_first():
            return frozen_features(
                towers,
                tower,
                keys,
                count,
                gather,
                recipe=recipe,
                folder=folder,
                device=accelerator.device,
                progress=progress,
            )

    if "image" in towers.frozen and config.augment == "none":
        image_features = run_frozen("image", source.keys, len(pairs.images), source.gather, encoder.recipe)
    if "text" in towers.frozen:
        # one row of ids is one key: two captions that are cut to the same ids are the same to the tower
        keys = np.array([hashlib.blake2b(row.tobytes(), digest_size=15).digest() + b"+" for row in tokens])
        text_features = run_frozen("text", keys, len(tokens), lambda r: tokens[r].astype(np.int64), "")
    return TrainingSet(rows, pairs.image_index[rows], text_index[rows], tokens, source, image_features, text_features)


def _refuse_bad(bad: dict[int, str], images: int, max_bad: float) -> None:
    if len(bad) > max_bad * images:
        raise DataError(
            f"{_told(bad, images)}; --max-bad {max_bad:g} allows no more than that share of them: "
            "mend the data (mithridate data doctor lists all), or raise it"
        )


def _told(bad: dict[int, str], images: int) -> str:
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    return f"{len(bad)} of {images} images do not decode ({'; '.join(list(bad.values())[:3])}{more})"


def _low_precision(config: TrainConfig, device: torch.device) -> bool:
    """Whether the towers run in bf16."""
    if config.precision != "auto":
        return config.precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    # where the processor multiplies bf16: 2.8x for ViT-B/32, 1.3x for the tiny model; without, it is emulated and slow
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(list(numbers)).generate_state(1, np.uint64)[0] >> 1)
