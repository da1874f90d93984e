"""What stands around the matrix products: a norm's affine part folded into them, and GELU.

With weight W and bias b behind a norm of scale s and shift o, `W (n s + o) + b` is the product of n
with `W s`, plus `b + W o`. The gradients of all four follow from two sums, `dz^T n` and `dz^T 1`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hyenadna.conv.triton_launch import at_least, launch, programs_and_steps, tile


@triton.jit
def fold_kernel(
    weight, bias, scale, shift, folded, folded_bias, rows, start, width, whole,
    D: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Rows of `W s`, and their `b + W o`."""
    row = tl.program_id(0) * R + tl.arange(0, R)
    source = row // width * whole + start + row % width
    col = tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (col < D)[None, :]
    w = tl.load(weight + source[:, None] * D + col[None, :], mask=inside, other=0.0)
    s = tl.load(scale + col, mask=col < D, other=0.0)[None, :]
    o = tl.load(shift + col, mask=col < D, other=0.0)[None, :]
    at = row[:, None] * D + col[None, :]
    tl.store(folded + at, (w * s).to(folded.dtype.element_ty), mask=inside)
    own = tl.load(bias + source, mask=row < rows, other=0.0)
    tl.store(folded_bias + row, own + tl.sum(w * o, 1), mask=row < rows)


@triton.jit
def unfold_kernel(
    outer, total, weight, scale, shift, d_weight, d_bias, d_scale, d_shift,
    start, width, whole, rows: tl.constexpr, D: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Adds to the gradients of W, b, s and o in a block of columns."""
    col = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    s = tl.load(scale + col, mask=col < D, other=0.0)
    o = tl.load(shift + col, mask=col < D, other=0.0)
    of_s = tl.zeros([BLOCK], dtype=tl.float32)
    of_o = tl.zeros([BLOCK], dtype=tl.float32)
    for first in range(0, rows, R):
        row = first + tl.arange(0, R)
        source = row // width * whole + start + row % width
        inside = (row < rows)[:, None] & (col < D)[None, :]
        at = source[:, None] * D + col[None, :]
        a = tl.load(outer + row[:, None] * D + col[None, :], mask=inside, other=0.0)
        t = tl.load(total + row, mask=row < rows, other=0.0)
        w = tl.load(weight + at, mask=inside, other=0.0)
        of_s += tl.sum(w * a, 0)
        of_o += tl.sum(w * t[:, None], 0)
        d = tl.load(d_weight + at, mask=inside, other=0.0)
        tl.store(d_weight + at, d + a * s[None, :] + t[:, None] * o[None, :], mask=inside)
        first_block = (row < rows) & (tl.program_id(0) == 0)
        old = tl.load(d_bias + source, mask=first_block, other=0.0)
        tl.store(d_bias + source, old + t, mask=first_block)
    old_s = tl.load(d_scale + col, mask=col < D, other=0.0)
    old_o = tl.load(d_shift + col, mask=col < D, other=0.0)
    tl.store(d_scale + col, old_s + of_s, mask=col < D)
    tl.store(d_shift + col, old_o + of_o, mask=col < D)


@triton.jit
def _gelu_parts(x):
    """`x / (1 + exp(-2 y))`, the tanh form of GELU, and its derivative; y as in the tanh form."""
    square = x * x
    # sqrt(2 / pi), and the factor of the cube, from the formula's paper (arXiv 1606.08415)
    y = 0.7978845608028654 * x * (1.0 + 0.044715 * square)
    share = 1.0 / (1.0 + tl.exp(-2.0 * y))
    slope = 0.7978845608028654 * (1.0 + 3 * 0.044715 * square)
    return x * share, share + 2.0 * x * share * (1.0 - share) * slope


@triton.jit
def gelu_kernel(z, bias, rows, W: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr):
    """z becomes GELU of z + bias."""
    row = tl.program_id(0) * R + tl.arange(0, R)
    col = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    at = row.to(tl.int64)[:, None] * W + col[None, :]
    inside = (row < rows)[:, None] & (col < W)[None, :]
    b = tl.load(bias + col, mask=col < W, other=0.0)
    x = tl.load(z + at, mask=inside, other=0.0).to(tl.float32) + b[None, :]
    value, _ = _gelu_parts(x)
    tl.store(z + at, value.to(z.dtype.element_ty), mask=inside)


@triton.jit
def gelu_backward_kernel(
    z, dz, bias, sums, rows, steps: tl.constexpr, W: tl.constexpr, R: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """z becomes GELU of z + bias, dz (its gradient) the gradient of z, with its sums over rows."""
    col = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    b = tl.load(bias + col, mask=col < W, other=0.0)
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for step in range(steps):
        row = (tl.program_id(0) * steps + step) * R + tl.arange(0, R)
        at = row.to(tl.int64)[:, None] * W + col[None, :]
        inside = (row < rows)[:, None] & (col < W)[None, :]
        x = tl.load(z + at, mask=inside, other=0.0).to(tl.float32) + b[None, :]
        value, slope = _gelu_parts(x)
        d = tl.load(dz + at, mask=inside, other=0.0).to(tl.float32) * slope
        tl.store(z + at, value.to(z.dtype.element_ty), mask=inside)
        tl.store(dz + at, d.to(dz.dtype.element_ty), mask=inside)
        total += tl.sum(tl.where(inside, d, 0.0), 0)
    tl.store(sums + tl.program_id(0) * W + col, total, mask=col < W)


def fold(
    weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, rows: slice, runs: int,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`W s` in `dtype` and `b + W o` for the given rows of each of `runs` equal runs of W.

    weight (runs N, D), bias (runs N,); results (runs n, D) and (runs n,) where the slice takes n.
    """
    width, whole = rows.stop - rows.start, len(weight) // runs
    shape = tile(weight.shape[1], 1024)
    out = torch.empty(runs * width, weight.shape[1], dtype=dtype, device=weight.device)
    out_bias = weight.new_empty(runs * width)
    launch(
        fold_kernel, (-(-runs * width // shape["R"]),), weight,
        weight, bias, scale, shift, out, out_bias, runs * width, rows.start, width, whole,
        D=weight.shape[1], **shape,
    )  # fmt: skip
    return out, out_bias


def unfold(
    outer: Tensor, total: Tensor, forward: tuple[Tensor, Tensor, Tensor],
    sums: tuple[Tensor, Tensor, Tensor, Tensor], rows: slice, runs: int,
) -> None:  # fmt: skip
    """Adds to sums, gradients of weight, bias, scale and shift, what follows from the products.

    outer (runs n, D) `dz^T n`; total (runs n,) `dz^T 1`; both float32. forward: weight, scale and
    shift; rows and runs as for `fold`.
    """
    width, whole = rows.stop - rows.start, len(forward[0]) // runs
    d_model = forward[0].shape[1]
    block = min(32, at_least(d_model))
    launch(
        unfold_kernel, (-(-d_model // block),), outer, outer, total, *forward, *sums,
        rows.start, width, whole, len(outer), D=d_model, R=32, BLOCK=block,
    )  # fmt: skip


def gelu(z: Tensor, bias: Tensor) -> None:
    """z (T, I) becomes the tanh form of GELU of z + bias."""
    rows, width = z.shape
    block = min(256, at_least(width))
    grid = (-(-rows // 8), -(-width // block))
    launch(gelu_kernel, grid, z, z, bias, rows, W=width, R=8, BLOCK=block)


def gelu_backward(z: Tensor, dz: Tensor, bias: Tensor) -> Tensor:
    """z (T, I) becomes GELU of z + bias, dz its gradient; returns the latter's sum over rows (I,).

    dz: gradient of the result, in the type of z. Sums in float32.
    """
    rows, width = z.shape
    block = min(256, at_least(width))
    columns = -(-width // block)
    count, steps = programs_and_steps(-(-rows // 8))
    sums = torch.empty(count, width, dtype=torch.float32, device=z.device)
    launch(
        gelu_backward_kernel, (count, columns), z, z, dz, bias, sums, rows, steps,
        W=width, R=8, BLOCK=block,
    )  # fmt: skip
    return sums.sum(0)
