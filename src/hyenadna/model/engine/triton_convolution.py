"""The operator between its projections and y, on a GPU: gates, and a long convolution by cuFFT.

One object with three methods, so that another convolution with gates can take its place at the
lengths where it is faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from hyenadna.conv.cuda_graphs import keep_for_graphs
from hyenadna.conv.right_angle import RightAngle
from hyenadna.model.engine.gemm import row_chunks
from hyenadna.model.engine.sizes import DEVICE_SAMPLES
from hyenadna.model.engine.triton_gates import (
    Before,
    Gated,
    gate_in,
    gate_out,
    twist_signal,
    untwist_signal,
)
from hyenadna.model.engine.triton_gates_backward import (
    gate_in_backward,
    gate_out_backward,
    spectra_backward,
)


class GatedConvolution(Protocol):
    """`x0 (k conv (v x1))` of signals of one length from their projections."""

    def spectrum(self, k: Tensor) -> Tensor:
        """Filters k (c, L), float32, in a layout of the object's own; k may be overwritten."""
        ...

    def forward(
        self,
        gated: Gated,
        spectrum: Tensor,
        y: Tensor,
        first: int,
        before: Before | None,
        keep: Callable[[slice, Tensor], None] | None,
    ) -> None:
        """Fills columns of y (B, L, D) from `first` on. keep: see `Past.keep`."""
        ...

    def backward(
        self, gated: Gated, spectrum: Tensor, grad_y: Tensor, first: int, dp: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Gradient of the filters (c, L), and sums (3, c, K + 2); fills dp (3, c, B, L).

        Sums: gradients of taps, of the filter's bias and of the projection's bias.
        """
        ...


class TransformedConvolution:
    """By transforms of torch.fft, any length."""

    def __init__(self, length: int, device: torch.device) -> None:
        self.length = length
        self.fft = RightAngle(length, torch.float32, device)

    def spectrum(self, k: Tensor) -> Tensor:
        """Complex (c, m): divided by m, so that no transform back has to be."""
        fft, k = self.fft, k.contiguous()
        out = torch.empty(len(k), fft.m, dtype=torch.complex64, device=k.device)
        for part in self._parts(len(k), 1):
            z = twist_signal(k[part], fft.m, fft.twist, 1 / fft.m)
            out[part] = torch.fft.fft(z)
        return out

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
        for part in self._parts(gated.p.shape[1], gated.p.shape[2]):
            own = gated.part(part)
            place = None if before is None else before.at(part)
            f = self._transform(own, place, first + part.start, keep)
            f *= spectrum[part, None]
            z = torch.fft.ifft(f, norm="forward")
            del f
            gate_out(own, z, self.fft.twist, y, first + part.start, place)

    def backward(
        self, gated: Gated, spectrum: Tensor, grad_y: Tensor, first: int, dp: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `GatedConvolution.backward`."""
        fft, (_, width, batch, length) = self.fft, gated.p.shape
        grad_k = torch.empty(width, length, dtype=torch.float32, device=dp.device)
        sums = grad_k.new_empty(3, width, gated.taps.shape[2] + 2)
        for part in self._parts(width, batch):
            own, into = gated.part(part), dp[:, part]
            of_u = self._transform(own, None, 0, None)
            mixed = torch.fft.ifft(of_u * spectrum[part, None], norm="forward")
            zg, sums[0, part] = gate_out_backward(
                own, mixed, fft.twist, grad_y, first + part.start, into
            )
            del mixed
            of_g = torch.fft.fft(zg)
            del zg
            of_k = spectra_backward(spectrum[part], of_u, of_g)
            del of_u
            d_k = torch.fft.ifft(of_k, norm="forward")
            untwist_signal(d_k, fft.twist, 1 / fft.m, grad_k[part])
            del of_k, d_k
            d_u = torch.fft.ifft(of_g, norm="forward")
            del of_g
            sums[1:, part] = gate_in_backward(own, d_u, fft.twist, into)
        return grad_k, sums

    def _transform(
        self,
        own: Gated,
        before: Before | None,
        first: int,
        keep: Callable[[slice, Tensor], None] | None,
    ) -> Tensor:
        """Transform of the gated signal u, complex (c, B, m)."""
        fft = self.fft
        keep_for_graphs(fft.twist, fft.untwist)
        if keep is None:
            return torch.fft.fft(gate_in(own, fft.m, fft.twist, before))
        u = gate_in(own, fft.m, None, before)
        keep(slice(first, first + len(u)), u.permute(1, 2, 0))
        z = twist_signal(u.view(-1, self.length), fft.m, fft.twist, 1.0)
        return torch.fft.fft(z.view(*u.shape[:2], fft.m))

    def _parts(self, channels: int, batch: int) -> Iterator[slice]:
        return row_chunks(channels, max(1, DEVICE_SAMPLES // (batch * self.fft.m)))
