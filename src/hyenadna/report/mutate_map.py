"""The scores of `hyenadna mutate` as one table for each sequence, read back from its output."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hyenadna.errors import InputError

MOST_POSITIONS: Final = 2000
LETTERS: Final = "ACGT"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MutationMap:
    """All substitutions of one sequence, or of its first positions; columns are A C G T."""

    id: str
    contig: str | None
    first: int
    """Position of the first base, from 0."""
    letters: str
    score: Floats
    """(L, 4): 0 for the base that stands there, NaN where nothing is known."""
    allele: Floats | None
    """(L, 4): the same of the base alone; None for a fine-tuned model."""
    cut: bool
    """Whether there are more positions than are here."""

    @property
    def title(self) -> str:
        """What it is, and where; positions from 1, as people write them."""
        first, last = self.first + 1, self.first + len(self.letters)
        if self.contig is None:
            return f"{self.id}, {first:,} to {last:,}"
        where = f"{self.contig}:{first}-{last}"
        return where if self.id == where else f"{self.id}, {where}"

    @property
    def importance(self) -> Floats:
        """(L,): minus the mean score of the substitutions of each base; NaN where it has none."""
        return np.where(self.known, -np.nan_to_num(self.score).sum(1) / 3, np.nan)

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """(L,): whether all substitutions of the base have scores."""
        return ~np.asarray(np.isnan(self.score).any(1))

    @property
    def probabilities(self) -> Floats:
        """(L, 4): of A C G T by what stands before (for both strands, by what stands around).

        They are made of the differences between them. NaN where one is not known.
        """
        assert self.allele is not None
        odds = np.exp(self.allele - self.allele.max(1, keepdims=True))
        return odds / odds.sum(1, keepdims=True)


def first_maps(out: Path, *, count: int, positions: int = MOST_POSITIONS) -> list[MutationMap]:
    """The first sequences of an output of `hyenadna mutate`, up to so many positions of each.

    Only as much of the file is read as is needed for them. Raises InputError for another file.
    """
    maps: list[MutationMap] = []
    rows: list[Mapping[str, Any]] = []
    before: Mapping[str, Any] | None = None
    cut = False
    for row in _rows(out):
        for name in ("id", "position", "ref", "alt", "score"):
            if name not in row:
                raise InputError(f"{out}: has no column {name!r}; is it of `hyenadna mutate`?")
        position = int(row["position"])
        if before is not None and not _goes_on(before, row):
            maps.append(_map(rows, cut))
            rows, cut = [], False
            if len(maps) == count:
                return maps
        before = row
        if not rows or position - int(rows[0]["position"]) < positions:
            rows.append(row)
        else:
            cut = True
            if len(maps) + 1 == count:
                break
    return [*maps, _map(rows, cut)] if rows else maps


def _goes_on(before: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether a row is of the sequence of the row before it; intervals may share a name."""
    same = all(row[key] == before[key] for key in ("id", "contig") if key in row)
    return same and int(row["position"]) - int(before["position"]) in (0, 1)


def _map(rows: list[Mapping[str, Any]], cut: bool) -> MutationMap:
    first = int(rows[0]["position"])
    length = int(rows[-1]["position"]) - first + 1
    letters = ["N"] * length
    score, allele = np.full((2, length, 4), np.nan)
    has_allele = "score_allele" in rows[0]
    for row in rows:
        at, column = int(row["position"]) - first, LETTERS.index(row["alt"])
        letters[at] = row["ref"]
        score[at, column] = _number(row["score"])
        if has_allele:
            allele[at, column] = _number(row["score_allele"])
    for at, letter in enumerate(letters):
        if letter in LETTERS:
            score[at, LETTERS.index(letter)] = allele[at, LETTERS.index(letter)] = 0
    return MutationMap(
        rows[0]["id"],
        rows[0].get("contig"),
        first,
        "".join(letters),
        score,
        allele if has_allele else None,
        cut,
    )


def _number(value: Any) -> float:
    return float(value) if value not in ("", None) else float("nan")


def _rows(out: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of the table, one after the other."""
    try:
        if out.suffix == ".parquet":
            from pyarrow import parquet

            for batch in parquet.ParquetFile(out).iter_batches(4096):
                yield from batch.to_pylist()
        else:
            with out.open(newline="", encoding="utf-8") as text:
                yield from csv.DictReader(text, delimiter="\t" if out.suffix == ".tsv" else ",")
    except (OSError, ValueError) as error:
        raise InputError(f"{out}: cannot be read as a table of scores ({error})") from error
