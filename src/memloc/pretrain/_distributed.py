"""One training in several processes that torchrun started: who this process is, and how tensors of all become one."""

from __future__ import annotations

import atexit
import os
import warnings

import torch
from torch import Tensor, nn
from torch import distributed as dist


def world() -> int:
    """How many processes train together; 1 outside torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process; 0 writes."""
    return int(os.environ.get("RANK", "0"))


def join(device: torch.device) -> None:
    """Join the processes that torchrun started, until this one ends; does nothing outside torchrun."""
    if world() > 1 and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        # gloo's threads hold tensors, and a process that ends before they do is aborted (pytorch pull request 179291).
        atexit.register(_leave)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def wait() -> None:
    """Wait until every process is here."""
    if world() > 1:
        dist.barrier()


def share_of(batch: Tensor) -> Tensor:
    """This process's part of a batch; every process has as many, so the last few points are left to the next epoch's
    order."""
    if world() == 1:
        return batch
    each = len(batch) // world()
    return batch[rank() * each : (rank() + 1) * each]


def gathered(tensor: Tensor, views: int) -> Tensor:
    """A tensor (view x point, ...) of this process's points as that of all processes, view by view; gradients flow
    back."""
    if world() == 1:
        return tensor
    from torch.distributed.nn.functional import all_gather

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its successor is not in every torch that is supported
        whole = all_gather(tensor.contiguous())
    parts = [part.unflatten(0, (views, -1)) for part in whole]
    return torch.cat(parts, dim=1).flatten(0, 1)


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Mean gradient over the processes."""
    if world() == 1:
        return
    known = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([grad.flatten() for grad in known])
    dist.all_reduce(flat)
    flat /= world()
    for grad, part in zip(known, flat.split([grad.numel() for grad in known]), strict=True):
        grad.copy_(part.view_as(grad))
