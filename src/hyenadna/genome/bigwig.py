"""bigWig files, written as the values come: memory does not grow with the genome.

The layout is that of Kent et al., "BigWig and BigBed", Bioinformatics 26 (2010), supplement:

    header, zoom headers, summary, tree of contigs     known at the end, so place is kept for them
    sections of values, each compressed; their index
    for each zoom level: sections of summaries; their index

A zoom level holds count, least, greatest, sum and sum of squares of each cell of so many bases, so
that a browser can draw a whole contig without reading every base. Contigs have the numbers of their
order in the genome; the tree sorts them by name. All numbers are little-endian.

Why not pyBigWig, which writes the same: docs/decisions/genome-tracks.md.
"""

from __future__ import annotations

import struct
import tempfile
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import numpy as np
import numpy.typing as npt

from hyenadna.errors import InputError

_MAGIC, _TREE_MAGIC, _INDEX_MAGIC = 0x888FFC26, 0x78CA8C91, 0x2468ACE0
_VERSION: Final = 4
_HEADER: Final = struct.Struct("<IHHQQQHHQQIQ")
_ZOOM_HEADER: Final = struct.Struct("<IIQQ")
_SUMMARY: Final = struct.Struct("<Qdddd")
_SECTION: Final = struct.Struct("<IIIIIBBH")
_FIXED_STEP: Final = 3
_ITEMS: Final = 8192
"""Values of a section."""
_CELLS: Final = 1024
"""Summaries of a section of a zoom level."""
_BLOCK: Final = 256
"""Children of a node of either tree."""
_FINEST, _FACTOR, _LEVELS = 32, 4, 10
"""Items of a cell of the first zoom level; cells of a cell of the next; most levels."""
_LEVEL: Final = 4  # of zlib: 6 takes twice as long for 1 % less

_CELL: Final = np.dtype(
    [
        ("contig", "<u4"), ("start", "<u4"), ("stop", "<u4"), ("count", "<u4"),
        ("least", "<f4"), ("most", "<f4"), ("sum", "<f4"), ("squares", "<f4"),
    ]
)  # fmt: skip
_ENTRY: Final = np.dtype(
    [
        ("contig", "<u4"), ("start", "<u4"), ("last", "<u4"), ("stop", "<u4"),
        ("offset", "<u8"), ("size", "<u8"),
    ]
)  # fmt: skip
_NODE_ENTRY: Final = np.dtype(_ENTRY.descr[:5])
_BOUNDS: Final = ("contig", "start", "last", "stop")

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[np.void]


def require_contigs(path: str | Path, contigs: Mapping[str, int]) -> None:
    """Nothing, where a bigWig can hold these contigs: at least one, each of 1 to 2^32 - 1 bases.

    Raises InputError otherwise.
    """
    for name, length in contigs.items():
        if not 0 < length < 1 << 32:
            raise InputError(
                f"{path}: contig {name!r} has {length:,} bases; bigWig holds 1 to 4,294,967,295"
            )
    if not contigs:
        raise InputError(f"{path}: a bigWig needs at least one contig")


class BigWigWriter:
    """A new bigWig file; whole only after `close`, or at the end of a `with` block."""

    def __init__(self, path: str | Path, contigs: Mapping[str, int], *, span: int = 1) -> None:
        """Keep place for what stands in front.

        contigs: lengths by name, all of the genome in its order. span: usual bases of a value, from
        which the zoom levels are chosen.

        Raises InputError as `require_contigs` does, and OSError where the file cannot be written.
        """
        require_contigs(path, contigs)
        self.path, self.contigs = Path(path), dict(contigs)
        self._number = {name: number for number, name in enumerate(contigs)}
        self._at = (0, 0)
        """Number of the contig and base behind all values so far."""
        self._file: IO[bytes] = self.path.open("wb")
        self._sections = array("Q")  # five numbers each: a list of tuples takes six times as much
        self._totals = _Totals()
        self._zooms = _zoom_levels(span, max(contigs.values()))
        self._write_front(0, [])
        self._data = self._file.tell()
        self._file.write(struct.pack("<Q", 0))

    def add(self, contig: str, start: int, values: npt.ArrayLike, *, span: int = 1) -> None:
        """Add values of stretches of `span` bases side by side, the first from base `start` on.

        start: counted from 0. NaN is a gap. Values come in the order of contigs and bases.

        Raises InputError for an unknown contig, values past its end, and values out of order.
        """
        array = np.asarray(values, dtype=np.float32)
        if contig not in self._number:
            raise InputError(f"{self.path}: there is no contig {contig!r}")
        number, stop = self._number[contig], start + span * len(array)
        if not 0 <= start <= stop <= self.contigs[contig]:
            raise InputError(
                f"{self.path}: {contig}:{start + 1}-{stop} runs past its end, "
                f"{self.contigs[contig]:,}"
            )
        if (number, start) < self._at:
            raise InputError(
                f"{self.path}: {contig}:{start + 1} comes behind base {self._at[1]:,} of "
                f"{list(self.contigs)[self._at[0]]}; values must come in order"
            )
        self._at = (number, stop)
        for first, last in _present(array):
            self._add_section(number, start + first * span, array[first:last], span)

    def close(self) -> None:
        """Write the indexes, the zoom levels and what stands in front."""
        if self._file.closed:
            return
        try:
            index = self._write_index(self._sections, _ITEMS)
            zooms = self._write_zooms()
            self._file.seek(0)
            self._write_front(index, zooms)
            self._file.seek(self._data)
            self._file.write(struct.pack("<Q", len(self._sections) // 5))
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the file as it is."""
        for zoom in self._zooms:
            zoom.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    # ---- values ---------------------------------------------------------------------------------

    def _add_section(self, contig: int, start: int, values: Floats, span: int) -> None:
        stop = start + span * len(values)
        head = _SECTION.pack(contig, start, stop, span, span, _FIXED_STEP, 0, len(values))
        packed = zlib.compress(head + values.astype("<f4").tobytes(), _LEVEL)
        self._sections.extend((contig, start, stop, self._file.tell(), len(packed)))
        self._file.write(packed)
        self._totals.add(values, span)
        if self._zooms:
            self._zooms[0].add(_as_cells(contig, start, values, span))

    # ---- indexes --------------------------------------------------------------------------------

    def _write_index(self, sections: array[int], items: int, *, moved: int = 0) -> int:
        """Write the index of some sections; returns where it stands.

        sections: contig, start, stop, place and size of each; moved: bytes to add to each place.
        """
        columns = np.frombuffer(sections, dtype=np.uint64).reshape(-1, 5).T
        leaves = np.zeros(columns.shape[1], dtype=_ENTRY)
        leaves["contig"], leaves["start"], leaves["stop"] = columns[:3]
        leaves["last"] = leaves["contig"]
        leaves["offset"], leaves["size"] = columns[3] + np.uint64(moved), columns[4]
        at, end = self._file.tell(), self._file.tell()
        whole = _bounds(leaves, max(1, len(leaves)))
        bounds = [int(whole[0][name]) if len(whole) else 0 for name in _BOUNDS]
        self._file.write(
            struct.pack("<IIQIIIIQII", _INDEX_MAGIC, _BLOCK, len(leaves), *bounds, end, items, 0)
        )
        levels: list[Array] = [leaves]
        while len(levels[-1]) > _BLOCK:
            levels.append(_bounds(levels[-1], _BLOCK))
        starts = [self._file.tell()]
        for level in reversed(levels):  # the root first, the leaves last
            nodes = max(1, -(-len(level) // _BLOCK))
            starts.append(starts[-1] + nodes * (4 + _BLOCK * level.dtype.itemsize))
        for depth, level in enumerate(reversed(levels)):
            leaf = level.dtype == _ENTRY
            if not leaf:
                size = 4 + _BLOCK * levels[-depth - 2].dtype.itemsize
                level["offset"] = starts[depth + 1] + size * np.arange(len(level), dtype=np.uint64)
            for first in range(0, max(1, len(level)), _BLOCK):
                node = level[first : first + _BLOCK]
                body = struct.pack("<BBH", leaf, 0, len(node)) + node.tobytes()
                self._file.write(body.ljust(4 + _BLOCK * level.dtype.itemsize, b"\0"))
        return at

    def _write_zooms(self) -> list[tuple[int, int, int]]:
        """Write the zoom levels; returns bases of a cell, place of data and index of each."""
        found = []
        for level, zoom in enumerate(self._zooms):
            rest = zoom.flush()
            if level + 1 < len(self._zooms):
                self._zooms[level + 1].add(rest)
            if level and zoom.cells <= 1:
                break  # a level of one cell says what the summary says
            at = self._file.tell()
            self._file.write(struct.pack("<I", zoom.cells))
            zoom.copy_to(self._file)
            found.append((zoom.bases, at, self._write_index(zoom.sections, _CELLS, moved=at + 4)))
        return found

    # ---- the front ------------------------------------------------------------------------------

    def _write_front(self, index: int, zooms: Sequence[tuple[int, int, int]]) -> None:
        """Header, zoom headers (with place for all levels), summary and tree of contigs."""
        summary = _HEADER.size + len(self._zooms) * _ZOOM_HEADER.size
        tree = summary + _SUMMARY.size
        data = self._data if index else 0
        largest = max(_SECTION.size + 4 * _ITEMS, _CELL.itemsize * _CELLS)
        self._file.write(
            _HEADER.pack(
                _MAGIC, _VERSION, len(zooms), tree, data, index, 0, 0, 0, summary, largest, 0
            )
        )
        for bases, at, where in zooms:
            self._file.write(_ZOOM_HEADER.pack(bases, 0, at, where))
        self._file.write(bytes((len(self._zooms) - len(zooms)) * _ZOOM_HEADER.size))
        self._file.write(self._totals.pack())
        for piece in _contig_tree(self.contigs, tree):
            self._file.write(piece)


def _present(values: Floats) -> Iterator[tuple[int, int]]:
    """Ends of the stretches without NaN, cut to sections."""
    here = np.concatenate([[False], ~np.isnan(values), [False]])
    edges = np.flatnonzero(here[1:] != here[:-1]).tolist()
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        for start in range(first, last, _ITEMS):
            yield start, min(start + _ITEMS, last)


def _contig_tree(contigs: Mapping[str, int], at: int) -> Iterator[bytes]:
    """The tree of contigs by name, which begins at byte `at`."""
    rows = sorted(
        (name.encode(), number, length) for number, (name, length) in enumerate(contigs.items())
    )
    width = max(len(name) for name, _, _ in rows)
    yield struct.pack("<IIIIQQ", _TREE_MAGIC, _BLOCK, width, 8, len(rows), 0)
    node = 4 + _BLOCK * (width + 8)
    depth = 0
    while _BLOCK ** (depth + 1) < len(rows):
        depth += 1
    start = at + 32
    for level in range(depth, -1, -1):  # a child of the root holds _BLOCK ** depth contigs
        step = _BLOCK**level
        firsts = range(0, len(rows), step)
        below = start + node * -(-len(firsts) // _BLOCK)
        for group in range(0, len(firsts), _BLOCK):
            chosen = firsts[group : group + _BLOCK]
            body = struct.pack("<BBH", level == 0, 0, len(chosen))
            for place, first in enumerate(chosen, start=group):
                name, number, length = rows[first]
                rest = (
                    struct.pack("<II", number, length)
                    if level == 0
                    else struct.pack("<Q", below + node * place)
                )
                body += name.ljust(width, b"\0") + rest
            yield body.ljust(node, b"\0")
        start = below


def _bounds(entries: Array, block: int) -> Array:
    """What each `block` of entries spans; entries are sorted, so the ends are the first and last.

    Sections neither overlap nor come out of order, so the last one ends last.
    """
    firsts = np.arange(0, len(entries), block)
    lasts = np.minimum(firsts + block, len(entries)) - 1
    out = np.zeros(len(firsts), dtype=_NODE_ENTRY)
    out["contig"], out["start"] = entries["contig"][firsts], entries["start"][firsts]
    out["last"], out["stop"] = entries["last"][lasts], entries["stop"][lasts]
    return out


class _Totals:
    """Count, least, greatest, sum and sum of squares over all bases."""

    def __init__(self) -> None:
        self.count = 0
        self.least, self.most, self.sum, self.squares = np.inf, -np.inf, 0.0, 0.0

    def add(self, values: Floats, span: int) -> None:
        exact = values.astype(np.float64)
        self.count += span * len(values)
        self.least = min(self.least, float(exact.min()))
        self.most = max(self.most, float(exact.max()))
        self.sum += span * float(exact.sum())
        self.squares += span * float((exact * exact).sum())

    def pack(self) -> bytes:
        ends = (self.least, self.most) if self.count else (0.0, 0.0)
        return _SUMMARY.pack(self.count, *ends, self.sum, self.squares)


class _Zoom:
    """The cells of one zoom level on their way into a file, and then to the next level."""

    def __init__(self, bases: int, above: _Zoom | None) -> None:
        self.bases, self._above = bases, above
        self.sections = array("Q")
        """Contig, start, stop, place in the file of its own and size of each."""
        self.cells = 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._open = np.zeros(0, dtype=_CELL)
        """Cells that are not written: the last of them may still grow."""

    def add(self, cells: Array) -> None:
        """Add cells of this or a finer level, in order."""
        if not len(cells):
            return
        self._open = _merged(np.concatenate([self._open, cells]), self.bases)
        whole = (len(self._open) - 1) // _CELLS * _CELLS
        if whole:
            self._write(self._open[:whole])
            self._open = self._open[whole:].copy()

    def flush(self) -> Array:
        """Write what is left, and return it for the next level."""
        rest, self._open = self._open, np.zeros(0, dtype=_CELL)
        self._write(rest, pass_on=False)
        return rest

    def _write(self, cells: Array, *, pass_on: bool = True) -> None:
        for contig in np.unique(cells["contig"]).tolist():
            mine = cells[cells["contig"] == contig]
            for first in range(0, len(mine), _CELLS):
                part = mine[first : first + _CELLS]
                packed = zlib.compress(part.tobytes(), _LEVEL)
                at = self._file.tell()
                ends = int(part["start"][0]), int(part["stop"][-1])
                self.sections.extend((contig, *ends, at, len(packed)))
                self._file.write(packed)
                self.cells += len(part)
        if pass_on and self._above is not None:
            self._above.add(cells)

    def copy_to(self, file: IO[bytes]) -> None:
        """Append all sections to another file."""
        self._file.seek(0)
        while piece := self._file.read(1 << 20):
            file.write(piece)

    def close(self) -> None:
        """Drop the file."""
        self._file.close()


def _zoom_levels(span: int, longest: int) -> list[_Zoom]:
    """The levels, finest first: as many as have more than one cell on the longest contig."""
    sizes = [_FINEST * span * _FACTOR**level for level in range(_LEVELS)]
    levels: list[_Zoom] = []
    for bases in reversed([size for size in sizes if size < min(longest, 1 << 31)]):
        levels.insert(0, _Zoom(bases, levels[0] if levels else None))
    return levels


def _as_cells(contig: int, start: int, values: Floats, span: int) -> Array:
    """Each value as a cell of its own."""
    cells = np.zeros(len(values), dtype=_CELL)
    starts = start + span * np.arange(len(values))
    cells["contig"], cells["start"], cells["stop"], cells["count"] = (
        contig, starts, starts + span, span,
    )  # fmt: skip
    cells["least"] = cells["most"] = values
    cells["sum"] = values * np.float32(span)
    cells["squares"] = values * values * np.float32(span)
    return cells


def _merged(cells: Array, bases: int) -> Array:
    """Cells that lie in one stretch of `bases` of a contig as one; a cell is where it starts."""
    keys = cells["contig"].astype(np.uint64) << np.uint64(32) | (
        cells["start"] // np.uint32(bases)
    ).astype(np.uint64)
    firsts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    if len(firsts) == len(cells):
        return cells
    out = cells[firsts]
    lasts = np.append(firsts[1:], len(cells)) - 1
    out["stop"] = cells["stop"][lasts]
    reductions: list[tuple[str, Callable[..., npt.NDArray[np.float64]]]] = [
        ("count", np.add.reduceat), ("least", np.minimum.reduceat),
        ("most", np.maximum.reduceat), ("sum", np.add.reduceat), ("squares", np.add.reduceat),
    ]  # fmt: skip
    for name, reduce in reductions:
        exact = np.uint64 if name == "count" else np.float64
        out[name] = reduce(cells[name].astype(exact), firsts)
    return out
