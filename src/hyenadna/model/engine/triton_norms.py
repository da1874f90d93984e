"""Layer norms of the residual stream, with what stands beside them in the same pass over memory.

The residual stream h, a and its gradients are float32; products and what goes into them have the
type of the products. A program holds whole rows, so a row's result depends on no other row. Sums
over rows go to a line of each program, (programs, D), and are added up by torch: no atomics.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hyenadna.conv.triton_launch import launch, programs_and_steps, tile


@triton.jit
def moments(x, inside, eps, D: tl.constexpr):
    """Mean and `1 / sqrt(var + eps)`, (R,), of rows x (R, BLOCK), which are 0 outside."""
    mean = tl.sum(x, 1) / D
    centred = tl.where(inside, x - mean[:, None], 0.0)
    return mean, 1.0 / tl.sqrt(tl.sum(centred * centred, 1) / D + eps)


@triton.jit
def _standardised(x, inside, eps, D: tl.constexpr):
    """`(x - mean) / sqrt(var + eps)` of rows (R, BLOCK), 0 outside; and `1 / sqrt(...)`, (R,)."""
    mean, rstd = moments(x, inside, eps, D)
    return tl.where(inside, x - mean[:, None], 0.0) * rstd[:, None], rstd


@triton.jit
def _through_norm(dn, n, rstd, D: tl.constexpr):
    """Gradient of the norm's input from dn, that of its output n."""
    along = tl.sum(dn, 1) / D
    turned = tl.sum(dn * n, 1) / D
    return (dn - along[:, None] - n * turned[:, None]) * rstd[:, None]


@triton.jit
def standardise_kernel(h, n, rows, eps, D: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr):
    """n = norm without affine part of h."""
    row = tl.program_id(0) * R + tl.arange(0, R)
    col = tl.arange(0, BLOCK)
    at = row.to(tl.int64)[:, None] * D + col[None, :]
    inside = (row < rows)[:, None] & (col < D)[None, :]
    x = tl.load(h + at, mask=inside, other=0.0)
    out, _ = _standardised(x, inside, eps, D)
    tl.store(n + at, out.to(n.dtype.element_ty), mask=inside)


@triton.jit
def norm_kernel(h, weight, bias, rows, eps, D: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr):
    """h becomes its layer norm."""
    row = tl.program_id(0) * R + tl.arange(0, R)
    col = tl.arange(0, BLOCK)
    at = row.to(tl.int64)[:, None] * D + col[None, :]
    inside = (row < rows)[:, None] & (col < D)[None, :]
    x = tl.load(h + at, mask=inside, other=0.0)
    n, _ = _standardised(x, inside, eps, D)
    w = tl.load(weight + col, mask=col < D, other=0.0)
    b = tl.load(bias + col, mask=col < D, other=0.0)
    tl.store(h + at, n * w[None, :] + b[None, :], mask=inside)


@triton.jit
def add_norm_kernel(
    h, o, bias, a, n, rows, eps, D: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr
):
    """a = h + o + bias, and n its norm."""
    row = tl.program_id(0) * R + tl.arange(0, R)
    col = tl.arange(0, BLOCK)
    at = row.to(tl.int64)[:, None] * D + col[None, :]
    inside = (row < rows)[:, None] & (col < D)[None, :]
    b = tl.load(bias + col, mask=col < D, other=0.0)
    x = tl.load(h + at, mask=inside, other=0.0)
    x += tl.load(o + at, mask=inside, other=0.0).to(tl.float32) + b[None, :]
    tl.store(a + at, x, mask=inside)
    out, _ = _standardised(x, inside, eps, D)
    tl.store(n + at, out.to(n.dtype.element_ty), mask=inside)


@triton.jit
def add_kernel(a, o, bias, out, rows, D: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr):
    """out = a + o + bias."""
    row = tl.program_id(0) * R + tl.arange(0, R)
    col = tl.arange(0, BLOCK)
    at = row.to(tl.int64)[:, None] * D + col[None, :]
    inside = (row < rows)[:, None] & (col < D)[None, :]
    b = tl.load(bias + col, mask=col < D, other=0.0)
    x = tl.load(a + at, mask=inside, other=0.0)
    x += tl.load(o + at, mask=inside, other=0.0).to(tl.float32) + b[None, :]
    tl.store(out + at, x, mask=inside)


@triton.jit
def add_norm_again_kernel(
    h, o, bias, grad, n, rstd, g, sums, rows, eps, steps: tl.constexpr,
    D: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """n and rstd of the norm of h + o + bias; g = grad in the type of products, and its sums."""
    col = tl.arange(0, BLOCK)
    b = tl.load(bias + col, mask=col < D, other=0.0)
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for step in range(steps):
        row = (tl.program_id(0) * steps + step) * R + tl.arange(0, R)
        at = row.to(tl.int64)[:, None] * D + col[None, :]
        inside = (row < rows)[:, None] & (col < D)[None, :]
        x = tl.load(h + at, mask=inside, other=0.0)
        x += tl.load(o + at, mask=inside, other=0.0).to(tl.float32) + b[None, :]
        out, r = _standardised(x, inside, eps, D)
        tl.store(n + at, out.to(n.dtype.element_ty), mask=inside)
        tl.store(rstd + row, r, mask=row < rows)
        d = tl.load(grad + at, mask=inside, other=0.0)
        tl.store(g + at, d.to(g.dtype.element_ty), mask=inside)
        total += tl.sum(d, 0)
    tl.store(sums + tl.program_id(0) * D + col, total, mask=col < D)


@triton.jit
def norm_backward_kernel(
    n, rstd, dn, grad, out, g, sums, rows, steps: tl.constexpr,
    D: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out = grad + gradient along the norm; g = out in the type of products, and its sums."""
    col = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for step in range(steps):
        row = (tl.program_id(0) * steps + step) * R + tl.arange(0, R)
        at = row.to(tl.int64)[:, None] * D + col[None, :]
        inside = (row < rows)[:, None] & (col < D)[None, :]
        x = tl.load(n + at, mask=inside, other=0.0).to(tl.float32)
        d = tl.load(dn + at, mask=inside, other=0.0).to(tl.float32)
        r = tl.load(rstd + row, mask=row < rows, other=0.0)
        d = _through_norm(d, x, r, D)
        d = tl.where(inside, d + tl.load(grad + at, mask=inside, other=0.0), 0.0)
        tl.store(out + at, d, mask=inside)
        tl.store(g + at, d.to(g.dtype.element_ty), mask=inside)
        total += tl.sum(d, 0)
    tl.store(sums + tl.program_id(0) * D + col, total, mask=col < D)


@triton.jit
def first_norm_backward_kernel(
    h, dn, grad, rows, eps, D: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr
):
    """grad += gradient of h along its norm."""
    row = tl.program_id(0) * R + tl.arange(0, R)
    col = tl.arange(0, BLOCK)
    at = row.to(tl.int64)[:, None] * D + col[None, :]
    inside = (row < rows)[:, None] & (col < D)[None, :]
    n, rstd = _standardised(tl.load(h + at, mask=inside, other=0.0), inside, eps, D)
    d = tl.load(dn + at, mask=inside, other=0.0).to(tl.float32)
    d = _through_norm(d, n, rstd, D) + tl.load(grad + at, mask=inside, other=0.0)
    tl.store(grad + at, d, mask=inside)


def standardise(h: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """Norm without affine part of rows h (T, D), in `dtype`."""
    rows, width = h.shape
    n, shape = torch.empty(rows, width, dtype=dtype, device=h.device), tile(width)
    grid = (-(-rows // shape["R"]),)
    launch(standardise_kernel, grid, h, h, n, rows, eps, D=width, **shape)
    return n


def norm_in_place(h: Tensor, weight: Tensor, bias: Tensor, eps: float) -> None:
    """Rows h (T, D) become their layer norm."""
    rows, width = h.shape
    shape = tile(width)
    grid = (-(-rows // shape["R"]),)
    launch(norm_kernel, grid, h, h, weight, bias, rows, eps, D=width, **shape)


def add_norm(h: Tensor, o: Tensor, bias: Tensor, eps: float, a: Tensor) -> Tensor:
    """Fills a (T, D), which may be h, with `h + o + bias`; returns its norm in the type of o."""
    rows, width = h.shape
    n, shape = torch.empty_like(o), tile(width)
    grid = (-(-rows // shape["R"]),)
    launch(add_norm_kernel, grid, h, h, o, bias, a, n, rows, eps, D=width, **shape)
    return n


def add(a: Tensor, o: Tensor, bias: Tensor, out: Tensor) -> None:
    """Fills out (T, D), which may be a, with `a + o + bias`."""
    rows, width = a.shape
    shape = tile(width)
    grid = (-(-rows // shape["R"]),)
    launch(add_kernel, grid, a, a, o, bias, out, rows, D=width, **shape)


def add_norm_again(
    h: Tensor, o: Tensor, bias: Tensor, eps: float, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a backward pass starts with, from rows (T, D).

    The norm of `h + o + bias` and, (T,), its `1 / sqrt(var + eps)`; grad in the type of o, and its
    sum over rows (D,), float32.
    """
    rows, width = h.shape
    shape = tile(width)
    count, steps = programs_and_steps(-(-rows // shape["R"]))
    n, g = torch.empty_like(o), torch.empty_like(o)
    rstd, sums = h.new_empty(rows), h.new_empty(count, width)
    launch(
        add_norm_again_kernel, (count,), h,
        h, o, bias, grad, n, rstd, g, sums, rows, eps, steps, D=width, **shape,
    )  # fmt: skip
    return n, rstd, g, sums.sum(0)


def norm_backward(
    n: Tensor, rstd: Tensor, dn: Tensor, grad: Tensor, out: Tensor, g: Tensor
) -> Tensor:
    """Fills out (T, D), which may be grad, with grad plus what comes along the norm.

    g is filled with the same in its own type; returns the sum over rows (D,), float32. n, rstd:
    from `add_norm_again`; dn: gradient of n.
    """
    rows, width = grad.shape
    shape = tile(width)
    count, steps = programs_and_steps(-(-rows // shape["R"]))
    sums = grad.new_empty(count, width)
    launch(
        norm_backward_kernel, (count,), grad,
        n, rstd, dn, grad, out, g, sums, rows, steps, D=width, **shape,
    )  # fmt: skip
    return sums.sum(0)


def first_norm_backward(h: Tensor, eps: float, dn: Tensor, grad: Tensor) -> None:
    """Adds to grad (T, D) what comes along the norm of h from dn, the gradient of the norm."""
    rows, width = h.shape
    shape = tile(width)
    grid = (-(-rows // shape["R"]),)
    launch(first_norm_backward_kernel, grid, h, h, dn, grad, rows, eps, D=width, **shape)
