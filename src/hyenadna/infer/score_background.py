"""Random variants of a genome, and where a score stands among theirs.

A raw difference of log-likelihoods says little: it depends on the class of the variant, on the
length of the allele and on how sharply the model predicts. A percentile among random variants of
the same class and lengths, in the same genome, can be read.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hyenadna.alphabet import A, Ids, T
from hyenadna.errors import InputError
from hyenadna.genome.fasta import GenomeReader
from hyenadna.genome.variants import Allele, Stretches
from hyenadna.infer.score import Score

RANKED: Final = ("llr", "llr_allele", "dist")
"""Scores that have a percentile."""
_TRIES: Final = 1000
_GROUP, _SPAN = 20, 2048


def random_alleles(
    genome: GenomeReader,
    shapes: Mapping[str, Sequence[tuple[int, int]]],
    count: int,
    rng: np.random.Generator,
) -> dict[str, list[Allele]]:
    """`count` variants of each class, at bases of A C G T that all have the same chance.

    shapes: by class the lengths of ref and alt to draw from, not both 0. The letters of an allele
    are drawn uniformly, such that it shares no first or last base with the reference allele.
    Variants stand in groups of 20 within 2,048 bases, and those of all classes at the same groups,
    so that they share windows.

    Raises InputError where the genome holds too few known bases.
    """
    out: dict[str, list[Allele]] = {kind: [] for kind in shapes}
    stretches = Stretches(genome)
    for _ in range(_TRIES * -(-count // _GROUP)):
        missing = {kind: min(_GROUP, count - len(own)) for kind, own in out.items()}
        if not any(missing.values()):
            return out
        place = _place(stretches, rng)
        for kind, wanted in missing.items():
            for _ in range(wanted):
                found = _random_allele(stretches, place, shapes[kind], rng)
                out[kind] += [found] if found else []
    few = min(len(own) for own in out.values())
    raise InputError(
        f"{genome.path}: --background found only {few:,} places of known bases for a class of "
        "variants; give fewer, or a genome with fewer N"
    )


def _place(stretches: Stretches, rng: np.random.Generator) -> tuple[str, int]:
    """Contig and first base for a group of variants, so that all bases are as likely.

    It may be before the contig begins: what falls outside is drawn again.
    """
    contigs = stretches.genome.contigs
    lengths = np.array(list(contigs.values()))
    ends = (lengths + _SPAN).cumsum()
    at = int(rng.integers(0, ends[-1]))
    index = int(np.searchsorted(ends, at, side="right"))
    return list(contigs)[index], at - int(ends[index] - lengths[index])


def _random_allele(
    stretches: Stretches,
    place: tuple[str, int],
    shapes: Sequence[tuple[int, int]],
    rng: np.random.Generator,
) -> Allele | None:
    """A variant that begins in the place; None where the draw hit no known bases."""
    size, alt_size = shapes[int(rng.integers(0, len(shapes)))]
    contig, start = place[0], place[1] + int(rng.integers(0, _SPAN))
    # an insertion stands before a base, which must be known as well
    stop = start + max(size, 1)
    if start < 0 or stop > stretches.genome.contigs[contig]:
        return None
    there = stretches.tokens(contig, start, stop)
    if bool((there > T).any()):
        return None
    ref = there[:size].copy()
    return Allele(contig, start, ref, _drawn(ref, alt_size, rng))


def _drawn(ref: Ids, size: int, rng: np.random.Generator) -> Ids:
    """Letters (size,) that share no first and no last base with ref, where both have one."""
    alt = rng.integers(A, T + 1, size).astype(np.uint8)
    if size and len(ref):
        for place in {0, size - 1}:
            edges = {int(ref[0])} if place == 0 else set()
            edges |= {int(ref[-1])} if place == size - 1 else set()
            free = [base for base in range(A, T + 1) if base not in edges]
            alt[place] = free[int(rng.integers(0, len(free)))]
    return alt


class Background:
    """Sorted scores of random variants, by class and kind of score."""

    def __init__(self, values: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
        self.values = {
            kind: {name: sorted(v for v in each if not math.isnan(v)) for name, each in own.items()}
            for kind, own in values.items()
        }

    @classmethod
    def of(cls, scores: Mapping[str, Sequence[Score]]) -> Background:
        """From the scores of random variants by class."""
        return cls(
            {
                kind: {name: [getattr(score, name) for score in own] for name in RANKED}
                for kind, own in scores.items()
            }
        )

    def percentile(self, kind: str, name: str, value: float) -> float:
        """Share of the background of that class that is smaller, in percent; ties count half.

        nan where there is no value, or no background.
        """
        there = self.values.get(kind, {}).get(name, [])
        if not there or math.isnan(value):
            return math.nan
        below, upto = bisect.bisect_left(there, value), bisect.bisect_right(there, value)
        return 100 * (below + upto) / 2 / len(there)

    def percentiles(self, kind: str, score: Score) -> list[float]:
        """Of each of `RANKED`."""
        return [self.percentile(kind, name, getattr(score, name)) for name in RANKED]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for `Background(...)`."""
        return {kind: {name: list(v) for name, v in own.items()} for kind, own in
                self.values.items()}  # fmt: skip

    def quantiles(self) -> dict[str, dict[str, dict[str, float]]]:
        """By class and kind of score: some quantiles, for people."""
        marks = (0.01, 0.05, 0.5, 0.95, 0.99)
        return {
            kind: {
                name: {f"{q:g}": float(np.quantile(_array(v), q)) for q in marks}
                for name, v in own.items()
                if v
            }
            for kind, own in self.values.items()
        }


def _array(values: Sequence[float]) -> npt.NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)
