"""Scored variants on disk: the records of a VCF with more INFO, or a table with a row an allele."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, Self

import pysam
import pysam.bcftools

from hyenadna.errors import InputError
from hyenadna.genome.variant_file import Header
from hyenadna.genome.variants import NOTE_TEXTS, Allele, Note, Record
from hyenadna.infer import interrupted
from hyenadna.infer.rows_file import ColumnType, RowsFile
from hyenadna.infer.score import Score
from hyenadna.infer.score_background import LENGTHS, RANKED
from hyenadna.infer.shards import Shard, place_of

TABLES: Final = (".csv", ".tsv", ".parquet")
VARIANTS: Final = (".vcf.gz", ".vcf", ".bcf")
PREFIX: Final = "HDNA_"

_SCORES: Final[Mapping[str, tuple[str, str]]] = {
    "llr": (
        "LLR",
        "log P(ALT) - log P(REF) of allele and {after} bases behind it, in nats; "
        "mean of the strands read",
    ),
    "llr_forward": ("LLR_FWD", "LLR on the strand of the genome, read from left to right"),
    "llr_reverse": ("LLR_REV", "LLR on the other strand, read from right to left"),
    "llr_allele": (
        "LLR_ALLELE",
        "the part of LLR that belongs to the bases of the alleles, without those that both share "
        "at their ends; given where they are of one length, and compares only those",
    ),
    "dist": (
        "DIST",
        "Euclidean distance between the mean hidden states over the {after} bases behind the "
        "allele; mean of the strands read",
    ),
}
_PERCENTILES: Final = {name: f"{_SCORES[name][0]}_PCT" for name in RANKED}
COLUMNS: Final[Mapping[str, ColumnType]] = {
    "chrom": "text",
    "pos": "integer",
    "id": "text",
    "ref": "text",
    "alt": "text",
    **dict.fromkeys(_SCORES, "number"),
    **{f"{name}_percentile": "number" for name in RANKED},
    "note": "text",
}
"""Of a table; `pos` counts from 1, as in the VCF. Percentiles only with a background."""

INFO_NAMES: Final = {
    **{name: f"{PREFIX}{short}" for name, (short, _) in _SCORES.items()},
    **{f"{name}_percentile": f"{PREFIX}{short}" for name, short in _PERCENTILES.items()},
    "note": f"{PREFIX}NOTE",
}
"""By column the ID of the same in INFO."""


class Ranking(Protocol):
    """What gives percentiles as text: a `Background`, or marks of a shard's rows."""

    def texts(self, allele: Allele | Note, score: Score, missing: str = "") -> list[str]:
        """Of each of `RANKED`; missing: where there is none."""
        ...


def require_name(out: Path) -> None:
    """Nothing, where the name of an output says what it is. Raises InputError otherwise."""
    if not is_variants(out) and out.suffix not in TABLES:
        raise InputError(
            f"{out}: scores are written as {', '.join((*VARIANTS, *TABLES))}; give a name that "
            "ends so"
        )


def is_variants(out: Path) -> bool:
    """Whether an output of this name holds VCF records."""
    return out.name.endswith(VARIANTS)


def columns(*, background: bool) -> dict[str, ColumnType]:
    """Names and types of the columns of a table."""
    return {k: v for k, v in COLUMNS.items() if background or not k.endswith("_percentile")}


def info_lines(*, after: int, background: int) -> list[str]:
    """Lines of a header that declare what is added. background: as the option."""
    lines = [
        _info(short, "A", "Float", text.format(after=after)) for short, text in _SCORES.values()
    ]
    if background:
        lines += [
            _info(
                short, "A", "Float",
                f"percentile of {_SCORES[name][0]} among {background} random variants of the same "
                f"class and length ({', '.join(LENGTHS)}: the longer of REF and ALT without what "
                "they share) in the same genome, 0 to 100, ties count half",
            )
            for name, short in _PERCENTILES.items()
        ]  # fmt: skip
    notes = "; ".join(f"{note.value}: {NOTE_TEXTS[note]}" for note in Note)
    return [*lines, _info("NOTE", ".", "String", f"one for each ALT, or NO_ALT. {notes}")]


def _info(short: str, number: str, kind: str, text: str) -> str:
    # < and > within quotes are allowed, but some readers stumble over them
    text = text.replace("<", "").replace(">", "").replace('"', "'")
    return f'##INFO=<ID={PREFIX}{short},Number={number},Type={kind},Description="hyenadna: {text}">'


def table_rows(
    record: Record,
    alleles: Sequence[Allele | Note],
    scores: Sequence[Score],
    background: Ranking | None,
) -> Iterator[list[str]]:
    """A row for each alternative allele, or one with `.` where there is none."""
    chrom, pos, id, ref = record.columns[:4]
    for alt, allele, score in zip(record.alts or ["."], alleles, scores, strict=True):
        numbers = [number(getattr(score, name)) for name in _SCORES]
        if background is not None:
            numbers += background.texts(allele, score)
        yield [chrom, pos, id, ref, alt, *numbers, score.note.value if score.note else ""]


def vcf_row(
    record: Record,
    alleles: Sequence[Allele | Note],
    scores: Sequence[Score],
    background: Ranking | None,
) -> list[str]:
    """The columns of a record with the scores at the end of INFO, in place of older ones."""
    *before, info = record.columns
    kept = [] if info in (".", "") else info.split(";")
    kept = [each for each in kept if not each.startswith(PREFIX)]
    if record.alts:
        for name, (short, _) in _SCORES.items():
            values = ",".join(number(getattr(score, name), ".") for score in scores)
            kept.append(f"{PREFIX}{short}={values}")
        if background is not None:
            rows = [
                background.texts(allele, score, ".")
                for allele, score in zip(alleles, scores, strict=True)
            ]
            for index, short in enumerate(_PERCENTILES.values()):
                values = ",".join(row[index] for row in rows)
                kept.append(f"{PREFIX}{short}={values}")
    if any(score.note for score in scores):
        notes = ",".join(score.note.value if score.note else "." for score in scores)
        kept.append(f"{PREFIX}NOTE={notes}")
    return [*before, ";".join(kept) or ".", *([record.rest[1:]] if record.rest else [])]


def number(value: float, missing: str = "") -> str:
    """As text, six digits: float32 holds no more."""
    return missing if math.isnan(value) else f"{value:.6g}"


class VcfRows(RowsFile):
    """The records of one run on their way into a VCF or BCF; a row is a list of columns."""

    def __init__(
        self, path: Path, columns: Mapping[str, ColumnType], shard: Shard | None = None
    ) -> None:
        super().__init__(path, columns, shard)
        self.notes: list[str] = []
        """What `finish` could not do, one line each."""
        self.long_contigs = False
        """Whether a contig is too long for a `.tbi`, so that the index is a `.csi`."""

    @classmethod
    def open(
        cls,
        path: Path,
        header: Header,
        settings: Mapping[str, Any],
        *,
        resume: bool,
        shard: Shard | None = None,
    ) -> tuple[Self, str]:
        """A file with a header; with the rows of an interrupted run where `resume` finds some.

        The text says why it found none. Raises InputError as `RowsFile` does.
        """
        lines: dict[str, ColumnType] = {header.text.rstrip("\n"): "text"}  # as a row
        if resume:
            return cls.resume(path, lines, settings, shard)
        return cls.start(path, lines, settings, shard), ""

    def finish(self) -> None:
        """Pack the rows as the name says, index them where they are in order, and name them.

        Raises InputError where a record is not one that bcftools reads, OSError when the disk is
        full; the rows are then still beside, to be resumed.
        """
        if self.path.suffix == ".vcf":
            self._part.finish(self._rows)
            return
        whole = self._part.folder / "whole"
        if self.path.suffix == ".gz":
            pysam.tabix_compress(str(self._rows), str(whole), force=True)
        else:
            self._to_bcf(whole)
        self._part.finish(whole)
        self._index()

    def _to_bcf(self, whole: Path) -> None:
        words = ["-O", "b", "--no-version", "-o", str(whole), str(self._rows)]
        before = pysam.set_verbosity(0)
        try:
            pysam.bcftools.view(*words, catch_stdout=False)
        except pysam.SamtoolsError as error:
            raise InputError(
                f"{self.path}: bcftools cannot write these records as BCF; the scored text is "
                f"{self._rows}: bcftools view says what is wrong, or write .vcf.gz instead"
            ) from error
        finally:
            pysam.set_verbosity(before)

    def _index(self) -> None:
        """An index beside the file; a note where it cannot be, as for records out of order."""
        before = pysam.set_verbosity(0)
        try:
            if self.path.suffix == ".bcf":
                pysam.bcftools.index("-f", str(self.path))
            else:
                pysam.tabix_index(str(self.path), preset="vcf", force=True, csi=self.long_contigs)
        except (OSError, ValueError, pysam.SamtoolsError):
            for end in (".tbi", ".csi"):
                self.path.with_name(self.path.name + end).unlink(missing_ok=True)
            self.notes.append(
                f"{self.path}: has no index: its records are not in order, as in the input; "
                "bcftools sort puts them in order"
            )
        finally:
            pysam.set_verbosity(before)

    def _text(self, rows: Iterable[Sequence[str]]) -> bytes:
        text = "".join("\t".join(row) + "\n" for row in rows)
        return text.encode("utf-8", "surrogateescape")


def open_rows(
    out: Path,
    header: Header,
    settings: Mapping[str, Any],
    *,
    background: bool,
    resume: bool,
    shard: Shard | None = None,
) -> tuple[RowsFile, str]:
    """Where the rows of a run, or of a shard, go, and why nothing was resumed where it should be.

    header: of the output, where it is a VCF. Raises InputError as `RowsFile` does.
    """
    if is_variants(out):
        return VcfRows.open(out, header, settings, resume=resume, shard=shard)
    if resume:
        return RowsFile.resume(out, columns(background=background), settings, shard)
    return RowsFile.start(out, columns(background=background), settings, shard), ""


def require_free(out: Path, *, resume: bool, shard: Shard | None = None) -> None:
    """Nothing, where scores, or a shard of them, can be written. Raises InputError otherwise."""
    require_name(out)
    interrupted.require_free(place_of(out, shard), what="scores", resume=resume)
