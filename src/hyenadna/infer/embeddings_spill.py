"""Rows of embeddings on their way to a file, and read back in blocks when all are there.

    PART/settings.json   what the rows are computed with
    PART/done.json       how far the input is done, and where its rows and sequences end
    PART/rows            the rows so far, numbers alone
    PART/sequences       a JSON list a line for each sequence done: id, length, other columns

What is said of a sequence is stored once, however many rows it has. Nothing is held in memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from hyenadna.data.records import Record
from hyenadna.errors import InputError
from hyenadna.infer.interrupted import require_size
from hyenadna.infer.rows_file import copy_bytes

ROWS, SEQUENCES, DONE = "rows", "sequences", "done.json"
BLOCK_ROWS: Final = 1 << 14
MOST_CATEGORIES: Final = 1024
"""A text column of more different values than this is not one of categories."""

_WHOLE: Final = re.compile(r"-?(0|[1-9]\d{0,17})")
_NUMBER: Final = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?|nan|[-+]?inf", re.IGNORECASE)

Kind = Literal["text", "integer", "number"]
Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class RowLayout:
    """What the rows of a file are."""

    rows: int
    width: int
    """D."""
    dtype: Literal["float32", "float16"] = "float32"
    id: str = "id"
    """Name of the column of ids."""
    columns: tuple[str, ...] = ()
    """Names of the other columns of each sequence."""
    bin: int | None = None
    """Bases of a row; None: a sequence is one."""
    places: tuple[str, ...] = ()
    """Columns that say where in its sequence a row is: (start, stop), (position,), or none."""

    @property
    def numpy(self) -> np.dtype[Any]:
        """Type of the numbers as they are stored."""
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.width * self.numpy.itemsize

    def rows_of(self, length: int) -> int:
        """Rows of a sequence."""
        return 1 if self.bin is None else -(-length // self.bin)

    @property
    def names(self) -> tuple[str, ...]:
        """All columns: the id, where in it, and the others."""
        return (self.id, *self.places, *self.columns)


@dataclass
class Column:
    """What is found in a column of text when all of it is there."""

    integer: bool = True
    number: bool = True
    widest: int = 1
    empty: bool = False
    categories: set[str] | None = field(default_factory=set)

    def add(self, text: str) -> None:
        """Take note of a value."""
        self.widest = max(self.widest, len(text))
        if self.categories is not None:
            self.categories.add(text)
            if len(self.categories) > MOST_CATEGORIES:
                self.categories = None
        text = text.strip()
        if not text:
            self.empty = True
            return
        self.integer = self.integer and _WHOLE.fullmatch(text) is not None
        zeros = len(text) > 1 and text[0] == "0" and text.isdigit()  # 007 is a name
        self.number = self.number and not zeros and _NUMBER.fullmatch(text) is not None

    @property
    def kind(self) -> Kind:
        """Whole numbers, numbers (a missing one is NaN), or text."""
        if self.empty and self.categories == {""}:
            return "text"
        if self.integer and not self.empty:
            return "integer"
        return "number" if self.number else "text"


class Spill:
    """Rows and sequences of one run in a folder."""

    def __init__(self, folder: Path, layout: RowLayout) -> None:
        self.layout = layout
        self._folder = folder
        self._rows, self._sequences, self._done = (folder / n for n in (ROWS, SEQUENCES, DONE))
        self.sequences = 0
        """Sequences whose rows are all on disk."""
        self.within = 0
        """Chunks of the next one whose rows are there."""
        self.rows = 0
        self._end = 0

    def empty(self, within: int = 0) -> None:
        """Begin anew, behind so many chunks of the first sequence."""
        self.sequences = self.rows = self._end = 0
        self.within = within
        self._rows.write_bytes(b"")
        self._sequences.write_bytes(b"")
        self._mark()

    def restore(self) -> bool:
        """Whether what an interrupted run left is whole; what came after its mark is cut off."""
        try:
            state = json.loads(self._done.read_text())
            found = [int(state[key]) for key in ("sequences", "within", "rows", "end")]
            sizes = (found[2] * self.layout.row_bytes, found[3])
            files = (self._rows, self._sequences)
            if min(found) < 0 or any(
                file.stat().st_size < size for file, size in zip(files, sizes, strict=True)
            ):
                return False
            for file, size in zip(files, sizes, strict=True):
                with file.open("r+b") as stream:
                    stream.truncate(size)
        except (OSError, ValueError, KeyError, TypeError):
            return False
        self.sequences, self.within, self.rows, self._end = found
        return True

    def append(self, rows: npt.NDArray[np.float32], ended: Sequence[Record], within: int) -> None:
        """Add rows (R, D) and the sequences that they end. Raises OSError when the disk is full."""
        # JSON: cells may hold anything, line ends too
        told = ([record.id, record.length, *record.cells] for record in ended)
        text = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in told)
        lines = text.encode("utf-8", "replace")
        with self._rows.open("ab") as out:
            out.write(np.ascontiguousarray(rows, dtype=self.layout.numpy).data)
        with self._sequences.open("ab") as out:
            out.write(lines)
        self._end += len(lines)
        self.rows += len(rows)
        self.sequences += len(ended)
        self.within = within
        self._mark()

    def _mark(self) -> None:
        """Note what is done, written beside and renamed."""
        beside = self._folder / f"{DONE}.new"
        state = {
            "sequences": self.sequences,
            "within": self.within,
            "rows": self.rows,
            "end": self._end,
            "bytes": self.rows * self.layout.row_bytes,
        }
        beside.write_text(json.dumps(state))
        beside.replace(self._done)


@dataclass(frozen=True)
class Block:
    """Some rows, one after the other."""

    first: int
    """Number of the first row, from 0."""
    columns: dict[str, Array]
    """Values of each row by column: int64, float64 or object (text)."""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


class FinishedRows:
    """All rows of a run, in blocks; nothing of them is held."""

    def __init__(self, folder: Path, layout: RowLayout) -> None:
        """Reads what is said of the sequences once, for the types of the columns."""
        self.layout = layout
        self._lines, self._rows = folder / SEQUENCES, folder / ROWS
        self.kinds: dict[str, Column] = {name: Column() for name in (layout.id, *layout.columns)}
        for id, _, cells in self.sequences():
            for name, text in zip(self.kinds, (id, *cells), strict=True):
                self.kinds[name].add(text)

    def kind(self, name: str) -> Kind:
        """Type of a column; ids are text."""
        if name in self.layout.places:
            return "integer"
        return "text" if name == self.layout.id else self.kinds[name].kind

    def embeddings(self, first: int, last: int) -> npt.NDArray[Any]:
        """Rows first .. last - 1, (rows, D).

        Read, not mapped: pages of a mapped file count as memory of the process.
        """
        layout = self.layout
        count = max(0, min(last, layout.rows) - first)
        with self._rows.open("rb") as stream:
            stream.seek(first * layout.row_bytes)
            numbers = np.fromfile(stream, layout.numpy, count * layout.width)
        return numbers.reshape(count, layout.width)

    def raw(self) -> Path:
        """The file of the numbers alone, row after row."""
        return self._rows

    def blocks(self, names: Iterable[str] | None = None, most: int = BLOCK_ROWS) -> Iterator[Block]:
        """Columns (all when left out) of `most` rows at a time; the last has what is left."""
        wanted = tuple(self.layout.names if names is None else names)
        first, held = 0, 0
        lines: list[tuple[str, tuple[str, ...]]] = []
        spans: list[tuple[int, int, int]] = []  # length, first and last row of the sequence
        for id, length, cells in self.sequences():
            rows, at = self.layout.rows_of(length), 0
            while at < rows:
                take = min(rows - at, most - held)
                lines.append((id, cells))
                spans.append((length, at, at + take))
                at, held = at + take, held + take
                if held == most:
                    yield self._block(first, wanted, lines, spans)
                    first, held, lines, spans = first + held, 0, [], []
        if held:
            yield self._block(first, wanted, lines, spans)

    def _block(
        self,
        first: int,
        wanted: Sequence[str],
        lines: Sequence[tuple[str, tuple[str, ...]]],
        spans: Sequence[tuple[int, int, int]],
    ) -> Block:
        layout = self.layout
        counts = np.array([last - begin for _, begin, last in spans])
        columns: dict[str, Array] = {}
        if layout.places:
            at = np.concatenate([np.arange(begin, last) for _, begin, last in spans])
            bin, ends = layout.bin or 1, np.repeat([length for length, _, _ in spans], counts)
            values = (at * bin, np.minimum((at + 1) * bin, ends))
            places = dict(zip(layout.places, values, strict=False))
        for name in wanted:
            if name in layout.places:
                columns[name] = places[name].astype(np.int64)
                continue
            number = (layout.id, *layout.columns).index(name)
            texts = [id if number == 0 else cells[number - 1] for id, cells in lines]
            columns[name] = np.repeat(_typed(texts, self.kind(name)), counts)
        return Block(first, columns)

    def sequences(self) -> Iterator[tuple[str, int, tuple[str, ...]]]:
        """Id, length and other columns of each sequence."""
        with self._lines.open(encoding="utf-8", newline="\n") as text:
            for line in text:
                id, length, *cells = json.loads(line)
                yield id, int(length), tuple(cells)


def _typed(texts: Sequence[str], kind: Kind) -> Array:
    if kind == "integer":
        return np.array([int(text) for text in texts], dtype=np.int64)
    if kind == "number":
        return np.array([float(text) if text.strip() else np.nan for text in texts])
    return np.array([*texts, None], dtype=object)[:-1]  # never an array of arrays


def check(part: Path) -> int:
    """Rows of the complete shard in a folder.

    Raises OSError, ValueError, KeyError and TypeError for one that is damaged.
    """
    state = json.loads((part / DONE).read_text())
    require_size(part / ROWS, state["bytes"])
    require_size(part / SEQUENCES, state["end"])
    return int(state["rows"])


def gather(parts: Sequence[Path], folder: Path) -> None:
    """Put the rows of the folders of complete shards, in order, into the folder of a whole run.

    Raises OSError and ValueError for one that is damaged.
    """
    whole = {"sequences": 0, "within": 0, "rows": 0, "end": 0}
    states = [json.loads((part / DONE).read_text()) for part in parts]
    with (folder / ROWS).open("wb") as rows, (folder / SEQUENCES).open("wb") as lines:
        for part, state in zip(parts, states, strict=True):
            copy_bytes(part / ROWS, rows, 0, state["bytes"])
            copy_bytes(part / SEQUENCES, lines, 0, state["end"])
            for key in ("sequences", "rows", "end"):
                whole[key] += state[key]
    (folder / DONE).write_text(json.dumps(whole))


def as_stored(rows: npt.NDArray[np.float32], layout: RowLayout) -> Array:
    """The rows in the type of the layout. Raises InputError where float16 has no such number."""
    if layout.dtype == "float32":
        return rows
    with np.errstate(over="ignore"):
        small = rows.astype(np.float16)
    if (np.isinf(small) & np.isfinite(rows)).any():
        largest = float(np.abs(rows[np.isfinite(rows)]).max())
        raise InputError(
            f"--dtype float16 holds numbers up to 65,504, but a row has {largest:,.0f}; take "
            "float32"
        )
    return small
