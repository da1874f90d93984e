"""Targets from files over a genome: a class for each base, or values from bigWig."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hyenadna.alphabet import IGNORED
from hyenadna.data.annotation_classes import AnnotatedClasses
from hyenadna.data.cuts import Cut
from hyenadna.data.labelled_data import Task, turned_classes
from hyenadna.errors import InputError
from hyenadna.genome.fasta import GenomeReader

Int8s = npt.NDArray[np.int8]

_UNPAINTED: Final = -1


def base_classes(
    cuts: Sequence[Cut], genome: GenomeReader, annotated: AnnotatedClasses
) -> tuple[Task, tuple[npt.NDArray[np.int64], ...]]:
    """The class of each base of each cut, in the direction of its strand: int64 (L,).

    On the reverse strand, classes that have a strand are those of the other one. Bases outside the
    contig are masked.
    """
    task = Task("tokens", annotated.names)
    by_contig: dict[str, list[int]] = {}
    for i, cut in enumerate(cuts):
        by_contig.setdefault(cut.interval.contig, []).append(i)
    found: dict[int, npt.NDArray[np.int64]] = {}
    for contig, rows in by_contig.items():
        length = genome.contigs[contig]
        start = max(min(cuts[i].start for i in rows), 0)
        stop = min(max(cuts[i].stop for i in rows), length)
        classes = _painted(annotated, contig, start, stop)
        for i in rows:
            found[i] = _read(classes, start, cuts[i], task)
    return task, tuple(found[i] for i in range(len(cuts)))


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


def _painted(annotated: AnnotatedClasses, contig: str, start: int, stop: int) -> Int8s:
    """The classes of the bases start .. stop - 1 of a contig, forward: int8 (stop - start,)."""
    rest = IGNORED if annotated.rest is None else annotated.rest
    classes = np.full(stop - start, rest, dtype=np.int8)
    for layer in reversed(annotated.layers):  # the first one is painted last, over the others
        own = np.full(stop - start, _UNPAINTED, dtype=np.int8)
        for stretch in layer.get(contig, ()):
            first, last = max(stretch.start, start), min(stretch.stop, stop)
            if first < last:
                turn = (first - stretch.start) % len(stretch.classes)
                pattern = stretch.classes[turn:] + stretch.classes[:turn]
                new = np.resize(np.array(pattern, dtype=np.int8), last - first)
                old = own[first - start : last - start]
                # two classes of one layer are at odds: neither is taken
                odd = (old != _UNPAINTED) & (old != new)
                own[first - start : last - start] = np.where(odd, np.int8(IGNORED), new)
        np.copyto(classes, own, where=own != _UNPAINTED)
    return classes


def _read(classes: Int8s, start: int, cut: Cut, task: Task) -> npt.NDArray[np.int64]:
    """The classes of a cut, from those of the bases from `start` on; masked where there is none."""
    out = np.full(cut.stop - cut.start, IGNORED, dtype=np.int64)
    first, last = max(cut.start, start), min(cut.stop, start + len(classes))
    if first < last:
        out[first - cut.start : last - cut.start] = classes[first - start : last - start]
    return turned_classes(out, task) if cut.reverse else out


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
