"""Exact causal convolution of a sequence that is still growing: one sample in, one sample out.

The output at position t is `sum_{s <= t} k[t-s] u[s]` with all of the filter k known beforehand. So
the effect of samples that have come can be added to outputs that are still to come, long before
they are asked for. That is done in pieces: when `count` samples have come since the last settling
and U is the largest power of two that divides `count`, the last U samples are folded into the next
U outputs by one FFT. Every pair of sample and output is met exactly once, each sample takes part in
O(log L) folds, and a fold costs O(U log U): O(L log^2 L) in all for L samples. (Relaxed
multiplication: van der Hoeven 2002, "Relax, but don't be too lazy"; for long convolution models:
Flash Inference, arXiv 2410.12982, and FutureFill, arXiv 2410.03766.)

Pieces shorter than `block` are not folded: a new output adds the samples of its block one by one.

The fold itself. Let u be U samples and k0, k1 the filter at lags 0..U-1 and U..2U-1. The outputs
wanted are the upper half of `u * k0` plus the lower half of `u * k1`. Modulo `x^U - i`, which is
what a right-angle transform of length U computes, `u * (k0 + i k1)` has just this sum as its
imaginary part: one complex FFT of length U each way, and no padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Protocol

import torch
from torch import Tensor

from hyenadna.conv.fft import smooth_length
from hyenadna.conv.right_angle import RightAngle
from hyenadna.errors import InputError

BLOCK: Final = 64
"""Samples that an output adds one by one. Measured: docs/benchmarks/generation.md."""
KEPT_SAMPLES: Final = 1 << 13
"""Spectra of pieces up to this length are kept; longer ones are needed too rarely."""
SHORTEST_PIECE: Final = 1 << 10
LONGEST_PIECE: Final = 1 << 17
"""Pieces into which a settling cuts: short ones cost calls, long ones memory."""
PART_SAMPLES: Final = 1 << 21
"""Complex samples that a settling transforms together."""


class Lags(Protocol):
    """A long filter of C channels, looked up by lag."""

    channels: int

    def between(self, start: int, stop: int) -> Callable[[slice], Tensor]:
        """The filter at those lags by channels, (c, stop - start), 0 beyond its end.

        With any skip term at lag 0.
        """
        ...


class StoredLags:
    """The lags of a filter (C, L) that is in memory."""

    def __init__(self, k: Tensor) -> None:
        self.k, self.channels = k, len(k)

    def between(self, start: int, stop: int) -> Callable[[slice], Tensor]:
        """See `Lags`."""
        found = self.k[:, start:stop]
        padded = torch.nn.functional.pad(found, (0, stop - start - found.shape[1]))
        return padded.__getitem__


class OnlineFilter:
    """A long filter in the forms that growing sequences need; all of them share one.

    block: a power of two; see the module.
    """

    def __init__(self, lags: Lags, *, block: int = BLOCK) -> None:
        if block < 1 or block & (block - 1):
            raise InputError(f"online convolution: block is {block}; it must be a power of two")
        self.lags, self.block = lags, block
        self.everything = slice(0, lags.channels)
        self.taps = lags.between(0, block)(self.everything).T.contiguous()
        """(block, C): the filter at the first lags."""
        self._spectra: dict[int, Tensor] = {}

    def spectra(self, size: int, batch: int) -> Iterator[tuple[slice, Tensor]]:
        """Blocks of channels, each with the filter's transform (c, size) for a fold of that size.

        batch: sequences that are folded together, for the size of the blocks.
        """
        kept = self._spectra.get(size)
        if kept is None and size <= KEPT_SAMPLES:
            kept = self._spectra[size] = _paired(self.lags.between(0, 2 * size)(self.everything))
        k = self.lags.between(0, 2 * size) if kept is None else kept.__getitem__
        for channels in _parts(self.lags.channels, batch * size):
            yield channels, _paired(k(channels)) if kept is None else k(channels)


def _paired(k: Tensor) -> Tensor:
    """Transform (c, size) of `k0 + i k1` (see the module), the halves of a filter k (c, 2 size)."""
    size = k.shape[1] // 2
    fft = RightAngle(size, k.dtype, k.device)
    return fft.forward(torch.complex(k[:, :size], k[:, size:]))


def settle(u: Tensor, lags: Lags, room: int) -> Tensor:
    """The effect (B, room, C) of samples u (B, n, C) on the `room` outputs after them.

    Cuts samples and outputs into pieces of one length and adds up the products of spectra, so the
    cost is O((n + room) log(min(n, room))) when one of them is short.
    """
    batch, n, width = u.shape
    out = u.new_empty(batch, room, width)
    if not n or not room:
        return out.zero_()
    shortest = min(SHORTEST_PIECE, max(n, room))
    size = smooth_length(min(max(min(n, room), shortest), LONGEST_PIECE))
    fft = RightAngle(size, u.dtype, u.device)
    pieces = -(-n // size)
    total = torch.empty(batch, width, size, dtype=fft.complex, device=u.device)

    def transformed(piece: int) -> Tensor:
        return _transformed(lags.between(piece * size, (piece + 1) * size), width, u, size)

    high = None
    for ahead, start in enumerate(range(0, room, size)):
        low = transformed(ahead) if high is None or pieces > 1 else high
        total.zero_()
        for back in range(pieces):
            high = transformed(ahead + back + 1)
            for channels in _parts(width, batch * size):
                spectra = fft.forward(_piece(u[..., channels], back, size))
                spectra *= torch.add(low[channels], high[channels], alpha=1j)
                total[:, channels] += spectra
            low = high
        for channels in _parts(width, batch * size):
            piece = out[:, start : start + size, channels]
            piece.copy_(fft.beyond(total[:, channels]).transpose(1, 2)[:, : piece.shape[1]])
    return out


def _transformed(k: Callable[[slice], Tensor], width: int, like: Tensor, size: int) -> Tensor:
    """Right-angle transform (C, m) of a filter at `size` lags, given by channels."""
    fft = RightAngle(size, like.dtype, like.device)
    out = torch.empty(width, fft.m, dtype=fft.complex, device=like.device)
    for channels in _parts(width, fft.m):
        out[channels] = fft.forward(k(channels))
    return out


def _parts(width: int, samples: int) -> Iterator[slice]:
    """Blocks of channels to transform together."""
    step = max(1, PART_SAMPLES // samples)
    return (slice(start, min(start + step, width)) for start in range(0, width, step))


def _piece(u: Tensor, back: int, size: int) -> Tensor:
    """A piece (B, C, size) of samples u (B, n, C), cut from the end backwards; 0 before u."""
    stop = u.shape[1] - back * size
    piece = u[:, max(0, stop - size) : stop].transpose(1, 2)
    return torch.nn.functional.pad(piece, (size - piece.shape[2], 0))


class OnlineConvolution:
    """B growing sequences of C channels, convolved with one filter, exact at every step.

    room: samples that may come (the state does not grow beyond it). Samples come one by one
    (`step`) or many at once (`extend`), in any order of these. All tensors are channel-last and at
    least float32.

    settled (1 or B, room, C): effect of what came before the last settling. recent (B, capacity,
    C): row i is, for i < count, the i-th sample since then; else what folds have added to output i.
    """

    def __init__(self, filter_: OnlineFilter, settled: Tensor, batch: int) -> None:
        self.filter, self.batch = filter_, batch
        self.settled = settled
        self.recent = settled.new_zeros(batch, 0, settled.shape[2])
        self.count = 0

    @classmethod
    def empty(cls, filter_: OnlineFilter, batch: int, room: int) -> OnlineConvolution:
        """Nothing has come yet."""
        return cls(filter_, filter_.taps.new_zeros(1, room, filter_.lags.channels), batch)

    @classmethod
    def begin(cls, filter_: OnlineFilter, u: Tensor, room: int) -> tuple[Tensor, OnlineConvolution]:
        """Outputs (B, n, C) of the first samples u (B, n, C), and the state after them."""
        effect = settle(u, filter_.lags, room)
        return inside(u, filter_.lags), cls(filter_, effect, len(u))

    @property
    def room(self) -> int:
        """Samples that may still come."""
        return self.settled.shape[1] - self.count

    @property
    def nbytes(self) -> int:
        """Memory of the state."""
        return sum(t.untyped_storage().nbytes() for t in (self.settled, self.recent))

    def step(self, u: Tensor) -> Tensor:
        """The output (B, C) at the position of one more sample u (B, C).

        Raises InputError without room.
        """
        self.make_way()
        now = self.count
        start = now - now % self.filter.block
        y = self.settled[:, now] + self.recent[:, now]
        self.recent[:, now] = u
        taps = self.filter.taps[: now + 1 - start].flip(0)
        with torch.autocast(u.device.type, enabled=False):
            y += torch.einsum("bjc,jc->bc", self.recent[:, start : now + 1], taps)
        self.came()
        return y

    def make_way(self) -> None:
        """Memory for one more sample. Raises InputError where there is no room for it."""
        self._require(1)
        if self.count == self.recent.shape[1]:
            whole = self.settled.shape[1]
            capacity = min(max(2 * self.count, self.filter.block), whole)
            grown = self.recent.new_zeros(self.batch, capacity, self.recent.shape[2])
            grown[:, : self.count] = self.recent
            self.recent = grown

    def came(self) -> None:
        """Counts a sample that has been written to `recent`, and folds what is due."""
        self.count += 1
        size = self.count & -self.count
        if size < self.filter.block or not self.room:
            return
        if self.count == self.recent.shape[1]:
            self.make_way()
        ahead = self.recent[:, self.count : self.count + size]
        samples = self.recent[:, self.count - size : self.count].transpose(1, 2)
        fft = RightAngle(size, samples.dtype, samples.device)
        for channels, spectrum in self.filter.spectra(size, self.batch):
            spectra = fft.forward(samples[:, channels])
            spectra *= spectrum
            ahead[..., channels] += fft.beyond(spectra).transpose(1, 2)[:, : ahead.shape[1]]

    def extend(self, u: Tensor) -> Tensor:
        """The outputs (B, n, C) at the positions of n more samples u (B, n, C), in one go.

        Raises InputError without room.
        """
        y = self.outputs(u)
        self.take(u)
        return y

    def outputs(self, u: Tensor) -> Tensor:
        """What `extend` returns; the samples are not kept."""
        self._require(u.shape[1])
        self.settle()
        own = inside(u, self.filter.lags)
        own += self.settled[:, : u.shape[1]]
        return own

    def take(self, u: Tensor) -> None:
        """Keeps samples u (B, n, C) whose outputs are known. Raises InputError without room."""
        self._require(u.shape[1])
        self.settle()
        self.advance(u.shape[1], settle(u, self.filter.lags, self.room - u.shape[1]))

    def advance(self, n: int, effect: Tensor) -> None:
        """Moves n outputs on and adds an effect (B, room - n, C) to those to come."""
        assert not self.count
        effect += self.settled[:, n:]
        self.settled = effect

    def settle(self) -> None:
        """Adds the effect of all recent samples to all outputs to come."""
        if self.count:
            n, samples = self.count, self.recent[:, : self.count]
            effect = settle(samples, self.filter.lags, self.room)
            effect += self.settled[:, n:]
            empty = effect.new_zeros(self.batch, 0, effect.shape[2])
            self.settled, self.recent, self.count = effect, empty, 0

    def select(self, rows: Tensor) -> OnlineConvolution:
        """A state of its own for the chosen rows, int64 (B',) on the device of the state."""
        shared = len(self.settled) == 1
        chosen = OnlineConvolution(
            self.filter, self.settled if shared else self.settled[rows], len(rows)
        )
        chosen.recent, chosen.count = self.recent[rows], self.count
        return chosen

    def shortened(self, room: int) -> OnlineConvolution:
        """The same with less room, of a state that has been settled; what is settled is shared."""
        assert not self.count and room <= self.room
        return OnlineConvolution(self.filter, self.settled[:, :room], self.batch)

    def _require(self, n: int) -> None:
        if n > self.room:
            raise InputError(
                f"online convolution: {n:,} more samples, but there is room for {self.room:,}; "
                "start with more room"
            )


def inside(u: Tensor, lags: Lags) -> Tensor:
    """Causal convolution (B, n, C) of samples u (B, n, C) with the filter, from nothing."""
    batch, n, width = u.shape
    out = torch.empty_like(u)
    fft = RightAngle(n, u.dtype, u.device)
    k = _transformed(lags.between(0, n), width, u, n)
    for channels in _parts(width, batch * fft.m):
        spectra = fft.forward(u[..., channels].transpose(1, 2))
        spectra *= k[channels]
        out[..., channels] = fft.back(spectra).transpose(1, 2)
    return out
