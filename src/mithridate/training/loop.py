"""Train an encoder on pairs, with any objective, from any moment on."""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from mithridate.allocator import keep_freed_memory
from mithridate.data.jpeg import decoding
from mithridate.data.pairs import Pairs
from mithridate.encoder.embed import Progress, _silent
from mithridate.encoder.encoder import Encoder
from mithridate.encoder.towers import tower_parameters
from mithridate.errors import DataError, MithridateError
from mithridate.folders import claim
from mithridate.provenance import source_hash
from mithridate.randomness import stream_seed
from mithridate.training.augment_images import augment_images, draw
from mithridate.training.augment_text import find_synonyms
from mithridate.training.batches import TrainingSet, batches, crop, crop_windows
from mithridate.training.clip import Clip
from mithridate.training.config import TrainConfig
from mithridate.training.distributed import Processes, WholeBatchNorm
from mithridate.training.loss import Encoded, EncodedBatch, EpochPlan, Plans, Prepares, View, plan_of
from mithridate.training.objective import Objective, Start
from mithridate.training.run import Run
from mithridate.training.towers import TwoTower, cosine_lr, parameter_groups
from mithridate.training.training_set import training_set
from mithridate.training.used_rows import UsedRowsAdamW, token_table
from mithridate.training.whole_set import epoch_start

MAX_LOGIT_SCALE = float(np.log(100))
_LOG = logging.getLogger(__name__)
_LOG_EVERY = 10  # steps between two reads of the loss: each waits for the device


def train(
    encoder: Encoder,
    pairs: Pairs,
    *,
    objective: Objective | None = None,
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
    Under `torchrun` each process takes its slice of every batch, and batch norms see all of it. Raises `DataError`
    where pairs or images do not suffice, `OutputError` where another process trains in `out`, and `MithridateError`
    where the objective does not fit the model or training diverges.
    """
    config, objective = config or TrainConfig(), objective or Clip()
    if not len(pairs):
        raise DataError("there are no pairs to train on")
    needs_bias = bool(getattr(objective, "needs_bias", False))
    _check_bias(encoder, objective, needs_bias=needs_bias)
    processes = Processes.join()
    device = processes.device
    if config.batch_size % processes.world:
        raise MithridateError(
            f"batch_size must be a multiple of the {processes.world} processes, got {config.batch_size}"
        )
    low_precision = _low_precision(config, device)
    width = int(encoder.config["model_cfg"]["embed_dim"])
    loss = objective.build(Start(len(pairs), width, config.epochs, config.seed, config.batch_size)).to(device)
    plans = isinstance(loss, Plans)
    views = {view for epoch in range(config.epochs if plans else 1) for view in plan_of(loss, epoch).views}
    synonyms = None if all(view.text == "plain" for view in views) else find_synonyms()
    with claim(out) if out is not None and processes.first else nullcontext():
        with processes.first_before_others():
            run = Run.open(
                out,
                encoder,
                pairs,
                objective,
                config,
                overwrite=overwrite and processes.first,  # the others find the folder made
                extra={
                    "decoding": decoding(),
                    "precision": "bf16" if low_precision else "fp32",
                    "processes": processes.world,
                    "source": _source(objective),
                    **({} if synonyms is None else {"synonyms": synonyms.name}),
                },
            )
        start_towers = None
        if any(view.model == "start" for view in views):
            start_towers = TwoTower(encoder.copy(), config).to(device).eval().requires_grad_(False)
        encoder = encoder.copy()
        # a scale that pre-training brought beyond CLIP's bound is not pulled back to it
        ceiling = inf if needs_bias else max(MAX_LOGIT_SCALE, encoder.model.get_parameter("logit_scale").item())
        towers = TwoTower(encoder, config, with_bias=needs_bias).to(device)
        data = training_set(encoder, towers, pairs, config, views, synonyms, processes, cache, cache_limit, progress)
        groups = parameter_groups(nn.ModuleList([towers, loss]), config.weight_decay)
        if not groups:
            raise MithridateError("nothing is left to train: everything is frozen; leave out a part of --freeze")
        # processes share dense gradients, and a GPU would wait for the ids of each batch
        table = token_table(encoder.model) if processes.world == 1 and device.type == "cpu" else None
        optimizer = UsedRowsAdamW(groups, table, lr=config.lr, betas=config.betas, eps=config.eps)
        if device.type == "cpu":
            keep_freed_memory()
        with torch.random.fork_rng(), optimizer.running():
            torch.manual_seed(stream_seed(config.seed, "dropout"))
            start = run.restore(encoder.model, loss, optimizer)
            _Loop(
                towers, start_towers, data, loss, config, optimizer, processes, run, low_precision, on_step, ceiling
            ).go(encoder, start)
        encoder.model.eval()
        refuse_ruined(encoder.model)
        if processes.first:
            run.finish(encoder)
    return encoder


@dataclass
class _Loop:
    towers: TwoTower
    start_towers: TwoTower | None
    data: TrainingSet
    loss: nn.Module
    config: TrainConfig
    optimizer: UsedRowsAdamW
    processes: Processes
    run: Run
    low_precision: bool
    on_step: Callable[[int, int, int], None]
    ceiling: float = MAX_LOGIT_SCALE  # of the logit scale
    zero_gradients: dict[nn.Parameter, Tensor] = field(default_factory=dict)  # gradients of what is spared

    def go(self, encoder: Encoder, start: int) -> None:
        """All steps from `start` on, epoch by epoch."""
        config, processes = self.config, self.processes
        per_epoch = len(self.data) // config.batch_size
        total = per_epoch * config.epochs
        step_module, scale = processes.share(self.towers), encoder.model.get_parameter("logit_scale")
        step_module.train()
        self.loss.train()
        waiting: list[tuple[int, float, Tensor]] = []
        clock = time.perf_counter()
        for epoch in range(start // per_epoch, config.epochs):
            begin = epoch * per_epoch
            if start <= begin and isinstance(self.loss, Prepares):
                self.loss.prepare(
                    epoch_start(
                        epoch, self.towers, self.data, device=processes.device, low_precision=self.low_precision
                    )
                )
            plan = plan_of(self.loss, epoch)
            stream = batches(
                self.data,
                batch_size=config.batch_size,
                seed=config.seed,
                start=max(start, begin),
                stop=begin + per_epoch,
                part=processes.rank,
                parts=processes.world,
                views=plan.views,
                groups=None if plan.groups is None else plan.groups[self.data.rows],
            )
            with closing(stream):  # ends its thread, also when a step raises
                for step, (images, texts, rows) in stream:
                    lr = plan.lr_factor * cosine_lr(
                        step, total, peak=config.lr, floor=config.min_lr, warmup=config.warmup
                    )
                    for group in self.optimizer.param_groups:
                        group["lr"] = lr
                    loss = self._step(step_module, plan, epoch, step, images, texts, rows)
                    if scale.requires_grad:
                        with torch.no_grad():
                            scale.clamp_(0, self.ceiling)
                    done = step + 1
                    waiting.append((step, lr, loss))
                    last, save = done == total, done % config.checkpoint_every == 0
                    if save or done % per_epoch == 0:
                        self.optimizer.settle()
                    if done % _LOG_EVERY == 0 or save or last:  # what a state stands on is written before it
                        clock = self._log(waiting, per_epoch, clock)
                        waiting = []
                    self.on_step(done, total, config.batch_size)
                    if processes.first:
                        if done % per_epoch == 0 and config.save_epochs:
                            refuse_ruined(encoder.model)
                            self.run.save_epoch(encoder, done // per_epoch)
                        if save and not last:
                            self.run.save(done, encoder.model, self.loss, self.optimizer)

    def _step(
        self,
        step_module: Any,
        plan: EpochPlan,
        epoch: int,
        step: int,
        images: Tensor,
        texts: Sequence[Tensor],
        rows: Tensor,
    ) -> Tensor:
        """One step of the optimizer; gives back the loss."""
        processes, device = self.processes, self.processes.device
        several = processes.world > 1
        rows = processes.gather(rows.to(device))
        pixels = self._images(images.to(device), plan.views, step)
        # all parameters take part where gradients are reduced over processes; else a backward pass is spared
        spared = () if several else plan.no_gradient
        inputs = [(image, text.to(device)) for image, text in zip(pixels, texts)]
        current = [i for i, view in enumerate(plan.views) if view.model == "current"]
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.low_precision):
            with WholeBatchNorm() if several else nullcontext():
                embeddings, scale, bias = step_module([inputs[i] for i in current], spared)
            encoded = dict(zip(current, embeddings))
            if self.start_towers is not None:
                with torch.no_grad():
                    for i in encoded.keys() ^ set(range(len(inputs))):
                        encoded[i] = self.start_towers([inputs[i]])[0][0]
        encoded = {i: (processes.gather(image), processes.gather(text)) for i, (image, text) in encoded.items()}
        first, *others = (Encoded(*encoded[i]) for i in range(len(inputs)))
        loss = self.loss(EncodedBatch(first.image, first.text, scale, rows, epoch, step, tuple(others), bias))
        if plan.no_gradient and several:
            loss = loss + 0 * sum(x.sum() for pair in encoded.values() for x in pair)
        self.optimizer.zero_grad()
        loss.backward()
        for tower in spared:
            for parameter in tower_parameters(self.towers.model, tower).values():
                if parameter.requires_grad and parameter.grad is None:
                    # not none: weight decay and momentum go on as with the whole backward pass
                    if parameter not in self.zero_gradients:
                        self.zero_gradients[parameter] = self.optimizer.zero_gradient(parameter)
                    parameter.grad = self.zero_gradients[parameter]
        self.optimizer.step()
        return loss.detach()

    def _images(self, images: Tensor, views: Sequence[View], step: int) -> list[Tensor]:
        """The images as each view wants them, drawn for the whole batch, so that it does not matter who shares it."""
        config, low = self.config, self.processes.rank * len(images)
        own = slice(low, low + len(images))
        if config.augment == "crop" and images.dtype == torch.uint8:
            drawn = torch.Generator().manual_seed(stream_seed(config.seed, "crop", step))
            images = crop(images, crop_windows(config.batch_size, generator=drawn)[own])
        out = []
        for number, view in enumerate(views):
            if view.image == "plain":
                out.append(images)
                continue
            drawn = torch.Generator().manual_seed(stream_seed(config.seed, "augmented image", step, number))
            draws = draw(config.batch_size, generator=drawn, crop=view.crop, flip=view.flip, jitter=view.jitter)
            out.append(augment_images(images, draws.part(own.start, own.stop)))
        return out

    def _log(self, waiting: list[tuple[int, float, Tensor]], per_epoch: int, clock: float) -> float:
        """Write the losses since the last time; gives back the time. Raises where one is not finite."""
        losses = torch.stack([x for *_, x in waiting]).float().tolist()
        if not np.isfinite(losses).all():
            first = waiting[int(np.isfinite(losses).argmin())][0]
            raise MithridateError(
                f"the loss is not finite at step {first}: training diverged; lower --lr, or --precision fp32"
            )
        seconds, now = time.perf_counter() - clock, time.perf_counter()
        speed = len(waiting) * self.config.batch_size / max(seconds, 1e-9)
        if self.processes.first:
            self.run.log([(s, r, x) for (s, r, _), x in zip(waiting, losses)], per_epoch=per_epoch, speed=speed)
        return now


def training_precision(config: TrainConfig) -> Literal["bf16", "fp32"]:
    """What the towers run in on this machine; `auto` takes bf16 where it is fast."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return "bf16" if _low_precision(config, device) else "fp32"


def _source(objective: Objective) -> str:
    """A hash of the code that trains with this objective."""
    return source_hash(__name__, type(objective).__module__)


def refuse_ruined(model: nn.Module) -> None:
    """Raise `MithridateError` where a weight or a statistic is not finite: the last loss does not tell."""
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise MithridateError(
                f"{name} is not finite after the last step: training diverged; lower --lr, or --precision fp32"
            )


def _check_bias(encoder: Encoder, objective: Objective, *, needs_bias: bool) -> None:
    """A sigmoid loss needs a model with a logit bias; a softmax on such a model is worth a warning."""
    has_bias = getattr(encoder.model, "logit_bias", None) is not None
    if needs_bias and not has_bias:
        raise MithridateError(
            f"{encoder.name} has no logit bias, which the sigmoid loss needs; choose --objective clip, or a model such "
            "as ViT-B-16-SigLIP"
        )
    if has_bias and not needs_bias:
        _LOG.warning(
            "%s has a logit bias, as models of a sigmoid loss have; %s trains it with a softmax and leaves the bias "
            "alone; --objective siglip trains it as it was made",
            encoder.name,
            type(objective).__name__,
        )


def _low_precision(config: TrainConfig, device: torch.device) -> bool:
    """Whether the towers run in bf16."""
    if config.precision != "auto":
        return config.precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    # where the processor multiplies bf16: 2.8x for ViT-B/32, 1.3x for the tiny model; without, it is emulated and slow
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)
