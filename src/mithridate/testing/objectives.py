"""The contract of objectives."""

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from mithridate.testing.contract import expect, expect_frozen, options_from_yaml
from mithridate.training.config import TrainConfig
from mithridate.training.loss import Encoded, EncodedBatch, EpochStart, Prepares, plan_of
from mithridate.training.objective import Objective, Start

_PAIRS, _WIDTH, _BATCH, _EPOCHS = 60, 6, 8, 4


def check_objective(objective: Any) -> None:
    """Raise `ContractError` where `objective`, an instance with its options, breaks the contract of objectives."""
    for _, check in objective_checks(objective):
        check()


def objective_checks(objective: Any) -> Iterator[tuple[str, Callable[[], None]]]:
    """The checks of `check_objective` by name."""
    yield "is a frozen dataclass whose options have defaults", lambda: _objective_declares(objective)
    for epoch in range(_EPOCHS):
        yield f"one finite number with a gradient in epoch {epoch}", lambda epoch=epoch: _one_step(objective, epoch)
    yield "goes on from its state", lambda: _goes_on(objective)
    yield (
        "options come back from YAML",
        lambda: expect(options_from_yaml(objective) == objective, f"options do not come back from YAML: {objective}"),
    )


def _objective_declares(objective: Any) -> None:
    expect_frozen(objective)
    expect(isinstance(objective, Objective), f"{type(objective).__name__} has no method build(start)")
    both = {f.name for f in fields(objective)} & {f.name for f in fields(TrainConfig)}
    expect(not both, f"options of an objective share a command line with those of training: rename {sorted(both)}")
    type(objective)()


def _built(objective: Objective, epoch: int) -> Any:
    """The module as the loop has it in `epoch`."""
    module: Any = objective.build(Start(_PAIRS, _WIDTH, _EPOCHS))
    for number in range(epoch + 1 if isinstance(module, Prepares) else 0):
        rng = torch.Generator().manual_seed(number)
        image, text = (normalize(torch.randn(_PAIRS, _WIDTH, generator=rng), dim=-1) for _ in range(2))
        module.prepare(EpochStart(number, np.arange(_PAIRS), lambda r, i=image: i[r], lambda r, t=text: t[r]))
    return module


def _batch(module: Any, epoch: int, seed: int = 0) -> EncodedBatch:
    rng = torch.Generator().manual_seed(100 + seed)
    views = max(1, len(plan_of(module, epoch).views))
    towers = [normalize(torch.randn(_BATCH, _WIDTH, generator=rng), dim=-1).requires_grad_() for _ in range(2 * views)]
    others = tuple(Encoded(towers[i], towers[i + 1]) for i in range(2, 2 * views, 2))
    rows = torch.randperm(_PAIRS, generator=rng)[:_BATCH]
    scale, bias = (torch.tensor(value, requires_grad=True) for value in (10.0, -5.0))
    return EncodedBatch(towers[0], towers[1], scale, rows, epoch, 0, others, bias)


def _one_step(objective: Objective, epoch: int) -> None:
    module = _built(objective, epoch)
    expect(isinstance(module, torch.nn.Module), f"build should give an nn.Module, got {type(module).__name__}")
    batch = _batch(module, epoch)
    loss = module(batch)
    expect(loss.shape == () and bool(torch.isfinite(loss)), f"a loss is one finite number, got {loss}")
    loss.backward()
    plan = plan_of(module, epoch)
    expect(plan.views == plan_of(_built(objective, 0), epoch).views, "an epoch should have the same views at any time")
    for tower in ("image", "text"):
        leaves = [getattr(view, tower) for view in (batch, *batch.others)]
        finite = all(leaf.grad is None or bool(torch.isfinite(leaf.grad).all()) for leaf in leaves)
        expect(finite, f"the gradient of the {tower} tower is not finite")
        moved = any(leaf.grad is not None and bool((leaf.grad != 0).any()) for leaf in leaves)
        expect(
            moved or tower in plan.no_gradient,
            f"the {tower} tower gets no gradient, and the plan does not name it in no_gradient",
        )


def _goes_on(objective: Objective) -> None:
    first = _built(objective, _EPOCHS - 1)
    first(_batch(first, _EPOCHS - 1, seed=1))
    again = _built(objective, 0)
    again.load_state_dict(first.state_dict())
    losses = [module(_batch(module, _EPOCHS - 1, seed=2)) for module in (first, again)]
    expect(
        torch.equal(*losses),
        f"a module with another's state should go on as that one, got losses {losses[0].item()} and "
        f"{losses[1].item()}; what it remembers belongs in buffers",
    )
