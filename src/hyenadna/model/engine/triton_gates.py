"""The element-wise passes around the long convolution of the order-2 operator, forward.

p (3, c, B, L): projections x0, x1, v as the product wrote them, without their bias; the short
filter adds it (`shift`, (3, c)) as it reads. With the filter's taps and bias,
`s_i[t] = bias_i + sum_j taps_i[j] (p_i[t-(K-1)+j] + shift_i)` over what is not before the start.
The first gate gives the convolution `u = v x1`, the second makes `y = x0 (k conv u)` of its result.

Spectra of the long convolution are those of `hyenadna.conv.right_angle`: a signal is multiplied by
a twist before its transform and by the conjugate after. Complex numbers are pairs of float32, and
a signal z has m >= L of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from hyenadna.conv.triton_launch import at_least, launch


@triton.jit
def sample(p, shift, at, length, inside):
    """A projection with its bias; 0 where there is none. p: pointer to the channel's first."""
    there = inside & (at >= 0) & (at < length)
    x = tl.load(p + at, mask=there, other=0.0).to(tl.float32)
    return tl.where(there, x + shift, 0.0)


@triton.jit
def short(p, taps, shift, bias, t, length, inside, K: tl.constexpr):
    """The short filter at t. taps: pointer to the channel's first; inside: what is wanted."""
    out = tl.where(inside, bias, 0.0)
    for j in tl.static_range(K):
        out += tl.load(taps + j) * sample(p, shift, t - (K - 1) + j, length, inside)
    return out


@triton.jit
def _short_after(
    p, halo, taps, shift, bias, t, length, inside, halo_step, K: tl.constexpr, HALO: tl.constexpr
):
    """As `short`; with HALO, halo points to the K-1 samples before, bias and all."""
    out = short(p, taps, shift, bias, t, length, inside, K)
    if HALO:
        for j in tl.static_range(K - 1):
            at = t - (K - 1) + j
            before = inside & (at < 0)
            x = tl.load(halo + (at + K - 1) * halo_step, mask=before, other=0.0)
            out += tl.load(taps + j) * x
    return out


@triton.jit
def twisted(x, twist, t, m):
    """Pairs (..., 2 n) of real numbers x (..., n) at t, times the twist."""
    cos = tl.load(twist + 2 * t, mask=t < m, other=0.0)
    sin = tl.load(twist + 2 * t + 1, mask=t < m, other=0.0)
    return tl.interleave(x * cos, x * sin)


@triton.jit
def untwisted(z, twist, t, inside):
    """Real part at t of a complex signal times the conjugate twist. z: pointer to its first."""
    re = tl.load(z + 2 * t, mask=inside, other=0.0)
    im = tl.load(z + 2 * t + 1, mask=inside, other=0.0)
    cos = tl.load(twist + 2 * t, mask=inside, other=0.0)
    sin = tl.load(twist + 2 * t + 1, mask=inside, other=0.0)
    return re * cos + im * sin


@triton.jit
def gate_in_kernel(
    p, taps, shift, bias, halo, twist, u, run, B, C, length, m, halo_batch, halo_step, halo_run,
    halo_first, K: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr, HALO: tl.constexpr,
    TWIST: tl.constexpr,
):  # fmt: skip
    """u = v x1: twisted, (c, B, m) pairs and 0 from L on, or (c, B, L)."""
    row = (tl.program_id(0) * R + tl.arange(0, R))[:, None]
    here = row < C * B
    row = tl.where(here, row, 0)
    channel, batch = row // B, row % B
    t = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    inside = here & (t < length)
    own = row.to(tl.int64) * length
    before = halo + batch * halo_batch + halo_first + channel
    value = _short_after(
        p + (own + run + run), before + 2 * halo_run, taps + (2 * C + channel) * K,
        tl.load(shift + 2 * C + channel), tl.load(bias + 2 * C + channel),
        t, length, inside, halo_step, K, HALO,
    )  # fmt: skip
    value *= _short_after(
        p + (own + run), before + halo_run, taps + (C + channel) * K,
        tl.load(shift + C + channel), tl.load(bias + C + channel),
        t, length, inside, halo_step, K, HALO,
    )  # fmt: skip
    if TWIST:
        pair = (tl.program_id(1) * (2 * BLOCK) + tl.arange(0, 2 * BLOCK))[None, :]
        at = u + row.to(tl.int64) * (2 * m)
        tl.store(at + pair, twisted(value, twist, t, m), mask=here & (pair < 2 * m))
    else:
        tl.store(u + own + t, value, mask=inside)


@triton.jit
def gate_out_kernel(
    p, taps, shift, bias, halo, twist, z, settled, y, B, C, length, m,
    halo_batch, halo_step, halo_first, settled_batch, settled_step, width, first,
    K: tl.constexpr, BC: tl.constexpr, BT: tl.constexpr, HALO: tl.constexpr, SETTLED: tl.constexpr,
    TWIST: tl.constexpr,
):  # fmt: skip
    """y (B, L, width), columns from `first` on, = x0 times the untwisted z (plus what is settled).

    Without TWIST, z is the real signal itself, (c, B, L). A tile is read along positions and
    written along channels.
    """
    across = (C + BC - 1) // BC  # programs beside each other write the same lines of y
    tiles = (length + BT - 1) // BT
    tile = tl.program_id(0) // across
    t = tile % tiles * BT + tl.arange(0, BT)
    channel = tl.program_id(0) % across * BC + tl.arange(0, BC)
    batch = tile // tiles
    here = channel < C
    inside = here[:, None] & (t < length)[None, :]
    row = (channel * B + batch).to(tl.int64)[:, None]
    # columns of pointers need a mask of their own: a channel that is not there reads the first
    safe = tl.where(here, channel, 0)
    gate = _short_after(
        p + row * length, (halo + batch * halo_batch + halo_first + safe)[:, None],
        (taps + safe * K)[:, None], tl.load(shift + safe)[:, None], tl.load(bias + safe)[:, None],
        t[None, :], length, inside, halo_step, K, HALO,
    )  # fmt: skip
    if TWIST:
        mixed = untwisted(z + row * (2 * m), twist, t[None, :], inside)
    else:
        mixed = tl.load(z + row * length + t[None, :], mask=inside, other=0.0).to(tl.float32)
    out = tl.trans(gate * mixed)  # (BT, BC)
    turned = (t < length)[:, None] & here[None, :]
    if SETTLED:
        at = t.to(tl.int64)[:, None] * settled_step + channel[None, :]
        effect = settled + batch.to(tl.int64) * settled_batch
        out += tl.trans(gate) * tl.load(effect + at, mask=turned, other=0.0)
    at = (batch.to(tl.int64) * length + t)[:, None] * width + first + channel[None, :]
    tl.store(y + at, out.to(y.dtype.element_ty), mask=turned)


@triton.jit
def untwist_kernel(z, twist, out, rows, length, m, scale, R: tl.constexpr, BLOCK: tl.constexpr):
    """out (rows, L) = scale times the untwisted z (rows, m)."""
    row = (tl.program_id(0) * R + tl.arange(0, R)).to(tl.int64)[:, None]
    t = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    inside = (row < rows) & (t < length)
    value = untwisted(z + row * (2 * m), twist, t, inside)
    tl.store(out + row * length + t, scale * value, mask=inside)


@triton.jit
def twist_kernel(x, twist, z, rows, length, m, scale, R: tl.constexpr, BLOCK: tl.constexpr):
    """z (rows, m) = scale times the twisted x (rows, L), 0 from L on."""
    row = (tl.program_id(0) * R + tl.arange(0, R)).to(tl.int64)[:, None]
    t = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    inside = (row < rows) & (t < length)
    value = scale * tl.load(x + row * length + t, mask=inside, other=0.0)
    pair = (tl.program_id(1) * (2 * BLOCK) + tl.arange(0, 2 * BLOCK))[None, :]
    inside = (row < rows) & (pair < 2 * m)
    tl.store(z + row * (2 * m) + pair, twisted(value, twist, t, m), mask=inside)


@dataclass(frozen=True)
class Gated:
    """What the gates of a block of c channels read."""

    p: Tensor
    """(3, c, B, L), float32 or the type of the products: projections without their bias. Each of
    the three is contiguous."""
    shift: Tensor
    """(3, c), float32: that bias."""
    taps: Tensor
    """(3, c, K), float32."""
    bias: Tensor
    """(3, c), float32: of the short filter."""

    def part(self, channels: slice) -> Gated:
        """The same for some of the channels; p is a view."""
        if channels.stop - channels.start == self.p.shape[1]:
            return self
        small = (t[:, channels].contiguous() for t in (self.shift, self.taps, self.bias))
        return Gated(self.p[:, channels], *small)


@dataclass(frozen=True)
class Before:
    """What came before the positions of a pass, for channels from `first` on of D."""

    halo: Tensor
    """(B, K-1, 3D), float32: projections there, with their bias."""
    settled: Tensor | None
    """(1 or B, >= L, D), float32: effect of earlier samples on the long convolution."""
    first: int

    def at(self, channels: slice) -> Before:
        """The same for channels from those on."""
        return Before(self.halo, self.settled, self.first + channels.start)

    def halo_steps(self) -> tuple[int, int]:
        """Numbers from row to row, and from position to position."""
        return self.halo.stride(0), self.halo.stride(1)


def gate_in(gated: Gated, m: int, twist: Tensor | None, before: Before | None) -> Tensor:
    """The signal u of the long convolution, float32.

    Twisted, complex (c, B, m) and 0 from L on; where there is no twist, as it is: (c, B, L).
    twist: complex (m,).
    """
    _, width, batch, length = gated.p.shape
    taps = gated.taps.shape[2]
    p = gated.p
    shape = (width, batch, length) if twist is None else (width, batch, m, 2)
    u = torch.empty(shape, dtype=torch.float32, device=p.device)
    positions = length if twist is None else m
    rows = rows_tile(positions)
    halo, steps, run, first = _halo(gated, before)
    launch(
        gate_in_kernel, (-(-width * batch // rows["R"]), -(-positions // rows["BLOCK"])), p,
        p, gated.taps, gated.shift, gated.bias, halo, u if twist is None else _pairs(twist), u,
        p.stride(0), batch, width, length, m, *steps, run, first,
        K=taps, HALO=before is not None and taps > 1, TWIST=twist is not None, **rows,
    )  # fmt: skip
    return u if twist is None else torch.view_as_complex(u)


def gate_out(
    gated: Gated, z: Tensor, twist: Tensor | None, y: Tensor, first: int, before: Before | None
) -> None:
    """Fills columns of y (B, L, D), from `first` on, with the gated result of the convolution.

    z: complex (c, B, m), not yet untwisted; where there is no twist, real (c, B, L), contiguous.
    y: contiguous, float32 or the type of the products.
    """
    _, width, batch, length = gated.p.shape
    taps = gated.taps.shape[2]
    halo, steps, _, halo_first = _halo(gated, before)
    settled = None if before is None else before.settled
    across = (0, 0)
    if settled is not None:
        settled = settled if settled.stride(2) == 1 else settled.contiguous()
        across = (0 if len(settled) == 1 else settled.stride(0), settled.stride(1))
    shape = {"BC": min(32, at_least(width, 16)), "BT": min(32, at_least(length, 16))}
    # a grid's second axis ends at 65,535, fewer than a batch of short sequences may have
    programs = batch * -(-length // shape["BT"]) * -(-width // shape["BC"])
    launch(
        gate_out_kernel, (programs,), z,
        gated.p, gated.taps, gated.shift, gated.bias, halo,
        z if twist is None else _pairs(twist), z if twist is None else _pairs(z),
        halo if settled is None else settled[..., halo_first:], y,
        batch, width, length, z.shape[2], *steps, halo_first, *across, y.shape[2], first,
        K=taps, HALO=before is not None and taps > 1, SETTLED=settled is not None,
        TWIST=twist is not None, **shape,
    )  # fmt: skip


def twist_signal(x: Tensor, m: int, twist: Tensor, scale: float) -> Tensor:
    """`scale x` twisted, complex (rows, m), of contiguous float32 x (rows, L)."""
    rows, length = x.shape
    z = torch.empty(rows, m, 2, dtype=torch.float32, device=x.device)
    shape = rows_tile(m)
    grid = (-(-rows // shape["R"]), -(-m // shape["BLOCK"]))
    launch(twist_kernel, grid, x, x, _pairs(twist), z, rows, length, m, scale, **shape)
    return torch.view_as_complex(z)


def untwist_signal(z: Tensor, twist: Tensor, scale: float, out: Tensor) -> None:
    """Fills out (rows, L) with `scale` times the real part of untwisted z, complex (rows, m)."""
    rows, length = out.shape
    shape = rows_tile(length)
    grid = (-(-rows // shape["R"]), -(-length // shape["BLOCK"]))
    launch(
        untwist_kernel, grid, z, _pairs(z), _pairs(twist), out, rows, length, z.shape[1], scale,
        **shape,
    )  # fmt: skip


def rows_tile(length: int, numbers: int = 1024) -> dict[str, int]:
    """Rows and positions of a program that goes along positions; so many numbers in all."""
    block = min(numbers, at_least(length, 16))
    return {"R": numbers // block, "BLOCK": block}


def _pairs(z: Tensor) -> Tensor:
    return torch.view_as_real(z)


def _halo(gated: Gated, before: Before | None) -> tuple[Tensor, tuple[int, int], int, int]:
    """Halo, its steps, numbers from one run of D to the next, and where its channels start."""
    if before is None:
        return gated.bias, (0, 0), 0, 0
    return before.halo, before.halo_steps(), before.halo.shape[2] // 3, before.first
