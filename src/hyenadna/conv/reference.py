"""The direct sums: slow, obvious, and what every fast path must equal."""

from __future__ import annotations

import torch
from torch import Tensor


def direct_long_convolution(u: Tensor, k: Tensor) -> Tensor:
    """Causal convolution `y[t] = sum_{j=0..t} k[j] u[t-j]` as a product with a Toeplitz matrix.

    u: (B, C, L); k: (C, L); result: (B, C, L) in the dtype of u. Memory O(C L^2): for tests.
    """
    length = u.shape[-1]
    lag = torch.arange(length, device=u.device)[:, None] - torch.arange(length, device=u.device)
    toeplitz = torch.where(lag >= 0, k[:, lag.clamp(min=0)], k.new_zeros(()))
    return torch.einsum("cts,bcs->bct", toeplitz, u.to(k.dtype)).to(u.dtype)


def direct_short_convolution(p: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Depthwise causal filter through torch's own Conv1d.

    p: (B, C, L); weight: (C, K), the last tap multiplies the current sample; bias: (C,).
    """
    taps = weight.shape[-1]
    padded = torch.nn.functional.pad(p, (taps - 1, 0))
    return torch.nn.functional.conv1d(padded, weight[:, None], bias, groups=weight.shape[0])
