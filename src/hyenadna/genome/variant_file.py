"""VCF and BCF files, read record by record in the order of the file and held nowhere."""

from __future__ import annotations

import gzip
import re
import shlex
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import pysam

from hyenadna.errors import InputError
from hyenadna.genome.contig_names import contig_aliases
from hyenadna.genome.faidx import BGZIP_END
from hyenadna.genome.intervals import Interval, merge
from hyenadna.genome.variants import Record, parse_record

Packing = Literal["plain", "bgzip", "gzip", "bcf"]

_GZIP: Final = b"\x1f\x8b"
_BGZIP: Final = (b"\x1f\x8b\x08\x04", b"BC")
_BCF: Final = b"BCF"
_INDEX: Final = (".csi", ".tbi")
_COLUMN_LINE: Final = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
_ID: Final = re.compile(r"##(?P<kind>\w+)=<(?:.*,)?ID=(?P<id>[^,>]+)")
_NO_PLACE: Final = re.compile(r".+:[\d,.\-]*")
_PLACE: Final = re.compile(r"(?P<contig>.+?)(?::(?P<first>[\d,]+)-(?P<last>[\d,]+))?")


@dataclass(frozen=True)
class Header:
    """The lines of a header without their line ends, as they stand in the file."""

    lines: tuple[str, ...]
    """Those that begin with `##`."""
    columns: str
    """The line with the names of the columns; a usual one where the file has none."""

    def declared(self, kind: str) -> list[str]:
        """IDs of the lines of a kind, such as `contig` or `INFO`, in order."""
        found = [_ID.match(line) for line in self.lines if line.startswith(f"##{kind}=")]
        return [each["id"] for each in found if each]

    def with_lines(self, lines: Sequence[str]) -> Header:
        """The same with more lines at the end, in place of older INFO lines of the same IDs."""
        ids = [found["id"] for found in map(_ID.match, lines) if found and found["kind"] == "INFO"]
        kept = [
            line
            for line in self.lines
            if not ((found := _ID.match(line)) and found["kind"] == "INFO" and found["id"] in ids)
        ]
        first = [] if any(line.startswith("##fileformat=") for line in kept) else [_FORMAT_LINE]
        return Header((*first, *kept, *lines), self.columns)

    @property
    def text(self) -> str:
        """All lines."""
        return "".join(f"{line}\n" for line in (*self.lines, self.columns))


_FORMAT_LINE: Final = "##fileformat=VCFv4.2"


class VariantFile:
    """A file of variants: plain VCF, VCF in gzip or bgzip, or BCF; made by `VariantFile.open`."""

    def __init__(self, path: Path, packing: Packing, regions: Sequence[Interval]) -> None:
        self.path, self.packing = path, packing
        self.regions = tuple(regions)
        self.header = self._header()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is allowed but may mean damage, one line each."""
        if self.packing not in ("bgzip", "bcf"):
            return ()
        with _damage(self.path), self.path.open("rb") as raw:
            size = raw.seek(0, 2)
            raw.seek(max(0, size - len(BGZIP_END)))
            if raw.read() == BGZIP_END:
                return ()
        return (f"{self.path}: has no bgzip end block: it may be truncated",)

    @classmethod
    def open(cls, path: str | Path, *, regions: Sequence[str] = ()) -> VariantFile:
        """The file, with its header read.

        regions: `chr1`, or `chr1:1-100` (from 1, both ends included): only records that overlap one
        of them, each once. They need an index (`.tbi` or `.csi`).

        Raises InputError for a file that is missing, empty, damaged or no VCF, for a region that is
        not written so or not in the index, and for regions of a file without an index.
        """
        path = Path(path)
        packing = _packing(path)
        file = cls(path, packing, ())
        if regions:
            file.regions = tuple(merge(file._indexed(regions)))
        return file

    def records(self) -> Iterator[Record]:
        """The records in the order of the file, or of the regions.

        Raises InputError, naming file and line, for a line that is no record, and where the file is
        damaged.
        """
        if self.regions:
            yield from self._within()
        elif self.packing == "bcf":
            with _damage(self.path), pysam.VariantFile(str(self.path)) as file:
                for number, row in enumerate(file, start=1):
                    yield parse_record(str(row).rstrip("\n"), f"{self.path}: record {number}")
        else:
            for number, line in self._lines():
                if line and not line.startswith("#"):
                    yield parse_record(line, f"{self.path}:{number}")

    def _lines(self) -> Iterator[tuple[int, str]]:
        """Lines of a VCF with their numbers, without line ends."""
        with _damage(self.path):
            packed = self.packing in ("gzip", "bgzip")
            with gzip.open(self.path) if packed else self.path.open("rb") as stream:
                for number, line in enumerate(stream, start=1):
                    text = line.decode("utf-8", "surrogateescape").rstrip("\r\n")
                    yield number, text.removeprefix("\ufeff") if number == 1 else text

    def _header(self) -> Header:
        if self.packing == "bcf":
            with _damage(self.path), pysam.VariantFile(str(self.path)) as file:
                *lines, columns = str(file.header).rstrip("\n").split("\n")
            return Header(tuple(lines), columns)
        lines, columns = [], ""
        number = 0
        for number, line in self._lines():
            if line.startswith("##"):
                lines.append(line)
            elif line.startswith("#"):
                columns = line
                break
            elif line:
                # no header: the first line must be a record
                parse_record(line, f"{self.path}:{number}")
                break
        if not number:
            raise InputError(f"{self.path}: is empty; a VCF has at least a header")
        if columns and not columns.startswith("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"):
            raise InputError(
                f"{self.path}:{number}: the line of column names is {columns[:60]!r}; it must "
                "begin with the 8 of a VCF, #CHROM to INFO, split by tabs"
            )
        return Header(tuple(lines), columns or self._usual_columns())

    def _usual_columns(self) -> str:
        """Names of the columns of a file without a header, as many as its first record has."""
        line = next((line for _, line in self._lines() if line and not line.startswith("#")), "")
        more = line.count("\t") - _COLUMN_LINE.count("\t")
        names = [] if more <= 0 else ["FORMAT", *(f"SAMPLE{i}" for i in range(1, more))]
        return "\t".join([_COLUMN_LINE, *names])

    def _indexed(self, regions: Sequence[str]) -> list[Interval]:
        """The regions, by the file's own names. Raises InputError as `open` does."""
        index = next(
            (self.path.with_name(self.path.name + end) for end in _INDEX
             if self.path.with_name(self.path.name + end).is_file()), None,
        )  # fmt: skip
        here = shlex.quote(str(self.path))
        if self.packing in ("plain", "gzip"):
            name = f"{self.path.name.removesuffix('.gz').removesuffix('.vcf')}.sorted.vcf.gz"
            made = shlex.quote(str(self.path.with_name(name)))
            raise InputError(
                f"{self.path}: --region needs bgzip and an index, but this is "
                f"{'plain text' if self.packing == 'plain' else 'gzip that is not bgzip'}; "
                f"bcftools sort {here} -O z -o {made}, then tabix -p vcf {made}, and give that"
            )
        if index is None:
            how = "bcftools index" if self.packing == "bcf" else "tabix -p vcf"
            raise InputError(f"{self.path}: --region needs an index; make it: {how} {here}")
        names = self._names()
        return [_region(text, names, self.path) for text in regions]

    def _names(self) -> list[str]:
        with _damage(self.path):
            if self.packing == "bcf":
                with pysam.VariantFile(str(self.path)) as file:
                    return [str(name) for name in file.header.contigs]
            with pysam.TabixFile(str(self.path), encoding=_BYTES) as table:
                return [_of_bytes(name) for name in table.contigs]

    def _within(self) -> Iterator[Record]:
        last: Interval | None = None
        for region in self.regions:
            with _damage(self.path):
                for line in self._fetched(region):
                    record = parse_record(line, f"{self.path} in {region}")
                    seen = last is not None and last.contig == region.contig
                    if seen and last is not None and record.start < last.stop:
                        continue  # it overlaps the region before, too, and has come
                    yield record
            last = region

    def _fetched(self, region: Interval) -> Iterator[str]:
        if self.packing == "bcf":
            with pysam.VariantFile(str(self.path)) as file:
                for row in file.fetch(region.contig, region.start, region.stop):
                    yield str(row).rstrip("\n")
            return
        contig = region.contig.encode("utf-8", "surrogateescape").decode(_BYTES)
        with pysam.TabixFile(str(self.path), encoding=_BYTES) as table:
            for line in table.fetch(contig, region.start, region.stop):
                yield _of_bytes(line).rstrip("\r\n")


_BYTES: Final = "latin-1"
"""What pysam reads text as, so that each byte is a letter, whatever the text is in."""


def _of_bytes(text: str) -> str:
    return text if text.isascii() else text.encode(_BYTES).decode("utf-8", "surrogateescape")


def _packing(path: Path) -> Packing:
    if not path.is_file():
        what = "is a folder; give a VCF or BCF file" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {what}")
    with _damage(path), path.open("rb") as raw:
        start = raw.read(18)
        if not start:
            raise InputError(f"{path}: is empty; a VCF has at least a header")
        if start[:3] == _BCF:
            return "bcf"
        if start[:2] != _GZIP:
            return "plain"
    with _damage(path), gzip.open(path) as stream:
        if stream.read(3) == _BCF:
            return "bcf"
    blocks = start.startswith(_BGZIP[0]) and start[12:14] == _BGZIP[1]
    return "bgzip" if blocks else "gzip"


def _region(text: str, names: Sequence[str], path: Path) -> Interval:
    """An interval by the file's own name of the contig."""
    if text in names:
        return Interval(text, 0, _END)
    found = _PLACE.fullmatch(text.strip())
    contig = found["contig"] if found else ""
    known = next((name for name in (contig, *contig_aliases(contig)) if name in names), None)
    if known is None:
        if _NO_PLACE.fullmatch(contig):
            raise InputError(
                f"{path}: --region {text!r}: write contig or contig:first-last, such as chr1:1-100"
            )
        shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        raise InputError(f"{path}: --region {text!r}: has no contig {contig!r}; it has {shown}")
    if found is None or found["first"] is None:
        return Interval(known, 0, _END)
    try:
        parsed = Interval.parse(text)
    except InputError as error:
        raise InputError(f"{path}: --region: {error}") from None
    if parsed.start >= _END:
        raise InputError(f"{path}: --region {text!r}: positions are at most {_END:,}")
    return Interval(known, parsed.start, min(parsed.stop, _END))


_END: Final = (1 << 31) - 1


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turns what libraries say about a damaged file into one line."""
    before: Any = pysam.set_verbosity(0)
    try:
        yield
    except InputError:
        raise
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: truncated or damaged ({error}); download it again") from None
    except UnicodeDecodeError:
        raise InputError(
            f"{path}: holds text that is not UTF-8; make a VCF of it: "
            f"bcftools view {shlex.quote(str(path))} -O z -o NEW.vcf.gz"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read ({reason})") from None
    finally:
        pysam.set_verbosity(before)


def tag_lines(header: Header, tags: Mapping[tuple[str, str], bool]) -> list[str]:
    """Lines that declare what records use and the header lacks, which BCF cannot hold undeclared.

    tags: (INFO, FORMAT or FILTER, ID), and whether it is a flag.
    """
    known = {
        (kind, name) for kind in ("INFO", "FORMAT", "FILTER") for name in header.declared(kind)
    }
    lines = []
    for (kind, name), flag in tags.items():
        if name in ("", ".", "PASS") or (kind, name) in known:
            continue
        form = "Number=0,Type=Flag," if flag else "Number=.,Type=String,"
        form = "" if kind == "FILTER" else form
        lines.append(f'##{kind}=<ID={name},{form}Description="not declared in the input">')
    return lines


def contig_lines(header: Header, names: Mapping[str, int | None]) -> list[str]:
    """Lines that declare contigs that the header lacks, with their lengths where known."""
    known = set(header.declared("contig"))
    return [
        f"##contig=<ID={name}>" if length is None else f"##contig=<ID={name},length={length}>"
        for name, length in names.items()
        if name not in known
    ]
