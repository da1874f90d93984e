"""The few array functions that a model of order 2 is made of; torch, native code and
Triton provide them.

All arrays of positions are channel-last, (B, L, D) and contiguous. `n` is the first norm without
its affine part: `n = (h - mean) / sqrt(var + eps)`. A `channels` slice selects a block of the D
channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from hyenadna.model.engine.filter_passes import FilterNetwork
from hyenadna.model.engine.weights import BlockWeights, FilterWindow


@dataclass
class Past:
    """What came before the positions of a pass through one layer, and what the next will need."""

    halo: Tensor  # (B, K-1, 3D): projections at the K-1 positions before, 0 before the first
    settled: Tensor | None  # (1 or B, >= L, D): effect of earlier samples on the long convolution
    next_halo: Tensor  # filled with the halo of the positions that follow; not `halo` itself
    keep: Callable[[slice, Tensor], None]
    """Called with each block of channels and its samples v x1, (B, L, ..., c), c in any number of
    axes. They are void when it returns."""


class Kernels(Protocol):
    """How the parts of a model are computed; the same values from each provider up to rounding."""

    name: str
    layout: str
    """Of spectra: those of one layout, length and block of channels serve each other."""
    overwrites: bool
    """Whether `finish_backward` works in its arguments, which are then copies."""

    def release(self) -> None:
        """Lets go of large work spaces, at the end of a pass."""
        ...

    def kept_bytes(self) -> int:
        """Bytes of work spaces that are kept between passes, and used by the next."""
        ...

    def channel_step(self) -> int:
        """Channel blocks must start at a multiple of this, and hold a multiple of it."""
        ...

    def mixed_like(self, h: Tensor) -> Tensor:
        """Room for the mixed signal y of a block with input h (B, L, D), of any content.

        In the type that the provider wants of it, on the device of h.
        """
        ...

    def norm_gradient(self, h: Tensor, blocks: int) -> Tensor:
        """Where `mix_backward` will sum the gradient of n over so many blocks, shaped as h."""
        ...

    def hidden(self, network: FilterNetwork, z: Tensor, length: int) -> Tensor:
        """Output of the filter network's last sine at lags 0..length-1: (L, F).

        It may be void at the next call of this function.

        z: features (M, E) of the lags.
        """
        ...

    def hidden_backward(
        self, network: FilterNetwork, z: Tensor, grad_hidden: Tensor
    ) -> FilterNetwork:
        """Gradients of the network's tensors from that of `hidden`, (L, F)."""
        ...

    def spectrum(
        self,
        hidden: Tensor,
        w: BlockWeights,
        window: FilterWindow,
        channels: slice,
        *,
        kept: bool = True,
    ) -> Tensor:
        """Transform of the filters of a block of channels, in a layout of the provider's own.

        kept: False where the result is not needed any more at the next call of this function.

        hidden: (L, F), output of the filter network's last sine. The filter at lag l is
        `(last_weight hidden[l]) * (exp(-t_l rate) + shift)`, plus `skip` at lag 0.
        """
        ...

    def filters_backward(
        self,
        grad_k: Tensor,
        hidden: Tensor,
        w: BlockWeights,
        window: FilterWindow,
        channels: slice,
        sums: BlockWeights,
        grad_hidden: Tensor,
    ) -> None:
        """Adds to sums.last_weight and sums.skip, and to grad_hidden (L, F).

        grad_k: what `mix_backward` gave, the gradient of the filters at each lag, (L, channels).
        """
        ...

    def mix(
        self,
        h: Tensor,
        w: BlockWeights,
        eps: float,
        spectrum: Tensor,
        channels: slice,
        y: Tensor,
        past: Past | None = None,
    ) -> None:
        """Fills `y[..., channels]` with `x0 * (k conv (v * x1))`, from the residual stream h.

        x0, x1, v: short filter of the projection of norm1(h). h: (B, L, D); y: from `mixed_like`.
        past: what came before these positions, if anything did.
        """
        ...

    def finish(self, h: Tensor, y: Tensor, w: BlockWeights, eps: float, out: Tensor) -> None:
        """out = a + mlp(norm2(a)) with a = h + out_proj(y). `out` may be h or y itself."""
        ...

    def finish_backward(
        self, h: Tensor, y: Tensor, w: BlockWeights, eps: float, grad: Tensor, sums: BlockWeights
    ) -> tuple[Tensor, Tensor]:
        """Backward pass of `finish`: gradients of a (so also of h along the residual stream) and y.

        grad: of out. The results are grad and y themselves, overwritten, or other tensors, see
        `overwrites`. Adds to sums: out_*, norm2_*, fc1_*, fc2_*.
        """
        ...

    def mix_backward(
        self,
        h: Tensor,
        w: BlockWeights,
        eps: float,
        spectrum: Tensor,
        channels: slice,
        grad_y: Tensor,
        grad_n: Tensor,
        sums: BlockWeights,
    ) -> Tensor:
        """Backward pass of `mix`: adds to grad_n (B, L, D), the gradient of n, and to sums: in_*,
        short_*, norm1_*. Returns the gradient of the filters at each lag, (L, channels).

        grad_n: from `norm_gradient`; blocks of channels come in order, from 0.
        """
        ...

    def norm_backward(self, h: Tensor, eps: float, grad_n: Tensor, grad: Tensor) -> None:
        """Adds to grad (B, L, D) the gradient of h along the first norm. May overwrite grad_n."""
        ...

    def embed(self, table: Tensor, ids: Tensor) -> Tensor:
        """Rows of the table (V, D) for int64 ids (B, L) in 0..V-1: (B, L, D)."""
        ...

    def embed_backward(self, rows: int, ids: Tensor, grad: Tensor) -> Tensor:
        """Gradient of a table of so many rows from that of `embed`."""
        ...

    def norm(self, h: Tensor, weight: Tensor, bias: Tensor, eps: float) -> None:
        """h (B, L, D) becomes its layer norm. weight, bias: (D,)."""
        ...

    def nats(
        self, h: Tensor, norm: tuple[Tensor, Tensor], eps: float, head: Tensor, targets: Tensor
    ) -> Tensor:
        """Negative log-likelihood (B, L) of int64 targets (B, L) in 0..V-1, 0 where -100.

        Softmax over `head norm(h)`; norm: weight and bias; head: (V, D). Logits in chunks only.
        """
        ...

    def nats_backward(
        self,
        h: Tensor,
        norm: tuple[Tensor, Tensor],
        eps: float,
        head: Tensor,
        targets: Tensor,
        grad: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gradients of h, head, norm weight and norm bias from that of `nats`, (B, L)."""
        ...
