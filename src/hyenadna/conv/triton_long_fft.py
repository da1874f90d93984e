"""Triton kernels for signals that one program cannot hold: see `triton_fft` for the transform.

z holds what lies between the outer products and the transforms of one f1: (C, B, 2, n1, inner),
all real parts of a row before all imaginary parts. Everything between is done in place. It is
float32 or, with HALF, float16 and scaled: tiles (C, B, inner / BN, blocks of f1) is what the tiles
of `outer_kernel` must be multiplied with, rows (C, B, n1) the same for what inner kernels write.
"""

from __future__ import annotations

import triton
import triton.language as tl

from hyenadna.conv.triton_fft import (
    PADDING,
    _grid,
    _largest,
    _left,
    _pair,
    _put,
    _scale,
    _signal,
    _store,
    _times,
    _times_conjugate,
    _times_inverse,
    _times_matrix,
)


@triton.jit
def _place(batch, blocks, columns):
    """Channel, row, block and column block of this program."""
    i = tl.program_id(0)
    row = i // (blocks * columns)
    return (
        (row // batch).to(tl.int64),
        (row % batch).to(tl.int64),
        i % blocks,
        i // blocks % columns,
    )


@triton.jit(do_not_specialize=["batch"])
def outer_kernel(
    v, v_c, v_b, v_l, v_taps,
    gate, gate_c, gate_b, gate_l, gate_taps,
    z, tiles, f, batch, length, n1, side, inner,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, V_TAPS: tl.constexpr,
    GATE_TAPS: tl.constexpr, GATE: tl.constexpr, SPLIT: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """z = F1 (v * gate). A program a tile (BM, BN) of f1 and t2.

    f: F1 within (2, side, side), zero beyond, and behind it what splitting leaves of it.
    """
    blocks = tl.cdiv(n1, BM)
    c, b, block, column = _place(batch, blocks, inner // BN)
    f1 = block * BM + tl.arange(0, BM)
    t2 = column * BN + tl.arange(0, BN)
    v += c * v_c + b * v_b
    gate += c * gate_c + b * gate_b
    re = tl.zeros((BM, BN), tl.float32)
    im = tl.zeros((BM, BN), tl.float32)
    plane = side * side
    for first in range(0, n1, BK):
        t1 = first + tl.arange(0, BK)
        t = t1[:, None] * inner + t2[None, :]
        x = _signal(v, v_taps + c * (V_TAPS + 2), t, length, v_l, V_TAPS)
        if GATE:
            taps = gate_taps + c * (GATE_TAPS + 2)
            x *= _signal(gate, taps, t, length, gate_l, GATE_TAPS)
        scale, back = _scale(_largest(x))
        x *= scale
        re += _left(f, 0, 2 * plane, f1, t1, side, x, False, SPLIT) * back
        im += _left(f, plane, 2 * plane, f1, t1, side, x, False, SPLIT) * back
    if HALF:
        scale, back = _scale(tl.maximum(_largest(re), _largest(im)))
        re, im = re * scale, im * scale
        tl.store(tiles + tl.program_id(0), back)
    z += (c * batch + b) * 2 * n1 * inner
    at = f1[:, None] * inner + t2[None, :]
    known = (f1 < n1)[:, None] & (t2 < inner)[None, :]
    tl.store(z + at, re.to(z.dtype.element_ty), mask=known)
    tl.store(z + n1 * inner + at, im.to(z.dtype.element_ty), mask=known)


@triton.jit(do_not_specialize=["batch"])
def outer_back_kernel(
    z, rows, f,
    y, y_c, y_b, y_l, one, one_c, one_b, one_l, one_taps,
    other_y, two, two_c, two_b, two_l, two_taps,
    batch, length, n1, side, inner, factor,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, TAPS: tl.constexpr,
    ONE: tl.constexpr, TWO: tl.constexpr, SPLIT: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """x = factor F1* z, real part; y = x, times signal `one` if any; other_y = x times `two`.

    other_y has the strides of y. A program a tile (BM, BN) of t1 and t2.
    """
    blocks = tl.cdiv(n1, BM)
    c, b, block, column = _place(batch, blocks, inner // BN)
    t1 = block * BM + tl.arange(0, BM)
    t2 = column * BN + tl.arange(0, BN)
    z += (c * batch + b) * 2 * n1 * inner
    x = tl.zeros((BM, BN), tl.float32)
    plane = side * side
    for first in range(0, n1, BK):
        f1 = first + tl.arange(0, BK)
        at = f1[:, None] * inner + t2[None, :]
        known = (f1 < n1)[:, None] & (t2 < inner)[None, :]
        zr = tl.load(z + at, mask=known, other=0.0)
        zi = tl.load(z + n1 * inner + at, mask=known, other=0.0)
        if HALF:
            own = tl.load(rows + (c * batch + b) * n1 + f1, mask=f1 < n1, other=0.0)[:, None]
            zr, zi = zr.to(tl.float32) * own, zi.to(tl.float32) * own
        scale, back = _scale(tl.maximum(_largest(zr), _largest(zi)))
        part = _left(f, 0, 2 * plane, f1, t1, side, zr * scale, True, SPLIT)
        part += _left(f, plane, 2 * plane, f1, t1, side, zi * scale, True, SPLIT)
        x += part * back
    x *= factor
    t = t1[:, None] * inner + t2[None, :]
    if TWO:
        start = two + c * two_c + b * two_b
        s = _signal(start, two_taps + c * (TAPS + 2), t, length, two_l, TAPS)
        _store(other_y + c * y_c + b * y_b, x * s, t, length, y_l)
    if ONE:
        start = one + c * one_c + b * one_b
        x *= _signal(start, one_taps + c * (TAPS + 2), t, length, one_l, TAPS)
    _store(y + c * y_c + b * y_b, x, t, length, y_l)


@triton.jit
def _inner_place(n1, parts):
    """Channel, f1 and part of the batch of this program."""
    i = tl.program_id(0)
    return (i // parts // n1).to(tl.int64), i // parts % n1, i % parts


@triton.jit
def _twiddles(twiddles, phases, at, f1, n1, NA: tl.constexpr, NB: tl.constexpr):
    """Twiddles within, and what those of this f1 are made of: a column for a, a row for b."""
    tr, ti = _pair(twiddles, at, NA * NB)
    pr, pi = _pair(phases, f1 * NA + tl.arange(0, NA), n1 * NA)
    qr, qi = _pair(phases + 2 * n1 * NA, f1 * NB + tl.arange(0, NB), n1 * NB)
    return tr, ti, pr[:, None], pi[:, None], qr[None, :], qi[None, :]


@triton.jit
def _read(
    z, tiles, row, f1, n1, at, NA: tl.constexpr, NB: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """A row of one f1 as `outer_kernel` left it; z points to it."""
    zr, zi = _pair(z, at, n1 * (NA * NB))
    if HALF:
        column = row * (NA * NB // BN) + tl.arange(0, NA) * NB // BN
        back = tl.load(tiles + column * tl.cdiv(n1, BM) + f1 // BM)[:, None]
        zr, zi = zr.to(tl.float32) * back, zi.to(tl.float32) * back
    return zr, zi


@triton.jit
def _write(z, rows, at, m, zr, zi, factor, HALF: tl.constexpr):
    """A row of one f1 times factor for `outer_back_kernel`; z and rows point to it."""
    if HALF:
        scale, back = _scale(tl.maximum(_largest(zr), _largest(zi)))
        _put(z, at, m, (zr * scale).to(tl.float16), (zi * scale).to(tl.float16))
        tl.store(rows, factor * back)
    else:
        _put(z, at, m, zr * factor, zi * factor)


@triton.jit
def _inner_spectrum_of(
    zr, zi, pr, pi, qr, qi, tr, ti, f, NA: tl.constexpr, NB: tl.constexpr, SPLIT: tl.constexpr
):
    """Spectrum (NA, NB) of complex z (NA, NB), and what it must still be multiplied with."""
    lows: tl.constexpr = 2 * NA * NA + 2 * NB * NB
    scale, back = _scale(tl.maximum(_largest(zr), _largest(zi)))
    zr, zi = _times(zr * scale, zi * scale, pr, pi)
    n = tl.arange(0, NA)
    ar = _left(f, 0, lows, n, n, NA, zr, False, SPLIT)
    ar -= _left(f, NA * NA, lows, n, n, NA, zi, False, SPLIT)
    ai = _left(f, 0, lows, n, n, NA, zi, False, SPLIT)
    ai += _left(f, NA * NA, lows, n, n, NA, zr, False, SPLIT)
    ar, ai = _times(ar, ai, qr, qi)
    xr, xi = _times_matrix(ar, ai, tr, ti, f, 2 * NA * NA, lows, NB, SPLIT)
    return xr, xi, back


@triton.jit
def _inner_signal_of(
    yr, yi, pr, pi, qr, qi, tr, ti, f, NA: tl.constexpr, NB: tl.constexpr, SPLIT: tl.constexpr
):
    """NA NB times the complex z (NA, NB) of a spectrum (NA, NB)."""
    lows: tl.constexpr = 2 * NA * NA + 2 * NB * NB
    br, bi = _times_inverse(yr, yi, tr, ti, f, 2 * NA * NA, lows, NB, SPLIT)
    br, bi = _times_conjugate(br, bi, qr, qi)
    n = tl.arange(0, NA)
    zr = _left(f, 0, lows, n, n, NA, br, False, SPLIT)
    zr += _left(f, NA * NA, lows, n, n, NA, bi, False, SPLIT)
    zi = _left(f, 0, lows, n, n, NA, bi, False, SPLIT)
    zi -= _left(f, NA * NA, lows, n, n, NA, br, False, SPLIT)
    return _times_conjugate(zr, zi, pr, pi)


@triton.jit
def inner_spectrum_kernel(
    z, out, out_c, f, twiddles, phases, n1, factor,
    NA: tl.constexpr, NB: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """out (C, 2 m ...): spectra of z (C, 1, 2, n1, inner), times factor. A program an f1."""
    c, f1, _ = _inner_place(n1, 1)
    at = _grid(NA, NB)
    m = n1 * (NA * NB)
    tr, ti, pr, pi, qr, qi = _twiddles(twiddles, phases, at, f1, n1, NA, NB)
    zr, zi = _pair(z + c * 2 * m + f1 * (NA * NB), at, m)
    xr, xi, back = _inner_spectrum_of(zr, zi, pr, pi, qr, qi, tr, ti, f, NA, NB, SPLIT)
    out += c * out_c + f1 * (NA * NB)
    _put(out, at, m, xr * (back * factor), xi * (back * factor))


@triton.jit
def inner_filter_kernel(
    z, f, twiddles, phases, n1,
    NA: tl.constexpr, NB: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """z (C, 1, 2, n1, inner), a spectrum, becomes inner times what it is the spectrum of."""
    c, f1, _ = _inner_place(n1, 1)
    at = _grid(NA, NB)
    m = n1 * (NA * NB)
    tr, ti, pr, pi, qr, qi = _twiddles(twiddles, phases, at, f1, n1, NA, NB)
    z += c * 2 * m + f1 * (NA * NB)
    xr, xi = _pair(z, at, m)
    scale, back = _scale(tl.maximum(_largest(xr), _largest(xi)))
    zr, zi = _inner_signal_of(xr * scale, xi * scale, pr, pi, qr, qi, tr, ti, f, NA, NB, SPLIT)
    _put(z, at, m, zr * back, zi * back)


@triton.jit(do_not_specialize=["batch"])
def inner_convolve_kernel(
    z, tiles, rows, spectrum, f, twiddles, phases, batch, n1, count,
    NA: tl.constexpr, NB: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    SPLIT: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """z becomes what has the spectrum of z times that of the filter.

    A program an f1 and `count` rows of the batch.
    """
    parts = tl.cdiv(batch, count)
    c, f1, part = _inner_place(n1, parts)
    first = part * count
    at = _grid(NA, NB)
    m = n1 * (NA * NB)
    spectrum += c * (2 * m + PADDING)
    scale = tl.load(spectrum + 2 * m)
    spectrum += f1 * (NA * NB)
    tr, ti, pr, pi, qr, qi = _twiddles(twiddles, phases, at, f1, n1, NA, NB)
    for i in range(tl.minimum(count, batch - first)):
        row = c * batch + first + i
        z_row = z + row * 2 * m + f1 * (NA * NB)
        zr, zi = _read(z_row, tiles, row, f1, n1, at, NA, NB, BM, BN, HALF)
        xr, xi, back = _inner_spectrum_of(zr, zi, pr, pi, qr, qi, tr, ti, f, NA, NB, SPLIT)
        kr, ki = _pair(spectrum, at, m)
        xr, xi = _times(xr, xi, kr, ki)
        zr, zi = _inner_signal_of(xr, xi, pr, pi, qr, qi, tr, ti, f, NA, NB, SPLIT)
        _write(z_row, rows + row * n1 + f1, at, m, zr, zi, back * scale, HALF)


@triton.jit
def inner_gradients_kernel(
    z, z_tiles, z_rows, g, g_tiles, g_rows, sums, stash, spectrum, f, twiddles, phases, batch, n1,
    NA: tl.constexpr, NB: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    AFTER: tl.constexpr, SPLIT: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """As `inner_convolve_kernel` for z if AFTER; g likewise with the conjugate spectrum.

    sums (C, 2, n1, inner): spectra of g times conjugates of those of z, summed over the batch, by
    one program for each f1 and one row after the other. stash, as large: room for a spectrum of z,
    for which there are too few registers.
    """
    c, f1, _ = _inner_place(n1, 1)
    at = _grid(NA, NB)
    m = n1 * (NA * NB)
    spectrum += c * (2 * m + PADDING)
    scale = tl.load(spectrum + 2 * m)
    spectrum += f1 * (NA * NB)
    sums += c * 2 * m + f1 * (NA * NB)
    stash += c * 2 * m + f1 * (NA * NB)
    for i in range(batch):
        row = c * batch + i
        z_row = z + row * 2 * m + f1 * (NA * NB)
        g_row = g + row * 2 * m + f1 * (NA * NB)
        tr, ti, pr, pi, qr, qi = _twiddles(twiddles, phases, at, f1, n1, NA, NB)
        zr, zi = _read(z_row, z_tiles, row, f1, n1, at, NA, NB, BM, BN, HALF)
        xr, xi, x_back = _inner_spectrum_of(zr, zi, pr, pi, qr, qi, tr, ti, f, NA, NB, SPLIT)
        _put(stash, at, m, xr, xi)
        tl.debug_barrier()
        tr, ti, pr, pi, qr, qi = _twiddles(twiddles, phases, at, f1, n1, NA, NB)
        zr, zi = _read(g_row, g_tiles, row, f1, n1, at, NA, NB, BM, BN, HALF)
        gr, gi, g_back = _inner_spectrum_of(zr, zi, pr, pi, qr, qi, tr, ti, f, NA, NB, SPLIT)
        xr, xi = _pair(stash, at, m)
        hr, hi = _times_conjugate(gr, gi, xr, xi)
        hr *= g_back * x_back
        hi *= g_back * x_back
        if i > 0:
            sr, si = _pair(sums, at, m)
            hr += sr
            hi += si
        _put(sums, at, m, hr, hi)
        kr, ki = _pair(spectrum, at, m)
        gr, gi = _times_conjugate(gr, gi, kr, ki)
        zr, zi = _inner_signal_of(gr, gi, pr, pi, qr, qi, tr, ti, f, NA, NB, SPLIT)
        _write(g_row, g_rows + row * n1 + f1, at, m, zr, zi, g_back * scale, HALF)
        if AFTER:
            tl.debug_barrier()
            tr, ti, pr, pi, qr, qi = _twiddles(twiddles, phases, at, f1, n1, NA, NB)
            xr, xi = _pair(stash, at, m)
            kr, ki = _pair(spectrum, at, m)
            xr, xi = _times(xr, xi, kr, ki)
            zr, zi = _inner_signal_of(xr, xi, pr, pi, qr, qi, tr, ti, f, NA, NB, SPLIT)
            _write(z_row, z_rows + row * n1 + f1, at, m, zr, zi, x_back * scale, HALF)
