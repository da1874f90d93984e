"""Causal convolution of length L by complex FFTs of length m >= L, without zero padding to 2L.

The signals are twisted by `w^t` with `w = exp(i pi / (2 m))` before a cyclic convolution of length
m. What wraps around has then been turned by `w^m = i`, a right angle: the causal part of a real
convolution is the real part of the untwisted result, and what would lie beyond m its imaginary
part. As an operator this is `T* F^-1 diag(K) F T` with unitary T, so its adjoint has the conjugate
spectrum. (The right-angle convolution of Crandall and Fagin 1994, "Discrete weighted transforms and
large-integer arithmetic", Mathematics of Computation 62.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from hyenadna.model.engine.sizes import TRANSFORM_SAMPLES

DEVICE_BLOCK_SAMPLES = 1 << 27
"""Samples transformed together on a GPU, where they only bound the memory."""


@lru_cache(maxsize=1024)
def smooth_length(minimum: int) -> int:
    """The smallest 5-smooth number >= minimum: complex FFTs of such lengths are fast."""
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


def channels_at_once(samples: int, device: str, threads: int) -> int:
    """Channels whose transforms run together. samples: complex samples of one channel.

    At least one for each thread: a transform alone runs on one of them.
    """
    most = TRANSFORM_SAMPLES if device == "cpu" else DEVICE_BLOCK_SAMPLES
    return max(threads if device == "cpu" else 1, most // samples)


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def _twists(m: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """`w^t` and its conjugate for t in 0..m-1, complex, computed in float64 and rounded once."""
    angle = torch.arange(m, dtype=torch.float64, device=device) * (math.pi / (2 * m))
    twist = torch.complex(angle.cos(), angle.sin()).to(dtype)
    return twist, twist.conj().resolve_conj()


class RightAngle:
    """Transforms for convolutions of signals of one length and type."""

    def __init__(self, length: int, dtype: torch.dtype, device: torch.device) -> None:
        self.length, self.m = length, smooth_length(length)
        self.complex = torch.complex128 if dtype == torch.float64 else torch.complex64
        self.device = device
        self.twist, self.untwist = _twists(self.m, self.complex, device)

    def parts(self, channels: int, batch: int) -> Iterator[slice]:
        """Blocks of channels to transform together. batch: signals of each channel."""
        threads = torch.get_num_threads()
        width = channels_at_once(batch * self.m, self.device.type, threads)
        for start in range(0, channels, width):
            yield slice(start, min(start + width, channels))

    def forward(self, u: Tensor) -> Tensor:
        """Spectra (..., m) of real signals u (..., L)."""
        z = torch.empty(*u.shape[:-1], self.m, dtype=self.complex, device=u.device)
        torch.mul(u, self.twist[: self.length], out=z[..., : self.length])
        z[..., self.length :] = 0
        return torch.fft.fft(z)

    def back(self, spectra: Tensor) -> Tensor:
        """Real signals (..., L), a strided view, of spectra (..., m)."""
        z = torch.fft.ifft(spectra)[..., : self.length]
        z *= self.untwist[: self.length]
        return z.real
