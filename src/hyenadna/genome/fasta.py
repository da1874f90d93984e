"""A genome from a FASTA file: random access on disk, or all of it in memory at one byte a base."""

from __future__ import annotations

import hashlib
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pysam

from hyenadna.alphabet import BYTE_TO_ID, INVALID, Ids, encode
from hyenadna.errors import InputError
from hyenadna.genome.faidx import PIECE_BYTES, Ready, make_ready, pieces
from hyenadna.genome.intervals import unknown_contig

SOFT_MASK: Final = 0x80
"""Bit that a cased token id carries where the letter is lower case."""

Progress = Callable[[int, int], None]
"""Told (bases done, bases in all) now and then."""

_SUFFIXES: Final = (".gz", ".bgz", ".fa", ".fasta", ".fna", ".fas")


def _cased_table() -> bytes:
    table = BYTE_TO_ID.copy()
    for letter in range(ord("a"), ord("z") + 1):
        if table[letter] != INVALID:
            table[letter] |= SOFT_MASK
    return table.tobytes()


_CASED: Final = _cased_table()
_INVALID_BYTE: Final = bytes([INVALID])
# The usual bytes of a FASTA in the order in which they are worth counting, and from where on.
_COUNTED: Final = b"ACGT\nNacgtn"
_LONG_TEXT: Final = 1 << 12


@dataclass(frozen=True)
class GenomeSummary:
    """What a genome holds, counted over all of its letters (U counts as T)."""

    name: str
    path: Path
    contigs: int
    bases: int
    a: int
    c: int
    g: int
    t: int
    n: int
    ambiguous: int
    """IUPAC codes other than N; they are read as N."""
    lower_case: int
    """Letters in lower case (soft-masked), of whatever base."""
    warnings: tuple[str, ...]
    """What is allowed but not usual, one line each."""


class GenomeReader(ABC):
    """What training and scoring need of a genome, on disk or in memory."""

    name: str
    path: Path
    contigs: dict[str, int]
    """Lengths by name, in the order of the file."""

    @abstractmethod
    def cased_tokens(self, contig: str, start: int, stop: int) -> Ids:
        """Token ids of the bases start .. stop - 1 (0-based), plus SOFT_MASK where lower case.

        uint8, shape (stop - start,); may be read-only.

        Raises InputError for an unknown contig, a range that is not inside it, or a bad letter.
        """

    def tokens(self, contig: str, start: int, stop: int) -> Ids:
        """Token ids of the bases start .. stop - 1 (0-based): uint8, shape (stop - start,).

        Raises InputError as `cased_tokens` does.
        """
        return self.cased_tokens(contig, start, stop) & np.uint8(~SOFT_MASK & 0xFF)

    def soft_masked(self, contig: str, start: int, stop: int) -> npt.NDArray[np.bool_]:
        """Which of the bases start .. stop - 1 are lower case: bool, shape (stop - start,).

        Raises InputError as `cased_tokens` does.
        """
        return self.cased_tokens(contig, start, stop) >= SOFT_MASK

    @property
    def bases(self) -> int:
        """Length of all contigs together."""
        return sum(self.contigs.values())

    def digest(self, contigs: Collection[str] | None = None) -> str:
        """SHA-256 (hex) over names, lengths and token ids; case and packing make no difference.

        Reads all of the contigs: the whole genome where they are left out.

        Raises InputError as `cased_tokens` does.
        """
        total = hashlib.sha256()
        for contig, length in self.contigs.items():
            if contigs is not None and contig not in contigs:
                continue
            total.update(f"{contig}\0{length}\0".encode())
            for start in range(0, length, PIECE_BYTES):
                total.update(self.tokens(contig, start, min(start + PIECE_BYTES, length)).tobytes())
        return total.hexdigest()

    def require_range(self, contig: str, start: int, stop: int) -> None:
        """Nothing, where 0 <= start <= stop <= length of the contig; otherwise an InputError."""
        length = self.contigs.get(contig)
        if length is None:
            raise InputError(unknown_contig(contig, self.contigs, str(self.path)))
        if not 0 <= start <= stop <= length:
            raise InputError(
                f"{self.path}: bases {start}..{stop} (from 0) are not within {contig}, "
                f"which has {length}"
            )


class Genome(GenomeReader):
    """Random access to one FASTA file through pysam; made by `Genome.open`.

    It can be pickled, and used in forked processes and in threads: each opens the file for itself.
    """

    def __init__(self, path: Path, ready: Ready, name: str) -> None:
        self.path, self.name = path, name
        self._ready = ready
        self._handles: dict[tuple[int, int], Any] = {}
        handle = self._handle()
        self.contigs = dict(zip(handle.references, handle.lengths, strict=True))

    @classmethod
    def open(
        cls, path: str | Path, *, name: str | None = None, cache: str | Path | None = None
    ) -> Self:
        """A genome from a FASTA file: plain, gzip or bgzip, any line ends.

        `name`: what rows and messages call it; the name of the file when left out. `cache`: folder
        for the index or copy that has to be made; left out, an index goes beside the file if its
        folder can be written, and everything else into `$HYENADNA_CACHE` or `~/.cache/hyenadna`.
        The letters are not looked at here; see `check` and `load`.

        Raises InputError for a file that is missing, empty, damaged or no FASTA, and for records
        that share a name.
        """
        path = Path(path)
        ready = make_ready(path, Path(cache) if cache is not None else None)
        return cls(path, ready, name or _plain_name(path))

    def _handle(self) -> Any:
        # htslib handles share one file position: never across a fork, never between threads.
        key = (os.getpid(), threading.get_ident())
        if key not in self._handles:
            ready = self._ready
            try:
                with _quiet_htslib():
                    self._handles[key] = pysam.FastaFile(
                        str(ready.fasta),
                        filepath_index=str(ready.fai),
                        filepath_index_compressed=str(ready.gzi) if ready.gzi else None,
                    )
            except (OSError, ValueError) as error:
                raise InputError(f"{self.path}: cannot be opened ({_one_line(error)})") from None
        return self._handles[key]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handles": {}}

    def letters(self, contig: str, start: int, stop: int) -> bytes:
        """The letters as they stand in the file, of the bases start .. stop - 1 (0-based).

        Raises InputError for an unknown contig, a range that is not inside it, or a damaged file.
        """
        self.require_range(contig, start, stop)
        if start == stop:
            return b""
        try:
            with _quiet_htslib():
                letters: bytes = self._handle().fetch(contig, start, stop).encode("latin-1")
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{self.path}: {contig} cannot be read at {start + 1} ({_one_line(error)}); "
                "truncated or damaged; download it again"
            ) from None
        if len(letters) != stop - start or b"\n" in letters:
            raise InputError(
                f"{self.path}: {contig} from position {start + 1} is not as its index says; "
                f"truncated, or changed since {self._ready.fai} was made (remove that)"
            )
        return letters

    def cased_tokens(self, contig: str, start: int, stop: int) -> Ids:
        """Token ids of the bases start .. stop - 1 (0-based), plus SOFT_MASK where lower case.

        Raises InputError as `letters` does, and at a letter that is no base, with its position.
        """
        letters = self.letters(contig, start, stop)
        ids = letters.translate(_CASED)
        if _INVALID_BYTE in ids:
            encode(letters, name=f"{self.path}: {contig}", offset=start)
        return np.frombuffer(ids, dtype=np.uint8)

    def check(self, progress: Progress | None = None) -> GenomeSummary:
        """Counts over the whole genome, after every letter has been looked at.

        Raises InputError at the first letter that is no base, naming file, record and 1-based
        position, and where the file is damaged or does not fit its index.
        """
        return self._scan(None, progress)

    def load(
        self, *, max_bytes: int | None = None, progress: Progress | None = None
    ) -> GenomeReader:
        """The genome in memory, or this one, on disk, if it has more bases than `max_bytes`.

        Either way every letter is looked at first, so that no bad one turns up in mid-run.

        Raises InputError as `check` does.
        """
        if max_bytes is not None and self.bases > max_bytes:
            self._scan(None, progress)
            return self
        ids = np.empty(self.bases, dtype=np.uint8)
        summary = self._scan(ids, progress)
        return LoadedGenome(self.path, self.name, self.contigs, ids, summary)

    def _scan(self, out: Ids | None, progress: Progress | None) -> GenomeSummary:
        counts = np.zeros(256, dtype=np.int64)
        total, done, contig = self.bases, 0, ""
        lengths: dict[str, int] = {}
        for piece in pieces(self._ready.fasta):
            if piece.name is not None:
                contig, lengths[piece.name] = piece.name, 0
                continue
            ids = _cased_ids(piece.body)
            if _has_invalid(ids):
                encode(_letters(piece.body), name=f"{self.path}: {contig}", offset=lengths[contig])
            counts += _histogram(piece.body)
            if done + len(ids) > total:
                break  # more than the index says: the lengths below differ
            if out is not None:
                out[done : done + len(ids)] = ids
            lengths[contig] += len(ids)
            done += len(ids)
            if progress:
                progress(done, total)
        if list(lengths.items()) != list(self.contigs.items()):
            raise InputError(
                f"{self.path}: the records are not those of its index {self._ready.fai}; "
                "remove that file, it is made anew"
            )
        return self._summary(counts)

    def _summary(self, counts: npt.NDArray[np.int64]) -> GenomeSummary:
        def count(letters: str) -> int:
            return int(sum(counts[ord(x)] + counts[ord(x.lower())] for x in letters))

        empty = [contig for contig, length in self.contigs.items() if not length]
        warnings = []
        if empty:
            shown = ", ".join(empty[:3]) + (", …" if len(empty) > 3 else "")
            warnings.append(f"{self.path}: {len(empty)} of the records are empty: {shown}")
        if count("U"):
            warnings.append(f"{self.path}: {count('U')} letters are U, read as T (RNA?)")
        read_as = {"a": "A", "c": "C", "g": "G", "t": "TU", "n": "N"}
        known = {base: count(letters) for base, letters in read_as.items()}
        return GenomeSummary(
            name=self.name,
            path=self.path,
            contigs=len(self.contigs),
            bases=self.bases,
            **known,
            ambiguous=self.bases - sum(known.values()),
            lower_case=int(counts[ord("a") : ord("z") + 1].sum()),
            warnings=tuple(warnings),
        )


class LoadedGenome(GenomeReader):
    """A genome in memory: one uint8 for each base; made by `Genome.load`."""

    def __init__(
        self, path: Path, name: str, contigs: dict[str, int], ids: Ids, summary: GenomeSummary
    ) -> None:
        self.path, self.name, self.contigs, self.summary = path, name, contigs, summary
        self._ids = ids
        self._ids.setflags(write=False)
        ends = np.cumsum(list(contigs.values())).tolist()
        self._offsets = {c: end - contigs[c] for c, end in zip(contigs, ends, strict=True)}

    def cased_tokens(self, contig: str, start: int, stop: int) -> Ids:
        """Token ids of the bases start .. stop - 1 (0-based), plus SOFT_MASK; a read-only view.

        Raises InputError for an unknown contig or a range that is not inside it.
        """
        self.require_range(contig, start, stop)
        offset = self._offsets[contig]
        return self._ids[offset + start : offset + stop]


def _letters(body: bytes) -> bytes:
    """A stretch of a record without its line ends."""
    return body.translate(None, b"\r\n")


def _has_invalid(ids: Ids) -> bool:
    return bool(ids.size) and int(ids.max()) == INVALID


def _cased_ids(body: bytes) -> Ids:
    """Cased token ids of a stretch of a record, line ends dropped; INVALID for what is no base.

    Lines of one length are a matrix whose last column holds the line ends: one copy drops them all,
    6 times faster than looking at each byte.
    """
    ids = np.frombuffer(body.translate(_CASED), dtype=np.uint8)
    head = body.find(b"\n") + 1
    width = body.find(b"\n", head) + 1 - head
    if not head and not _has_invalid(ids):
        return ids  # a part of one long line
    if head and width > 1:
        stop = head + (len(body) - head) // width * width
        lines = np.frombuffer(body, dtype=np.uint8)[head:stop].reshape(-1, width)
        if (lines[:, -1] == ord("\n")).all():
            tail = np.frombuffer(_letters(body[stop:]).translate(_CASED), dtype=np.uint8)
            full = ids[head:stop].reshape(-1, width)[:, :-1]
            kept = np.empty(head - 1 + full.size + len(tail), dtype=np.uint8)
            kept[: head - 1] = ids[: head - 1]
            kept[head - 1 : len(kept) - len(tail)].reshape(full.shape)[:] = full
            kept[len(kept) - len(tail) :] = tail
            if not _has_invalid(kept):
                return kept
    # lines of several lengths, another kind of line end, no line end at all, or a bad letter
    return np.frombuffer(_letters(body).translate(_CASED), dtype=np.uint8)


def _histogram(letters: bytes) -> npt.NDArray[np.int64]:
    """How often each byte occurs, shape (256,).

    In a long text each usual letter is counted alone, until they make up all of it: a comparison
    takes many bytes at once, a histogram one.
    """
    array = np.frombuffer(letters, dtype=np.uint8)
    if len(letters) >= _LONG_TEXT:
        counts = np.zeros(256, dtype=np.int64)
        left = len(letters)
        for letter in _COUNTED:
            counts[letter] = np.count_nonzero(array == letter)
            left -= int(counts[letter])
            if not left:
                return counts
    return np.bincount(array, minlength=256)


def _plain_name(path: Path) -> str:
    name = path.name
    for _ in range(2):
        for suffix in _SUFFIXES:
            name = name.removesuffix(suffix) or name
    return name


@contextmanager
def _quiet_htslib() -> Iterator[None]:
    """No lines of htslib on stderr: what goes wrong is raised, in one line of ours."""
    before = pysam.set_verbosity(0)
    try:
        yield
    finally:
        pysam.set_verbosity(before)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
