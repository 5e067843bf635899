"""The processes that `torchrun` started: who this one is, and what they do together."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Processes:
    """This process is number `rank` of `world`, and computes on `device`."""

    rank: int
    world: int
    device: torch.device

    @classmethod
    def join(cls) -> "Processes":
        """Meet the others where `torchrun` started several, each on a GPU of its own where there are GPUs."""
        cuda = torch.cuda.is_available()
        world = int(os.environ.get("WORLD_SIZE", "1"))
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if cuda:
            torch.cuda.set_device(local)
        if world > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if cuda else "gloo")
        return cls(
            int(os.environ.get("RANK", "0")), world, torch.device("cuda", local) if cuda else torch.device("cpu")
        )

    @property
    def first(self) -> bool:
        return self.rank == 0

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """The first process runs the body, then all others do: they find what it made."""
        if self.world > 1 and not self.first:
            dist.barrier()
        yield
        if self.world > 1 and self.first:
            dist.barrier()

    def share(self, module: nn.Module) -> nn.Module:
        """`module` with gradients that are the mean over all processes."""
        if self.world == 1:
            return module
        # buffers are equal already: batch norms see the whole batch
        return DistributedDataParallel(module, broadcast_buffers=False)

    def gather(self, local: Tensor) -> Tensor:
        """The rows (b, ...) of all processes, this one's with their gradient.

        Every process computes the whole loss; `share` then takes the mean over processes of gradients that each hold
        one share of the sum, so that share is scaled up here. (Scaling the loss would scale the gradient of the
        temperature too.)
        """
        if self.world == 1:
            return local
        parts = [torch.empty_like(local) for _ in range(self.world)]
        dist.all_gather(parts, local.detach().contiguous())
        own = local.view_as(local)
        if own.requires_grad:
            own.register_hook(lambda gradient: gradient * self.world)
        parts[self.rank] = own
        return torch.cat(parts)


class WholeBatchNorm(TorchFunctionMode):
    """Inside, batch norms in training mode take mean and variance over the equal parts of a batch in all processes.

    torch's `SyncBatchNorm` does the same on GPUs alone, and its conversion drops the activation inside timm's norms.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is torch.nn.functional.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(
    input: Float[Tensor, "b c *places"],
    running_mean: Float[Tensor, " c"] | None,
    running_var: Float[Tensor, " c"] | None,
    weight: Float[Tensor, " c"] | None = None,
    bias: Float[Tensor, " c"] | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Float[Tensor, "b c *places"]:
    """`torch.nn.functional.batch_norm` with the statistics of all processes."""
    if not training:
        return torch.batch_norm(
            input, weight, bias, running_mean, running_var, False, momentum, eps, torch.backends.cudnn.enabled
        )
    # the layout in memory stays: convolutions that read another one round otherwise
    others, shape = [d for d in range(input.ndim) if d != 1], (1, -1, *(1 for _ in input.shape[2:]))
    n = input.numel() // input.shape[1] * dist.get_world_size()
    x = input.float()
    mean = all_reduce(x.sum(others)) / n
    centred = x - mean.view(shape)
    variance = all_reduce(centred.square().sum(others)) / n
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(variance * (n / max(1, n - 1)), momentum)
    scale = (variance + eps).rsqrt() * (1 if weight is None else weight)
    out = centred * scale.view(shape) + (0 if bias is None else bias.view(shape))
    return out.to(input.dtype)
