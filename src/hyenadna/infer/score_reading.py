"""What a file of scored variants holds, read row by row."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from hyenadna.alphabet import encode
from hyenadna.errors import InputError
from hyenadna.genome.variant_file import VariantFile
from hyenadna.genome.variants import trimmed
from hyenadna.infer.score_file import COLUMNS, INFO_NAMES, is_variants

NUMBERS: Final = tuple(name for name, kind in COLUMNS.items() if kind == "number")
SAMPLE: Final = 100_000
"""Scored alleles that a summary holds."""


class ScoredAllele(NamedTuple):
    """One alternative allele with its scores."""

    chrom: str
    pos: int
    """Counts from 1."""
    id: str
    ref: str
    alt: str
    values: Mapping[str, float]
    """By column; nan where there is none."""
    note: str

    @property
    def kind(self) -> str:
        """Class, as `hyenadna.genome.variants.Allele.kind`; empty without letters."""
        try:
            return trimmed("", 0, encode(self.ref), encode(self.alt)).kind
        except InputError:
            return ""


def read_scored(path: Path) -> Iterator[ScoredAllele]:
    """The alleles of an output of `hyenadna score`, in order.

    Raises InputError for a table without its columns, and for a file that is damaged.
    """
    if is_variants(path):
        yield from _of_variants(path)
    elif path.suffix == ".parquet":
        yield from _of_parquet(path)
    else:
        with path.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream, delimiter="\t" if path.suffix == ".tsv" else ","):
                yield _of_row(row)


def _of_variants(path: Path) -> Iterator[ScoredAllele]:
    for record in VariantFile.open(path).records():
        fields = dict(each.split("=", 1) for each in record.columns[7].split(";") if "=" in each)
        columns = {
            name: fields[info].split(",") for name, info in INFO_NAMES.items() if info in fields
        }
        chrom, _, id, ref = record.columns[:4]
        for index, alt in enumerate(record.alts or ["."]):
            here = {name: own[index] for name, own in columns.items() if index < len(own)}
            values = {name: _number(here[name]) for name in NUMBERS if name in here}
            note = here.get("note", "")
            yield ScoredAllele(
                chrom, record.start + 1, id, ref, alt, values, "" if note == "." else note
            )


def _of_parquet(path: Path) -> Iterator[ScoredAllele]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=4096):
            for row in batch.to_pylist():
                yield _of_row(row)


def _of_row(row: Mapping[str, Any]) -> ScoredAllele:
    try:
        values = {name: _number(row[name]) for name in NUMBERS if name in row}
        chrom, pos, id, ref, alt = (row[name] for name in ("chrom", "pos", "id", "ref", "alt"))
        return ScoredAllele(chrom, int(pos), id, ref, alt, values, row["note"])
    except KeyError as error:
        raise InputError(f"scores: no column {error}; this is no table of `score`") from None


def _number(value: str | float | None) -> float:
    return math.nan if value is None or value in (".", "") else float(value)


@dataclass
class Summary:
    """Of all alleles of a file, in bounded memory."""

    rows: int = 0
    """Alternative alleles, and records without one."""
    scored: int = 0
    notes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    """Of the scored alleles."""
    sample: list[ScoredAllele] = field(default_factory=list)
    """All scored alleles, or 100,000 drawn at random."""

    def values(self, name: str, kinds: Sequence[str] = ()) -> npt.NDArray[np.float64]:
        """A column of the sample, of all classes or of some, without missing values."""
        found = [
            allele.values.get(name, math.nan)
            for allele in self.sample
            if not kinds or allele.kind in kinds
        ]
        array = np.array(found, dtype=np.float64)
        return array[~np.isnan(array)]

    def quantiles(self) -> dict[str, dict[str, float]]:
        """Some quantiles of each score."""
        marks = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
        out = {}
        for name in NUMBERS:
            own = self.values(name)
            if len(own):
                found = np.quantile(own, marks).tolist()
                out[name] = {f"{q:g}": value for q, value in zip(marks, found, strict=True)}
        return out


def summarise(path: Path, *, seed: int = 0) -> Summary:
    """What a file of scored variants holds. Raises InputError as `read_scored` does."""
    out, rng = Summary(), np.random.default_rng(seed)
    for allele in read_scored(path):
        out.rows += 1
        if allele.note:
            out.notes[allele.note] += 1
        if math.isnan(allele.values.get("llr", math.nan)):
            continue
        out.scored += 1
        out.kinds[allele.kind] += 1
        if len(out.sample) < SAMPLE:
            out.sample.append(allele)
        else:
            at = int(rng.integers(0, out.scored))
            if at < SAMPLE:
                out.sample[at] = allele
    return out
