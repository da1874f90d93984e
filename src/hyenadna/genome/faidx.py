"""A FASTA file made ready for random access: its lines read in pieces, indexed, or unpacked.

An index is only right for records whose lines are all of one length. What is not of that form
(gzip that is not bgzip, Windows line ends, blanks or empty lines inside a record, ragged lines) is
rewritten once, with one line a record, into a cache folder, and the copy is indexed. Nothing is
ever written into a read-only folder, and every file is written beside and renamed.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Literal, NamedTuple, cast

import numpy as np

from hyenadna.errors import InputError

Packing = Literal["plain", "bgzip", "gzip"]

PIECE_BYTES: Final = 1 << 22
_LINE_ENDS: Final = b"\r\n"
_BLANKS: Final = b" \t\r\n"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
# The empty block that ends every bgzip file (SAM specification, section 4.1.2).
BGZIP_END: Final = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
# The index holds line lengths as 32-bit numbers.
_LONGEST_LINE: Final = 2**32 - 2
_OTHER_FORMATS: Final = {
    b"BZh": "bzip2",
    b"PK\x03\x04": "zip",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x43\x27\x41\x1a": "UCSC 2bit",
}


class Piece(NamedTuple):
    """A header (`name` set, `body` empty) or a stretch of a record with its line ends."""

    name: str | None
    body: bytes
    offset: int
    """Position of the first byte of the body in the unpacked file; of a header, of what follows."""


@dataclass(frozen=True)
class Ready:
    """What pysam opens: the file itself or its copy in the cache, and its index."""

    fasta: Path
    fai: Path
    gzi: Path | None

    def is_current(self) -> bool:
        """Whether all files exist and the index is not older than the file."""
        files = [self.fai] + ([self.gzi] if self.gzi else [])
        try:
            made = self.fasta.stat().st_mtime_ns
            return all(f.stat().st_mtime_ns >= made for f in files) and _is_index(self.fai)
        except OSError:
            return False


class FaiRow(NamedTuple):
    """One line of a `.fai` index."""

    name: str
    length: int
    offset: int
    line_bases: int
    line_width: int


def make_ready(path: Path, cache: Path | None = None) -> Ready:
    """Files for random access to a FASTA; index or copy are made where they are missing or stale.

    `cache`: folder for what has to be written. Left out, an index goes beside the file where the
    folder can be written, and everything else into `$HYENADNA_CACHE` or `~/.cache/hyenadna`.

    Raises InputError for a file that is missing, empty, no FASTA, or damaged, and where the cache
    cannot be written.
    """
    packing = packing_of(path)
    blocks = packing == "bgzip"
    folder = cache or default_cache()
    stem = _cache_stem(folder, path)
    beside = Ready(path, _plus(path, ".fai"), _plus(path, ".gzi") if blocks else None)
    cached = Ready(path, _plus(stem, ".fai"), _plus(stem, ".gzi") if blocks else None)
    copy = Ready(_plus(stem, ".fa"), _plus(stem, ".fa.fai"), None)
    for ready in [copy] if packing == "gzip" else [beside, cached, copy]:
        if ready.is_current():
            return ready
    rows = None if packing == "gzip" else layout(path)
    if rows and cache is None and _is_writable(path.parent):
        try:
            return _write_index(rows, beside)
        except OSError:
            pass  # a folder that only looks writable
    with _cache_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return _write_index(rows, cached) if rows else _write_copy(path, copy)


def default_cache() -> Path:
    """The folder of indexes and unpacked copies: `$HYENADNA_CACHE`, or `~/.cache/hyenadna`."""
    return Path(os.environ.get("HYENADNA_CACHE") or Path.home() / ".cache" / "hyenadna")


def packing_of(path: Path) -> Packing:
    """How a file is packed, by its first bytes.

    Raises InputError for a file that is missing, no regular file, empty, packed in another way, or
    a bgzip file without its end.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a FASTA file")
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if not path.is_file():
        raise InputError(f"{path}: is no regular file (a pipe?); save it to disk first")
    try:
        with path.open("rb") as stream:
            head = stream.read(18)
            stream.seek(-min(len(BGZIP_END), path.stat().st_size), os.SEEK_END)
            tail = stream.read()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not head:
        raise InputError(f"{path}: is empty")
    for magic, other in _OTHER_FORMATS.items():
        if head.startswith(magic):
            raise InputError(f"{path}: is packed as {other}; unpack it, or pack it with bgzip")
    if not head.startswith(b"\x1f\x8b"):
        return "plain"
    if not (len(head) == 18 and head[3] & 4 and head[12:14] == b"BC"):
        return "gzip"
    if tail != BGZIP_END:
        raise _damaged(path, "the end of the bgzip file is missing")
    return "bgzip"


def pieces(path: Path) -> Iterator[Piece]:
    """The text of a FASTA file from front to end: each header, then its record in stretches.

    Raises InputError where text stands before the first header, a header has no name, a name comes
    twice, or the packed file is damaged.
    """
    seen: set[str] = set()
    header: bytes | None = None  # the part that is read of a header that goes on in the next block
    line_start, offset = True, 0
    for block in _blocks(path):
        at = 0
        while at < len(block):
            if header is not None:
                end = block.find(b"\n", at)
                header += block[at : end if end >= 0 else len(block)]
                at = end + 1 if end >= 0 else len(block)
                if end >= 0:
                    yield Piece(_record_name(header, seen, path), b"", offset + at)
                    header, line_start = None, True
            elif line_start and block[at] == ord(">"):
                header, at = b"", at + 1
            else:
                stop = _next_header(block, at)
                if not seen:
                    _refuse_text(block[at:stop], path)
                else:
                    yield Piece(None, block[at:stop], offset + at)
                line_start, at = block[stop - 1] == ord("\n"), stop
        offset += len(block)
    if header is not None:
        yield Piece(_record_name(header, seen, path), b"", offset)
    elif not seen:
        raise InputError(f"{path}: holds no FASTA record (no line begins with '>')")


def _next_header(block: bytes, at: int) -> int:
    """Where the next header line begins behind `at`, or the end of the block."""
    stop = block.find(b">", at + 1)
    while stop >= 0 and block[stop - 1] != ord("\n"):
        stop = block.find(b">", stop + 1)
    return stop if stop >= 0 else len(block)


def _record_name(header: bytes, seen: set[str], path: Path) -> str:
    """First word of a header; the name joins `seen`."""
    text = header.removesuffix(b"\r")
    if b"\r" in text:
        raise InputError(
            f"{path}: lines end in carriage returns alone (old Macintosh); convert them to newlines"
        )
    words = text.split(maxsplit=1)
    if not words or text[:1].isspace():
        raise InputError(f"{path}: record {len(seen) + 1} has no name after '>'")
    name = words[0].decode("utf-8", "replace")
    if name in seen:
        raise InputError(
            f"{path}: two records are named {name!r} (the second is record {len(seen) + 1}); "
            "rename one"
        )
    seen.add(name)
    return name


def _refuse_text(text: bytes, path: Path) -> None:
    if text.strip(_LINE_ENDS):
        start = text.lstrip(_LINE_ENDS)[:20].decode("latin-1")
        raise InputError(f"{path}: is not FASTA: it begins with {start!r}, not with '>'")


def _blocks(path: Path) -> Iterator[bytes]:
    """The unpacked bytes of a file in blocks of PIECE_BYTES."""
    packed = packing_of(path) != "plain"
    try:
        with gzip.open(path, "rb") if packed else path.open("rb") as opened:
            stream = cast(BinaryIO, opened)
            first = stream.read(PIECE_BYTES)
            if first.startswith(_BYTE_ORDER_MARK):
                # Blanked, not dropped, so that offsets stay those of the file.
                first = b"\n" * len(_BYTE_ORDER_MARK) + first[len(_BYTE_ORDER_MARK) :]
            yield first
            while block := stream.read(PIECE_BYTES):
                yield block
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, str(error)) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def _damaged(path: Path, why: str) -> InputError:
    return InputError(f"{path}: truncated or damaged ({why}); download it again")


def layout(path: Path) -> list[FaiRow] | None:
    """Index rows of all records, or None where a record is not in lines of one length.

    Raises InputError as `pieces` does.
    """
    rows: list[FaiRow] = []
    lines = _Lines()
    name, offset = "", 0
    for piece in pieces(path):
        if piece.name is None:
            if not lines.add(piece.body):
                return None
            continue
        if name:
            rows.append(lines.row(name, offset))
        if not lines.end():
            return None
        name, offset, lines = piece.name, piece.offset, _Lines()
    if not lines.end():
        return None
    return [*rows, lines.row(name, offset)]


class _Lines:
    """The line lengths of one record, followed through its stretches.

    A record can be indexed when all lines are as long as the first but the last, which may be
    shorter; behind that only empty lines.
    """

    def __init__(self) -> None:
        self.width = 0  # of a full line, with its newline; 0: no line seen
        self.length = 0  # bases
        self._open = 0  # length of the line that is not finished
        self._ended = False  # a shorter line has been seen

    def add(self, body: bytes) -> bool:
        """Whether the record is still in order after this stretch."""
        if any(blank in body for blank in (b"\r", b"\t", b" ")):
            return False
        breaks = np.flatnonzero(np.frombuffer(body, dtype=np.uint8) == ord("\n"))
        self.length += len(body) - len(breaks)
        if not len(breaks):
            self._open += len(body)
            return True
        widths = np.diff(breaks, prepend=-1)
        widths[0] += self._open
        self._open = len(body) - 1 - int(breaks[-1])
        return self._take(widths)

    def end(self) -> bool:
        """Whether the record is in order, a last line without a newline included."""
        if not self._open:
            return True
        widths, self._open = np.array([self._open + 1]), 0
        return self._take(widths)

    def _take(self, widths: np.ndarray) -> bool:
        if not self.width:
            self.width = int(widths[0])
        other = np.flatnonzero(widths != self.width)
        if self.width == 1:  # an empty first line
            return not len(other)
        first = 0 if self._ended else (int(other[0]) if len(other) else len(widths))
        tail = widths[first:]
        if len(tail) and not self._ended:
            self._ended = True
            if tail[0] > self.width:
                return False
            tail = tail[1:]
        return not len(tail) or bool((tail == 1).all())

    def row(self, name: str, offset: int) -> FaiRow:
        """The index row; an empty record gets a line of one base: readers divide by it."""
        bases = max(self.width - 1, 1)
        return FaiRow(name, self.length, offset, bases, bases + 1)


def _write_index(rows: list[FaiRow], ready: Ready) -> Ready:
    """Write `.fai` and `.gzi`; `.gzi` first, because readers take the `.fai` for the sign."""
    newest = ready.fasta.stat().st_mtime_ns
    if ready.gzi:
        with _replacing(ready.gzi, newest) as stream:
            stream.write(_block_index(ready.fasta))
    with _replacing(ready.fai, newest) as stream:
        for row in rows:
            stream.write(("\t".join(map(str, row)) + "\n").encode())
    return ready


def _block_index(path: Path) -> bytes:
    """Contents of the `.gzi` of a bgzip file: a count, then where each block but the first begins.

    Empty blocks, such as that at the end, are left out, as htslib does.

    Format: bgzip(1), "GZI format": little-endian 64-bit numbers, packed and unpacked offset.
    """
    starts: list[tuple[int, int]] = []
    packed = unpacked = 0
    size = path.stat().st_size
    with path.open("rb") as stream:
        while packed < size:
            stream.seek(packed)
            head = stream.read(18)
            if len(head) < 18 or head[12:14] != b"BC":
                raise _damaged(path, f"no bgzip block at byte {packed}")
            start, packed = packed, packed + int.from_bytes(head[16:18], "little") + 1
            stream.seek(packed - 4)
            length = int.from_bytes(stream.read(4), "little")
            if length and unpacked:
                starts.append((start, unpacked))
            unpacked += length
    return struct.pack("<Q", len(starts)) + b"".join(struct.pack("<QQ", *s) for s in starts)


def _write_copy(path: Path, copy: Ready) -> Ready:
    """Write the FASTA again with one line a record, and index it."""
    rows: list[FaiRow] = []
    name, offset, length, at = "", 0, 0, 0
    with _replacing(copy.fasta, 0) as stream:
        for piece in pieces(path):
            if piece.name is None:
                bases = piece.body.translate(None, _BLANKS)
                length, at = length + len(bases), at + stream.write(bases)
                if length > _LONGEST_LINE:
                    raise InputError(f"{path}: record {name!r} is over 4 Gb; pack it with bgzip")
                continue
            if name:
                rows.append(FaiRow(name, length, offset, max(length, 1), max(length, 1) + 1))
                at += stream.write(b"\n")
            at += stream.write(f">{piece.name}\n".encode())
            name, offset, length = piece.name, at, 0
        rows.append(FaiRow(name, length, offset, max(length, 1), max(length, 1) + 1))
        stream.write(b"\n")
    return _write_index(rows, copy)


def _is_index(fai: Path) -> bool:
    """Whether the file reads as an index of at least one record."""
    try:
        text = fai.read_text("utf-8").removesuffix("\n")
        rows = [line.split("\t") for line in text.split("\n")]
        return all(len(row) == 5 and all(n.isdigit() for n in row[1:]) for row in rows)
    except UnicodeDecodeError:
        return False


def _plus(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _cache_stem(folder: Path, path: Path) -> Path:
    """Where the cache keeps what belongs to this file in its present state."""
    full, state = path.absolute(), path.stat()
    key = hashlib.sha256(f"{full}|{state.st_size}|{state.st_mtime_ns}".encode()).hexdigest()[:16]
    return folder / f"{path.name}-{key}"


def _is_writable(folder: Path) -> bool:
    """Whether we may and should write here: root could write into a read-only folder."""
    return bool(folder.stat().st_mode & 0o222) and os.access(folder, os.W_OK)


@contextmanager
def _replacing(target: Path, newest: int) -> Iterator[BinaryIO]:
    """A stream to a file beside `target` that takes its name at the end, or leaves nothing.

    Several processes may write the same file at once: each has its own, and the last one stays.
    `newest` (ns): the file gets at least this time, so that an index is never older than its file.
    """
    beside = _plus(target, f".{uuid.uuid4().hex}.part")
    try:
        with beside.open("wb") as stream:
            yield stream
        made = max(beside.stat().st_mtime_ns, newest)
        os.utime(beside, ns=(made, made))
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def _cache_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{folder}: cannot write the genome cache ({error.strerror or error}); "
            "set HYENADNA_CACHE to a folder with room"
        ) from None
