"""Every substitution of every base: how much more or less likely it makes a sequence.

The score of a substitution at position p is

    log P(base, the `after` bases that follow | all before) - the same of the reference

in nats, all V classes competing; what follows counts where it is A, C, G or T. Its first term, the
difference at p alone, is the allele's. A sequence without its first base has no prediction for it:
there the allele is missing and the score is that of what follows.

What stands before a substitution is read once: the state behind it is kept every `block` bases, and
the 3 `block` mutants of a block are read behind it, `after` bases far, instead of 3 L passes of L
tokens. `mutate_whole` is that slow twin; docs/decisions/saturation-mutagenesis.md has the figures.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, get_args

import numpy as np
import torch

from hyenadna.alphabet import Ids, reverse_complement_ids
from hyenadna.errors import InputError
from hyenadna.infer.mutate_strand import (
    Floats,
    block_tokens,
    evaluating,
    read_strand,
    read_strand_whole,
)
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.decoding.decoder import Decoder
from hyenadna.model.decoding.shared_reading import ROW_TOKENS

AFTER: Final = 128
"""Bases that follow and count. In yeast scores are correlated 0.99 with those of 4,095."""
BLOCK: Final = 16
"""Positions between two states, by measurement."""
PIECE: Final = 256
"""Positions that are worked on, and written, at a time."""

Strands = Literal["forward", "reverse", "average"]
STRANDS: Final[tuple[str, ...]] = get_args(Strands)
Text = Callable[[int, int], Ids]
"""Token ids of the bases start .. stop - 1."""


class Substitutions(NamedTuple):
    """What the substitutions of n bases do, in nats; columns are A C G T.

    NaN for the base that stands there, all of a row where that is not A, C, G or T, and where
    there is no prediction.
    """

    bases: Ids
    """(n,): tokens of the reference."""
    score: Floats
    """(n, 4): of the base and what follows."""
    allele: Floats
    """(n, 4): of the base alone."""


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How far a model looks around a substitution, fitted to it and to a length by `fit_reach`."""

    after: int
    """Bases that follow and count."""
    context: int
    """Bases before a piece that are read: what each position has before it, at least."""
    piece: int = PIECE
    """Positions of a piece; pieces lie on a grid, so that scores do not depend on where one began
    to ask."""


def fit_reach(
    model: HyenaDNA, length: int, *, after: int | None = AFTER, context: int | None = None
) -> Reach:
    """The reach for a sequence of so many bases.

    after: None for all to the end. context: None for all before that the model can read, which is
    the whole sequence where it fits.

    Raises InputError for values below 0, and where the model cannot read so much at once.
    """
    longest = model.config.max_seq_len
    for name, value in (("--after", after), ("--context", context)):
        if value is not None and value < 0:
            raise InputError(f"{name} is {value}; it must be at least 0")
    piece = most_positions(longest)
    if length <= longest:
        reach = length if context is None else context
        return Reach(after=length if after is None else after, context=reach, piece=piece)
    if after is None:
        raise InputError(
            f"{length:,} bases are more than this model reads ({longest:,}), so not all that "
            f"follows can count; give --after {min(AFTER, longest // 4)}"
        )
    room = longest - piece - after
    if room < (context or 1):
        raise InputError(
            f"--after {after:,} and --context {context or 1:,} do not fit into the {longest:,} "
            f"bases that this model reads, with {piece:,} between them; give less"
        )
    return Reach(after=after, context=room if context is None else context, piece=piece)


def most_positions(longest: int) -> int:
    """Positions of a piece for a model that reads so many bases."""
    return min(PIECE, max(1, longest // 4))


class Piece(NamedTuple):
    """Positions that are worked on together."""

    first: int
    last: int
    """One past the last."""
    low: int
    """Where its square of the grid begins; what is read before it counts from there."""
    high: int
    """One past the end of the square; the other strand counts from there."""


def pieces(start: int, stop: int, length: int, reach: Reach) -> Iterator[Piece]:
    """The positions start .. stop - 1 of a text of `length` bases, cut at the grid."""
    size = reach.piece
    for low in range(start // size * size, stop, size):
        high = min(low + size, length)
        yield Piece(max(low, start), min(high, stop), low, high)


@torch.no_grad()
def mutate(
    model: HyenaDNA,
    ids: Ids,
    *,
    after: int | None = AFTER,
    context: int | None = None,
    strands: Strands = "average",
) -> Substitutions:
    """All substitutions of one sequence, scored.

    ids: (L,) from `hyenadna.encode`. after: bases that follow and count; None for all. context:
    bases that are read before a position, at least, where there are so many; None for all that the
    model can read. strands: `reverse` reads the reverse complement, in which a substitution is its
    complement; `average` is the mean of both (a causal model knows little at the start of a
    sequence, and on the other strand that is the end); where one has no prediction of a base, the
    other's alone.

    Raises InputError for an empty sequence, and as `fit_reach` does.
    """
    if not len(ids):
        raise InputError("mutate: the sequence is empty")
    reach = fit_reach(model, len(ids), after=after, context=context)
    decoder = Decoder(model)
    parts = [
        mutate_piece(decoder, lambda start, stop: ids[start:stop], len(ids), piece, reach, strands)
        for piece in pieces(0, len(ids), len(ids), reach)
    ]
    return Substitutions(*(np.concatenate(each) for each in zip(*parts, strict=True)))


@torch.no_grad()
def mutate_piece(
    decoder: Decoder,
    text: Text,
    length: int,
    piece: Piece,
    reach: Reach,
    strands: Strands = "average",
    *,
    block: int = BLOCK,
    row_tokens: int = ROW_TOKENS,
    progress: Callable[[int], None] | None = None,
) -> Substitutions:
    """The substitutions of one piece of a text of `length` bases; see `mutate`.

    block: positions between two states. row_tokens: tokens of a pass. Results depend on neither,
    beyond rounding. progress: told how many more tokens have been read, of `piece_tokens`.
    """
    if strands not in STRANDS:
        raise InputError(f"mutate: strands is {strands!r}; it is one of {', '.join(STRANDS)}")
    found = []
    for reverse in _directions(strands):
        begin, end = _window(piece, length, reach, reverse=reverse)
        ids = text(begin, end)
        first, last = piece.first - begin, piece.last - begin
        if reverse:
            ids = reverse_complement_ids(ids)
            first, last = len(ids) - last, len(ids) - first
        with evaluating(decoder.backbone):
            both = read_strand(decoder, ids, first, last, reach.after, block, row_tokens, progress)
        found.append([values[::-1, ::-1] if reverse else values for values in both])
    score, allele = _joined(found)
    return Substitutions(text(piece.first, piece.last).copy(), score, allele)


def piece_tokens(
    piece: Piece, length: int, reach: Reach, strands: Strands, *, block: int = BLOCK
) -> int:
    """Tokens that are read for a piece, about: it has 3 mutants at each position."""
    total = 0
    for reverse in _directions(strands):
        begin, end = _window(piece, length, reach, reverse=reverse)
        first, last = piece.first - begin, piece.last - begin
        if reverse:
            first, last = end - begin - last, end - begin - first
        total += end - begin
        total += sum(
            block_tokens(p, min(p + block, last), end - begin, reach.after)
            for p in range(first, last, block)
        )
    return total


def _directions(strands: Strands) -> tuple[bool, ...]:
    """Whether the reverse strand is read, for each reading."""
    return {"forward": (False,), "reverse": (True,), "average": (False, True)}[strands]


def _window(piece: Piece, length: int, reach: Reach, *, reverse: bool) -> tuple[int, int]:
    """What is read for a piece."""
    if reverse:
        return max(0, piece.first - reach.after), min(length, piece.high + reach.context)
    return max(0, piece.low - reach.context), min(length, piece.last + reach.after)


def _joined(found: list[list[Floats]]) -> tuple[Floats, Floats]:
    """Score and allele of one strand, or the means of two.

    A strand that has no prediction of the base has only half of the score, which is another
    quantity: it does not count where the other strand has the whole.
    """
    scores, alleles = (np.stack(values) for values in zip(*found, strict=True))
    half = np.isnan(alleles) & ~np.isnan(alleles).all(0)
    return _mean(np.where(half, np.nan, scores)), _mean(alleles)


def _mean(values: Floats) -> Floats:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a mean of nothing is NaN
        out: Floats = np.nanmean(values, axis=0)
    return out


@torch.no_grad()
def mutate_whole(
    model: HyenaDNA, ids: Ids, *, after: int | None = AFTER, strands: Strands = "average"
) -> Substitutions:
    """The slow twin of `mutate`: each of the 3 L mutants passes through the model alone, whole.

    Arguments as there; raises InputError as the model does.
    """
    found = []
    for reverse in _directions(strands):
        given = reverse_complement_ids(ids) if reverse else ids
        with evaluating(model):
            both = read_strand_whole(model, given, len(ids) if after is None else after)
        found.append([values[::-1, ::-1] if reverse else values for values in both])
    score, allele = _joined(found)
    return Substitutions(ids.copy(), score, allele)
