"""Intervals on a genome: the type, the text `chr1:1-100`, BED files, subtract and merge.

Positions are 0-based and half open; only the text that people read and write is 1-based.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from hyenadna.errors import InputError
from hyenadna.genome.contig_names import contig_aliases

_TEXT: Final = re.compile(r"(?P<contig>\S+):(?P<first>[\d,]+)-(?P<last>[\d,]+)")
_BED_HEADERS: Final = ("#", "track", "browser")
_GZIP_MAGIC: Final = b"\x1f\x8b"


@dataclass(frozen=True, order=True, slots=True)
class Interval:
    """The bases `start` .. `stop` - 1 of a contig, counted from 0.

    Raises InputError unless 0 <= start <= stop.
    """

    contig: str
    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop:
            raise InputError(
                f"interval {self.contig} start {self.start} stop {self.stop}: "
                "it must hold that 0 <= start <= stop"
            )

    @property
    def length(self) -> int:
        """Number of bases."""
        return self.stop - self.start

    @classmethod
    def parse(cls, text: str) -> Self:
        """The interval of `chr1:1-100`: first and last base, counted from 1, commas allowed.

        The contig is all before the last colon, because names such as `HLA-A*01:01` hold colons.

        Raises InputError for any other text, and where first is 0 or behind last.
        """
        found = _TEXT.fullmatch(text.strip())
        if not found:
            raise InputError(f"interval {text!r} is not written as contig:first-last (chr1:1-100)")
        first, last = (int(found[key].replace(",", "") or 0) for key in ("first", "last"))
        if not 1 <= first <= last:
            raise InputError(
                f"interval {text!r}: positions count from 1 and the first is not behind the last"
            )
        return cls(found["contig"], first - 1, last)

    def __str__(self) -> str:
        """Text for people: `chr1:1-100`, counted from 1, both ends included."""
        return f"{self.contig}:{self.start + 1}-{self.stop}"


@dataclass(frozen=True, slots=True)
class BedRow:
    """One line of a BED file: the interval, its 4th column where there is one, the line number."""

    interval: Interval
    name: str | None
    line: int


def read_bed(path: str | Path) -> list[BedRow]:
    """Rows of a BED file in the order of the file; plain or gzip, any line ends.

    Columns are split at tabs, or at blanks in a line without a tab. Comments, `track` and `browser`
    lines and empty lines are passed over. Columns after the 4th are not read.

    Raises InputError, naming file and line, for a line that is no BED row, and for a file that is
    missing or damaged.
    """
    path = Path(path)
    rows = []
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip() or line.startswith(_BED_HEADERS):
            continue
        rows.append(_bed_row(line, number, f"{path}:{number}"))
    return rows


def _lines(path: Path) -> Iterator[str]:
    if not path.is_file():
        raise InputError(f"{path}: no such BED file")
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == _GZIP_MAGIC
        with gzip.open(path, "rb") if packed else path.open("rb") as stream:
            for line in stream:
                yield line.decode("utf-8", "replace").rstrip("\r\n")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: truncated or damaged ({error}); download it again") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def _bed_row(line: str, number: int, where: str) -> BedRow:
    columns = line.split("\t") if "\t" in line else line.split()
    if len(columns) < 3:
        raise InputError(
            f"{where}: a BED row has at least contig, start and stop; this has {len(columns)} "
            f"column{'s'[: len(columns) != 1]}: {line[:60]!r}"
        )
    contig, name = columns[0].strip(), (columns[3].strip() if len(columns) > 3 else None)
    ends = [column.strip() for column in columns[1:3]]
    for label, text in zip(("start", "stop"), ends, strict=True):
        if not (text.isascii() and text.isdigit()):
            raise InputError(
                f"{where}: {label} is {text!r}, not a whole number of at least 0 "
                "(begin a header line with '#')"
            )
    start, stop = map(int, ends)
    if start > stop:
        raise InputError(f"{where}: start {start} is behind stop {stop}")
    if not contig:
        raise InputError(f"{where}: the contig name is empty")
    return BedRow(Interval(contig, start, stop), name or None, number)


def merge(intervals: Iterable[Interval]) -> list[Interval]:
    """The same bases as sorted intervals that neither overlap nor touch; empty ones are dropped."""
    merged: list[Interval] = []
    for interval in sorted(intervals):
        if not interval.length:
            continue
        last = merged[-1] if merged else None
        if last and last.contig == interval.contig and interval.start <= last.stop:
            merged[-1] = Interval(last.contig, last.start, max(last.stop, interval.stop))
        else:
            merged.append(interval)
    return merged


def subtract(a: Iterable[Interval], b: Iterable[Interval]) -> list[Interval]:
    """The bases of `a` that are not in `b`, as sorted intervals that neither overlap nor touch."""
    holes: dict[str, list[Interval]] = {}
    for hole in merge(b):
        holes.setdefault(hole.contig, []).append(hole)
    left: list[Interval] = []
    at: dict[str, int] = {}  # first hole of the contig that can still matter: both are sorted
    for interval in merge(a):
        contig, start = interval.contig, interval.start
        mine, i = holes.get(contig, []), at.get(contig, 0)
        while i < len(mine) and mine[i].start < interval.stop:
            if mine[i].stop > start:
                if mine[i].start > start:
                    left.append(Interval(contig, start, mine[i].start))
                start = mine[i].stop
            if mine[i].stop > interval.stop:
                break  # this hole may reach into the next interval
            i += 1
        at[contig] = i
        if start < interval.stop:
            left.append(Interval(contig, start, interval.stop))
    return left


def overlap(a: Iterable[Interval], b: Iterable[Interval]) -> Interval | None:
    """The first stretch of bases that is both in `a` and in `b`, or None."""
    a = merge(a)
    common = subtract(a, subtract(a, b))
    return common[0] if common else None


def require_within(
    interval: Interval, contigs: Mapping[str, int], *, genome: str, where: str = ""
) -> None:
    """Nothing, where the interval lies on the genome.

    `contigs` are lengths by name; `genome` and `where` (`file:line`, for instance) serve the error
    message. Names are never translated: `1` is not `chr1`.

    Raises InputError for an unknown contig or an interval that runs past the end of its contig.
    """
    front = f"{where}: " if where else ""
    if interval.contig not in contigs:
        raise InputError(front + unknown_contig(interval.contig, contigs, genome))
    if interval.stop > contigs[interval.contig]:
        raise InputError(
            f"{front}{interval} runs past the end of {interval.contig} in {genome}, which has "
            f"{contigs[interval.contig]} bases - is it on another assembly?"
        )


def unknown_contig(contig: str, contigs: Iterable[str], genome: str) -> str:
    """Text of the error for a name that a genome does not have, with the names that it has."""
    names = list(contigs)
    shown = ", ".join(names[:5]) + (f", … ({len(names)} in all)" if len(names) > 5 else "")
    twin = next((alias for alias in contig_aliases(contig) if alias in names), None)
    hint = f" - it has {twin!r}: rename one of the two" if twin else ""
    return f"{genome} has no contig {contig!r}; it has {shown or 'none'}{hint}"
