"""Causal long convolution by FFT, in blocks of channels, with its own backward pass.

Only the inputs are kept for the backward pass; transforms are computed again there.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

# Real samples (batch x channels x FFT length) that one block of channels may hold, so that the
# extra memory of a convolution does not grow with its channels. On two Zen 5 cores at B 16, C 128,
# L 1,024 anything from 2^19 up is alike; 2^17 takes twice as long.
BLOCK_SAMPLES = 1 << 20
DEVICE_BLOCK_SAMPLES = 1 << 28
"""The same on a GPU, where it only bounds the memory (1 GiB for a block)."""


@lru_cache(maxsize=1024)
def smooth_length(minimum: int) -> int:
    """The smallest number 2^a 3^b 5^c >= minimum: FFTs of such lengths are fast.

    The original uses exactly 2L; for its 1,000,002 that is 2^2 * 3 * 166667, 2.5 times slower.
    """
    best = 1 << max(minimum - 1, 0).bit_length()
    power5 = 1
    while power5 < best:
        power35 = power5
        while power35 < best:
            n = power35
            while n < minimum:
                n *= 2
            best = min(best, n)
            power35 *= 3
        power5 *= 5
    return best


def fft_length(minimum: int) -> int:
    """The smallest even `smooth_length` >= minimum, as transforms of real signals want it."""
    return 2 * smooth_length(-(-minimum // 2))


def fft_long_convolution(u: Tensor, k: Tensor) -> Tensor:
    """Causal convolution `y[t] = sum_{j=0..t} k[j] u[t-j]` in O(L log L).

    u: (B, C, L), any float type; k: (C, L), float32 or float64. Computes in the type of k, whatever
    autocast says; the result has the type of u.
    """
    result: Tensor = _FFTConvolution.apply(u, k)
    return result


def _blocks(u: Tensor, n: int) -> list[slice]:
    most = BLOCK_SAMPLES if u.device.type == "cpu" else DEVICE_BLOCK_SAMPLES
    width = max(1, most // max(1, u.shape[0] * n))
    return [slice(c, c + width) for c in range(0, u.shape[1], width)]


class _FFTConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, k: Tensor) -> Tensor:
        ctx.save_for_backward(u, k)
        length = u.shape[-1]
        n = fft_length(2 * length - 1)
        y = torch.empty_like(u)
        for block in _blocks(u, n):
            spectrum = torch.fft.rfft(u[:, block].to(k.dtype), n=n)
            spectrum *= torch.fft.rfft(k[block], n=n)
            y[:, block] = torch.fft.irfft(spectrum, n=n)[..., :length]
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (grad,) = grads
        u, k = ctx.saved_tensors
        length = u.shape[-1]
        n = fft_length(2 * length - 1)
        need_u, need_k = ctx.needs_input_grad
        grad_u = torch.empty_like(u) if need_u else None
        grad_k = torch.empty_like(k) if need_k else None
        for block in _blocks(u, n):
            # Correlation is convolution with the conjugate spectrum: no flips are needed.
            grad_f = torch.fft.rfft(grad[:, block].to(k.dtype), n=n)
            if grad_k is not None:
                u_f = torch.fft.rfft(u[:, block].to(k.dtype), n=n)
                summed = u_f.conj_physical_().mul_(grad_f).sum(0)
                grad_k[block] = torch.fft.irfft(summed, n=n)[..., :length]
            if grad_u is not None:
                grad_f *= torch.fft.rfft(k[block], n=n).conj_physical_()
                grad_u[:, block] = torch.fft.irfft(grad_f, n=n)[..., :length]
        return grad_u, grad_k
