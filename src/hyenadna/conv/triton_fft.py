"""Triton kernels of the causal long convolution as matrix products; `matrix_fft` launches them.

A signal of C channels, B rows and L samples is (C, B, L) by strides. m = N1 N2 >= L complex points;
sample t = N2 t1 + t2 and frequency f = f1 + N1 f2, so that a signal is a tile (t1, t2) and its
spectrum a tile (f1, f2). With the right-angle twist of `right_angle` the transform is

    X[f1, f2] = sum_t2 F2[t2, f2] T[f1, t2] sum_t1 F1[f1, t1] x[t1, t2],
    F1 = exp(-2 pi i (f1 - 1/4) t1 / N1), T = exp(-2 pi i (f1 - 1/4) t2 / m),
    F2 = exp(-2 pi i t2 f2 / N2):

the twist is part of F1 and T, so the first product has a real factor, and the last one of the way
back gives a real result. Frequencies stay where the products leave them: a product of two spectra
does not mind.

Longer signals have N2 = NA NB, with the transform over t2 done in the same two steps by `inner_*`,
one f1 at a time; `outer_*` do the products with F1. t2 = NB a + b and f2 = fa + NA fb. T is taken
apart into phases of a and of b.

Factors of products are float16: as many bits as TF32, at twice its rate and half its room. Their
range is no matter: signals are brought to 1 at most before, spectra of filters are scaled, and
sums are float32. SPLIT: two float16 numbers a factor, three products, and the results are those of
float32.

The compiler wants tiles with sides that are powers of two, those of products at least 16. A size of
the batch that is no bound of a loop makes no kernels of its own (do_not_specialize): it changes
from step to step. Bounds do: a loop of one row falls away, and with it most of what spills.
"""

from __future__ import annotations

import triton
import triton.language as tl

from hyenadna.conv import matrix_tables

LOW: tl.constexpr = tl.constexpr(matrix_tables.LOW)
PADDING: tl.constexpr = tl.constexpr(matrix_tables.PADDING)


@triton.jit
def _table(ptr, plane, i, j, stride, TURN: tl.constexpr):
    """A tile of a table at rows i and columns j; TURN: transposed."""
    tile = tl.load(ptr + plane + i[:, None] * stride + j[None, :])
    return tl.trans(tile) if TURN else tile


@triton.jit
def _split(x):
    """float32 as two float16 numbers, high + low / LOW."""
    high = x.to(tl.float16)
    return high, ((x - high.to(tl.float32)) * LOW).to(tl.float16)


@triton.jit
def _left(f, plane, lows, i, j, stride, x, TURN: tl.constexpr, SPLIT: tl.constexpr):
    """A tile of a table times x, in float32."""
    high, low = _split(x)
    out = tl.dot(_table(f, plane, i, j, stride, TURN), high)
    if SPLIT:
        rest = tl.dot(_table(f, plane, i, j, stride, TURN), low)
        rest = tl.dot(_table(f, plane + lows, i, j, stride, TURN), high, rest)
        out += rest * (1.0 / LOW)
    return out


@triton.jit
def _right(x, f, plane, lows, n, N: tl.constexpr, SPLIT: tl.constexpr):
    """x times a table (N, N), in float32."""
    high, low = _split(x)
    out = tl.dot(high, _table(f, plane, n, n, N, False))
    if SPLIT:
        rest = tl.dot(low, _table(f, plane, n, n, N, False))
        rest = tl.dot(high, _table(f, plane + lows, n, n, N, False), rest)
        out += rest * (1.0 / LOW)
    return out


@triton.jit
def _times(ar, ai, br, bi):
    """Complex product, element by element."""
    return ar * br - ai * bi, ar * bi + ai * br


@triton.jit
def _times_conjugate(ar, ai, br, bi):
    """Complex product with the conjugate of b, element by element."""
    return ar * br + ai * bi, ai * br - ar * bi


@triton.jit
def _pair(ptr, at, apart):
    """Real and imaginary parts, `apart` numbers from each other."""
    return tl.load(ptr + at), tl.load(ptr + apart + at)


@triton.jit
def _put(ptr, at, apart, re, im):
    tl.store(ptr + at, re)
    tl.store(ptr + apart + at, im)


@triton.jit
def _grid(N1: tl.constexpr, N2: tl.constexpr):
    """Places in a tile (N1, N2)."""
    return tl.arange(0, N1)[:, None] * N2 + tl.arange(0, N2)[None, :]


@triton.jit
def _scale(largest):
    """A factor that brings numbers up to `largest` to 1 at most, and its inverse.

    Powers of two: a GPU's quick division is off by some units in the last place, these are exact.
    """
    exponent = largest.to(tl.int32, bitcast=True) & 0x7F800000
    bits = tl.maximum((253 << 23) - exponent, 1 << 23)
    bits = tl.where(largest > 1e-37, bits, 127 << 23)
    return bits.to(tl.float32, bitcast=True), ((254 << 23) - bits).to(tl.float32, bitcast=True)


@triton.jit
def _largest(x):
    return tl.max(tl.max(tl.abs(x), 1), 0)


@triton.jit
def _signal(ptr, taps, t, length, stride, TAPS: tl.constexpr):
    """Samples at t in float32, 0 beyond length; with TAPS > 0 behind the short filter.

    ptr: sample 0 of a row. taps: those of the channel, the last of which meets the current sample,
    then the bias, and a shift of all samples that come in.
    """
    inside = t < length
    if TAPS == 0:
        x = tl.load(ptr + t.to(tl.int64) * stride, mask=inside, other=0.0).to(tl.float32)
    else:
        shift = tl.load(taps + TAPS + 1)
        x = tl.zeros_like(t).to(tl.float32) + tl.load(taps + TAPS)
        for j in tl.static_range(TAPS):
            s = t - (TAPS - 1 - j)
            known = inside & (s >= 0)
            p = tl.load(ptr + s.to(tl.int64) * stride, mask=known, other=0.0).to(tl.float32)
            x += tl.load(taps + j) * tl.where(known, p + shift, 0.0)
        x = tl.where(inside, x, 0.0)
    return x


@triton.jit
def _store(ptr, x, t, length, stride):
    tl.store(ptr + t.to(tl.int64) * stride, x.to(ptr.dtype.element_ty), mask=t < length)


@triton.jit
def _times_matrix(
    ar, ai, tr, ti, f, first, lows, NB: tl.constexpr, SPLIT: tl.constexpr
):  # fmt: skip
    """((a T) F): the second half of a transform; F starts `first` numbers into f."""
    ar, ai = _times(ar, ai, tr, ti)
    n = tl.arange(0, NB)
    second = first + NB * NB
    re = _right(ar, f, first, lows, n, NB, SPLIT) - _right(ai, f, second, lows, n, NB, SPLIT)
    im = _right(ar, f, second, lows, n, NB, SPLIT) + _right(ai, f, first, lows, n, NB, SPLIT)
    return re, im


@triton.jit
def _times_inverse(yr, yi, tr, ti, f, first, lows, NB: tl.constexpr, SPLIT: tl.constexpr):
    """((y F*) T*): the first half of a transform back."""
    n = tl.arange(0, NB)
    second = first + NB * NB
    re = _right(yr, f, first, lows, n, NB, SPLIT) + _right(yi, f, second, lows, n, NB, SPLIT)
    im = _right(yi, f, first, lows, n, NB, SPLIT) - _right(yr, f, second, lows, n, NB, SPLIT)
    return _times_conjugate(re, im, tr, ti)


@triton.jit
def _spectrum_of(x, tr, ti, f, N1: tl.constexpr, N2: tl.constexpr, SPLIT: tl.constexpr):
    """Spectrum (N1, N2) of a real signal (N1, N2), and what it must still be multiplied with.

    f: F1 and F2, (2, N1, N1) and (2, N2, N2), and behind them what splitting leaves of them.
    """
    lows: tl.constexpr = 2 * N1 * N1 + 2 * N2 * N2
    scale, back = _scale(_largest(x))
    x *= scale
    n = tl.arange(0, N1)
    ar = _left(f, 0, lows, n, n, N1, x, False, SPLIT)
    ai = _left(f, N1 * N1, lows, n, n, N1, x, False, SPLIT)
    xr, xi = _times_matrix(ar, ai, tr, ti, f, 2 * N1 * N1, lows, N2, SPLIT)
    return xr, xi, back


@triton.jit
def _signal_of(yr, yi, tr, ti, f, N1: tl.constexpr, N2: tl.constexpr, SPLIT: tl.constexpr):
    """m times the real signal (N1, N2) of a spectrum (N1, N2)."""
    lows: tl.constexpr = 2 * N1 * N1 + 2 * N2 * N2
    br, bi = _times_inverse(yr, yi, tr, ti, f, 2 * N1 * N1, lows, N2, SPLIT)
    n = tl.arange(0, N1)
    x = _left(f, 0, lows, n, n, N1, br, True, SPLIT)
    return x + _left(f, N1 * N1, lows, n, n, N1, bi, True, SPLIT)


@triton.jit
def spectrum_kernel(
    k, k_c, k_l, out, out_c, f, twiddles, length, factor,
    N1: tl.constexpr, N2: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """out (C, 2 m ...): spectra of filters k (C, L), times factor. A program a channel."""
    c = tl.program_id(0).to(tl.int64)
    at = _grid(N1, N2)
    tr, ti = _pair(twiddles, at, N1 * N2)
    x = _signal(k + c * k_c, k, at, length, k_l, 0)
    xr, xi, back = _spectrum_of(x, tr, ti, f, N1, N2, SPLIT)
    _put(out + c * out_c, at, N1 * N2, xr * (back * factor), xi * (back * factor))


@triton.jit(do_not_specialize=["parts"])
def filter_kernel(
    sums, parts, k, k_c, k_l, f, twiddles, length, factor,
    N1: tl.constexpr, N2: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """k (C, L): signals of the sums of `gradients_kernel`, added up, times factor."""
    c = tl.program_id(0).to(tl.int64)
    at = _grid(N1, N2)
    tr, ti = _pair(twiddles, at, N1 * N2)
    xr = tl.zeros((N1, N2), tl.float32)
    xi = tl.zeros((N1, N2), tl.float32)
    sums += c * parts * (4 * N1 * N2)
    for _ in range(parts):
        pr, pi = _pair(sums, at, N1 * N2)
        xr += pr
        xi += pi
        sums += 4 * N1 * N2
    scale, back = _scale(tl.maximum(_largest(xr), _largest(xi)))
    x = _signal_of(xr * scale, xi * scale, tr, ti, f, N1, N2, SPLIT)
    _store(k + c * k_c, x * (factor * back), at, length, k_l)


@triton.jit(do_not_specialize=["batch"])
def convolve_kernel(
    v, v_c, v_b, v_l, v_taps,
    before, before_c, before_b, before_l, before_taps,
    after, after_c, after_b, after_l, after_taps,
    y, y_c, y_b, y_l,
    spectrum, f, twiddles, batch, length, rows,
    N1: tl.constexpr, N2: tl.constexpr, TAPS: tl.constexpr,
    BEFORE: tl.constexpr, AFTER: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """y = after * (k conv (v * before)). A program a channel and `rows` rows of the batch.

    spectrum: rows of 2 m + PADDING numbers; behind the spectrum what it must be multiplied with.
    """
    parts = tl.cdiv(batch, rows)
    c = (tl.program_id(0) // parts).to(tl.int64)
    first = (tl.program_id(0) % parts) * rows
    at = _grid(N1, N2)
    spectrum += c * (2 * N1 * N2 + PADDING)
    scale = tl.load(spectrum + 2 * N1 * N2)
    tr, ti = _pair(twiddles, at, N1 * N2)
    step: tl.constexpr = TAPS + 2
    for row in range(tl.minimum(rows, batch - first)):
        b = first.to(tl.int64) + row
        x = _signal(v + c * v_c + b * v_b, v_taps + c * step, at, length, v_l, TAPS)
        if BEFORE:
            start = before + c * before_c + b * before_b
            x *= _signal(start, before_taps + c * step, at, length, before_l, TAPS)
        xr, xi, back = _spectrum_of(x, tr, ti, f, N1, N2, SPLIT)
        kr, ki = _pair(spectrum, at, N1 * N2)
        xr, xi = _times(xr, xi, kr, ki)
        x = _signal_of(xr, xi, tr, ti, f, N1, N2, SPLIT) * (back * scale)
        if AFTER:
            start = after + c * after_c + b * after_b
            x *= _signal(start, after_taps + c * step, at, length, after_l, TAPS)
        _store(y + c * y_c + b * y_b, x, at, length, y_l)


@triton.jit(do_not_specialize=["batch"])
def gradients_kernel(
    v, v_c, v_b, v_l, v_taps,
    before, before_c, before_b, before_l, before_taps,
    after, after_c, after_b, after_l, after_taps,
    g, g_c, g_b, g_l,
    d_v, d_before, d_after, d_c, d_b,
    sums, spectrum, f, twiddles, batch, length, rows,
    N1: tl.constexpr, N2: tl.constexpr, TAPS: tl.constexpr,
    BEFORE: tl.constexpr, AFTER: tl.constexpr, SPLIT: tl.constexpr, STASH: tl.constexpr,
):  # fmt: skip
    """Gradients of v, before and after from g, that of y; all three with strides (d_c, d_b, 1).

    sums (C, parts, 2, 2, m): spectrum of the gradient of the filter, summed over a program's rows,
    and room for a spectrum. STASH: these are not held in registers, where there are too few.
    """
    parts = tl.cdiv(batch, rows)
    c = (tl.program_id(0) // parts).to(tl.int64)
    first = (tl.program_id(0) % parts) * rows
    at = _grid(N1, N2)
    spectrum += c * (2 * N1 * N2 + PADDING)
    scale = tl.load(spectrum + 2 * N1 * N2)
    sums += tl.program_id(0).to(tl.int64) * (4 * N1 * N2)
    stash = sums + 2 * N1 * N2
    step: tl.constexpr = TAPS + 2
    if not STASH:
        sr = tl.zeros((N1, N2), tl.float32)
        si = tl.zeros((N1, N2), tl.float32)
    for row in range(tl.minimum(rows, batch - first)):
        b = first.to(tl.int64) + row
        d_start = c * d_c + b * d_b
        v_start, g_start = v + c * v_c + b * v_b, g + c * g_c + b * g_b
        before_start = before + c * before_c + b * before_b
        tr, ti = _pair(twiddles, at, N1 * N2)
        x = _signal(v_start, v_taps + c * step, at, length, v_l, TAPS)
        if BEFORE:
            taps = before_taps + c * step
            x *= _signal(before_start, taps, at, length, before_l, TAPS)
        xr, xi, x_back = _spectrum_of(x, tr, ti, f, N1, N2, SPLIT)
        if STASH:
            _put(stash, at, N1 * N2, xr, xi)
            tl.debug_barrier()
            tr, ti = _pair(twiddles, at, N1 * N2)
        x = _signal(g_start, g, at, length, g_l, 0)
        if AFTER:
            start = after + c * after_c + b * after_b
            x *= _signal(start, after_taps + c * step, at, length, after_l, TAPS)
        gr, gi, g_back = _spectrum_of(x, tr, ti, f, N1, N2, SPLIT)
        if STASH:
            xr, xi = _pair(stash, at, N1 * N2)
        hr, hi = _times_conjugate(gr, gi, xr, xi)
        hr *= g_back * x_back
        hi *= g_back * x_back
        if STASH:
            if row > 0:
                pr, pi = _pair(sums, at, N1 * N2)
                hr += pr
                hi += pi
            _put(sums, at, N1 * N2, hr, hi)
        else:
            sr += hr
            si += hi
        kr, ki = _pair(spectrum, at, N1 * N2)
        gr, gi = _times_conjugate(gr, gi, kr, ki)
        x = _signal_of(gr, gi, tr, ti, f, N1, N2, SPLIT) * (g_back * scale)
        if BEFORE:
            other = _signal(v_start, v_taps + c * step, at, length, v_l, TAPS)
            _store(d_before + d_start, x * other, at, length, 1)
            taps = before_taps + c * step
            x *= _signal(before_start, taps, at, length, before_l, TAPS)
        _store(d_v + d_start, x, at, length, 1)
        if AFTER:
            if STASH:
                tl.debug_barrier()
                tr, ti = _pair(twiddles, at, N1 * N2)
                xr, xi = _pair(stash, at, N1 * N2)
                kr, ki = _pair(spectrum, at, N1 * N2)
            xr, xi = _times(xr, xi, kr, ki)
            x = _signal_of(xr, xi, tr, ti, f, N1, N2, SPLIT) * (x_back * scale)
            x *= _signal(g_start, g, at, length, g_l, 0)
            _store(d_after + d_start, x, at, length, 1)
    if not STASH:
        _put(sums, at, N1 * N2, sr, si)
