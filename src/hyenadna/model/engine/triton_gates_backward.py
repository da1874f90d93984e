"""Backward passes of the element-wise kernels in `hyenadna.model.engine.triton_gates`.

Nothing is kept of the forward pass but p: gates are computed again where they are read, also those
a few positions on, which the short filter's backward pass wants. With g the gradient of y and d_u
that of u, the gradients of the three filtered signals are `d_0 = g (k conv u)`, `d_1 = d_u v` and
`d_2 = d_u x1`; then `d_p_i[t] = sum_j taps_i[j] d_i[t+(K-1)-j]`, and each tap's gradient is a sum
over positions. A program writes its part of these sums, (K + 2) to a channel: taps, bias of the
filter, bias of the projection.
"""

from __future__ import annotations

from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from hyenadna.conv.triton_launch import at_least, launch
from hyenadna.model.engine.triton_gates import (
    Gated,
    rows_tile,
    sample,
    short,
    twisted,
    untwisted,
)

_STEPS: Final = 8  # tiles of one program, so that the partial sums are few beside what is read


@triton.jit
def _turned_gradient(grad_at, t, length, width, here):
    """Gradient of y at positions t of a tile, (BC, BT), from its channel-last columns."""
    wanted = (t < length)[:, None] & here[None, :]
    g = tl.load(grad_at + t.to(tl.int64)[:, None] * width, mask=wanted, other=0.0)
    return tl.trans(g.to(tl.float32))


@triton.jit
def gate_out_backward_kernel(
    p, taps, shift, bias, twist, z, grad_y, dp, zg, sums, B, C, length, m, width, first, chunks,
    steps: tl.constexpr,
    K: tl.constexpr, KP: tl.constexpr, BC: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """dp of x0 from the mixed signal z; zg, twisted and 0 from L on, = gradient of that signal."""
    across = (C + BC - 1) // BC
    channel = tl.program_id(0) % across * BC + tl.arange(0, BC)
    chunk = tl.program_id(0) // across % chunks
    batch = tl.program_id(0) // across // chunks
    here = channel < C
    safe = tl.where(here, channel, 0)
    row = (channel * B + batch).to(tl.int64)[:, None]
    own, taps_at = p + row * length, (taps + safe * K)[:, None]
    shifts, biases = tl.load(shift + safe)[:, None], tl.load(bias + safe)[:, None]
    grad_at = grad_y + batch.to(tl.int64) * length * width + first + channel[None, :]
    column = tl.arange(0, KP)[None, :]
    total = tl.zeros([BC, KP], dtype=tl.float32)
    for step in range(steps):
        start = (chunk * steps + step) * BT
        t = start + tl.arange(0, BT)
        inside = here[:, None] & (t < length)[None, :]
        g = _turned_gradient(grad_at, t, length, width, here)
        gate = short(own, taps_at, shifts, biases, t[None, :], length, inside, K)
        pair = 2 * start + tl.arange(0, 2 * BT)
        tl.store(
            zg + row * (2 * m) + pair[None, :], twisted(g * gate, twist, t[None, :], m),
            mask=here[:, None] & (pair < 2 * m)[None, :],
        )  # fmt: skip
        d = g * untwisted(z + row * (2 * m), twist, t[None, :], inside)
        for j in tl.static_range(K):
            x = sample(own, shifts, t[None, :] - (K - 1) + j, length, inside)
            total += tl.where(column == j, tl.sum(d * x, 1)[:, None], 0.0)
        total += tl.where(column == K, tl.sum(d, 1)[:, None], 0.0)
        dx = tl.load(taps_at + (K - 1)) * d
        for back in range(1, K):
            on = t + back
            there = here[:, None] & (on < length)[None, :]
            after = _turned_gradient(grad_at, on, length, width, here)
            after *= untwisted(z + row * (2 * m), twist, on[None, :], there)
            dx += tl.load(taps_at + (K - 1 - back)) * after
        dx = tl.where(inside, dx, 0.0)
        tl.store(dp + row * length + t[None, :], dx.to(dp.dtype.element_ty), mask=inside)
        total += tl.where(column == K + 1, tl.sum(dx, 1)[:, None], 0.0)
    at = (chunk * C + channel).to(tl.int64) * B + batch
    tl.store(sums + at[:, None] * KP + column, total, mask=here[:, None] & (column < KP))


@triton.jit
def gate_in_backward_kernel(
    p, taps, shift, bias, twist, z, dp, sums, run, dp_run, B, C, length, m, steps: tl.constexpr,
    K: tl.constexpr, KP: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """dp of x1 and v from z, the gradient of u before it is untwisted."""
    row = (tl.program_id(0) * R + tl.arange(0, R))[:, None]
    here = row < C * B
    row = tl.where(here, row, 0)
    channel = row // B
    own = row.to(tl.int64) * length
    z_at = z + row.to(tl.int64) * (2 * m)
    p1, p2 = p + (own + run), p + (own + run + run)
    taps1, taps2 = taps + (C + channel) * K, taps + (2 * C + channel) * K
    shift1, shift2 = tl.load(shift + C + channel), tl.load(shift + 2 * C + channel)
    bias1, bias2 = tl.load(bias + C + channel), tl.load(bias + 2 * C + channel)
    column = tl.arange(0, KP)[None, :]
    total1 = tl.zeros([R, KP], dtype=tl.float32)
    total2 = tl.zeros([R, KP], dtype=tl.float32)
    for step in range(steps):
        t = ((tl.program_id(1) * steps + step) * BLOCK + tl.arange(0, BLOCK))[None, :]
        inside = here & (t < length)
        d = untwisted(z_at, twist, t, inside)
        d1 = d * short(p2, taps2, shift2, bias2, t, length, inside, K)
        d2 = d * short(p1, taps1, shift1, bias1, t, length, inside, K)
        for j in tl.static_range(K):
            x1 = sample(p1, shift1, t - (K - 1) + j, length, inside)
            x2 = sample(p2, shift2, t - (K - 1) + j, length, inside)
            total1 += tl.where(column == j, tl.sum(d1 * x1, 1)[:, None], 0.0)
            total2 += tl.where(column == j, tl.sum(d2 * x2, 1)[:, None], 0.0)
        total1 += tl.where(column == K, tl.sum(d1, 1)[:, None], 0.0)
        total2 += tl.where(column == K, tl.sum(d2, 1)[:, None], 0.0)
        dx1 = tl.load(taps1 + (K - 1)) * d1
        dx2 = tl.load(taps2 + (K - 1)) * d2
        for back in range(1, K):
            on = t + back
            there = here & (on < length)
            after = untwisted(z_at, twist, on, there)
            value = short(p2, taps2, shift2, bias2, on, length, there, K)
            dx1 += tl.load(taps1 + (K - 1 - back)) * after * value
            value = short(p1, taps1, shift1, bias1, on, length, there, K)
            dx2 += tl.load(taps2 + (K - 1 - back)) * after * value
        dx1 = tl.where(inside, dx1, 0.0)
        dx2 = tl.where(inside, dx2, 0.0)
        tl.store(dp + (own + dp_run) + t, dx1.to(dp.dtype.element_ty), mask=inside)
        tl.store(dp + (own + dp_run + dp_run) + t, dx2.to(dp.dtype.element_ty), mask=inside)
        total1 += tl.where(column == K + 1, tl.sum(dx1, 1)[:, None], 0.0)
        total2 += tl.where(column == K + 1, tl.sum(dx2, 1)[:, None], 0.0)
    at = tl.program_id(1).to(tl.int64) * (2 * C * B) + row
    tl.store(sums + at * KP + column, total1, mask=here & (column < KP))
    tl.store(sums + (at + C * B) * KP + column, total2, mask=here & (column < KP))


@triton.jit
def spectra_backward_kernel(
    spectrum, of_u, of_g, of_k, C, m, B: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr
):
    """of_k = sum over the batch of conj(of_u) of_g; of_g becomes conj(spectrum) of_g."""
    channel = (tl.program_id(0) * R + tl.arange(0, R)).to(tl.int64)[:, None]
    f = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    inside = (channel < C) & (f < m)
    s = spectrum + channel * (2 * m)
    s_re = tl.load(s + 2 * f, mask=inside, other=0.0)
    s_im = tl.load(s + 2 * f + 1, mask=inside, other=0.0)
    k_re = tl.zeros([R, BLOCK], dtype=tl.float32)
    k_im = tl.zeros([R, BLOCK], dtype=tl.float32)
    pair = (tl.program_id(1) * (2 * BLOCK) + tl.arange(0, 2 * BLOCK))[None, :]
    both = (channel < C) & (pair < 2 * m)
    for batch in range(B):
        at = (channel * B + batch) * (2 * m)
        u_re = tl.load(of_u + at + 2 * f, mask=inside, other=0.0)
        u_im = tl.load(of_u + at + 2 * f + 1, mask=inside, other=0.0)
        g_re = tl.load(of_g + at + 2 * f, mask=inside, other=0.0)
        g_im = tl.load(of_g + at + 2 * f + 1, mask=inside, other=0.0)
        k_re += u_re * g_re + u_im * g_im
        k_im += u_re * g_im - u_im * g_re
        turned = tl.interleave(s_re * g_re + s_im * g_im, s_re * g_im - s_im * g_re)
        tl.debug_barrier()  # every thread has read its numbers before another writes them
        tl.store(of_g + at + pair, turned, mask=both)
    tl.store(of_k + channel * (2 * m) + pair, tl.interleave(k_re, k_im), mask=both)


def gate_out_backward(
    gated: Gated, z: Tensor, twist: Tensor, grad_y: Tensor, first: int, dp: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradient of the convolution's result, twisted complex (c, B, m); and sums (c, K + 2).

    z: complex (c, B, m), the convolution's result before it is untwisted; grad_y: (B, L, D), whose
    columns from `first` on count; dp: (3, c, B, L), of which the first run, x0, is filled. Sums:
    gradients of taps, of the filter's bias and of the projection's bias.
    """
    _, width, batch, length = gated.p.shape
    m, taps = z.shape[2], gated.taps.shape[2]
    # half as wide as in the forward pass: it holds twice as much of each number
    shape = {"BC": 16, "BT": min(32, at_least(length, 16))}
    columns = at_least(taps + 2)
    steps = min(_STEPS, at_least(-(-m // shape["BT"])))
    count = -(-m // (shape["BT"] * steps))
    zg = torch.empty(width, batch, m, 2, dtype=torch.float32, device=z.device)
    sums = zg.new_empty(count, width, batch, columns)
    launch(
        gate_out_backward_kernel, (batch * count * -(-width // shape["BC"]),), z,
        gated.p, gated.taps, gated.shift, gated.bias, torch.view_as_real(twist),
        torch.view_as_real(z), grad_y, dp, zg, sums, batch, width, length, m, grad_y.shape[2],
        first, count, steps, K=taps, KP=columns, **shape,
    )  # fmt: skip
    return torch.view_as_complex(zg), sums.sum((0, 2))[:, : taps + 2]


def gate_in_backward(gated: Gated, z: Tensor, twist: Tensor, dp: Tensor) -> Tensor:
    """Sums (2, c, K + 2) of x1 and v, as for `gate_out_backward`; fills their runs of dp.

    z: complex (c, B, m), gradient of u before it is untwisted.
    """
    _, width, batch, length = gated.p.shape
    m, taps = z.shape[2], gated.taps.shape[2]
    columns, shape = at_least(taps + 2), rows_tile(length, 512)
    steps = min(_STEPS, at_least(-(-length // shape["BLOCK"])))
    count = -(-length // (shape["BLOCK"] * steps))
    sums = torch.empty(count, 2, width, batch, columns, dtype=torch.float32, device=z.device)
    launch(
        gate_in_backward_kernel, (-(-width * batch // shape["R"]), count), z,
        gated.p, gated.taps, gated.shift, gated.bias, torch.view_as_real(twist),
        torch.view_as_real(z), dp, sums, gated.p.stride(0), dp.stride(0), batch, width, length, m,
        steps, K=taps, KP=columns, **shape,
    )  # fmt: skip
    return sums.sum((0, 3))[..., : taps + 2]


def spectra_backward(spectrum: Tensor, of_u: Tensor, of_g: Tensor) -> Tensor:
    """Transform of the gradient of the filters, complex (c, m).

    of_g (c, B, m), transform of the gradient of the convolution's result, becomes that of the
    gradient of u. spectrum: (c, m), of the filters; of_u: (c, B, m), of u.
    """
    width, batch, m = of_u.shape
    of_k = torch.empty(width, m, 2, dtype=torch.float32, device=of_u.device)
    shape = rows_tile(m, 512)
    launch(
        spectra_backward_kernel, (-(-width // shape["R"]), -(-m // shape["BLOCK"])), of_u,
        torch.view_as_real(spectrum), torch.view_as_real(of_u), torch.view_as_real(of_g), of_k,
        width, m, batch, **shape,
    )  # fmt: skip
    return torch.view_as_complex(of_k)
