"""Leaks: sequences that stand in two splits, or twice in one, and their removal.

Counted are sequences with the same letters, those whose other strand has them, and near duplicates
(`hyenadna.data.similar`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt

from hyenadna.alphabet import IGNORED
from hyenadna.data.labelled_data import LabelledData
from hyenadna.data.similar import NEAR_THRESHOLD, NearDuplicates, same_sequences
from hyenadna.errors import InputError

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# From the split that is learnt from to the one that is only measured on.
_ORDER: Final = ("", "train", "valid", "test")
_QUICK: Final = 2  # turns of the look inside a split, which nothing is dropped by


@dataclass(frozen=True)
class Overlap:
    """What two splits have in common; `other` is the one that is measured on."""

    one: str
    other: str
    identical: int
    """Different sequences that stand in both."""
    reverse_complement: int
    """More sequences of `other` whose other strand stands in `one`."""
    near: int
    """More sequences of `other` that have a near duplicate in `one`."""
    rows: int
    """Rows of `other` with any of these."""
    conflicting: int
    """Sequences (of either strand) that stand in both with different targets."""


@dataclass(frozen=True)
class Repeats:
    """What a split holds more than once."""

    split: str
    identical: int
    """Rows whose letters stand in an earlier row."""
    reverse_complement: int
    """More rows whose other strand stands in an earlier row."""
    near: int
    """Different sequences that have a near duplicate in the split; more in very large families."""
    conflicting: int
    """Sequences (of either strand) with different targets in their rows."""


@dataclass(frozen=True, eq=False)
class Leaks:
    """The leaks of some labelled data; made by `find_leaks`."""

    overlaps: tuple[Overlap, ...]
    """For each two splits that have rows."""
    repeats: tuple[Repeats, ...]
    """For each split that has rows."""
    threshold: float
    """Share of 16-mers from which on sequences are near duplicates."""
    leaked: Bools
    """(n,): rows with the same sequence, on either strand, in a split that is measured on; training
    rows by validation or test, validation rows by test. These are the rows to drop."""
    nearly: Bools
    """(n,): the same for near duplicates."""
    complete: bool = True
    """False where families are so large, or sequences so long, that not all near duplicates were
    looked for; what is counted is then the least."""

    @property
    def total(self) -> int:
        """Rows that `drop_leaks` would drop."""
        return int((self.leaked | self.nearly).sum())

    def lines(self) -> list[str]:
        """What was found, a line each, for people; none where there is nothing."""
        found, least = [], "at least " * (not self.complete)
        for o in self.overlaps:
            if o.rows:
                found.append(
                    f"{o.one or 'no split'} and {o.other}: {o.identical} identical sequences, "
                    f"{o.reverse_complement} more as reverse complement, {least}{o.near} more "
                    f"nearly the same (at least {self.threshold:.0%} of 16-mers); {o.rows} rows of "
                    f"{o.other}" + f", {o.conflicting} with different targets" * bool(o.conflicting)
                )
        for r in self.repeats:
            if r.identical or r.reverse_complement or r.conflicting:
                found.append(
                    f"within {r.split or 'no split'}: {r.identical} rows repeat an earlier one, "
                    f"{r.reverse_complement} more its other strand"
                    + f"; {r.conflicting} of all with different targets"
                    * bool(r.conflicting)
                )
        return found


def find_leaks(
    data: LabelledData, *, near: bool = True, threshold: float = NEAR_THRESHOLD
) -> Leaks:
    """The leaks between the splits and the repeats inside each.

    near: whether near duplicates are looked for as well (seconds for 10,000 sequences). threshold:
    share of the smaller set of 16-mers, in (0, 1].

    Raises InputError for a threshold out of range.
    """
    if not 0 < threshold <= 1:
        raise InputError(f"threshold is {threshold}; it must be over 0 and at most 1")
    look = _Look(data, threshold if near else None)
    splits = [split for split in _ORDER if look.rows_of(split).any()]
    overlaps = tuple(look.overlap(one, other) for one, other in combinations(splits, 2))
    return Leaks(
        overlaps=overlaps,
        repeats=tuple(look.repeats(split) for split in splits),
        threshold=threshold,
        leaked=look.leaked,
        nearly=look.nearly & ~look.leaked,
        complete=look.complete,
    )


def drop_leaks(data: LabelledData, leaks: Leaks, *, near: bool = True) -> LabelledData:
    """The data without the training rows that are in valid or test, and valid rows in test.

    The test rows all stay, so that figures can be compared with published ones. near: whether near
    duplicates go as well. A note says how many rows went.

    Raises InputError where the leaks are those of other data, and where no training row is left.
    """
    if len(leaks.leaked) != len(data):
        raise InputError(
            f"{data.name}: has {len(data)} rows, but leaks were looked for in {len(leaks.leaked)}; "
            "look again"
        )
    gone = leaks.leaked | leaks.nearly if near else leaks.leaked
    if not gone.any():
        return data
    kept = data.select(~gone)
    for split in ("train", "valid"):
        if (data.splits == split).any() and not (kept.splits == split).any():
            raise InputError(
                f"{data.name}: every row of {split} leaks; split the data anew, by similarity"
            )
    counts = ", ".join(
        f"{int((gone & (data.splits == split)).sum())} of {split}" for split in ("train", "valid")
    )
    return kept.with_notes(f"leaks dropped: {counts}")


class _Look:
    """Labelled data with each row's kind: the number of its sequence, whatever the strand."""

    def __init__(self, data: LabelledData, threshold: float | None) -> None:
        """threshold: of near duplicates; they are not looked for where it is None."""
        self.data, self.same = data, same_sequences(data.sequences)
        kinds, first, kind = np.unique(self.same.strandless, return_index=True, return_inverse=True)
        self.kinds, self.kind = len(kinds), kind.astype(np.int64)
        distinct = [data.sequences[i] for i in first.tolist()]
        self.near = NearDuplicates(distinct, threshold) if threshold is not None else None
        self.leaked, self.nearly = np.zeros((2, len(data)), dtype=bool)
        self.complete = True

    def rows_of(self, split: str) -> Bools:
        """(n,)"""
        return np.asarray(self.data.splits == split)

    def holds(self, split: str) -> Bools:
        """Which kinds stand in a split."""
        held = np.zeros(self.kinds, dtype=bool)
        held[self.kind[self.rows_of(split)]] = True
        return held

    def overlap(self, one: str, other: str) -> Overlap:
        """What is counted of two splits; the rows of `one` that leak are kept in mind."""
        mine, rows = self.rows_of(one), self.rows_of(other)
        held, measured = self.holds(one), self.holds(other)
        near = near_other = np.zeros(self.kinds, dtype=bool)
        if self.near is not None:
            between = self.near.between(held, measured)
            near, near_other = between.one, between.other
            self.complete &= between.complete
        if one:
            self.leaked |= mine & measured[self.kind]
            self.nearly |= mine & near[self.kind]
        identical = np.intersect1d(self.same.number[mine], self.same.number[rows])
        strandless = rows & held[self.kind]
        turned = np.setdiff1d(self.same.number[strandless], identical)
        nearly = rows & near_other[self.kind] & ~strandless
        return Overlap(
            one=one,
            other=other,
            identical=len(identical),
            reverse_complement=len(turned),
            near=len(np.unique(self.same.number[nearly])),
            rows=int((strandless | nearly).sum()),
            conflicting=self._conflicting((mine | rows) & (held & measured)[self.kind]),
        )

    def repeats(self, split: str) -> Repeats:
        """What is counted inside one split."""
        rows = self.rows_of(split)
        n, letters = int(rows.sum()), len(np.unique(self.same.number[rows]))
        held = self.holds(split)
        near = 0
        if self.near is not None:
            near = int(self.near.between(held, held, turns=_QUICK).one.sum())
        return Repeats(
            split=split,
            identical=n - letters,
            reverse_complement=letters - int(held.sum()),
            near=near,
            conflicting=self._conflicting(rows),
        )

    def _conflicting(self, rows: Bools) -> int:
        """Sequences with more than one target among some rows; a missing one is at odds with none.

        A class of each base belongs to a strand, so there only the same letters are compared.
        """
        targets = self.data.targets
        if isinstance(targets, tuple):
            first: dict[int, bytes] = {}
            numbers = self.same.number.tolist()
            return len(
                {
                    numbers[i]
                    for i in np.flatnonzero(rows).tolist()
                    if first.setdefault(numbers[i], targets[i].tobytes()) != targets[i].tobytes()
                }
            )
        if not rows.any():
            return 0
        values = targets[rows].reshape(int(rows.sum()), -1).astype(np.float64)
        if self.data.task.kind == "classes":
            values[values == IGNORED] = np.nan
        order = np.argsort(self.kind[rows], kind="stable")
        starts = np.flatnonzero(np.diff(self.kind[rows][order], prepend=-1))
        low = np.fmin.reduceat(values[order], starts)
        high = np.fmax.reduceat(values[order], starts)
        return int((low < high).any(1).sum())
