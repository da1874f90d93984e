"""Targets from files over a genome: a class for each base from BED, values from bigWig."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hyenadna.alphabet import IGNORED
from hyenadna.data.cuts import Cut
from hyenadna.data.labelled_data import Task
from hyenadna.errors import InputError
from hyenadna.genome.fasta import GenomeReader
from hyenadna.genome.intervals import merge, read_bed, require_within

_Spans = dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]


def base_classes(
    cuts: Sequence[Cut],
    genome: GenomeReader,
    tracks: Mapping[str, str | Path],
    background: str | None = "none",
) -> tuple[Task, tuple[npt.NDArray[np.int64], ...]]:
    """The class of each base of each cut, in the direction of its strand: int64 (L,).

    tracks: BED files by class; where two cover a base the first one counts. Their strand is not
    looked at. background: class of a base that no track covers; None masks it. Bases outside the
    contig are masked.

    Raises InputError for a track that is not on the genome, and for fewer than two classes.
    """
    names = tuple(sorted({*tracks, *([background] if background is not None else [])}))
    if len(names) < 2:
        raise InputError(f"tracks: {len(names)} class ({', '.join(names)}); at least 2 are needed")
    spans = [(names.index(name), _spans(Path(path), genome)) for name, path in tracks.items()]
    rest = IGNORED if background is None else names.index(background)
    return Task("tokens", names), tuple(_painted(cut, genome, spans, rest) for cut in cuts)


def bigwig_means(
    cuts: Sequence[Cut], bigwigs: Mapping[str, str | Path]
) -> tuple[Task, npt.NDArray[np.float32]]:
    """Mean of each bigWig over each interval as the source gives it (not its window): (n, T).

    Bases without a value do not count; NaN where no base has one. bigwigs: paths by target name.

    Raises InputError where pyBigWig is missing, and for a file that cannot be read or lacks a
    contig.
    """
    values = np.full((len(cuts), len(bigwigs)), np.nan, dtype=np.float32)
    for j, path in enumerate(bigwigs.values()):
        file = _open_bigwig(Path(path))
        contigs = file.chroms()
        for i, cut in enumerate(cuts):
            at = cut.interval
            if at.contig not in contigs or at.stop > contigs[at.contig]:
                file.close()
                raise InputError(
                    f"{path}: does not hold {at}; is it on another assembly, or are contigs named "
                    "in another way?"
                )
            mean = file.stats(at.contig, at.start, at.stop, exact=True)[0] if at.length else None
            values[i, j] = np.nan if mean is None else mean
        file.close()
    return Task("values", tuple(bigwigs)), values


def _spans(path: Path, genome: GenomeReader) -> _Spans:
    """Starts and stops of the merged intervals of a BED by contig, sorted."""
    rows = read_bed(path)
    for row in rows:
        require_within(
            row.interval, genome.contigs, genome=str(genome.path), where=f"{path}:{row.line}"
        )
    by_contig: dict[str, list[tuple[int, int]]] = {}
    for interval in merge(row.interval for row in rows):
        by_contig.setdefault(interval.contig, []).append((interval.start, interval.stop))
    return {
        contig: (np.array([s for s, _ in ends]), np.array([e for _, e in ends]))
        for contig, ends in by_contig.items()
    }


def _painted(
    cut: Cut, genome: GenomeReader, spans: Sequence[tuple[int, _Spans]], rest: int
) -> npt.NDArray[np.int64]:
    classes = np.full(cut.stop - cut.start, rest, dtype=np.int64)
    for number, by_contig in reversed(spans):  # the first track is painted last, over the others
        starts, stops = by_contig.get(cut.interval.contig, (np.empty(0), np.empty(0)))
        first = int(np.searchsorted(stops, cut.start, side="right"))
        last = int(np.searchsorted(starts, cut.stop, side="left"))
        for start, stop in zip(starts[first:last], stops[first:last], strict=True):
            classes[max(int(start) - cut.start, 0) : int(stop) - cut.start] = number
    length = genome.contigs[cut.interval.contig]
    classes[: max(-cut.start, 0)] = IGNORED
    classes[max(length - cut.start, 0) :] = IGNORED
    return classes[::-1].copy() if cut.reverse else classes


def _open_bigwig(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        import pyBigWig
    except ImportError:
        raise InputError(
            f"{path}: bigWig is read by pyBigWig, which is not installed; `pip install pyBigWig`, "
            "or write the values into a column"
        ) from None
    try:
        file = pyBigWig.open(str(path))
    except RuntimeError as error:
        raise InputError(f"{path}: is no readable bigWig ({error})") from None
    if not file.isBigWig():
        file.close()
        raise InputError(f"{path}: is bigBed, not bigWig")
    return file
