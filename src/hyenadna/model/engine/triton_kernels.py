"""The kernels of a block for NVIDIA GPUs: what stands between products and transforms, in Triton.

Products stay with cuBLAS; the long convolution is `hyenadna.conv.matrix_fft`, or cuFFT for the
longest. See docs/decisions/gpu-engine.md for what is fused and why.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from hyenadna.config import ModelConfig
from hyenadna.conv.gated import LONGEST_BY_MATRIX
from hyenadna.conv.triton_launch import why_no_triton
from hyenadna.model.engine import triton_ends, triton_filters, triton_norms, triton_trial
from hyenadna.model.engine.filter_passes import FilterNetwork
from hyenadna.model.engine.gemm import row_chunks
from hyenadna.model.engine.kernels import Past
from hyenadna.model.engine.sizes import product_rows
from hyenadna.model.engine.triton_convolution import GatedConvolution, TransformedConvolution
from hyenadna.model.engine.triton_gates import Before, Gated
from hyenadna.model.engine.triton_matrix import MatrixConvolution
from hyenadna.model.engine.triton_products import fold, gelu, gelu_backward, unfold
from hyenadna.model.engine.weights import BlockWeights, FilterWindow

MOST_TAPS: Final = 16
"""Of a short filter: its loops are unrolled."""
MOST_WIDTH: Final = 8192
"""Channels of a row that one program holds."""


def fits(config: ModelConfig) -> bool:
    """Whether these kernels are written for models of this shape."""
    return (
        config.mixer == "hyena"
        and config.hyena_order == 2
        and config.short_filter_order <= MOST_TAPS
        and config.d_model <= MOST_WIDTH
        and config.padded_vocab_size <= triton_ends.MOST_CLASSES
    )


class TritonKernels:
    """The protocol `Kernels` for float32 models on an NVIDIA GPU.

    gemm: type of the large products, operands and results (bfloat16 or float16; None: float32).
    Sums in them, norms, gates, transforms and the residual stream are float32; y and its gradient
    have the type of the products. Nothing waits for the GPU.
    """

    name = "triton"
    overwrites = False

    def __init__(self, gemm: torch.dtype | None = None) -> None:
        self.dtype = gemm or torch.float32
        # a convolution may lay spectra out by the type of its products
        self.layout = f"triton {self.dtype}"

    def release(self) -> None:
        """Nothing is kept."""

    def kept_bytes(self) -> int:
        """Nothing is kept."""
        return 0

    def channel_step(self) -> int:
        """Any block of channels will do; a tile of 32 is written at once."""
        return 1

    def mixed_like(self, h: Tensor) -> Tensor:
        """See `Kernels.mixed_like`: in the type of the products, which are all that read it."""
        return torch.empty(h.shape, dtype=self.dtype, device=h.device)

    def norm_gradient(self, h: Tensor, blocks: int) -> Tensor:
        """See `Kernels.norm_gradient`. The first block of channels fills it, the others add."""
        dtype = self.dtype if blocks == 1 else h.dtype
        return torch.empty(h.shape, dtype=dtype, device=h.device)

    def hidden(self, network: FilterNetwork, z: Tensor, length: int) -> Tensor:
        """See `Kernels.hidden`."""
        return triton_filters.hidden_at_lags(network, z, length)

    def hidden_backward(
        self, network: FilterNetwork, z: Tensor, grad_hidden: Tensor
    ) -> FilterNetwork:
        """See `Kernels.hidden_backward`. Overwrites grad_hidden."""
        return triton_filters.network_backward(network, z, grad_hidden)

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
        """See `Kernels.filters_backward`. Overwrites grad_k."""
        triton_filters.filters_backward(grad_k, hidden, w, window, channels, sums, grad_hidden)

    def spectrum(
        self,
        hidden: Tensor,
        w: BlockWeights,
        window: FilterWindow,
        channels: slice,
        *,
        kept: bool = True,
    ) -> Tensor:
        """See `Kernels.spectrum` and `GatedConvolution.spectrum`."""
        k = triton_filters.filters_at_lags(hidden, w, window, channels)
        return convolution(k.shape[1], self.dtype, k.device).spectrum(k)

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
        """See `Kernels.mix`."""
        n = triton_norms.standardise(_rows(h), eps, self.dtype)
        gated, _ = self._gated(n, h, w, channels)
        del n
        before = None if past is None else _before(past, gated, channels)
        keep = None if past is None else past.keep
        conv = convolution(h.shape[1], self.dtype, h.device)
        conv.forward(gated, spectrum, y, channels.start, before, keep)

    def finish(self, h: Tensor, y: Tensor, w: BlockWeights, eps: float, out: Tensor) -> None:
        """See `Kernels.finish`."""
        rows_h, rows_y, rows_out = _rows(h), _rows(y), _rows(out)
        out_weight, fc2 = w.out_weight.to(self.dtype), w.fc2_weight.to(self.dtype)
        fc1, bias = self._folded_fc1(w)
        for rows in row_chunks(len(rows_h), product_rows(w.fc1_bias.numel())):
            o = product(rows_y[rows], out_weight.T)
            into = rows_out[rows]
            n = triton_norms.add_norm(rows_h[rows], o, w.out_bias, eps, into)
            inner = product(n, fc1.T)
            gelu(inner, bias)
            triton_norms.add(into, product(inner, fc2.T, out=o), w.fc2_bias, into)

    def finish_backward(
        self, h: Tensor, y: Tensor, w: BlockWeights, eps: float, grad: Tensor, sums: BlockWeights
    ) -> tuple[Tensor, Tensor]:
        """See `Kernels.finish_backward`."""
        rows_h, rows_y, rows_g = _rows(h), _rows(y), _rows(grad.contiguous())
        out_weight, fc2 = w.out_weight.to(self.dtype), w.fc2_weight.to(self.dtype)
        fc1, bias = self._folded_fc1(w)
        of_a, of_y = torch.empty_like(rows_g), torch.empty_like(rows_y)
        outer, total = torch.zeros_like(w.fc1_weight), torch.zeros_like(w.fc1_bias)
        for rows in row_chunks(len(rows_h), product_rows(w.fc1_bias.numel())):
            o = product(rows_y[rows], out_weight.T)
            n, rstd, g, of_bias = triton_norms.add_norm_again(
                rows_h[rows], o, w.out_bias, eps, rows_g[rows]
            )
            sums.fc2_bias.add_(of_bias)
            z, dz = product(n, fc1.T), product(g, fc2)
            total += gelu_backward(z, dz, bias)
            add_product(sums.fc2_weight, g.T, z)
            add_product(outer, dz.T, n)
            dn = product(dz, fc1, out=o)
            del z, dz
            sums.out_bias.add_(triton_norms.norm_backward(n, rstd, dn, rows_g[rows], of_a[rows], g))
            add_product(sums.out_weight, g.T, rows_y[rows])
            product(g, out_weight, out=of_y[rows])
        unfold(
            outer, total, (w.fc1_weight, w.norm2_weight, w.norm2_bias),
            (sums.fc1_weight, sums.fc1_bias, sums.norm2_weight, sums.norm2_bias),
            slice(0, len(total)), 1,
        )  # fmt: skip
        return of_a.view_as(h), of_y.view_as(h)

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
        """See `Kernels.mix_backward`. The result is a transposed view, (L, c)."""
        n = triton_norms.standardise(_rows(h), eps, self.dtype)
        gated, weight = self._gated(n, h, w, channels)
        dp = torch.empty_like(gated.p)
        conv = convolution(h.shape[1], self.dtype, h.device)
        grad_k, found = conv.backward(gated, spectrum, grad_y, channels.start, dp)
        taps = gated.taps.shape[2]
        _three(sums.short_weight)[:, channels].add_(found[..., :taps])
        _three(sums.short_bias)[:, channels].add_(found[..., taps])
        del gated
        d = dp.flatten(2).flatten(0, 1)  # (3c, B L)
        outer = torch.zeros_like(weight, dtype=torch.float32)
        add_product(outer, d, n)
        unfold(
            outer, found[..., taps + 1].contiguous(), (w.in_weight, w.norm1_weight, w.norm1_bias),
            (sums.in_weight, sums.in_bias, sums.norm1_weight, sums.norm1_bias), channels, 3,
        )  # fmt: skip
        into = _rows(grad_n)
        if into.dtype == self.dtype and channels.start == 0:
            product(d.T, weight, out=into)
        elif channels.start == 0:
            into.copy_(product(d.T, weight))
        else:
            into += product(d.T, weight)
        return grad_k.T

    def norm_backward(self, h: Tensor, eps: float, grad_n: Tensor, grad: Tensor) -> None:
        """See `Kernels.norm_backward`."""
        triton_norms.first_norm_backward(_rows(h), eps, _rows(grad_n), _rows(grad))

    def embed(self, table: Tensor, ids: Tensor) -> Tensor:
        """See `Kernels.embed`."""
        return torch.nn.functional.embedding(ids, table)

    def embed_backward(self, rows: int, ids: Tensor, grad: Tensor) -> Tensor:
        """See `Kernels.embed_backward`."""
        return triton_ends.embed_backward(rows, ids.contiguous().view(-1), _rows(grad))

    def norm(self, h: Tensor, weight: Tensor, bias: Tensor, eps: float) -> None:
        """See `Kernels.norm`."""
        triton_norms.norm_in_place(_rows(h), weight.contiguous(), bias.contiguous(), eps)

    def nats(
        self, h: Tensor, norm: tuple[Tensor, Tensor], eps: float, head: Tensor, targets: Tensor
    ) -> Tensor:
        """See `Kernels.nats`."""
        found = triton_ends.nats(_rows(h), norm, eps, head, targets.contiguous().view(-1))
        return found.view(targets.shape)

    def nats_backward(
        self,
        h: Tensor,
        norm: tuple[Tensor, Tensor],
        eps: float,
        head: Tensor,
        targets: Tensor,
        grad: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `Kernels.nats_backward`."""
        grad_h, *others = triton_ends.nats_backward(
            _rows(h), norm, eps, head, targets.contiguous().view(-1), grad.contiguous().view(-1)
        )
        return grad_h.view_as(h), others[0], others[1], others[2]

    def _folded_fc1(self, w: BlockWeights) -> tuple[Tensor, Tensor]:
        every = slice(0, len(w.fc1_weight))
        return fold(w.fc1_weight, w.fc1_bias, w.norm2_weight, w.norm2_bias, every, 1, self.dtype)

    def _gated(
        self, n: Tensor, h: Tensor, w: BlockWeights, channels: slice
    ) -> tuple[Gated, Tensor]:
        """Projections of a block of channels, and the weights (3c, D) that made them of n."""
        weight, shift = fold(
            w.in_weight, w.in_bias, w.norm1_weight, w.norm1_bias, channels, 3, self.dtype
        )
        width = channels.stop - channels.start
        p = product(weight, n.T).view(3, width, *h.shape[:2])
        taps = _three(w.short_weight)[:, channels].contiguous()
        bias = _three(w.short_bias)[:, channels].contiguous()
        return Gated(p, shift.view(3, width), taps, bias), weight


@lru_cache(maxsize=8)
def convolution(length: int, dtype: torch.dtype, device: torch.device) -> GatedConvolution:
    """What computes the operator between projections and y at this length.

    dtype: of the projections. Matrix products on tensor cores up to the length where their work
    grows faster than that of cuFFT, which then takes over; benchmarks/gpu measures where. On a GPU
    they are tried before, once for each kind of length.
    """
    able = length <= LONGEST_BY_MATRIX and why_no_triton(device) is None
    if able and (device.type != "cuda" or triton_trial.matrix_is_right(length, dtype, device)):
        return MatrixConvolution(length, dtype, device)
    return TransformedConvolution(length, device)


def product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """`a b` in the type of a and b, summed in float32; in `out` where it is given.

    cuBLAS may add up parts of a long sum in the 16-bit type, unless torch is told otherwise
    (`torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction`, and fp16 likewise).
    """
    if a.is_cuda or a.dtype == torch.float32:
        return torch.mm(a, b, out=out)
    # Triton's interpreter: some of torch's products on a CPU sum in the type of the operands
    found = (a.float() @ b.float()).to(a.dtype)
    return found if out is None else out.copy_(found)


def add_product(into: Tensor, a: Tensor, b: Tensor) -> None:
    """Adds `a b` to float32 `into`; a, b: of any one type. Sums are float32 to the end."""
    if a.dtype == torch.float32:
        into.addmm_(a, b)
    elif writes_float32(a.device, a.dtype):
        into += torch.mm(a, b, out_dtype=torch.float32)
    else:
        into.addmm_(a.float(), b.float())


@lru_cache(maxsize=16)
def writes_float32(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether products of this type can have results in float32: not on a CPU. Tried once."""
    small = torch.zeros(16, 16, dtype=dtype, device=device)
    try:
        return torch.mm(small, small, out_dtype=torch.float32).dtype == torch.float32
    except (RuntimeError, TypeError):  # what torch raises where there is no such product
        return False


def _rows(t: Tensor) -> Tensor:
    return t.view(-1, t.shape[-1])


def _three(t: Tensor) -> Tensor:
    """(3D, ...) -> (3, D, ...)."""
    return t.view(3, -1, *t.shape[1:])


def _before(past: Past, gated: Gated, channels: slice) -> Before:
    """What the gates read of the past; fills `past.next_halo` for these channels."""
    halo = past.halo.contiguous()
    width, length = halo.shape[1], gated.p.shape[3]
    if width:
        last = gated.p[..., max(0, length - width) :] + gated.shift[..., None, None]
        last = last.permute(2, 3, 0, 1)  # (B, n, 3, c)
        kept = halo.unflatten(2, (3, -1))[:, min(length, width) :, :, channels]
        after = past.next_halo.unflatten(2, (3, -1))[..., channels]
        after.copy_(torch.cat([kept, last], dim=1))
    return Before(halo, past.settled, channels.start)
