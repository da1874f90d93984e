"""The operator between its projections and y by matrix products on tensor cores.

See `hyenadna.conv.matrix_fft`: its kernels read short filters and first gate as they go, so the
transform of a signal never lies in memory where a program can hold it. The second gate is a pass of
its own here, because it writes channel-last: a program of the convolution has one channel, and its
writes would be of one number each.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hyenadna.conv import matrix_fft
from hyenadna.model.engine.triton_gates import Before, Gated, gate_in, gate_out


class MatrixConvolution:
    """`GatedConvolution` for signals of one length and type of p."""

    def __init__(self, length: int, dtype: torch.dtype, device: torch.device) -> None:
        self.shape = matrix_fft.shape_for(length, dtype, device)

    def spectrum(self, k: Tensor) -> Tensor:
        """See `matrix_fft.spectrum`."""
        return matrix_fft.spectrum(k, self.shape)

    def forward(
        self,
        gated: Gated,
        spectrum: Tensor,
        y: Tensor,
        first: int,
        before: Before | None,
        keep: Callable[[slice, Tensor], None] | None,
    ) -> None:
        """See `GatedConvolution.forward`."""
        _, width, batch, length = gated.p.shape
        mixed = torch.empty(width, batch, length, dtype=torch.float32, device=y.device)
        if before is None and keep is None:
            signals = matrix_fft.Signals(gated.p[2], gated.p[1], short=_short(gated))
        else:
            u = gate_in(gated, length, None, before)
            if keep is not None:
                keep(slice(first, first + width), u.permute(1, 2, 0))
            # u stays float32, which has no numbers that float16 has no room for
            signals = matrix_fft.Signals(u, exact=gated.p.dtype == torch.float32)
        matrix_fft.convolve(self.shape, spectrum, signals, mixed)
        gate_out(gated, mixed, None, y, first, before)

    def backward(
        self, gated: Gated, spectrum: Tensor, grad_y: Tensor, first: int, dp: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `GatedConvolution.backward`."""
        width = gated.p.shape[1]
        # channels first before the kernels, whose programs have one channel each
        grad = grad_y[..., first : first + width].permute(2, 0, 1).contiguous()
        short = _short(gated)
        signals = matrix_fft.Signals(gated.p[2], gated.p[1], gated.p[0], short)
        d = torch.empty(gated.p.shape, dtype=torch.float32, device=dp.device)
        grad_k = matrix_fft.gradients(self.shape, spectrum, signals, grad, (d[2], d[1], d[0]))
        sums = matrix_fft.short_gradients(gated.p, d, short, dp)
        return grad_k, sums


def _short(gated: Gated) -> matrix_fft.Short:
    return matrix_fft.Short.of(gated.taps, gated.bias, gated.shift)
