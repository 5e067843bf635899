"""AdamW for a model whose token table is mostly rows that no caption uses."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Int
from open_clip import CLIP, CustomTextCLIP
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

_BLOCK = 512  # rows that stay in the processor's cache while the decay of many steps is applied to them


def token_table(model: nn.Module) -> nn.Embedding | None:
    """The table that a text tower of open_clip looks its tokens up in; None where it is frozen, or of another kind."""
    text = model if isinstance(model, CLIP) else getattr(model, "text", None)
    if not isinstance(model, CLIP | CustomTextCLIP) or not isinstance(text, CLIP | TextTransformer):
        return None
    table = text.token_embedding
    if not isinstance(table, nn.Embedding) or table.max_norm is not None or table.scale_grad_by_freq:
        return None
    return table if table.weight.requires_grad else None


class UsedRowsAdamW(torch.optim.AdamW):
    """Fused AdamW that visits only the rows of `table` (v, d) that some caption has used, and gives the same weights.

    A row that no caption has used has no gradient and no moments: all that AdamW does to it is weight decay. That is
    put off until the row is used or `settle` is called, and is then the product of the same factors in the same order.
    CLIP's table of 49,408 rows is most of a small model, and most of what its optimizer reads and writes. Without a
    `table` this is AdamW.
    """

    def __init__(self, groups: list[dict], table: nn.Embedding | None, **options: Any) -> None:
        self._table = table
        if table is not None:
            rows = nn.Parameter(table.weight.new_empty(0, table.embedding_dim))
            self._used: Int[Tensor, " k"] = torch.empty(0, dtype=torch.int64)  # ids in the order of `_rows`
            self._place = torch.full((table.num_embeddings,), -1)  # of an id among them
            self._factors: list[float] = []  # of the decay that all other rows still lack
            lists = [[rows if p is table.weight else p for p in group["params"]] for group in groups]
            self._group, self._at = next((g, i) for g, ps in enumerate(lists) for i, p in enumerate(ps) if p is rows)
            groups = [group | {"params": parameters} for group, parameters in zip(groups, lists)]
        super().__init__(groups, fused=True, **options)

    @property
    def _rows(self) -> nn.Parameter:
        return self.param_groups[self._group]["params"][self._at]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Inside, steps can be made; after it every weight is up to date."""
        if self._table is None:
            yield
            return
        sparse, self._table.sparse = self._table.sparse, True
        hook = self._table.register_forward_pre_hook(lambda module, given: self._use(given[0]))
        try:
            yield
        finally:
            hook.remove()
            self._table.sparse = sparse
            self._table.weight.grad = None
            self.settle()

    def zero_gradient(self, parameter: nn.Parameter) -> Tensor:
        """Zeros laid out as the gradients of this parameter."""
        if self._table is None or parameter is not self._table.weight:
            return torch.zeros_like(parameter)
        no_ids = torch.empty(1, 0, dtype=torch.int64)
        no_rows = parameter.new_empty(0, parameter.shape[1])
        return torch.sparse_coo_tensor(no_ids, no_rows, parameter.shape, check_invariants=True)

    @torch.no_grad()
    def _use(self, ids: Int[Tensor, "..."]) -> None:
        """Take up rows that are about to be looked up for the first time."""
        new = ids[self._place[ids] < 0].unique()
        if len(new):
            self._decay(new)
            self._take(torch.cat([self._used, new]))

    def _take(self, used: Int[Tensor, " k"]) -> None:
        """Train these rows from here on: those there are, in their order, and more."""
        assert self._table is not None
        old, rows = self._rows, nn.Parameter(self._table.weight.detach()[used])
        self.param_groups[self._group]["params"][self._at] = rows
        if (state := self.state.pop(old, None)) is not None:
            more = rows.new_zeros(len(used) - len(old), rows.shape[1])
            moments = ("exp_avg", "exp_avg_sq")
            self.state[rows] = {k: torch.cat([v, more]) if k in moments else v for k, v in state.items()}
        self._used = used
        self._place[used] = torch.arange(len(used))

    def _decay(self, ids: Int[Tensor, " r"]) -> None:
        """Give these rows the decay that they lack."""
        assert self._table is not None
        rows = self._table.weight[ids]
        for factor in self._factors:
            rows.mul_(factor)
        self._table.weight[ids] = rows

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step, with the sparse gradient of the table and the dense ones of all else."""
        if self._table is None or (gradient := self._table.weight.grad) is None:
            super().step(closure)
            return
        rows, group = self._rows, self.param_groups[self._group]
        # the kernel of a dense gradient: it adds up in the same order
        at, values = self._place[gradient._indices()[0]], gradient._values()
        rows.grad = torch.ops.aten.embedding_dense_backward(values, at, len(rows), -1, False)
        self._factors.append(1 - group["lr"] * group["weight_decay"])
        super().step(closure)
        self._table.weight[self._used] = rows
        self._table.weight.grad = rows.grad = None

    @torch.no_grad()
    def settle(self) -> None:
        """Bring every row up to date: what is read or written next is the whole table."""
        if self._table is None:
            return
        if any(factor != 1 for factor in self._factors):
            for unused in (self._place < 0).nonzero().flatten().split(_BLOCK):
                self._decay(unused)
        self._factors = []

    def state_dict(self) -> dict[str, Any]:
        """AdamW's, with the ids of the rows whose moments it holds."""
        state = super().state_dict()
        return state if self._table is None else state | {"used": self._used}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a state, once the weights are loaded. Raises `ValueError` where it is of another table."""
        if self._table is not None:
            used = state_dict["used"]
            if used.dtype != torch.int64 or not ((used >= 0) & (used < len(self._place))).all():
                raise ValueError("the state is of another token table")
            self._take(used)
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "used"})
