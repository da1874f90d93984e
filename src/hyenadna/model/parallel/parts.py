"""Tensors whose rows lie on several ranks (FSDP2): which rows are here, and new values for them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def whole(tensor: Tensor) -> Tensor:
    """The tensor in one piece, in the memory of every rank. All ranks must ask."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def dealt(value: Tensor, like: Tensor) -> Tensor:
    """`value`, which every rank has whole, in parts as `like` is: without a word to the others."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


def own_rows(tensor: Tensor) -> slice:
    """The rows of a tensor in parts that this rank holds; there may be none."""
    from torch.distributed.tensor import DTensor

    assert isinstance(tensor, DTensor)
    numbers = dealt(torch.arange(tensor.shape[0], device=tensor.device), tensor)
    assert isinstance(numbers, DTensor)
    mine = numbers.to_local()
    return slice(int(mine[0]), int(mine[-1]) + 1) if len(mine) else slice(0, 0)


@torch.no_grad()
def put(tensor: Tensor, read: Callable[[slice], Tensor]) -> None:
    """Give a tensor, in parts or whole, new values: `read(rows)` of the rows that are here."""
    from torch.distributed.tensor import DTensor

    if isinstance(tensor, DTensor):
        rows = own_rows(tensor)
        if rows.stop > rows.start:
            tensor.to_local().copy_(read(rows))
    else:
        tensor.copy_(read(slice(0, tensor.shape[0])))


@torch.no_grad()
def take(tensor: Tensor, value: Tensor) -> None:
    """Give a tensor, in parts or whole, the values of another, whole or in the same parts."""
    from torch.distributed.tensor import DTensor

    if isinstance(value, DTensor):
        tensor.copy_(value)
    else:
        put(tensor, value.__getitem__)


@torch.no_grad()
def parts_like(tensor: Tensor, read: Callable[[slice], Tensor]) -> Tensor:
    """A new tensor, in parts or whole as this one is; `read` as for `put`."""
    fresh = torch.empty_like(tensor)
    put(fresh, read)
    return fresh
