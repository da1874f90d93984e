"""The one door to the long convolution."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from hyenadna.conv.fft import fft_long_convolution
from hyenadna.conv.reference import direct_long_convolution
from hyenadna.errors import InputError

METHODS: Final = {"fft": fft_long_convolution, "direct": direct_long_convolution}


def long_convolution(
    u: Tensor, k: Tensor, skip: Tensor | None = None, *, method: str = "fft"
) -> Tensor:
    """Causal convolution of every channel with its own filter, plus a skip term.

    `y[t] = sum_{j=0..t} k[j] u[t-j] + skip u[t]`. u: (B, C, L); k: (C, L), float32 or float64;
    skip: (C,); result: (B, C, L) in the type of u. `method` is `fft` or its slow twin `direct`.

    Raises InputError for an unknown method or a filter of another shape.
    """
    if method not in METHODS:
        raise InputError(f"long convolution: no method {method!r}; there are {', '.join(METHODS)}")
    if k.shape != u.shape[1:]:
        raise InputError(
            f"long convolution: the filter has shape {tuple(k.shape)}; "
            f"an input of shape {tuple(u.shape)} needs {tuple(u.shape[1:])}"
        )
    return METHODS[method](u, with_skip(k, skip))


def with_skip(k: Tensor, skip: Tensor | None) -> Tensor:
    """Filters (C, L) of which the skip term (C,) is a part: their own value at lag 0."""
    if skip is None:
        return k
    return torch.cat([k[:, :1] + skip[:, None].to(k.dtype), k[:, 1:]], dim=1)
