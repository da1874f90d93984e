"""What one block of order 2 computes with, as plain tensors; and where its gradients are summed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import torch
from torch import Tensor

_ALIGNED: Final = 64  # numbers: every tensor starts where vector loads may


@dataclass(frozen=True)
class BlockWeights:
    """The trained tensors of one block (letters as in docs/notation.md; K taps, I inner width).

    Projected channels come in three runs of D: last gate x0, first gate x1, value v.
    """

    norm1_weight: Tensor  # (D,)
    norm1_bias: Tensor  # (D,)
    in_weight: Tensor  # (3D, D)
    in_bias: Tensor  # (3D,)
    short_weight: Tensor  # (3D, K), the last tap multiplies the current sample
    short_bias: Tensor  # (3D,)
    last_weight: Tensor  # (D, F): last layer of the filter network
    skip: Tensor  # (D,): skip term of the long convolution, part of the filter at lag 0
    out_weight: Tensor  # (D, D)
    out_bias: Tensor  # (D,)
    norm2_weight: Tensor  # (D,)
    norm2_bias: Tensor  # (D,)
    fc1_weight: Tensor  # (I, D)
    fc1_bias: Tensor  # (I,)
    fc2_weight: Tensor  # (D, I)
    fc2_bias: Tensor  # (D,)

    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, in the order of the fields."""
        return tuple(getattr(self, field.name) for field in fields(self))

    def contiguous(self) -> BlockWeights:
        """The same, each in one piece of memory, as the kernels rely on."""
        return BlockWeights(*(t.contiguous() for t in self.tensors()))

    def zeros(self) -> BlockWeights:
        """Tensors of the same shapes and types to sum gradients into."""
        if self.in_weight.is_cuda:
            return BlockWeights(*zeros_together(self.tensors()))
        return BlockWeights(
            *(torch.zeros(t.shape, dtype=t.dtype, device=t.device) for t in self.tensors())
        )


def zeros_together(like: Sequence[Tensor]) -> list[Tensor]:
    """Zeros of these shapes, all of the type of the first, in one piece of memory.

    On a GPU each tensor of its own costs a launch.
    """
    sizes = [-(-t.numel() // _ALIGNED) * _ALIGNED for t in like]
    whole = torch.zeros(sum(sizes), dtype=like[0].dtype, device=like[0].device)
    pieces = zip(whole.split(sizes), like, strict=True)
    return [piece[: t.numel()].view(t.shape) for piece, t in pieces]


@dataclass(frozen=True)
class FilterWindow:
    """The part of the implicit filter that is not trained: `exp(-t |rate_c|) + shift`."""

    t: Tensor  # (L,) normalised lags
    rates: Tensor  # (D,) decay rates, not negative
    shift: float
