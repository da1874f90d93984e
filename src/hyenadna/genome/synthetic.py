"""A made genome of exactly known entropy, for demonstrations and tests without any download.

A contig is a row of independent segments. A segment begins with a header motif that names its kind
and goes on with a body of a fixed length, so that the parse (which kind, how far in) can be read
off the sequence itself. In a body the first bases are fresh draws from the composition q; each of
the rest is a noisy copy of one earlier base of the same segment:

    p(x | source y) = keep * [x = y] + (1 - keep) * q(x)

either at a fixed lag (a tandem or a spaced repeat; lag 1 is a first-order Markov background), or
mirrored and complemented (an inverted repeat, a hairpin). q is its own complement, so every base
has marginal q. Because a base has one source at most and sources never cross a segment, the
following are exact sums and not estimates: the entropy rate, the bits of each base, and the least
bits per base for any reader that sees only the last c bases and is told the parse.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from hyenadna.alphabet import A, Ids
from hyenadna.errors import InputError
from hyenadna.genome.markov import context_limits

Bits = npt.NDArray[np.float64]
ContextLimit = int | npt.NDArray[np.integer]


@dataclass(frozen=True, kw_only=True)
class SegmentKind:
    """One kind of segment: a header motif, `fresh` new bases, then `copied` noisy copies.

    With `inverted` the j-th copy is the complement of the base `2 j + lag` before it: the mirror
    image about a loop of `lag - 1` bases. Raises InputError when a value is out of range.
    """

    name: str
    motif: str
    """Header, letters ACGT."""
    weight: float
    """Chance that a segment is of this kind, relative to the others; positive."""
    fresh: int
    """Bases of the body drawn from the composition; at least 1."""
    copied: int = 0
    """Bases of the body that copy an earlier base; at least 0."""
    lag: int = 0
    """Distance to the source (inverted: of the first copy), 1 to `fresh`."""
    keep: float = 1.0
    """Chance that a copy is taken as it is rather than drawn anew, 0 to 1."""
    inverted: bool = False

    def __post_init__(self) -> None:
        def need(ok: bool, field: str, rule: str) -> None:
            if not ok:
                value = getattr(self, field)
                raise InputError(f"segment kind {self.name!r}: {field} is {value!r}; {rule}")

        need(bool(self.motif) and not set(self.motif) - set("ACGT"), "motif", "letters ACGT only")
        need(0 < self.weight < float("inf"), "weight", "it must be positive")
        need(self.fresh >= 1, "fresh", "it must be at least 1")
        need(self.copied >= 0, "copied", "it must be at least 0")
        need(0 <= self.keep <= 1, "keep", "it must be in 0..1")
        if self.copied:
            need(1 <= self.lag <= self.fresh, "lag", f"it must be in 1..fresh = {self.fresh}")
        if self.inverted:
            room = self.fresh - self.lag + 1
            need(self.copied <= room, "copied", f"the mirrored arm has only {room} bases")

    @property
    def length(self) -> int:
        """Bases of the whole segment."""
        return len(self.motif) + self.fresh + self.copied

    @cached_property
    def lags(self) -> npt.NDArray[np.int64]:
        """Distance from each base of the segment to its source, 0 where it has none."""
        lags = np.zeros(self.length, dtype=np.int64)
        step = 2 if self.inverted else 0
        lags[self.length - self.copied :] = self.lag + step * np.arange(self.copied)
        return lags


@dataclass(frozen=True, kw_only=True)
class SyntheticContig:
    """One generated sequence with its true parse; each array has shape (L,)."""

    name: str
    ids: Ids
    """Token ids, 7..10."""
    kind: npt.NDArray[np.uint8]
    """Which kind of segment each base belongs to: an index into `SyntheticGenome.kinds`."""
    offset: npt.NDArray[np.int32]
    """Position of each base in its segment, header included."""


# Chosen so that a Hyena model of 130,000 parameters learns most of it in a minute on two CPU
# cores: copies at three lags, each of which a longer window opens up, a first-order background for
# short-context models, and hairpins, whose source is nearer than 48 bases but at no fixed lag: a
# model of that size hardly learns them in that time.
DEFAULT_KINDS: Final = (
    SegmentKind(name="background", motif="GACTGCAT", weight=1, fresh=1, copied=63, lag=1, keep=0.3),
    SegmentKind(
        name="tandem-32", motif="GATTACAG", weight=1, fresh=32, copied=160, lag=32, keep=0.95
    ),
    SegmentKind(
        name="tandem-96", motif="TGACCGTA", weight=1, fresh=96, copied=288, lag=96, keep=0.95
    ),
    SegmentKind(
        name="repeat-200", motif="CTAAGGCT", weight=1, fresh=200, copied=200, lag=200, keep=0.95
    ),
    SegmentKind(
        name="hairpin",
        motif="CCGTTAAG",
        weight=1,
        fresh=24,
        copied=20,
        lag=5,
        keep=0.95,
        inverted=True,
    ),
)


@dataclass(frozen=True)
class SyntheticGenome:
    """The process that makes the genome: kinds of segment and the composition of fresh bases.

    `kinds`: their motifs have one length and differ. `gc`: fraction of C and G among fresh bases,
    in (0, 1). Raises InputError otherwise.
    """

    kinds: tuple[SegmentKind, ...] = DEFAULT_KINDS
    gc: float = 0.5

    def __post_init__(self) -> None:
        motifs = [kind.motif for kind in self.kinds]
        if not 1 <= len(motifs) <= 255:
            raise InputError(f"synthetic genome: {len(motifs)} kinds of segment; give 1 to 255")
        if len(set(motifs)) < len(motifs) or len({len(m) for m in motifs}) > 1:
            # Otherwise a reader could not tell the kinds apart, and the parse would be hidden.
            raise InputError(
                f"synthetic genome: motifs {', '.join(motifs)} must differ and have one length"
            )
        if not 0 < self.gc < 1:
            raise InputError(f"synthetic genome: gc is {self.gc}; it must be in (0, 1)")

    # ---- the process ----------------------------------------------------------------------------

    @cached_property
    def composition(self) -> Bits:
        """Chances q of A, C, G, T in a fresh base, shape (4,)."""
        return np.array([1 - self.gc, self.gc, self.gc, 1 - self.gc]) / 2

    @cached_property
    def weights(self) -> Bits:
        """Chance of each kind of segment, shape (kinds,)."""
        weights = np.array([kind.weight for kind in self.kinds])
        return weights / weights.sum()

    @property
    def longest_lag(self) -> int:
        """Largest distance from a base to its source: a longer context is worth nothing more."""
        return max(int(kind.lags.max()) for kind in self.kinds)

    def generate(
        self, length: int, seed: int, *, contigs: int = 1, prefix: str = "syn"
    ) -> list[SyntheticContig]:
        """`contigs` independent sequences of `length` bases each, named `prefix` and 1, 2, ….

        The same seed gives the same sequences; contig i does not depend on how many follow. The
        last segment of a contig is cut where the contig ends.

        Raises InputError unless `length`, `contigs` >= 1 and `seed` >= 0.
        """
        for field, value, least in (
            ("length", length, 1),
            ("contigs", contigs, 1),
            ("seed", seed, 0),
        ):
            if value < least:
                raise InputError(f"synthetic genome: {field} is {value}; it must be >= {least}")
        return [
            self._contig(f"{prefix}{i + 1}", length, np.random.default_rng([seed, i]))
            for i in range(contigs)
        ]

    def _contig(self, name: str, length: int, rng: np.random.Generator) -> SyntheticContig:
        lengths = np.array([kind.length for kind in self.kinds])
        enough = -(-length // int(lengths.min()))
        chosen = rng.choice(len(self.kinds), size=enough, p=self.weights)
        starts = np.concatenate([[0], np.cumsum(lengths[chosen])])
        chosen = chosen[starts[:-1] < length]
        starts = starts[: chosen.size]
        total = int(starts[-1] + lengths[chosen[-1]])
        bases = rng.choice(4, size=total, p=self.composition).astype(np.uint8)
        for index, kind in enumerate(self.kinds):
            rows = starts[chosen == index][:, None] + np.arange(kind.length)
            bases[rows] = _fill(kind, bases[rows], rng)
        kind_of_base = np.repeat(chosen, lengths[chosen])
        offset = np.arange(total) - np.repeat(starts, lengths[chosen])
        return SyntheticContig(
            name=name,
            ids=(bases[:length] + A).astype(np.uint8),
            kind=kind_of_base[:length].astype(np.uint8),
            offset=offset[:length].astype(np.int32),
        )

    # ---- what is exactly known about it ---------------------------------------------------------

    def bits(self, contig: SyntheticContig, context_limit: ContextLimit | None = None) -> Bits:
        """Exact bits (-log2 probability) of each base of `contig`, float64, shape (L,).

        The probability is that of the generating process given the parse and the last
        `context_limit` bases: an integer >= 0, or one per base, shape (L,) (for windows: the
        position in the window), or None for the whole past. A copy whose source lies further back
        costs what a fresh base costs.

        Raises InputError for a limit below 0 or of another shape.
        """
        size = contig.ids.size
        limit = context_limits(context_limit, size)
        base = contig.ids.astype(np.int64) - A
        out = -np.log2(self.composition)[base]
        position = np.arange(size)
        for index, kind in enumerate(self.kinds):
            of_kind = contig.kind == index
            head = of_kind & (contig.offset < len(kind.motif))
            at = contig.offset[head]
            out[head] = self._header_bits[index, at, np.minimum(limit[head], at)]
            lag = kind.lags[np.where(of_kind, contig.offset, 0)]
            copy = of_kind & (lag > 0) & (lag <= limit)
            source = base[(position - lag)[copy]]
            source = 3 - source if kind.inverted else source
            out[copy] = -np.log2(self._copy_table(kind.keep)[source, base[copy]]) + 0.0
        return out

    def bound_by_context(self, context: int | None = None) -> float:
        """Least expected bits per base given the parse and the last `context` bases.

        That is, the expected bits of a segment over its expected length; None means the whole past.
        A reader who has to find the parse himself, as a model with a window does, can only do
        worse.

        Raises InputError for a context below 0.
        """
        limit = context_limits(context, 1)[0]
        fresh_bits = float(_entropy(self.composition))
        expected_bits = expected_length = 0.0
        for index, kind in enumerate(self.kinds):
            at = np.arange(len(kind.motif))
            segment = float(self._header_bits[index, at, np.minimum(limit, at)].sum())
            copies = int(((kind.lags > 0) & (kind.lags <= limit)).sum())
            copy_bits = float(self.composition @ _entropy(self._copy_table(kind.keep)))
            segment += (kind.fresh + kind.copied - copies) * fresh_bits + copies * copy_bits
            expected_bits += float(self.weights[index]) * segment
            expected_length += float(self.weights[index]) * kind.length
        return float(expected_bits / expected_length)

    @property
    def entropy_rate(self) -> float:
        """Bits per base of the process: no predictor does better on average, whatever it sees."""
        return self.bound_by_context(None)

    def _copy_table(self, keep: float) -> Bits:
        """p(base | source), shape (4, 4): a row for each source."""
        return keep * np.eye(4) + (1 - keep) * self.composition

    @cached_property
    def _header_bits(self) -> Bits:
        """Bits of header base i given the m header bases before it, shape (kinds, i, m), m <= i."""
        motifs = [kind.motif for kind in self.kinds]
        size = len(motifs[0])
        out = np.zeros((len(motifs), size, size))
        for index, motif in enumerate(motifs):
            for i in range(size):
                for m in range(i + 1):
                    seen = np.array([other[i - m : i] == motif[i - m : i] for other in motifs])
                    fits = seen & np.array([other[i] == motif[i] for other in motifs])
                    chance = self.weights[fits].sum() / self.weights[seen].sum()
                    out[index, i, m] = -np.log2(chance) + 0.0  # + 0.0: no negative zero
        return out


def _fill(kind: SegmentKind, fresh: Ids, rng: np.random.Generator) -> Ids:
    """Segments of one kind, shape (segments, length), from fresh bases 0..3 of the same shape."""
    rows = fresh.copy()
    rows[:, : len(kind.motif)] = ["ACGT".index(letter) for letter in kind.motif]
    kept = rng.random((len(rows), kind.copied)) < kind.keep
    for j in range(kind.copied):  # in order: a tandem copy may be the source of the next
        at = kind.length - kind.copied + j
        source = rows[:, at - int(kind.lags[at])]
        source = 3 - source if kind.inverted else source
        rows[:, at] = np.where(kept[:, j], source, rows[:, at])
    return rows


def _entropy(chances: Bits) -> Bits:
    """Entropy in bits along the last axis."""
    return -(chances * np.log2(np.where(chances > 0, chances, 1))).sum(-1)
