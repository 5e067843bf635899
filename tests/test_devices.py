"""A step of training on a GPU that is not there: tensors without values tell where two devices would be mixed, and
where memory that lies otherwise on a GPU would be taken for granted."""

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mithridate.encoder import towers as encoder_towers
from mithridate.training.batches import TrainingSet
from mithridate.training.config import TrainConfig
from mithridate.training.distributed import Processes
from mithridate.training.loop import _Loop
from mithridate.training.loss import plan_of
from mithridate.training.objective import Start
from mithridate.training.registry import OBJECTIVES
from mithridate.training.run import Run
from mithridate.training.towers import TwoTower, parameter_groups
from mithridate.training.used_rows import UsedRowsAdamW

GPU = torch.device("cuda")
PAIRS, BATCH = 60, 8
SMALL = {"roclip": {"pool_size": 12}, "safeclip": {"unimodal_epochs": 1, "pool_size": 12}}


def on_gpu(module: nn.Module, mode: FakeTensorMode) -> None:
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                there = mode.from_tensor(value.detach()).to(GPU)
                part._parameters[name] = nn.Parameter(there, requires_grad=value.requires_grad)
        for name, value in part._buffers.items():
            # counters are read out in every step, which needs their values
            if value is not None and value.is_floating_point():
                part._buffers[name] = mode.from_tensor(value).to(GPU)


# a plain epoch and one that matches; SafeCLIP's modalities apart, and its slow one. What it calls safe decides the rest
@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("augment", ["none", "crop"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_stays_on_one_device(name, augment, epoch, tiny, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "backward", lambda self: None)  # autograd wants the device itself
    size, length = tiny.image_size, tiny.context_length
    # how long captions are cannot be read from tensors without values
    monkeypatch.setattr(encoder_towers, "_by_length", lambda ends, blocks: [(slice(None), length)])
    config = TrainConfig(epochs=4, batch_size=BATCH, augment=augment)
    loss = OBJECTIVES[name](**SMALL.get(name, {})).build(Start(PAIRS, tiny.config["model_cfg"]["embed_dim"], 4))
    biased = tiny.copy()
    biased.model.logit_bias = nn.Parameter(torch.tensor(-10.0))
    towers, start = TwoTower(biased, config, with_bias=name == "siglip").train(), TwoTower(tiny.copy(), config).eval()
    if name == "safeclip":  # one counter for each pool
        loss._buffers.pop("places")
        loss.places = [0, 0]
    plan = plan_of(loss, epoch)
    nothing = np.empty(0, np.int64)
    data = TrainingSet(nothing, nothing, nothing, np.empty((0, length), np.uint16), None)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        for module in (towers, start, loss):
            on_gpu(module, mode)
        optimizer = UsedRowsAdamW(parameter_groups(nn.ModuleList([towers, loss]), 0.1), None, lr=1e-3)
        loop = _Loop(
            towers, start, data, loss, config, optimizer, Processes(0, 1, GPU), Run(None, {}), False, lambda *_: None
        )
        images = torch.zeros(BATCH, *size, 3, dtype=torch.uint8)
        texts = [torch.zeros(BATCH, length, dtype=torch.int64) for _ in plan.views]
        found = loop._step(towers, plan, epoch, 0, images, texts, torch.arange(BATCH))
    assert found.device.type == "cuda" and found.shape == ()
