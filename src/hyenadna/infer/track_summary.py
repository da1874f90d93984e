"""What tracks hold, in a few numbers: means, quantiles, kinds of bases, the ends of the scale."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hyenadna.genome.fasta import GenomeReader
from hyenadna.genome.intervals import Interval
from hyenadna.infer.track_features import BaseKinds
from hyenadna.infer.track_files import CHUNK, Track, values_at
from hyenadna.infer.track_spill import TrackSpill

STRETCH: Final = 200
"""Bases of a stretch whose mean is compared with that of others."""
_FEWEST: Final = 0.9
"""Share of a stretch's bases that must have a value."""
_SHOWN: Final = 10
_CELL: Final = 1 / 256
"""Width of a cell of the histogram that quantiles are read from."""
_CELLS: Final = 64 * 256
QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)

Floats = npt.NDArray[np.float32]


@dataclass
class _Sums:
    """Sum and number of values."""

    total: float = 0.0
    count: int = 0

    def add(self, values: Floats) -> None:
        known = values[~np.isnan(values)]
        self.total += float(known.sum(dtype=np.float64))
        self.count += len(known)

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None


@dataclass
class _Summary:
    """Of one track."""

    all: _Sums = field(default_factory=_Sums)
    cells: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(_CELLS, dtype=np.int64))
    kinds: dict[str, _Sums] = field(default_factory=dict)

    def add(self, values: Floats) -> None:
        self.all.add(values)
        known = values[~np.isnan(values)]
        at = np.minimum((known / _CELL).astype(np.int64), _CELLS - 1)
        self.cells += np.bincount(at, minlength=_CELLS)

    def quantile(self, share: float) -> float | None:
        """To 1/256."""
        if not self.all.count:
            return None
        below = np.cumsum(self.cells)
        return float(_CELL * (0.5 + np.searchsorted(below, share * below[-1])))


def summarise(
    spill: TrackSpill,
    tracks: Sequence[Track],
    genome: GenomeReader,
    kinds: BaseKinds,
) -> dict[str, Any]:
    """Plain values for the record of a run; reads all values once, a stretch at a time.

    tracks: those written; the strands that an average is made of are told too. Means by kind of
    base, by letter case (lower case: repeats, in most genomes), and the stretches of 200 bases with
    the lowest and the highest mean, are those of the first track.
    """
    first = tracks[0]
    told = list(dict.fromkeys([*tracks, *_halves(spill, tracks)]))
    summaries = {track: _Summary() for track in told}
    ends = _Ends()
    by_kind = summaries[first].kinds
    for region in spill.plan.regions:
        for at in _pieces(region):
            for track in told:
                values = values_at(spill, track, at)
                summaries[track].add(values)
                if track == first:
                    ends.add(at, values)
                    for name, mask in _masks(genome, kinds, at):
                        by_kind.setdefault(name, _Sums()).add(values[mask])
    return {
        "tracks": [
            {
                "track": track.name,
                "bases": summary.all.count,
                "mean": summary.all.mean,
                **{f"{share:.0%} below": summary.quantile(share) for share in QUANTILES},
            }
            for track, summary in summaries.items()
        ],
        "kinds": [
            {"kind": name, "bases": sums.count, "mean": sums.mean} for name, sums in by_kind.items()
        ],
        "lowest": ends.lowest(),
        "highest": ends.highest(),
    }


def _halves(spill: TrackSpill, tracks: Sequence[Track]) -> Iterator[Track]:
    """The strands behind each average."""
    for track in tracks:
        if track.strand == "average":
            for strand in spill.plan.strands:
                yield Track(track.channel, strand)


def _pieces(region: Interval) -> Iterator[Interval]:
    """Pieces of a region whose ends are ends of stretches."""
    start = region.start
    step = CHUNK // STRETCH * STRETCH
    while start < region.stop:
        stop = min(start // STRETCH * STRETCH + step, region.stop)
        yield Interval(region.contig, start, stop)
        start = stop


def _masks(
    genome: GenomeReader, kinds: BaseKinds, at: Interval
) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    lower = genome.soft_masked(at.contig, at.start, at.stop)
    yield "upper case", ~lower
    yield "lower case", lower
    for name in kinds.names:
        yield name, kinds.mask(name, at)


class _Ends:
    """The stretches with the lowest and the highest means."""

    def __init__(self) -> None:
        self._low: list[tuple[float, str, int]] = []
        self._high: list[tuple[float, str, int]] = []

    def add(self, at: Interval, values: Floats) -> None:
        """Stretches lie on the contig from its first base on; cut ones do not count."""
        first = -(-at.start // STRETCH) * STRETCH
        last = at.stop // STRETCH * STRETCH
        if first >= last:
            return
        groups = values[first - at.start : last - at.start].reshape(-1, STRETCH)
        enough = np.flatnonzero((~np.isnan(groups)).sum(1) >= _FEWEST * STRETCH)
        if not len(enough):
            return
        means = np.nanmean(groups[enough].astype(np.float64), axis=1)
        order = np.argsort(means, kind="stable")
        for heap, chosen, sign in (
            (self._low, order[:_SHOWN], -1.0),
            (self._high, order[::-1][:_SHOWN], 1.0),
        ):
            for index in chosen.tolist():
                start = first + STRETCH * int(enough[index])
                heapq.heappush(heap, (sign * float(means[index]), at.contig, start))
                if len(heap) > _SHOWN:
                    heapq.heappop(heap)

    def lowest(self) -> list[dict[str, Any]]:
        return [_stretch(-mean, contig, start) for mean, contig, start in sorted(self._low)[::-1]]

    def highest(self) -> list[dict[str, Any]]:
        return [_stretch(mean, contig, start) for mean, contig, start in sorted(self._high)[::-1]]


def _stretch(mean: float, contig: str, start: int) -> dict[str, Any]:
    return {"stretch": str(Interval(contig, start, start + STRETCH)), "mean": mean}
