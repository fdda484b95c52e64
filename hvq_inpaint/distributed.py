"""Sums, means, maxima and gathers over all processes; each is the identity when there is only one.

The codebook and the credibility threshold belong to the *global* batch, so the networks themselves need these.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

_apart = False


def _is_distributed() -> bool:
    return not _apart and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


@contextmanager
def apart() -> Iterator[None]:
    """Within it this process acts as if it were alone, so that it may fail without leaving the others waiting."""
    global _apart
    _apart = True
    try:
        yield
    finally:
        _apart = False


def all_reduce_sum(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of `tensor` over all processes, in place."""
    if _is_distributed():
        dist.all_reduce(tensor, op=dist.ReduceOp.SUM)
    return tensor


def all_reduce_mean(tensor: torch.Tensor) -> torch.Tensor:
    """The mean of `tensor` over all processes, in place."""
    return all_reduce_sum(tensor).div_(dist.get_world_size() if _is_distributed() else 1)


def all_reduce_max(tensor: torch.Tensor) -> torch.Tensor:
    """The maximum of `tensor` over all processes, in place."""
    if _is_distributed():
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tensor


def all_gather_rows(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor` (N, ...) of every process, one after the other: (N_0 + N_1 + ..., ...).

    N may differ between processes.
    """
    if not _is_distributed():
        return tensor
    sizes = [torch.zeros(1, dtype=torch.int64, device=tensor.device) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor([tensor.shape[0]], dtype=torch.int64, device=tensor.device))
    longest = int(max(size.item() for size in sizes))
    # The collective needs equal shapes: pad to the longest, gather, cut again.
    padded = tensor.new_zeros((longest, *tensor.shape[1:]))
    padded[: tensor.shape[0]] = tensor
    gathered = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(gathered, padded)
    return torch.cat([part[: int(size.item())] for part, size in zip(gathered, sizes, strict=True)])


def broadcast_from_first(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor` of the first process on every process, in place."""
    if _is_distributed():
        dist.broadcast(tensor, src=0)
    return tensor
