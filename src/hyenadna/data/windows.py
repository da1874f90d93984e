"""Which bases a model learns from and is tested on: splits, and windows over them.

A split holds regions of one genome for `train`, `valid` and `test`. It comes from a BED file, from
contig names, or from the default rule below; in each, no base belongs to two parts.

The default rule, a function of the genome only: every contig is cut into equal pieces of at most
1/40 of the genome and at most 1 Mb. The pieces are put in an order that looks random (by SHA-256 of
contig, start and stop). Pieces are taken from the front until they hold 5 % of the bases: `valid`.
The next ones, until 5 %, are `test`; all others are `train`. A piece that is more than half N is
passed over. So a bacterium of one contig holds out two or three stretches of about 100 kb for each
part, and a human genome about 155 of 1 Mb.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, Literal, get_args

from hyenadna.alphabet import N
from hyenadna.errors import InputError
from hyenadna.genome.fasta import GenomeReader
from hyenadna.genome.intervals import (
    BedRow,
    Interval,
    merge,
    overlap,
    require_within,
    subtract,
    unknown_contig,
)

Part = Literal["train", "valid", "test"]
PARTS: Final[tuple[Part, ...]] = get_args(Part)

HELD_OUT_FRACTION: Final = 0.05
LARGEST_PIECE: Final = 1_000_000
PIECES_PER_GENOME: Final = 40
SMALLEST_GENOME: Final = 4_000


@dataclass(frozen=True)
class Regions:
    """Stretches of one genome, sorted; they neither overlap nor touch. Windows never leave one."""

    genome: str
    """Name of the genome."""
    intervals: tuple[Interval, ...]

    @property
    def bases(self) -> int:
        """Number of bases in all intervals."""
        return sum(interval.length for interval in self.intervals)


@dataclass(frozen=True)
class Split:
    """The three parts of one genome, and the rule that made them, in words."""

    train: Regions
    valid: Regions
    test: Regions
    rule: str

    def part(self, name: Part) -> Regions:
        """The regions of `train`, `valid` or `test`."""
        regions: Regions = getattr(self, name)
        return regions


@dataclass(frozen=True, slots=True)
class Window:
    """Bases start .. stop - 1 of a contig, and from which target on they count.

    Target j of a window is base start + j + 1, predicted from the bases before it; targets
    `score_from` .. stop - start - 2 count, the ones before are context.
    """

    contig: str
    start: int
    stop: int
    score_from: int = 0


def whole_genome(genome: GenomeReader) -> Regions:
    """All bases of a genome, one interval a contig."""
    return _regions(genome, (Interval(c, 0, length) for c, length in genome.contigs.items()))


def split_from_bed(genome: GenomeReader, rows: Sequence[BedRow], *, where: str) -> Split:
    """The split that a BED file gives in its 4th column: train, valid or test.

    `where` is the name of the file, for messages. Rows of one part that overlap or touch are
    joined. A part without rows is empty.

    Raises InputError, naming file and line, for another label, an unknown contig or a row past the
    end of its contig; for a base that is in two parts; and for a file without rows.
    """
    found: dict[Part, list[Interval]] = {part: [] for part in PARTS}
    for row in rows:
        at = f"{where}:{row.line}"
        part = next((part for part in PARTS if part == row.name), None)
        if part is None:
            value = "missing" if row.name is None else repr(row.name)
            raise InputError(f"{at}: the 4th column is {value}; it must be train, valid or test")
        require_within(row.interval, genome.contigs, genome=str(genome.path), where=at)
        found[part].append(row.interval)
    if not rows:
        raise InputError(f"{where}: holds no rows; give regions with train, valid or test")
    for one, other in combinations(PARTS, 2):
        shared = overlap(found[one], found[other])
        if shared:
            raise InputError(
                f"{where}: {shared} is both {one} and {other}; take it out of one of the two"
            )
    return _split(genome, found, f"regions of {where}")


def split_by_contigs(
    genome: GenomeReader, *, valid: Sequence[str] = (), test: Sequence[str] = ()
) -> Split:
    """The split that holds out whole contigs; all others are train.

    Raises InputError for an unknown contig, a contig in both parts, and where none is left.
    """
    for contig in (*valid, *test):
        if contig not in genome.contigs:
            raise InputError(unknown_contig(contig, genome.contigs, str(genome.path)))
    both = sorted(set(valid) & set(test))
    if both:
        raise InputError(f"contig {both[0]!r} is named for valid and for test; choose one")
    parts: dict[Part, list[Interval]] = {part: [] for part in PARTS}
    for contig, length in genome.contigs.items():
        part: Part = "valid" if contig in valid else "test" if contig in test else "train"
        parts[part].append(Interval(contig, 0, length))
    if not any(interval.length for interval in parts["train"]):
        raise InputError(f"{genome.path}: all contigs are held out; leave some for training")
    rule = f"held-out contigs: valid {', '.join(valid) or 'none'}; test {', '.join(test) or 'none'}"
    return _split(genome, parts, rule)


def default_split(genome: GenomeReader) -> Split:
    """The split by the default rule (above): 5 % valid, 5 % test, the rest train.

    Raises InputError for a genome under 4,000 bases, where 5 % is too little to measure on, and
    for one that is nearly all N.
    """
    total = genome.bases
    if total < SMALLEST_GENOME:
        raise InputError(
            f"{genome.path}: {total} bases are too few to hold some out (at least "
            f"{SMALLEST_GENOME}); name contigs or give a BED with train, valid and test"
        )
    largest = min(LARGEST_PIECE, total // PIECES_PER_GENOME)
    shuffled = sorted(_pieces(genome.contigs, largest), key=_shuffle_key)
    order = (piece for piece in shuffled if _n_fraction(genome, piece) <= 0.5)
    held: dict[Part, list[Interval]] = {"valid": [], "test": []}
    for chosen in held.values():
        bases = 0
        while bases < HELD_OUT_FRACTION * total:
            piece = next(order, None)
            if piece is None:
                raise InputError(f"{genome.path}: nearly all N; give a BED with train, valid, test")
            chosen.append(piece)
            bases += piece.length
    everything = whole_genome(genome).intervals
    train = subtract(everything, [*held["valid"], *held["test"]])
    rule = f"default: 5 % valid and 5 % test in pieces of at most {largest} bases"
    return _split(genome, held | {"train": train}, rule)


def _pieces(contigs: Mapping[str, int], largest: int) -> Iterator[Interval]:
    for contig, length in contigs.items():
        count = -(-length // largest)
        for i in range(count):
            yield Interval(contig, length * i // count, length * (i + 1) // count)


def _shuffle_key(piece: Interval) -> bytes:
    # A hash, not a random generator: the same with every version of every library.
    return hashlib.sha256(f"{piece.contig}:{piece.start}-{piece.stop}".encode()).digest()


def _n_fraction(genome: GenomeReader, piece: Interval) -> float:
    return float((genome.tokens(piece.contig, piece.start, piece.stop) == N).mean())


def _regions(genome: GenomeReader, intervals: Iterable[Interval]) -> Regions:
    rank = {contig: i for i, contig in enumerate(genome.contigs)}
    ordered = sorted(merge(intervals), key=lambda i: (rank[i.contig], i.start))
    return Regions(genome.name, tuple(ordered))


def _split(genome: GenomeReader, parts: Mapping[Part, Iterable[Interval]], rule: str) -> Split:
    train, valid, test = (_regions(genome, parts[part]) for part in PARTS)
    return Split(train, valid, test, rule)


def tile(regions: Regions, length: int, *, stride: int | None = None) -> Iterator[Window]:
    """Windows that score every base of the regions once, but the first of each, which has no past.

    `length`: inputs of a window, L; a window holds up to L + 1 bases, since targets are one ahead.
    `stride`: bases from one window to the next, 1 .. L, L when left out. Every target but those of
    a region's first window has at least L - stride bases before it in its window. The last window
    of a region is shorter; nothing reaches out of a region.

    Raises InputError for a length or stride that is out of range.
    """
    stride = length if stride is None else stride
    if length < 1 or not 1 <= stride <= length:
        raise InputError(
            f"windows of length {length}, stride {stride}: length is at least 1, and stride is in "
            "1 .. length"
        )
    for region in regions.intervals:
        scored = region.start + 1  # the next base to score
        start = region.start
        while scored < region.stop:
            stop = min(start + length + 1, region.stop)
            yield Window(region.contig, start, stop, score_from=scored - start - 1)
            scored, start = stop, start + stride
