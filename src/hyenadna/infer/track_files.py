"""Tracks as files: bigWig (`.bw`), bedGraph (`.bedgraph`, `.bedgraph.gz`), tables.

A bigWig or a bedGraph holds one track. Several take names after the one given: `x.bw` becomes
`x.surprisal.forward.bw`, `x.surprisal.reverse.bw`. A table (`.parquet`, `.tsv`) holds all, each a
column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Final, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from hyenadna.errors import InputError
from hyenadna.genome.bigwig import BigWigWriter, require_contigs
from hyenadna.genome.intervals import Interval
from hyenadna.infer import interrupted
from hyenadna.infer.shards import Shard, place_of
from hyenadna.infer.track import Value, channels
from hyenadna.infer.track_spill import TrackSpill
from hyenadna.infer.track_windows import STRANDS, Strand

StrandChoice = Literal["average", "forward", "reverse", "each"]
_BIGWIG: Final = (".bw", ".bigwig")
_BEDGRAPH: Final = (".bedgraph", ".bdg", ".bedgraph.gz", ".bdg.gz")
_TABLE: Final = (".parquet", ".tsv")
SUFFIXES: Final = (*_BIGWIG, *_BEDGRAPH, *_TABLE)
CHUNK: Final = 1 << 20
"""Bases that are in memory at a time while files are written."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Track:
    """One number for each base."""

    channel: str
    strand: Literal["average", "forward", "reverse"]

    @property
    def name(self) -> str:
        """As in file names and columns: `surprisal.forward`."""
        return f"{self.channel}.{self.strand}"


class Run(NamedTuple):
    """Values of stretches of `span` bases side by side; NaN where there is none."""

    contig: str
    start: int
    span: int
    values: Floats


def chosen_tracks(values: Sequence[Value], strands: StrandChoice) -> list[Track]:
    """The tracks of these values and strands; `each`: both strands, each for itself."""
    chosen: tuple[Any, ...] = STRANDS if strands == "each" else (strands,)
    return [Track(channel, strand) for channel in channels(values) for strand in chosen]


def strands_read(strands: StrandChoice) -> tuple[Strand, ...]:
    """The strands that the model must read for these tracks."""
    return (strands,) if strands == "forward" or strands == "reverse" else STRANDS


def track_paths(out: Path, tracks: Sequence[Track]) -> list[Path]:
    """The files that hold these tracks: one for each, or one for all in a table.

    Raises InputError for another suffix, naming those that there are.
    """
    stem, suffix = _split(out)
    if suffix.casefold() in _TABLE or len(tracks) == 1:
        return [out]
    return [out.with_name(f"{stem}.{track.name}{suffix}") for track in tracks]


def require_free(
    out: Path, paths: Sequence[Path], *, resume: bool, shard: Shard | None = None
) -> None:
    """Nothing, where all of these can be written. Raises InputError otherwise."""
    for path in paths:
        if path != out and path.exists():
            raise InputError(f"{path}: exists; remove it, or give another --out")
    interrupted.require_free(place_of(out, shard), what="values", resume=resume)


def require_fit(out: Path, contigs: Mapping[str, int]) -> None:
    """Nothing, where a file of this name can hold these contigs. Raises InputError otherwise."""
    if _split(out)[1].casefold() in _BIGWIG:
        require_contigs(out, {name: length for name, length in contigs.items() if length})


def runs(spill: TrackSpill, track: Track, *, bin: int = 1) -> Iterator[Run]:
    """The values of a track over all regions, in order; bin: mean over so many bases.

    Bins lie on the contig from its first base on; at the ends of a region they are cut. A bin is
    the mean of the bases that have a value.
    """
    for region in spill.plan.regions:
        for at in _chunks(region, bin):
            yield from _binned(at, values_at(spill, track, at), bin)


def values_at(spill: TrackSpill, track: Track, at: Interval) -> Floats:
    """Values of the bases of a track; the average of both strands where both have one."""
    if track.strand != "average":
        return spill.read(track.channel, track.strand, at)
    forward, reverse = (spill.read(track.channel, strand, at) for strand in STRANDS)
    mean: Floats = (forward + reverse) * np.float32(0.5)
    return mean


def write_tracks(
    spill: TrackSpill,
    tracks: Sequence[Track],
    out: Path,
    *,
    bin: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write all tracks and give them their names; returns those, as `track_paths` does.

    progress: told the bases written and those in all. Raises OSError when the disk is full; the
    values are then still beside, to be resumed.
    """
    paths = track_paths(out, tracks)
    suffix = _split(out)[1].casefold()
    tell = _Told(spill.plan.bases * len(tracks), progress)
    if suffix in _TABLE:
        _write_table(spill, tracks, suffix, bin, tell)
    else:
        write = _write_bigwig if suffix in _BIGWIG else _write_bedgraph
        for number, track in enumerate(tracks):
            write(spill, track, spill.beside(number), bin, tell, suffix)
    spill.finish(paths)
    return paths


class _Told:
    """Progress over all tracks."""

    def __init__(self, total: int, progress: Callable[[int, int], None] | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def __call__(self, bases: int) -> None:
        self.done += bases
        if self.progress:
            self.progress(min(self.done, self.total), self.total)


def _write_bigwig(
    spill: TrackSpill, track: Track, path: Path, bin: int, tell: _Told, suffix: str
) -> None:
    contigs = {name: length for name, length in spill.plan.contigs.items() if length}
    with BigWigWriter(path, contigs, span=bin) as file:
        for run in runs(spill, track, bin=bin):
            file.add(run.contig, run.start, run.values, span=run.span)
            tell(run.span * len(run.values))


def _write_bedgraph(
    spill: TrackSpill, track: Track, path: Path, bin: int, tell: _Told, suffix: str
) -> None:
    with _open_text(path, packed=suffix.endswith(".gz")) as file:
        for run in runs(spill, track, bin=bin):
            known = np.flatnonzero(~np.isnan(run.values))
            starts = (run.start + run.span * known).tolist()
            lines = (
                f"{run.contig}\t{start}\t{start + run.span}\t{value:.6g}\n"
                for start, value in zip(starts, run.values[known].tolist(), strict=True)
            )
            file.write("".join(lines).encode())
            tell(run.span * len(run.values))


def _open_text(path: Path, *, packed: bool) -> IO[bytes]:
    if not packed:
        return path.open("wb")
    import pysam

    return cast(IO[bytes], pysam.BGZFile(str(path), "wb", None))


def _write_table(
    spill: TrackSpill, tracks: Sequence[Track], suffix: str, bin: int, tell: _Told
) -> None:
    """Contig, start, stop (0-based, half open), and a column for each track."""
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    schema = pyarrow.schema(
        [
            ("contig", pyarrow.string()), ("start", pyarrow.int64()), ("stop", pyarrow.int64()),
            *((track.name.replace(".", "_"), pyarrow.float32()) for track in tracks),
        ]
    )  # fmt: skip
    path = spill.beside(0)
    options = pyarrow.csv.WriteOptions(delimiter="\t", quoting_style="none")
    with (
        pyarrow.parquet.ParquetWriter(path, schema)
        if suffix == ".parquet"
        else pyarrow.csv.CSVWriter(path, schema, write_options=options)
    ) as writer:
        for together in zip(*(runs(spill, track, bin=bin) for track in tracks), strict=True):
            run = together[0]
            starts = run.start + run.span * np.arange(len(run.values), dtype=np.int64)
            columns: list[Any] = [
                pyarrow.repeat(run.contig, len(starts)), starts, starts + run.span,
            ]  # fmt: skip
            columns += [pyarrow.array(each.values, from_pandas=True) for each in together]
            writer.write_batch(pyarrow.record_batch(columns, schema=schema))
            tell(run.span * len(run.values) * len(tracks))


def _chunks(region: Interval, bin: int) -> Iterator[Interval]:
    """Pieces of a region that are read at a time; their ends are ends of bins."""
    step = max(1, CHUNK // bin) * bin
    start = region.start
    while start < region.stop:
        stop = min(start // bin * bin + step, region.stop)
        yield Interval(region.contig, start, stop)
        start = stop


def _binned(at: Interval, values: Floats, bin: int) -> Iterator[Run]:
    """Means over the bins of a contig in a stretch; those cut at its ends by themselves."""
    if bin == 1:
        yield Run(at.contig, at.start, 1, values)
        return
    first = -(-at.start // bin) * bin
    last = at.stop // bin * bin
    if first >= last:  # less than one whole bin, maybe across the end of one
        edges = [at.start, *([first] if at.start < first < at.stop else []), at.stop]
    else:
        edges = sorted({at.start, first, last, at.stop})
    for start, stop in pairwise(edges):
        span = bin if first <= start < last else stop - start
        part = values[start - at.start : stop - at.start].reshape(-1, span)
        yield Run(at.contig, start, span, _means(part))


def _means(groups: Floats) -> Floats:
    """(G, K) -> (G,): mean of what is not NaN, in float64; NaN where there is nothing."""
    known = ~np.isnan(groups)
    count = known.sum(1)
    total = np.where(known, groups, 0).sum(1, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _split(out: Path) -> tuple[str, str]:
    """Stem and suffix of a name, the suffix with .gz where there is one."""
    name = out.name
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.casefold().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], name[-len(suffix) :]
    raise InputError(
        f"{out}: tracks are written as {', '.join(SUFFIXES)}; give a name that ends so"
    )
