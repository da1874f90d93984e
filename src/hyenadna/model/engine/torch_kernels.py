"""The kernels of a block in torch alone: any device, float32 and float64."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from hyenadna.conv import short_convolution
from hyenadna.conv.right_angle import RightAngle
from hyenadna.model.engine import pages
from hyenadna.model.engine.filter_passes import (
    filters_at_lags,
    filters_backward,
    hidden_at_lags,
    network_backward,
)
from hyenadna.model.engine.gemm import Gemm, row_chunks
from hyenadna.model.engine.kernels import Past
from hyenadna.model.engine.norm import standardise, standardise_backward
from hyenadna.model.engine.sizes import ROWS, TRANSFORM_SAMPLES
from hyenadna.model.engine.torch_ends import TorchEnds
from hyenadna.model.engine.weights import BlockWeights, FilterWindow


class TorchKernels(TorchEnds):
    """The protocol `Kernels` in torch.

    gemm: type of the large products, operands and results (None: that of the model; with bfloat16
    filters, transforms, gates, norms and the residual stream keep the model's). rows: positions of
    a chunk. Keeps one workspace from call to call, so an instance serves one forward or backward
    pass at a time and is dropped with it.
    """

    name = layout = "torch"
    overwrites = True

    def __init__(self, gemm: torch.dtype | None = None, rows: int = ROWS) -> None:
        super().__init__(rows)
        self.gemm = Gemm(gemm)
        self._room: Tensor | None = None

    def release(self) -> None:
        """See `Kernels.release`."""
        self._room = None

    def kept_bytes(self) -> int:
        """See `Kernels.kept_bytes`."""
        return pages.kept_bytes()

    def channel_step(self) -> int:
        """Any block of channels will do."""
        return 1

    def mixed_like(self, h: Tensor) -> Tensor:
        """See `Kernels.mixed_like`: as the residual stream is."""
        return pages.empty_like(h)

    def norm_gradient(self, h: Tensor, blocks: int) -> Tensor:
        """See `Kernels.norm_gradient`: zeros that every block adds to."""
        return pages.empty_like(h).zero_()

    hidden = staticmethod(hidden_at_lags)
    hidden_backward = staticmethod(network_backward)
    filters_backward = staticmethod(filters_backward)

    def spectrum(
        self,
        hidden: Tensor,
        w: BlockWeights,
        window: FilterWindow,
        channels: slice,
        *,
        kept: bool = True,
    ) -> Tensor:
        """Complex (c, m): right-angle transform of the filters with their skip at lag 0."""
        k = filters_at_lags(hidden, w, window, channels, self.exact)
        fft = RightAngle(k.shape[1], k.dtype, k.device)
        out = pages.empty((len(k), fft.m), fft.complex, k.device)
        for part in fft.parts(len(k), 1, TRANSFORM_SAMPLES):
            out[part] = fft.forward(k[part])
        return out

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
        batch, length, _ = h.shape
        width = channels.stop - channels.start
        p = self._project(h, w, eps, channels).view(3, width, batch, length)
        if past is not None:
            p = _with_halo(p, past, channels)
        taps, bias = _short_rows(w, channels)
        fft = RightAngle(length, h.dtype, h.device)
        for part in fft.parts(width, batch, TRANSFORM_SAMPLES):
            u = _short(p[2, part], taps[2, part], bias[2, part])
            u *= _short(p[1, part], taps[1, part], bias[1, part])
            u = u[..., -length:]
            if past is not None:
                first = channels.start + part.start
                past.keep(slice(first, first + len(u)), u.permute(1, 2, 0))
            f = fft.forward(u)
            del u
            f *= spectrum[part, None]
            mixed = fft.back(f)
            del f
            if past is not None and past.settled is not None:
                mixed += past.settled[:, :length, channels][..., part].permute(2, 0, 1)
            gate = _short(p[0, part], taps[0, part], bias[0, part])
            torch.mul(mixed, gate[..., -length:], out=p[2, part, :, -length:])
        y.view(batch * length, -1)[:, channels] = p[2, :, :, -length:].flatten(1).T

    def finish(self, h: Tensor, y: Tensor, w: BlockWeights, eps: float, out: Tensor) -> None:
        """See `Kernels.finish`."""
        rows_h, rows_y, rows_out = (t.view(-1, t.shape[-1]) for t in (h, y, out))
        out_weight, fc1, fc2 = map(self.gemm.operand, (w.out_weight, w.fc1_weight, w.fc2_weight))
        for rows in row_chunks(len(rows_h), self.rows):
            a = rows_h[rows] + self.gemm.linear(rows_y[rows], out_weight, w.out_bias)
            n = functional.layer_norm(a, a.shape[1:], w.norm2_weight, w.norm2_bias, eps)
            inner = self.gemm.linear_gelu(n, fc1, w.fc1_bias)
            torch.add(a, self.gemm.linear(inner, fc2, w.fc2_bias), out=rows_out[rows])

    def finish_backward(
        self, h: Tensor, y: Tensor, w: BlockWeights, eps: float, grad: Tensor, sums: BlockWeights
    ) -> tuple[Tensor, Tensor]:
        """See `Kernels.finish_backward`.

        The affine part of the norm is folded into the first product, so that its gradients follow
        from the sums `dz^T n` and `dz^T 1`.
        """
        rows_h, rows_y, rows_g = (t.view(-1, t.shape[-1]) for t in (h, y, grad))
        product = self.gemm.linear
        out_weight, fc2 = self.gemm.operand(w.out_weight), self.gemm.operand(w.fc2_weight)
        folded, bias = _fold(w.fc1_weight, w.fc1_bias, w.norm2_weight, w.norm2_bias)
        folded = self.gemm.operand(folded)
        outer, total = torch.zeros_like(w.fc1_weight), torch.zeros_like(w.fc1_bias)
        for rows in row_chunks(len(rows_h), self.rows):
            g, y_rows = rows_g[rows], rows_y[rows]
            a = rows_h[rows] + product(y_rows, out_weight, w.out_bias)
            n, mean, rstd = standardise(a, eps)
            z = product(n, folded, bias)
            inner = functional.gelu(z, approximate="tanh")
            sums.fc2_weight.add_(product(g.T, inner.T))
            sums.fc2_bias.add_(g.sum(0))
            dz = torch.ops.aten.gelu_backward(product(g, fc2.T), z, approximate="tanh")
            outer.add_(product(dz.T, n.T))
            total.add_(dz.sum(0, dtype=total.dtype))
            g += standardise_backward(product(dz, folded.T).to(a.dtype), a, mean, rstd)
            sums.out_weight.add_(product(g.T, y_rows.T))
            sums.out_bias.add_(g.sum(0))
            y_rows.copy_(product(g, out_weight.T))
        sums.fc1_weight.add_(outer * w.norm2_weight + torch.outer(total, w.norm2_bias))
        sums.fc1_bias.add_(total)
        sums.norm2_weight.add_((w.fc1_weight * outer).sum(0))
        sums.norm2_bias.add_((w.fc1_weight * total[:, None]).sum(0))
        return grad, y

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
        batch, length, d_model = h.shape
        width = channels.stop - channels.start
        p = self._project(h, w, eps, channels)
        shaped = p.view(3, width, batch, length)
        taps, bias = _short_rows(w, channels)
        fft = RightAngle(length, h.dtype, h.device)
        grad_k = pages.empty_like(h, width, length)
        d_taps, d_bias = torch.zeros_like(taps), torch.zeros_like(bias)
        columns = grad_y.view(-1, d_model)[:, channels]
        for part in fft.parts(width, batch, TRANSFORM_SAMPLES):
            g = columns[:, part].T.contiguous().view(-1, batch, length)
            x = [_short(shaped[i, part], taps[i, part], bias[i, part]) for i in range(3)]
            gates = _mix_gradients(fft, g, x, spectrum[part, None], grad_k[part])
            for i, gate in enumerate(gates):
                d_bias[i, part] = gate.sum((1, 2))
                _short_backward(shaped[i, part], gate, taps[i, part], d_taps[i, part])
        sums.short_weight.view_as(_three(w.short_weight))[:, channels].add_(d_taps)
        sums.short_bias.view(3, -1)[:, channels].add_(d_bias)
        self._project_backward(h, w, eps, channels, p, grad_n, sums)
        return grad_k.T

    def norm_backward(self, h: Tensor, eps: float, grad_n: Tensor, grad: Tensor) -> None:
        """See `Kernels.norm_backward`."""
        rows_h, rows_n, rows_g = (t.view(-1, t.shape[-1]) for t in (h, grad_n, grad))
        for rows in row_chunks(len(rows_h), self.rows):
            _, mean, rstd = standardise(rows_h[rows], eps)
            rows_g[rows] += standardise_backward(rows_n[rows], rows_h[rows], mean, rstd)

    def _project(self, h: Tensor, w: BlockWeights, eps: float, channels: slice) -> Tensor:
        """Projections x0, x1, v of a block of channels before the short filter: (3c, B L)."""
        flat = h.view(-1, h.shape[-1])
        weight, bias = _projection(w, channels)
        weight = self.gemm.operand(weight)
        out = self._workspace(h, len(weight), len(flat))
        for rows in row_chunks(len(flat), self.rows):
            n, _, _ = standardise(flat[rows], eps)
            # channels first straight from the product: the weights are its left operand
            torch.add(self.gemm.linear(weight, n), bias[:, None], out=out[:, rows])
        return out

    def _project_backward(
        self,
        h: Tensor,
        w: BlockWeights,
        eps: float,
        channels: slice,
        grad_p: Tensor,
        grad_n: Tensor,
        sums: BlockWeights,
    ) -> None:
        flat, into = h.view(-1, h.shape[-1]), grad_n.view(-1, h.shape[-1])
        folded = self.gemm.operand(_projection(w, channels)[0]).T
        outer = h.new_zeros(len(grad_p), h.shape[-1])
        for rows in row_chunks(len(flat), self.rows):
            n, _, _ = standardise(flat[rows], eps)
            g = self.gemm.operand(grad_p[:, rows])
            outer += self.gemm.linear(g, n.T)
            into[rows] += self.gemm.linear(g.T, folded)
        total = grad_p.sum(1)
        weight = _three(w.in_weight)[:, channels].flatten(0, 1)
        gradient = outer * w.norm1_weight + torch.outer(total, w.norm1_bias)
        _three(sums.in_weight)[:, channels].add_(gradient.view(3, -1, h.shape[-1]))
        sums.in_bias.view(3, -1)[:, channels].add_(total.view(3, -1))
        sums.norm1_weight.add_((weight * outer).sum(0))
        sums.norm1_bias.add_((weight * total[:, None]).sum(0))

    def _workspace(self, like: Tensor, *shape: int) -> Tensor:
        """Uninitialised memory that the next call uses again: fresh pages cost half of a pass."""
        count = torch.Size(shape).numel()
        if self._room is None or self._room.numel() < count:
            self._room = None  # first, so that the two are never held together
            self._room = pages.empty_like(like, count)
        return self._room[:count].view(shape)


def _three(weight: Tensor) -> Tensor:
    """(3D, ...) -> (3, D, ...)."""
    return weight.view(3, -1, *weight.shape[1:])


def _fold(weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias that do to n what the given ones do to `n scale + shift`."""
    # no matrix-vector product: its last bits depend on where in memory the weights lie
    return weight * scale, bias + (weight * shift).sum(1)


def _projection(w: BlockWeights, channels: slice) -> tuple[Tensor, Tensor]:
    """Rows of the input projection for a block of channels, norm1 folded in: (3c, D), (3c,)."""
    weight = _three(w.in_weight)[:, channels].flatten(0, 1)
    bias = w.in_bias.view(3, -1)[:, channels].flatten()
    return _fold(weight, bias, w.norm1_weight, w.norm1_bias)


def _short_rows(w: BlockWeights, channels: slice) -> tuple[Tensor, Tensor]:
    """Short filter of a block of channels: taps (3, c, K), bias (3, c)."""
    return _three(w.short_weight)[:, channels], w.short_bias.view(3, -1)[:, channels]


def _short(p: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
    """Short filter of p (c, B, L)."""
    return short_convolution(p.transpose(0, 1), taps, bias).transpose(0, 1)


def _short_backward(p: Tensor, grad: Tensor, taps: Tensor, d_taps: Tensor) -> None:
    """p (c, B, L), the filter's input, becomes its gradient; d_taps (c, K) becomes that of taps."""
    last = taps.shape[1] - 1
    reach = min(last, p.shape[2] - 1)
    for back in range(reach + 1):
        product = grad[..., back:] * p[..., : p.shape[2] - back]
        d_taps[:, last - back] = product.sum((1, 2))
    torch.mul(grad, taps[:, last, None, None], out=p)
    for back in range(1, reach + 1):
        p[..., :-back].addcmul_(grad[..., back:], taps[:, last - back, None, None])


def _mix_gradients(
    fft: RightAngle, g: Tensor, x: list[Tensor], spectrum: Tensor, grad_k: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x0, x1, v, each (c, B, L), of `x0 (k conv (x1 v))`; fills grad_k (c, L)."""
    u = fft.forward(x[2] * x[1])
    d_x0 = fft.back(u * spectrum) * g
    g = fft.forward(g * x[0])
    grad_k.copy_(fft.back(u.conj_physical_().mul_(g).sum(1)))
    del u
    g *= spectrum.conj()
    d_u = fft.back(g)
    return d_x0, d_u * x[2], d_u * x[1]


def _with_halo(p: Tensor, past: Past, channels: slice) -> Tensor:
    """Projections (3, c, B, L) with those of the K-1 positions before in front, for `_short`."""
    width = past.halo.shape[1]

    def three(halo: Tensor) -> Tensor:
        return halo.unflatten(2, (3, -1))[..., channels].permute(2, 3, 0, 1)  # (3, c, B, K-1)

    whole = torch.cat([three(past.halo), p], dim=3)
    three(past.next_halo).copy_(whole[..., whole.shape[3] - width :])
    return whole
