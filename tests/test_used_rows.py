"""The optimizer that visits the used rows of a token table alone, held against AdamW on the whole of it."""

import copy

import pytest
import torch
from torch import nn

from mithridate.training.used_rows import UsedRowsAdamW, token_table

VOCABULARY, WIDTH, LENGTH = 700, 16, 6
OPTIONS = {"lr": 1e-2, "betas": (0.9, 0.98), "eps": 1e-6}


class Reader(nn.Module):
    """A table and a matrix behind it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.matrix = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, 4)

    def forward(self, ids):
        return self.matrix(self.table(ids).mean(dim=1)).square().sum()


def groups(model, decay=0.3):
    return [
        {"params": [model.matrix.weight, model.table.weight], "weight_decay": decay},
        {"params": [model.matrix.bias]},
    ]


def batch(step):
    """Ids (8, LENGTH) of a vocabulary that grows with the steps."""
    return torch.randint(0, 5 + 7 * step, (8, LENGTH), generator=torch.Generator().manual_seed(step))


def lr(step):
    return 1e-2 / (1 + step)


def whole(steps, without_gradient=()):
    """AdamW as it is, on all rows."""
    model = Reader()
    optimizer = torch.optim.AdamW(groups(model), **OPTIONS, fused=True)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr(step)
        optimizer.zero_grad()
        model(batch(step)).backward()
        if step in without_gradient:
            model.table.weight.grad = torch.zeros_like(model.table.weight)
        optimizer.step()
    return model


def run(model, optimizer, steps, without_gradient=()):
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = lr(step)
        optimizer.zero_grad()
        model(batch(step)).backward()
        if step in without_gradient:
            model.table.weight.grad = optimizer.zero_gradient(model.table.weight)
        optimizer.step()


@pytest.mark.parametrize("without_gradient", [(), (0,), (4, 5)])
def test_every_weight_is_that_of_adamw_on_the_whole_table(without_gradient):
    model = Reader()
    optimizer = UsedRowsAdamW(groups(model), model.table, **OPTIONS)
    with optimizer.running():
        run(model, optimizer, range(12), without_gradient)
    expected = whole(12, without_gradient).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert model.table.sparse is False and not model.table._forward_pre_hooks and model.table.weight.grad is None


def test_the_table_is_whole_whenever_it_is_settled():
    model = Reader()
    optimizer = UsedRowsAdamW(groups(model), model.table, **OPTIONS)
    with optimizer.running():
        for step in range(6):
            run(model, optimizer, [step])
            if step in (1, 4):
                optimizer.settle()
                assert torch.equal(model.table.weight, whole(step + 1).table.weight)
    assert torch.equal(model.table.weight, whole(6).table.weight)


def test_a_state_goes_on_in_another_process():
    first = Reader()
    optimizer = UsedRowsAdamW(groups(first), first.table, **OPTIONS)
    with optimizer.running():
        run(first, optimizer, range(5))
        optimizer.settle()
        weights, state = copy.deepcopy(first.state_dict()), copy.deepcopy(optimizer.state_dict())
    second = Reader()
    other = UsedRowsAdamW(groups(second), second.table, **OPTIONS)
    second.load_state_dict(weights)
    other.load_state_dict(state)
    with other.running():
        run(second, other, range(5, 12))
    assert torch.equal(second.table.weight, whole(12).table.weight)
    with pytest.raises(ValueError, match="another token table"):
        other.load_state_dict(state | {"used": torch.tensor([VOCABULARY])})


def test_only_the_used_rows_have_moments():
    model = Reader()
    optimizer = UsedRowsAdamW(groups(model), model.table, **OPTIONS)
    with optimizer.running():
        run(model, optimizer, range(3))
    seen = torch.cat([batch(step) for step in range(3)]).unique()
    moments = [state["exp_avg"] for state in optimizer.state.values() if state["exp_avg"].shape[1:] == (WIDTH,)]
    assert (len(seen), WIDTH) in [tuple(m.shape) for m in moments] and len(seen) < VOCABULARY / 10


def test_which_models_have_such_a_table(tiny):
    assert token_table(tiny.model) is tiny.model.token_embedding
    frozen = tiny.copy().model
    frozen.token_embedding.weight.requires_grad_(False)
    assert token_table(frozen) is None and token_table(nn.Linear(2, 2)) is None
