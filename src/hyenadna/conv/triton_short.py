"""Triton kernel of the backward pass of the short filter, for `matrix_fft.short_gradients`."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def short_gradients_kernel(
    p, p_i, p_c, p_b, d, dp, d_i, d_c, d_b, rows, sums, channels, batch, length,
    TAPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """dp, the gradient of p, from d, that of what comes out of the filter; all (3, C, B, L).

    rows: see `triton_fft._signal`. sums (programs, TAPS + 2): what this program adds to their
    gradients. A program BLOCK samples of a row.
    """
    blocks = tl.cdiv(length, BLOCK)
    row = tl.program_id(0) // blocks
    t = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    b = (row % batch).to(tl.int64)
    c = (row // batch % channels).to(tl.int64)
    i = (row // batch // channels).to(tl.int64)
    p += i * p_i + c * p_c + b * p_b
    d += i * d_i + c * d_c + b * d_b
    rows += (i * channels + c) * (TAPS + 2)
    sums += tl.program_id(0).to(tl.int64) * (TAPS + 2)
    shift = tl.load(rows + TAPS + 1)
    g = tl.load(d + t, mask=t < length, other=0.0).to(tl.float32)
    out = tl.zeros((BLOCK,), tl.float32)
    for j in tl.static_range(TAPS):
        back = TAPS - 1 - j
        later = tl.load(d + t + back, mask=t + back < length, other=0.0).to(tl.float32)
        out += tl.load(rows + j) * later
        known = (t < length) & (t - back >= 0)
        x = tl.load(p + t - back, mask=known, other=0.0).to(tl.float32)
        tl.store(sums + j, tl.sum(g * tl.where(known, x + shift, 0.0), 0))
    out = tl.where(t < length, out, 0.0)
    tl.store(sums + TAPS, tl.sum(g, 0))
    tl.store(sums + TAPS + 1, tl.sum(out, 0))
    at = dp + i * d_i + c * d_c + b * d_b + t
    tl.store(at, out.to(dp.dtype.element_ty), mask=t < length)
