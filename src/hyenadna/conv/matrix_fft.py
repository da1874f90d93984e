"""The causal long convolution and its gates as small matrix products on a GPU.

Spectra of filters are made once (`spectrum`) and used many times (`convolve`, `gradients`). All
signals are (C, B, L) by strides, of one type: float32, bfloat16 or float16. For float32 the factors
of all products are split in two, and results are as exact as those of a float32 FFT; for the 16-bit
types factors have 11 significant bits. Measured in tests/conv/test_gated_convolution.py, with
reasons in docs/decisions/matrix-fft.md.

Nothing depends on the batch that a row is in, and no sum on the order in which programs run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from hyenadna.conv.matrix_tables import (
    PADDING,
    Shape,
    between_bytes,
    inner_tables,
    outer_tables,
    shape_of,
)
from hyenadna.conv.triton_launch import at_least, launch
from hyenadna.errors import InputError

LONGEST: Final = 1 << 24
"""Most samples of a signal."""
TYPES: Final = (torch.float32, torch.bfloat16, torch.float16)
PROGRAMS: Final = 2048
"""Programs that keep a large GPU busy; more rows than that are done one after the other."""
BLOCK_BYTES: Final = 1 << 28
"""Bytes between the kernels of a long signal, of as many channels as fit, but at least one."""
MOST_POINTS: Final = ((200 << 10, 8192), (160 << 10, 4096), (0, 2048))
"""Most points of a program by the shared memory of a block: of an H100 and later, of an A100, and
of smaller GPUs. An A100 has room for 8,192, but holds the factors of products in registers, of
which 18 KB a thread would spill (docs/decisions/matrix-fft.md)."""


def shape_for(length: int, dtype: torch.dtype, device: torch.device) -> Shape:
    """The shape of the transforms for signals of a length and type.

    Raises InputError for a length that is too large.
    """
    if not 1 <= length <= LONGEST:
        raise InputError(
            f"matrix convolution: {length:,} samples; 1 to {LONGEST:,} are possible, "
            "take method='fft'"
        )
    return shape_of(length, largest=most_points(_shared_bytes(device), dtype))


def most_points(shared: int, dtype: torch.dtype) -> int:
    """Most points that a program with so many bytes of shared memory transforms."""
    points = next(points for least, points in MOST_POINTS if shared >= least)
    # split factors need twice the shared memory
    return min(points, 4096) if dtype == torch.float32 else points


@lru_cache(maxsize=16)
def _shared_bytes(device: torch.device) -> int:
    """Most shared memory of a block there; that of an H200 where no GPU is."""
    if device.type != "cuda":
        return 227 << 10
    from triton.runtime import driver

    return int(driver.active.utils.get_device_properties(device.index)["max_shared_mem"])


@dataclass(frozen=True)
class Short:
    """A short causal filter of all three signals, that the kernels apply as they read them.

    rows: (3, C, K + 2), float32 and contiguous, for after, before and v: K taps, the last of which
    meets the current sample, a bias, and a shift that is added to all samples before. What lies
    before a row is 0, unshifted.
    """

    rows: Tensor

    @classmethod
    def of(cls, taps: Tensor, bias: Tensor, shift: Tensor | None = None) -> Short:
        """taps: (3, C, K); bias, shift: (3, C)."""
        shift = torch.zeros_like(bias) if shift is None else shift
        rows = torch.cat([taps, bias[..., None], shift[..., None]], dim=2)
        return cls(rows.float().contiguous())

    @property
    def taps(self) -> int:
        """K."""
        return self.rows.shape[2] - 2

    def part(self, channels: slice) -> Short:
        """That of a block of channels."""
        return Short(self.rows[:, channels].contiguous())


@dataclass(frozen=True)
class Signals:
    """v, before and after, (C, B, L) by strides and of one type; a gate may be missing.

    With `short` they are what comes out of it.
    """

    v: Tensor
    before: Tensor | None = None
    after: Tensor | None = None
    short: Short | None = None
    exact: bool | None = None
    """Whether results are as exact as those of float32; where left out, for v in float32."""

    @property
    def split(self) -> bool:
        """Whether the factors of products must be split."""
        return self.v.dtype == torch.float32 if self.exact is None else self.exact

    @property
    def taps(self) -> int:
        """Taps of the short filter; 0: none."""
        return 0 if self.short is None else self.short.taps

    def part(self, channels: slice) -> Signals:
        """Those of a block of channels."""
        return Signals(
            self.v[channels],
            None if self.before is None else self.before[channels],
            None if self.after is None else self.after[channels],
            None if self.short is None else self.short.part(channels),
            self.exact,
        )

    def arguments(self, name: str) -> list[Tensor | int]:
        """A signal for a kernel: tensor, strides, rows of the short filter.

        Kernels want a tensor in each place, also where they do not touch it.
        """
        found = getattr(self, name)
        signal = self.v if found is None else found
        rows = signal if self.short is None else self.short.rows[_PLACES[name]]
        return [signal, *signal.stride(), rows]


_PLACES: Final = {"after": 0, "before": 1, "v": 2}


def spectrum(k: Tensor, shape: Shape) -> Tensor:
    """Spectra (C, 2 m + PADDING) of filters k (C, L), float32, in the layout of the kernels.

    A skip term is the filter's own value at lag 0: add it before.
    """
    out = k.new_empty(k.shape[0], 2 * shape.m + PADDING)
    if not len(k):
        return out
    if shape.outer:
        for part in _blocks(len(k), shape.m * between_bytes(k.dtype)):
            _long_spectra(k[part], shape, out[part])
            _bring_into_range(out[part], shape)
    else:
        _short_spectra(k, shape, out)
        _bring_into_range(out, shape)
    return out


def convolve(shape: Shape, spectra: Tensor, signals: Signals, y: Tensor) -> None:
    """Fills y, (C, B, L) by strides, with `after * (k conv (v * before))`.

    spectra: those of the C filters.
    """
    if not y.numel():
        return
    if not shape.outer:
        _convolve(shape, spectra, signals, y)
        return
    channels, batch, _ = y.shape
    for part in _blocks(channels, batch * shape.m * between_bytes(signals.v.dtype)):
        _long_convolve(shape, spectra[part], signals.part(part), y[part])


def gradients(
    shape: Shape, spectra: Tensor, signals: Signals, grad: Tensor, into: Sequence[Tensor | None]
) -> Tensor:
    """Fills `into` with gradients of v, before and after; returns that of the filters, (C, L).

    grad: gradient of y, (C, B, L) by strides. into: tensors of that shape, all with the same
    strides and dense along L; None for a gate that is missing. With a short filter they are the
    gradients of what comes out of it.
    """
    channels, batch, length = grad.shape
    grad_k = torch.empty(channels, length, dtype=torch.float32, device=grad.device)
    if not grad.numel():
        return grad_k.zero_()
    if not shape.outer:
        _gradients(shape, spectra, signals, grad, into, grad_k)
        return grad_k
    for part in _blocks(channels, shape.m * (2 * batch * between_bytes(signals.v.dtype) + 16)):
        parts = [None if x is None else x[part] for x in into]
        _long_gradients(shape, spectra[part], signals.part(part), grad[part], parts, grad_k[part])
    return grad_k


def short_gradients(p: Tensor, d: Tensor, short: Short, dp: Tensor) -> Tensor:
    """Fills dp with the gradient of p; returns that of short.rows, (3, C, K + 2).

    p: the signals after, before and v in one tensor (3, C, B, L), dense along L; d: as `gradients`
    gives them, in this order and one tensor; dp: with the strides of d, another tensor.
    """
    from hyenadna.conv import triton_short

    _, channels, batch, length = p.shape
    assert p.stride(3) == d.stride(3) == 1 and d.stride() == dp.stride()
    block = min(4096, at_least(length, 128))
    programs = 3 * channels * batch * -(-length // block)
    sums = torch.empty(programs, short.taps + 2, dtype=torch.float32, device=p.device)
    if programs:
        launch(
            triton_short.short_gradients_kernel, (programs,), p,
            p, *p.stride()[:3], d, dp, *d.stride()[:3], short.rows, sums, channels, batch, length,
            TAPS=short.taps, BLOCK=block, num_warps=8 if block >= 2048 else 4,
        )  # fmt: skip
    return sums.view(3, channels, -1, short.taps + 2).sum(2)


def _bring_into_range(out: Tensor, shape: Shape) -> None:
    """Scales spectra so that what they are multiplied into stays within float16, whatever comes.

    A transform of numbers up to 1 gives no more than 2 inner in each part, times the spectrum no
    more than 2 inner limit, and the next product no more than 4 nb inner limit = 2^15.
    """
    parts = out[:, : 2 * shape.m]
    largest = torch.linalg.vector_norm(parts.view(-1, 2, shape.m), dim=1).amax(1)
    largest = torch.where(largest > 1e-30, largest, 1.0)  # limit / largest is finite
    limit = 2.0**13 / (shape.nb * shape.inner)
    parts *= (limit / largest)[:, None]
    out[:, 2 * shape.m :] = (largest / limit)[:, None]


def _blocks(channels: int, channel_bytes: int) -> Iterator[slice]:
    width = max(1, BLOCK_BYTES // channel_bytes)
    for start in range(0, channels, width):
        yield slice(start, min(start + width, channels))


def _rows(programs: int, batch: int, warps: int = 8) -> int:
    """Rows of the batch that one of so many programs for each row does after each other.

    Of shapes alone, so that sums are the same on every GPU. warps: of a program; there may be more
    of smaller ones, where that costs no sums.
    """
    return max(1, min(batch, -(-programs * batch * warps // (8 * PROGRAMS))))


def _inner_options(shape: Shape, split: bool) -> dict[str, int | bool]:
    names = ("NA", "NB") if shape.outer else ("N1", "N2")
    return {
        names[0]: shape.na, names[1]: shape.nb, "SPLIT": split,
        "num_warps": shape.warps, "num_stages": 1,
    }  # fmt: skip


def _registers(shape: Shape, signals: Signals, most_taps: int) -> int | None:
    """Registers of a thread, so that two programs of 256 threads fit on a multiprocessor.

    Where little spills for that: docs/decisions/matrix-fft.md.
    """
    fits = shape.inner == 4096 and not signals.split and signals.taps <= most_taps
    return 128 if fits else None


def _gates(signals: Signals) -> dict[str, int | bool]:
    return {
        "TAPS": signals.taps,
        "BEFORE": signals.before is not None,
        "AFTER": signals.after is not None,
    }


def _short_spectra(k: Tensor, shape: Shape, out: Tensor) -> None:
    from hyenadna.conv import triton_fft

    launch(
        triton_fft.spectrum_kernel, (len(k),), k,
        k, *k.stride(), out, out.stride(0), *inner_tables(shape, k.device), k.shape[1],
        1.0 / shape.m, **_inner_options(shape, True),
    )  # fmt: skip


def _convolve(shape: Shape, spectra: Tensor, signals: Signals, y: Tensor) -> None:
    from hyenadna.conv import triton_fft

    channels, batch, length = y.shape
    rows = _rows(channels, batch, shape.warps)
    launch(
        triton_fft.convolve_kernel, (channels * -(-batch // rows),), y,
        *signals.arguments("v"), *signals.arguments("before"), *signals.arguments("after"),
        y, *y.stride(), spectra, *inner_tables(shape, y.device), batch, length, rows,
        **_gates(signals), **_inner_options(shape, signals.split),
        maxnreg=_registers(shape, signals, most_taps=3),
    )  # fmt: skip


def _gradients(
    shape: Shape, spectra: Tensor, signals: Signals, grad: Tensor, into: Sequence[Tensor | None],
    grad_k: Tensor,
) -> None:  # fmt: skip
    from hyenadna.conv import triton_fft

    channels, batch, length = grad.shape
    rows = _rows(channels, batch)
    parts = -(-batch // rows)
    tables = inner_tables(shape, grad.device)
    sums = torch.empty(channels * parts, 4 * shape.m, dtype=torch.float32, device=grad.device)
    options = _inner_options(shape, signals.split)
    d_v = into[0]
    assert d_v is not None and d_v.stride(2) == 1
    launch(
        triton_fft.gradients_kernel, (channels * parts,), grad,
        *signals.arguments("v"), *signals.arguments("before"), *signals.arguments("after"),
        grad, *grad.stride(), *(d_v if x is None else x for x in into), *d_v.stride()[:2],
        sums, spectra, *tables, batch, length, rows,
        STASH=shape.inner >= 1024, **_gates(signals), **options,
        maxnreg=_registers(shape, signals, most_taps=0),
    )  # fmt: skip
    launch(
        triton_fft.filter_kernel, (channels,), grad,
        sums, parts, grad_k, *grad_k.stride(), *tables, length, 1.0 / shape.m, **options,
    )  # fmt: skip


@dataclass(frozen=True)
class _Between:
    """What lies between the kernels of a long signal: see `triton_long_fft`."""

    z: Tensor
    tiles: Tensor
    rows: Tensor

    @classmethod
    def of(cls, z: Tensor) -> _Between:
        """float32, without scales."""
        return cls(z, z, z)

    @classmethod
    def make(cls, shape: Shape, signals: Signals) -> _Between:
        """Room for signals; in half precision where they are."""
        channels, batch, _ = signals.v.shape
        size = (channels, batch, 2 * shape.m)
        if signals.split:
            return cls.of(torch.empty(size, dtype=torch.float32, device=signals.v.device))
        tiles = shape.side // shape.outer_tile * (shape.inner // shape.outer_columns)
        rows = channels * batch
        scales = torch.empty(
            rows * (tiles + shape.n1), dtype=torch.float32, device=signals.v.device
        )
        z = torch.empty(size, dtype=torch.float16, device=signals.v.device)
        return cls(z, scales[: rows * tiles], scales[rows * tiles :])

    @property
    def half(self) -> bool:
        """Whether it is scaled float16."""
        return self.z.dtype == torch.float16


def _long_spectra(k: Tensor, shape: Shape, out: Tensor) -> None:
    from hyenadna.conv import triton_long_fft

    signals = Signals(k[:, None])
    between = _Between.make(shape, signals)
    _outer(shape, signals, "v", None, between)
    launch(
        triton_long_fft.inner_spectrum_kernel, (len(k) * shape.n1,), k,
        between.z, out, out.stride(0), *_all_tables(shape, k.device), shape.n1, 1.0 / shape.m,
        **_inner_options(shape, True),
    )  # fmt: skip


def _long_convolve(shape: Shape, spectra: Tensor, signals: Signals, y: Tensor) -> None:
    from hyenadna.conv import triton_long_fft

    channels, batch, _ = y.shape
    between = _Between.make(shape, signals)
    _outer(shape, signals, "v", "before", between)
    count = _rows(channels * shape.n1, batch)
    launch(
        triton_long_fft.inner_convolve_kernel, (channels * shape.n1 * -(-batch // count),), y,
        between.z, between.tiles, between.rows, spectra, *_all_tables(shape, y.device),
        batch, shape.n1, count, **_between_options(shape, between),
    )  # fmt: skip
    _outer_back(shape, between, y, signals, "after")


def _long_gradients(
    shape: Shape, spectra: Tensor, signals: Signals, grad: Tensor, into: Sequence[Tensor | None],
    grad_k: Tensor,
) -> None:  # fmt: skip
    from hyenadna.conv import triton_long_fft

    channels, batch, _ = grad.shape
    z, g = _Between.make(shape, signals), _Between.make(shape, signals)
    sums, stash = torch.empty(2, channels, 2 * shape.m, dtype=torch.float32, device=grad.device)
    _outer(shape, signals, "v", "before", z)
    incoming = Signals(grad, None, signals.after, signals.short)
    _outer(shape, incoming, "v", "after", g, plain=True)
    tables = _all_tables(shape, grad.device)
    programs = (channels * shape.n1,)
    launch(
        triton_long_fft.inner_gradients_kernel, programs, grad,
        z.z, z.tiles, z.rows, g.z, g.tiles, g.rows, sums, stash, spectra, *tables,
        batch, shape.n1, AFTER=signals.after is not None, **_between_options(shape, z),
    )  # fmt: skip
    launch(
        triton_long_fft.inner_filter_kernel, programs, grad,
        sums, *tables, shape.n1, **_inner_options(shape, signals.split),
    )  # fmt: skip
    plain = Signals(grad)
    _outer_back(
        shape, _Between.of(sums), grad_k[:, None], plain, None,
        factor=1.0 / shape.m, split=signals.split,
    )  # fmt: skip
    d_v, d_before, d_after = into
    if d_after is not None:
        _outer_back(shape, z, d_after, plain, "v")
    assert d_v is not None
    _outer_back(shape, g, d_v, signals, "before", d_before, "v")


def _all_tables(shape: Shape, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices, twiddles and phases for the kernels of one f1."""
    return *inner_tables(shape, device), outer_tables(shape, device)[1]


def _between_options(shape: Shape, between: _Between) -> dict[str, int | bool]:
    """Of an inner kernel that works in place."""
    return {
        "BM": shape.outer_tile, "BN": shape.outer_columns, "HALF": between.half,
        **_inner_options(shape, not between.half),
    }  # fmt: skip


def _outer_options(shape: Shape, between: _Between, split: bool) -> dict[str, int | bool]:
    return {
        "BM": shape.outer_tile, "BN": shape.outer_columns, "BK": shape.outer_step,
        "SPLIT": split, "HALF": between.half,
        "num_warps": 8 if shape.outer_tile >= 32 else 4, "num_stages": 1,
    }  # fmt: skip


def _outer_programs(shape: Shape, rows: int) -> tuple[int]:
    return (rows * (shape.side // shape.outer_tile) * (shape.inner // shape.outer_columns),)


def _outer(
    shape: Shape, signals: Signals, name: str, gate: str | None, between: _Between, *,
    plain: bool = False,
) -> None:  # fmt: skip
    """Outer products of a signal times a gate, if there is one; plain: the signal is as it is."""
    from hyenadna.conv import triton_long_fft

    channels, batch, length = signals.v.shape
    launch(
        triton_long_fft.outer_kernel, _outer_programs(shape, channels * batch), signals.v,
        *signals.arguments(name), *signals.arguments(gate or name),
        between.z, between.tiles, outer_tables(shape, signals.v.device)[0],
        batch, length, shape.n1, shape.side, shape.inner,
        V_TAPS=0 if plain else signals.taps, GATE_TAPS=signals.taps,
        GATE=gate is not None and getattr(signals, gate) is not None,
        **_outer_options(shape, between, not between.half),
    )  # fmt: skip


def _outer_back(
    shape: Shape, between: _Between, y: Tensor, signals: Signals, one: str | None,
    other: Tensor | None = None, two: str | None = None, *, factor: float = 1.0,
    split: bool | None = None,
) -> None:  # fmt: skip
    """y: the signals, transformed back, times factor and signal `one`, if there is one.

    other: the same times signal `two`, with the strides of y. split: where it is not as the signals
    want it.
    """
    from hyenadna.conv import triton_long_fft

    channels, batch, length = y.shape
    gated = one is not None and getattr(signals, one) is not None
    launch(
        triton_long_fft.outer_back_kernel, _outer_programs(shape, channels * batch), y,
        between.z, between.rows, outer_tables(shape, y.device)[0],
        y, *y.stride(), *signals.arguments(one or "v"),
        y if other is None else other, *signals.arguments(two or "v"),
        batch, length, shape.n1, shape.side, shape.inner, factor,
        TAPS=signals.taps, ONE=gated, TWO=other is not None,
        **_outer_options(shape, between, signals.split if split is None else split),
    )  # fmt: skip
