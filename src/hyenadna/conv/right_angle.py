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

from hyenadna.conv.cuda_graphs import keep_for_graphs
from hyenadna.conv.fft import smooth_length

DEVICE_BLOCK_SAMPLES = 1 << 26
"""Samples transformed together on a GPU, where they only bound the memory (half a GiB)."""


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def _twists(m: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """`w^t` and its conjugate for t in 0..m-1, complex, computed in float64 and rounded once."""
    # on the CPU, since not every device has float64
    angle = torch.arange(m, dtype=torch.float64, device="cpu") * (math.pi / (2 * m))
    twist = torch.complex(angle.cos(), angle.sin()).to(dtype).to(device)
    return twist, twist.conj().resolve_conj()


class RightAngle:
    """Transforms for convolutions of signals of one length L and type (float32 or float64)."""

    def __init__(self, length: int, dtype: torch.dtype, device: torch.device) -> None:
        self.length, self.m = length, smooth_length(length)
        self.complex = torch.complex128 if dtype == torch.float64 else torch.complex64
        self.device = device
        self.twist, self.untwist = _twists(self.m, self.complex, device)

    def parts(self, channels: int, batch: int, samples: int) -> Iterator[slice]:
        """Blocks of channels to transform together.

        batch: signals of each channel. samples: complex samples of a block on a CPU, where a block
        has at least one channel for each thread: a transform alone runs on one of them.
        """
        if self.device.type == "cpu":
            width = max(torch.get_num_threads(), samples // (batch * self.m))
        else:
            width = max(1, DEVICE_BLOCK_SAMPLES // (batch * self.m))
        for start in range(0, channels, width):
            yield slice(start, min(start + width, channels))

    def forward(self, u: Tensor) -> Tensor:
        """Spectra (..., m) of signals u (..., L), real as a rule."""
        keep_for_graphs(self.twist, self.untwist)
        z = torch.empty(*u.shape[:-1], self.m, dtype=self.complex, device=u.device)
        torch.mul(u, self.twist[: self.length], out=z[..., : self.length])
        z[..., self.length :] = 0
        return torch.fft.fft(z)

    def back(self, spectra: Tensor) -> Tensor:
        """Real signals (..., L), a strided view, of spectra (..., m)."""
        return self._untwisted(spectra).real

    def beyond(self, spectra: Tensor) -> Tensor:
        """What `back` leaves out: the signals at m..m+L-1, (..., L), a strided view."""
        return self._untwisted(spectra).imag

    def _untwisted(self, spectra: Tensor) -> Tensor:
        z = torch.fft.ifft(spectra)[..., : self.length]
        z *= self.untwist[: self.length]
        return z
