"""Tracks read back from the files of a run, for its report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hyenadna.errors import InputError
from hyenadna.genome.intervals import Interval
from hyenadna.infer.run_record import RunRecord

_BLOCK: Final = 1 << 18

Floats = npt.NDArray[np.float32]
Piece = tuple[str, int, int, dict[str, Floats]]
"""Contig, first base, bases of a value, and values side by side by track."""


def stored_tracks(out: Path, record: RunRecord) -> dict[str, Path]:
    """The file of each track by its name, in the order of the run.

    Raises InputError where a file is gone.
    """
    found = {name: out.parent / file for name, file in record.figures["files"].items()}
    for path in found.values():
        if not path.is_file():
            raise InputError(f"{path}: is not beside its record; run the command again")
    return found


def values_in(
    out: Path, record: RunRecord, names: Sequence[str], at: Interval
) -> dict[str, Floats]:
    """The values of these tracks at each base of an interval; NaN where there is none.

    Errors as for `pieces`.
    """
    found = {name: np.full(at.length, np.nan, dtype=np.float32) for name in names}
    for contig, start, span, values in pieces(out, record, names, within=at):
        for name, row in values.items():
            each = np.repeat(row, span)
            first, last = max(start, at.start), min(start + len(each), at.stop)
            if contig == at.contig and first < last:
                found[name][first - at.start : last - at.start] = each[first - start : last - start]
    return found


def pieces(
    out: Path, record: RunRecord, names: Sequence[str], *, within: Interval | None = None
) -> Iterator[Piece]:
    """The values of these tracks over all regions, a piece at a time.

    Pieces of a bigWig are blocks of a contig, NaN where nothing stands. within: others may be
    passed over. Raises InputError where a file is gone or damaged, for a bigWig without pyBigWig,
    and for bedGraph and TSV, which are not read back.
    """
    files = stored_tracks(out, record)
    chosen = {name: files[name] for name in names}
    suffix = out.name.casefold().removesuffix(".gz")
    if suffix.endswith((".bw", ".bigwig")):
        yield from _bigwigs(chosen, within)
    elif suffix.endswith(".parquet"):
        yield from _parquet(out, names)
    else:
        raise InputError(
            f"{out}: tracks are read back from bigWig and .parquet; write one of these"
        )


def _bigwigs(files: dict[str, Path], within: Interval | None) -> Iterator[Piece]:
    try:
        import pyBigWig
    except ImportError as error:
        raise InputError(
            "bigWig is read by pyBigWig, which is not installed; `pip install 'hyenadna[bigwig]'`"
        ) from error
    opened: dict[str, Any] = {}
    try:
        for name, path in files.items():
            opened[name] = pyBigWig.open(str(path))
        for contig, length in next(iter(opened.values())).chroms().items():
            first, last = (0, length) if within is None else (within.start, within.stop)
            if within is not None and contig != within.contig:
                continue
            for start in range(first, last, _BLOCK):
                stop = min(start + _BLOCK, last)
                if all(_empty(bw, contig, start, stop) for bw in opened.values()):
                    continue
                values = {
                    name: np.asarray(bw.values(contig, start, stop, numpy=True), dtype=np.float32)
                    for name, bw in opened.items()
                }
                yield contig, start, 1, values
    except RuntimeError as error:
        raise InputError(f"{next(iter(files.values()))}: cannot be read ({error})") from error
    finally:
        for bw in opened.values():
            with suppress(RuntimeError):
                bw.close()


def _empty(bw: Any, contig: str, start: int, stop: int) -> bool:
    return bool((bw.stats(contig, start, stop, type="coverage")[0] or 0) == 0)


def _parquet(path: Path, names: Sequence[str]) -> Iterator[Piece]:
    import pyarrow.parquet

    columns = [name.replace(".", "_") for name in names]
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(_BLOCK, columns=["contig", "start", "stop", *columns]):
            yield from _runs(batch, names, columns)


def _runs(batch: Any, names: Sequence[str], columns: Sequence[str]) -> Iterator[Piece]:
    """Stretches of a batch of rows that lie side by side with one span."""
    if not batch.num_rows:
        return
    contigs = np.asarray(batch["contig"].to_pylist())
    start, stop = (batch[name].to_numpy() for name in ("start", "stop"))
    values = {
        name: batch[column].to_numpy(zero_copy_only=False).astype(np.float32)
        for name, column in zip(names, columns, strict=True)
    }
    new = (contigs[1:] != contigs[:-1]) | (start[1:] != stop[:-1])
    new |= (stop - start)[1:] != (stop - start)[:-1]
    edges = [0, *(np.flatnonzero(new) + 1).tolist(), len(start)]
    for first, last in pairwise(edges):
        span = int(stop[first] - start[first])
        part = {name: each[first:last] for name, each in values.items()}
        yield str(contigs[first]), int(start[first]), span, part
