"""Sequences with what their source says of them, whatever the source: the input of `embed`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from hyenadna.alphabet import Ids
from hyenadna.data.sequences import SequenceRow
from hyenadna.errors import InputError
from hyenadna.genome.fasta import GenomeReader
from hyenadna.genome.intervals import unknown_contig

_MOST_TOLD: Final = 10_000
"""Names of a file that a message knows."""


class Record(NamedTuple):
    """One sequence, read as far as it is asked for."""

    id: str
    cells: tuple[str, ...]
    """Values of the columns of its source."""
    length: int
    tokens: Callable[[int, int], Ids]
    """Token ids of the bases start .. stop - 1 (from 0)."""


class RecordSource(Protocol):
    """Sequences of a file; iterating reads it from the start, each time, in its order."""

    columns: tuple[str, ...]
    """Names of what is said of each sequence, besides its id."""

    def __iter__(self) -> Iterator[Record]: ...


class RowSource(Protocol):
    """A file that yields whole sequences, such as `SequenceFile` and `FeatureFile`."""

    @property
    def path(self) -> Path: ...
    @property
    def others(self) -> tuple[str, ...]:
        """Columns besides id and sequence."""

    def __iter__(self) -> Iterator[SequenceRow]: ...


class RowRecords:
    """The sequences of a file that is read row by row."""

    def __init__(self, file: RowSource, ids: Sequence[str] = ()) -> None:
        """ids: only sequences of these names, all when left out."""
        self.file, self.columns, self._wanted = file, file.others, frozenset(ids)

    def __iter__(self) -> Iterator[Record]:
        """Raises InputError as the file does, and at its end for a name that it has not."""
        missing, seen = set(self._wanted), list[str]()
        for row in self.file:
            missing.discard(row.id)
            if missing and len(seen) < _MOST_TOLD:
                seen.append(row.id)
            if not self._wanted or row.id in self._wanted:
                yield Record(row.id, row.cells, len(row.ids), partial(_part, row.ids))
        if missing:
            raise InputError(unknown_contig(min(missing), seen, str(self.file.path)))


class ContigRecords:
    """The contigs of a genome, of which no more is in memory than is read."""

    columns: tuple[str, ...] = ()

    def __init__(self, genome: GenomeReader, contigs: Sequence[str] = ()) -> None:
        """contigs: names that the genome has, all when left out."""
        self.genome, self._wanted = genome, frozenset(contigs)

    def __iter__(self) -> Iterator[Record]:
        """In the order of the genome."""
        for contig, length in self.genome.contigs.items():
            if not self._wanted or contig in self._wanted:
                yield Record(contig, (), length, partial(self.genome.tokens, contig))


def _part(ids: Ids, start: int, stop: int) -> Ids:
    return ids[start:stop]


@dataclass(frozen=True)
class Survey:
    """What a source holds, found by reading it once."""

    sequences: int
    bases: int
    longest: int
    digest: str
    """SHA-256 (hex) of ids, other columns and sequences, in their order."""


def survey_records(source: RecordSource, each: Callable[[int], None] | None = None) -> Survey:
    """Read all of a source: a bad row is told before the first slow step.

    each: told the length of every sequence. Raises InputError as the source does.
    """
    count = bases = longest = 0
    digest = hashlib.sha256("\0".join(source.columns).encode())
    for record in source:
        count, bases, longest = count + 1, bases + record.length, max(longest, record.length)
        digest.update("\0".join((record.id, str(record.length), *record.cells)).encode())
        digest.update(record.tokens(0, record.length).tobytes())
        if each:
            each(record.length)
    return Survey(count, bases, longest, digest.hexdigest())
