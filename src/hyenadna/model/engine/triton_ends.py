"""Final norm, head and loss in one pass, without logits in memory; and the gradient of the table.

With n the final norm without its affine part, logits are `z_v = sum_d n_d (s_d E_vd) + sum_d o_d
E_vd` for head E, scale s and shift o: what the kernels read is `E s` and `E o`, which torch makes.
With d the gradient of z, the norm's backward pass needs the sums over d of `dn_d` and `dn_d n_d`;
they are `d . (sum_d E_vd s_d)` and `d . (z_v - (E o)_v)`, so one pass over the row will do. The
gradients of E, s and o all follow from `d^T n` and `d^T 1`.
"""

from __future__ import annotations

from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from hyenadna.alphabet import IGNORED
from hyenadna.conv.triton_launch import at_least, launch, programs_and_steps
from hyenadna.model.engine.triton_norms import moments

MOST_CLASSES: Final = 128
"""Of a head or table in these kernels."""
_SUM_PROGRAMS: Final = 256  # for sums of V x D numbers


@triton.jit
def _moments_of(h, row, rows, eps, D: tl.constexpr, BLOCK: tl.constexpr):
    """Mean and `1 / sqrt(var + eps)` of rows, (R,)."""
    col = tl.arange(0, BLOCK)
    at = row.to(tl.int64)[:, None] * D + col[None, :]
    inside = (row < rows)[:, None] & (col < D)[None, :]
    return moments(tl.load(h + at, mask=inside, other=0.0), inside, eps, D)


@triton.jit
def _logits(
    h, row, rows, mean, rstd, head, offset, V, D: tl.constexpr, R: tl.constexpr,
    VP: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Logits (R, VP), minus infinity beyond V."""
    v = tl.arange(0, VP)
    z = tl.zeros([R, VP], dtype=tl.float32)
    for first in range(0, D, BK):
        col = first + tl.arange(0, BK)
        inside = (row < rows)[:, None] & (col < D)[None, :]
        x = tl.load(h + row.to(tl.int64)[:, None] * D + col[None, :], mask=inside, other=0.0)
        n = tl.where(inside, (x - mean[:, None]) * rstd[:, None], 0.0)
        e = tl.load(
            head + v[None, :] * D + col[:, None],
            mask=(v < V)[None, :] & (col < D)[:, None], other=0.0,
        )  # fmt: skip
        z += tl.dot(n, e, input_precision="ieee")
    z += tl.load(offset + v, mask=v < V, other=0.0)[None, :]
    return tl.where((v < V)[None, :], z, float("-inf"))


@triton.jit
def nats_kernel(
    h, head, offset, targets, out, rows, eps, V, ignored, D: tl.constexpr, R: tl.constexpr,
    BLOCK: tl.constexpr, VP: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """out = minus log-probability of the targets, 0 where ignored."""
    row = tl.program_id(0) * R + tl.arange(0, R)
    mean, rstd = _moments_of(h, row, rows, eps, D, BLOCK)
    z = _logits(h, row, rows, mean, rstd, head, offset, V, D, R, VP, BK)
    target = tl.load(targets + row, mask=row < rows, other=ignored)
    top = tl.max(z, 1)
    total = tl.log(tl.sum(tl.exp(z - top[:, None]), 1)) + top
    own = tl.sum(tl.where(tl.arange(0, VP)[None, :] == target[:, None], z, 0.0), 1)
    tl.store(out + row, tl.where(target == ignored, 0.0, total - own), mask=row < rows)


@triton.jit
def nats_backward_kernel(
    h, head, offset, along, targets, grad, dz, dh, means, rstds, rows, eps, V, ignored,
    D: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr, VP: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Gradients dz of the logits and dh of the rows; mean and rstd of the rows."""
    row = tl.program_id(0) * R + tl.arange(0, R)
    v = tl.arange(0, VP)
    mean, rstd = _moments_of(h, row, rows, eps, D, BLOCK)
    tl.store(means + row, mean, mask=row < rows)
    tl.store(rstds + row, rstd, mask=row < rows)
    z = _logits(h, row, rows, mean, rstd, head, offset, V, D, R, VP, BK)
    target = tl.load(targets + row, mask=row < rows, other=ignored)
    g = tl.load(grad + row, mask=(row < rows) & (target != ignored), other=0.0)
    share = tl.exp(z - tl.max(z, 1)[:, None])
    share /= tl.sum(share, 1)[:, None]
    d = (share - tl.where(v[None, :] == target[:, None], 1.0, 0.0)) * g[:, None]
    d = tl.where((target != ignored)[:, None], d, 0.0)  # also where a gradient is not finite
    tl.store(dz + row.to(tl.int64)[:, None] * VP + v[None, :], d, mask=(row < rows)[:, None])
    fixed = tl.load(offset + v, mask=v < V, other=0.0)
    sums = tl.load(along + v, mask=v < V, other=0.0)
    mean_d = tl.sum(d * sums[None, :], 1) / D
    mean_dn = tl.sum(d * tl.where((v < V)[None, :], z - fixed[None, :], 0.0), 1) / D
    for first in range(0, D, BK):
        col = first + tl.arange(0, BK)
        inside = (row < rows)[:, None] & (col < D)[None, :]
        at = row.to(tl.int64)[:, None] * D + col[None, :]
        x = tl.load(h + at, mask=inside, other=0.0)
        n = (x - mean[:, None]) * rstd[:, None]
        e = tl.load(
            head + v[:, None] * D + col[None, :],
            mask=(v < V)[:, None] & (col < D)[None, :], other=0.0,
        )  # fmt: skip
        dn = tl.dot(d, e, input_precision="ieee")
        dx = (dn - mean_d[:, None] - n * mean_dn[:, None]) * rstd[:, None]
        tl.store(dh + at, dx, mask=inside)


@triton.jit
def class_sums_kernel(
    x, ids, weights, means, rstds, sums, rows, V, steps: tl.constexpr, D: tl.constexpr,
    R: tl.constexpr, VP: tl.constexpr, BK: tl.constexpr, BY_ID: tl.constexpr,
):  # fmt: skip
    """A program's part of `w^T n`, (V, D), for n = (x - mean) rstd and weights w (rows, VP).

    BY_ID: of `w^T x` where w is 1 in the column of a row's id and 0 elsewhere.
    """
    v = tl.arange(0, VP)
    col = tl.program_id(1) * BK + tl.arange(0, BK)
    total = tl.zeros([VP, BK], dtype=tl.float32)
    for step in range(steps):
        row = (tl.program_id(0) * steps + step) * R + tl.arange(0, R)
        inside = (row < rows)[:, None] & (col < D)[None, :]
        n = tl.load(x + row.to(tl.int64)[:, None] * D + col[None, :], mask=inside, other=0.0)
        if BY_ID:
            own = tl.load(ids + row, mask=row < rows, other=-1)
            w = tl.where(v[:, None] == own[None, :], 1.0, 0.0)
        else:
            mean = tl.load(means + row, mask=row < rows, other=0.0)
            rstd = tl.load(rstds + row, mask=row < rows, other=0.0)
            n = (n - mean[:, None]) * rstd[:, None]
            at = row.to(tl.int64)[None, :] * VP + v[:, None]
            w = tl.load(weights + at, mask=(row < rows)[None, :], other=0.0)
        total += tl.dot(w, n, input_precision="ieee")
    at = (tl.program_id(0) * V + v)[:, None] * D + col[None, :]
    tl.store(sums + at, total, mask=(v < V)[:, None] & (col < D)[None, :])


def nats(
    h: Tensor, norm: tuple[Tensor, Tensor], eps: float, head: Tensor, targets: Tensor
) -> Tensor:
    """Negative log-likelihood (T,) of targets (T,) given rows h (T, D); 0 where ignored."""
    rows, width = h.shape
    out, scaled = h.new_empty(rows), head * norm[0]
    shape = _tile(width, len(head))
    launch(
        nats_kernel, (-(-rows // shape["R"]),), h,
        h, scaled, (head * norm[1]).sum(1), targets, out, rows, eps, len(head), IGNORED,
        D=width, **shape,
    )  # fmt: skip
    return out


def nats_backward(
    h: Tensor,
    norm: tuple[Tensor, Tensor],
    eps: float,
    head: Tensor,
    targets: Tensor,
    grad: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of h, head, norm weight and norm bias from that of `nats`, (T,)."""
    rows, width = h.shape
    shape, scaled = _tile(width, len(head)), head * norm[0]
    dz, dh = h.new_empty(rows, shape["VP"]), torch.empty_like(h)
    means, rstds = h.new_empty(rows), h.new_empty(rows)
    launch(
        nats_backward_kernel, (-(-rows // shape["R"]),), h,
        h, scaled, (head * norm[1]).sum(1), scaled.sum(1), targets, grad, dz, dh, means, rstds,
        rows, eps, len(head), IGNORED, D=width, **shape,
    )  # fmt: skip
    outer = _class_sums(h, len(head), weights=(dz, means, rstds))
    total = dz[:, : len(head)].sum(0)[:, None]
    d_head = outer * norm[0] + total * norm[1]
    return dh, d_head, (head * outer).sum(0), (head * total).sum(0)


def embed_backward(rows: int, ids: Tensor, grad: Tensor) -> Tensor:
    """Gradient of a table of so many rows from that of its rows `ids`: (T,), (T, D)."""
    return _class_sums(grad, rows, ids=ids)


def _class_sums(
    x: Tensor,
    classes: int,
    *,
    ids: Tensor | None = None,
    weights: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Tensor:
    """(V, D): see `class_sums_kernel`."""
    rows, width = x.shape
    w, means, rstds = weights or (x, x, x)
    padded, block = at_least(classes, 16), min(64, at_least(width, 16))
    count, steps = programs_and_steps(-(-rows // 32), _SUM_PROGRAMS)
    sums = x.new_empty(count, classes, width)
    launch(
        class_sums_kernel, (count, -(-width // block)), x,
        x, x if ids is None else ids, w, means, rstds, sums, rows, classes, steps,
        D=width, R=32, VP=padded, BK=block, BY_ID=ids is not None,
    )  # fmt: skip
    return sums.sum(0)


def _tile(width: int, classes: int) -> dict[str, int]:
    block = at_least(width, 16)
    rows = min(64, max(16, 8192 // block))
    return {
        "R": rows, "BLOCK": block, "VP": at_least(classes, 16), "BK": 16,
        "num_warps": 4 if rows * block <= 8192 else 8,
    }  # fmt: skip
