"""Random variants of a genome, and where a score stands among theirs.

A raw difference of log-likelihoods says little: it depends on the class of the variant, on the
length of the allele and on how sharply the model predicts. A percentile among random variants of
the same class and about the same length, in the same genome, can be read.
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
from hyenadna.genome.variants import KINDS, Allele, Note, Stretches
from hyenadna.infer.score import Score, Windows

RANKED: Final = ("llr", "llr_allele", "dist")
"""Scores that have a percentile."""
LENGTHS: Final = ("1", "2", "3", "4-5", "6-9", "10-19", "20-49", "50+")
"""Lengths of the longer of REF and ALT that are ranked together."""
_FIRSTS: Final = (1, 2, 3, 4, 6, 10, 20, 50)
_TRIES: Final = 1000
_NEAR, _SPAN = 20, 2048


def group_of(allele: Allele | Note) -> str:
    """Class and lengths among which an allele is ranked: `snv`, `deletion 4-5`; empty for none."""
    if isinstance(allele, Note) or allele.kind == "none":
        return ""
    if allele.kind == "snv":
        return "snv"
    longest = max(len(allele.ref), len(allele.alt))
    return f"{allele.kind} {LENGTHS[bisect.bisect_right(_FIRSTS, longest) - 1]}"


def _order(group: str) -> tuple[int, int]:
    kind, _, lengths = group.partition(" ")
    return KINDS.index(kind), LENGTHS.index(lengths) if lengths else 0


def shapes_to_draw(
    shapes: Mapping[str, Sequence[tuple[int, int]]], windows: Windows
) -> dict[str, list[tuple[int, int]]]:
    """The lengths of ref and alt by group that the model can read, groups in a fixed order."""
    fits = {
        group: [shape for shape in shapes[group] if windows.start(0, max(shape)) is not None]
        for group in sorted(shapes, key=_order)
    }
    return {group: own for group, own in fits.items() if own}


def random_alleles(
    genome: GenomeReader,
    shapes: Mapping[str, Sequence[tuple[int, int]]],
    count: int,
    rng: np.random.Generator,
) -> dict[str, list[Allele]]:
    """`count` variants of each group, at bases of A C G T that all have the same chance.

    shapes: by group, such as `group_of` gives, the lengths of ref and alt to draw from, not both 0.
    The letters of an allele are drawn uniformly, such that it shares no first or last base with the
    reference allele. 20 variants stand within 2,048 bases, and those of all groups at the same
    places, so that they share windows.

    Raises InputError where the genome holds too few known bases.
    """
    out: dict[str, list[Allele]] = {group: [] for group in shapes}
    stretches = Stretches(genome)
    for _ in range(_TRIES * -(-count // _NEAR)):
        missing = {group: min(_NEAR, count - len(own)) for group, own in out.items()}
        if not any(missing.values()):
            return out
        place = _place(stretches, rng)
        for group, wanted in missing.items():
            for _ in range(wanted):
                found = _random_allele(stretches, place, shapes[group], rng)
                out[group] += [found] if found else []
    scarce = min(out, key=lambda group: len(out[group]))
    raise InputError(
        f"{genome.path}: --background found only {len(out[scarce]):,} places of known bases for "
        f"variants of {scarce}; give fewer, or a genome with fewer N"
    )


def _place(stretches: Stretches, rng: np.random.Generator) -> tuple[str, int]:
    """Contig and first base for some variants, so that all bases are as likely.

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
    """Sorted scores of random variants, by group (`group_of`) and kind of score."""

    def __init__(self, values: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
        self.values = {
            group: {
                name: sorted(v for v in each if not math.isnan(v)) for name, each in own.items()
            }
            for group, own in values.items()
        }

    @classmethod
    def of(cls, scores: Mapping[str, Sequence[Score]]) -> Background:
        """From the scores of random variants by group."""
        return cls(
            {
                group: {name: [getattr(score, name) for score in own] for name in RANKED}
                for group, own in scores.items()
            }
        )

    def percentile(self, allele: Allele | Note, name: str, value: float) -> float:
        """Share of the background of that class and length that is smaller, in percent.

        Ties count half. nan where there is no value, or no background.
        """
        return self.rank(group_of(allele), name, value)

    def rank(self, group: str, name: str, value: float) -> float:
        """The same of a group."""
        there = self.values.get(group, {}).get(name, [])
        if not there or math.isnan(value):
            return math.nan
        below, upto = bisect.bisect_left(there, value), bisect.bisect_right(there, value)
        return 100 * (below + upto) / 2 / len(there)

    def percentiles(self, allele: Allele | Note, score: Score) -> list[float]:
        """Of each of `RANKED`."""
        return [self.percentile(allele, name, getattr(score, name)) for name in RANKED]

    def texts(self, allele: Allele | Note, score: Score, missing: str = "") -> list[str]:
        """The percentiles of `RANKED` as files hold them; missing: where there is none."""
        return [percent_text(each, missing) for each in self.percentiles(allele, score)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for `Background(...)`."""
        return {
            group: {name: list(v) for name, v in own.items()} for group, own in self.values.items()
        }

    def quantiles(self) -> dict[str, dict[str, dict[str, float]]]:
        """By group and kind of score: some quantiles, for people."""
        marks = (0.01, 0.05, 0.5, 0.95, 0.99)
        return {
            group: {
                name: {f"{q:g}": float(np.quantile(_array(v), q)) for q in marks}
                for name, v in own.items()
                if v
            }
            for group, own in self.values.items()
        }


def percent_text(value: float, missing: str) -> str:
    """A percentile in four digits; `missing` for nan."""
    return missing if math.isnan(value) else f"{value:.4g}"


def _array(values: Sequence[float]) -> npt.NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)
