"""How sequences of any length are read by a model of one length, and what their rows are.

A sequence is read in chunks of at most `length` tokens, each of which begins `overlap` tokens
before the end of the one before. Every base counts once: in the first chunk that reaches it, where
it has the most bases before it, at least `overlap` of them (or all there are). So the rows do not
depend on where chunks end, beyond what the model could not see anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from hyenadna.config import ModelConfig
from hyenadna.errors import InputError

Per = Literal["sequence", "bin", "base"]
Pool = Literal["mean", "last"]


class Chunk(NamedTuple):
    """A stretch of a sequence that the model reads at once, from 0, half open."""

    start: int
    stop: int
    fresh: int
    """The first base that counts here; those before it have counted in the chunk before."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Chunks and rows of sequences; made by `make_reading`."""

    length: int
    """Most tokens of a chunk; a multiple of `bin`."""
    overlap: int
    """Tokens of a chunk that the one before has read too; a multiple of `bin`."""
    bin: int | None
    """Bases of a row; None: the whole sequence is one."""
    pool: Pool = "mean"
    """A row is the mean over its bases, or the state of the last base (of the whole sequence)."""

    def chunks(self, bases: int) -> Iterator[Chunk]:
        """The chunks of a sequence of so many bases, front to end.

        Where chunks overlap, the last one is moved back to be full. For the state of the last base
        alone there is one, as long as can be, at the end.
        """
        if self.pool == "last":
            if bases:
                yield Chunk(max(0, bases - self.length), bases, bases - 1)
            return
        start = fresh = 0
        while fresh < bases:
            stop = min(start + self.length, bases)
            if self.overlap and stop == bases:
                start = max(0, bases - self.length)
            yield Chunk(start, stop, fresh)
            fresh, start = stop, stop - self.overlap

    def count(self, bases: int) -> int:
        """Number of chunks of a sequence of so many bases."""
        if self.pool == "last" or not bases:
            return min(bases, 1)
        return 1 + -(-max(0, bases - self.length) // (self.length - self.overlap))

    def tokens(self, bases: int) -> int:
        """Tokens that are read in a sequence of so many bases, overlaps as often as they are."""
        if self.overlap and bases > self.length:
            return self.count(bases) * self.length
        return min(bases, self.length) if self.pool == "last" else bases

    def rows(self, bases: int) -> int:
        """Number of rows of a sequence of so many bases."""
        return 1 if self.bin is None else -(-bases // self.bin)


def make_reading(
    config: ModelConfig,
    *,
    per: Per = "sequence",
    pool: Pool = "mean",
    length: int | None = None,
    overlap: int | None = None,
    bin: int | None = None,
    soft_tokens: int = 0,
) -> Reading:
    """The reading of sequences by a model of this shape.

    per: a row for each sequence, for each `bin` bases, or for each base. pool: `last` for the state
    of the last base, of whole sequences only. length: tokens of a chunk; the model's maximum less 2
    when left out, and no more than that maximum; cut down to whole bins. overlap: half the length
    when left out, 0 for bins; cut down to whole bins. bin: the whole length when left out.
    soft_tokens: vectors before each chunk, which leave it so much less room.

    Raises InputError for numbers out of range, and for options that exclude each other.
    """
    longest = config.max_seq_len - soft_tokens
    length = max(longest - 2, 1) if length is None else length
    if not 1 <= length <= longest:
        behind = f" behind {soft_tokens:,} soft tokens" if soft_tokens else ""
        raise InputError(f"--length is {length}; this model reads 1 to {longest:,} bases{behind}")
    if pool == "last" and per != "sequence":
        raise InputError(f"--pool last is of a whole sequence; leave it out with --per {per}")
    if bin is not None and per != "bin":
        raise InputError(f"--bin is for --per bin; leave it out with --per {per}")
    if bin is not None and not 1 <= bin <= length:
        raise InputError(f"--bin is {bin}; it must be 1 to the length of a window, {length:,}")
    unit = {"sequence": 1, "base": 1, "bin": bin or length}[per]
    length = length // unit * unit
    if overlap is None:
        overlap = 0 if per == "bin" else length // 2
    if not 0 <= overlap < length:
        raise InputError(
            f"--overlap is {overlap}; it must be 0 to one less than the length of a window, "
            f"{length:,}"
        )
    return Reading(
        length=length,
        overlap=0 if pool == "last" else min(overlap // unit * unit, length - unit),
        bin=None if per == "sequence" else unit,
        pool=pool,
    )
