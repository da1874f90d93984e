"""The layer norm without its affine part, and its backward pass."""

from __future__ import annotations

import torch
from torch import Tensor


def standardise(a: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """`(a - mean) / sqrt(var + eps)` of each row, (R, D), with mean and 1 / sqrt(...), (R, 1)."""
    n, mean, rstd = torch.native_layer_norm(a, a.shape[1:], None, None, eps)
    return n, mean, rstd


def standardise_backward(grad: Tensor, a: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    """Gradient of a, (R, D), from that of the first result of `standardise(a)`."""
    out: Tensor = torch.ops.aten.native_layer_norm_backward(
        grad.contiguous(), a, a.shape[1:], mean, rstd, None, None, [True, False, False]
    )[0]
    return out
