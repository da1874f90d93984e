"""The Hyena operator: projections, short filter, gates, long convolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hyenadna.conv import long_convolution, short_convolution
from hyenadna.model.filter import ImplicitFilter


class ShortFilter(nn.Module):
    """Depthwise causal filter of a few taps with bias; weight (W, 1, K) as published."""

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        bound = taps**-0.5  # torch's default for a depthwise Conv1d, as the reference has it
        self.weight = nn.Parameter(torch.empty(channels, 1, taps).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-bound, bound))

    def forward(self, p: Tensor) -> Tensor:
        """(B, W, L) -> (B, W, L)."""
        return short_convolution(p, self.weight[:, 0], self.bias)


class HyenaOperator(nn.Module):
    """Order-N Hyena: N - 1 rounds of gate and long convolution, and a last gate.

    With projections x_0..x_{N-1}, v of the input:
    `v <- k_o * (v x_{N-1-o}) + d_o (v x_{N-1-o})` for o = 0..N-2, then `W_out (v x_0)`.
    """

    def __init__(
        self,
        d_model: int,
        *,
        order: int,
        short_filter_order: int,
        filter_fn: ImplicitFilter,
        dropout: float,
    ) -> None:
        super().__init__()
        self.d_model, self.order = d_model, order
        self.in_proj = nn.Linear(d_model, (order + 1) * d_model)
        self.out_proj = nn.Linear(d_model, d_model)
        self.short_filter = ShortFilter((order + 1) * d_model, short_filter_order)
        self.filter_fn = filter_fn
        self.dropout = nn.Dropout(dropout)
        self.conv_method = "fft"

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        length = x.shape[1]
        # Channels first from here to the output projection: FFTs want the length contiguous. And
        # at least float32: on a CPU the element-wise passes are 3 times slower in half precision.
        projected = self.in_proj(x).transpose(1, 2)
        dtype = torch.promote_types(projected.dtype, torch.float32)
        projected = projected.to(dtype, memory_format=torch.contiguous_format)  # (B, (N+1) D, L)
        *gates, value = self.short_filter(projected).split(self.d_model, dim=1)
        kernels = self.filter_fn(length).split(self.d_model)
        skips = self.filter_fn.bias.split(self.d_model)
        for o, gate in enumerate(reversed(gates[1:])):
            gated = self.dropout(value * gate)
            value = long_convolution(gated, kernels[o], skips[o], method=self.conv_method)
        out: Tensor = self.out_proj((value * gates[0]).transpose(1, 2).to(x.dtype))
        return out
