"""Tables on disk: rows go into a file beside, which in the end takes the name.

    OUT.part/settings.json   what the rows are computed with
    OUT.part/done.json       how much of the input is done, and where its rows begin and end
    OUT.part/rows            the rows so far, as text
    OUT.part/kept.json       what else a resumed run must find again, where there is something
    OUT                      CSV (`.csv`), TSV (`.tsv`) or Parquet (`.parquet`)

Nothing of it is held in memory, however many rows there are.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, Literal, Self

from hyenadna.errors import InputError
from hyenadna.infer import interrupted
from hyenadna.infer.shards import Shard, place_of

ColumnType = Literal["text", "integer", "number"]

_SEPARATORS: Final = {".csv": ",", ".tsv": "\t", ".parquet": ","}
ROWS, DONE, _WHOLE, KEPT = "rows", "done.json", "whole", "kept.json"
_STATE: Final = ("inputs", "begin", "end", "longest")
FILES: Final = (ROWS, DONE, _WHOLE, KEPT)
"""What stands in the folder of a run."""
_BLOCK: Final = 1 << 24


def require_free(
    path: Path, *, what: str, resume: bool = False, shard: Shard | None = None
) -> None:
    """Nothing, where a table, or a shard of it, can be written. Raises InputError otherwise.

    what: the rows, such as `predictions`, for the message.
    """
    if path.suffix not in _SEPARATORS:
        raise InputError(
            f"{path}: {what} are written as {', '.join(_SEPARATORS)}; give a name that ends so"
        )
    interrupted.require_free(place_of(path, shard), what=what, resume=resume)


class RowsFile:
    """The rows of one run on their way into a table; made by `start` or `resume`."""

    def __init__(
        self, path: Path, columns: Mapping[str, ColumnType], shard: Shard | None = None
    ) -> None:
        """Hold the folder beside `path`, or beside its shard.

        Raises InputError where another process does.
        """
        self.path, self.columns = path, dict(columns)
        self.inputs_done = 0
        """Sequences, variants or whatever the input holds, whose rows are on disk."""
        self._begin = self._end = 0  # of the rows, behind the header
        self._longest = 0
        self._part = interrupted.Part(place_of(path, shard), FILES)
        self._rows = self._part.folder / ROWS

    @classmethod
    def start(
        cls,
        path: Path,
        columns: Mapping[str, ColumnType],
        settings: Mapping[str, Any],
        shard: Shard | None = None,
    ) -> Self:
        """A file without rows yet. Rows of an interrupted run are dropped.

        columns: names and types. settings: plain values, all that the rows depend on. shard: of
        which these are the rows, where it is not the whole.

        Raises InputError where `path` cannot be written.
        """
        interrupted.require_free(place_of(path, shard), what="rows", resume=True)
        return cls(path, columns, shard)._emptied(settings)

    @classmethod
    def resume(
        cls,
        path: Path,
        columns: Mapping[str, ColumnType],
        settings: Mapping[str, Any],
        shard: Shard | None = None,
    ) -> tuple[Self, str]:
        """The file of an interrupted run with its rows, and an empty text.

        Where there is none, or a damaged one, a file without rows and a line that says why. Raises
        InputError where it was made with other settings (its rows stay), and where `path` cannot be
        written.
        """
        interrupted.require_free(place_of(path, shard), what="rows", resume=True)
        file = cls(path, columns, shard)
        reason = file._part.why_not_resumed(settings)
        if not reason and not file._restored():
            reason = file._part.damaged()
        if reason:
            return file._emptied(settings), reason
        return file, ""

    def append(self, rows: Iterable[Sequence[str]], inputs: int) -> None:
        """Add the rows of so many inputs. Raises InputError when the disk is full."""
        text = self._text(rows)
        self._part.require_mine()
        try:
            with self._rows.open("ab") as stream:
                stream.write(text)
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror or error}); make room and go on "
                "with --resume"
            ) from error
        self._end += len(text)
        self.inputs_done += inputs
        self._mark()

    def keep(self, value: Any) -> None:
        """Store a plain value, for JSON, that a resumed run finds as `kept`."""
        beside = self._part.folder / f"{KEPT}.new"
        beside.write_text(json.dumps(value))
        beside.replace(self._part.folder / KEPT)

    def kept(self) -> Any:
        """The value that was stored; None without one, or a damaged one."""
        try:
            return json.loads((self._part.folder / KEPT).read_text())
        except (OSError, ValueError):
            return None

    def finish(self) -> None:
        """Give the rows their own name and form, and remove what was beside.

        Raises OSError when the disk is full; the rows are then still beside, to be resumed.
        """
        if self.path.suffix == ".parquet":
            whole = self._part.folder / _WHOLE
            _to_parquet(self._rows, whole, self.columns, max(_BLOCK, 4 * self._longest))
            self._part.finish(whole)
        else:
            self._part.finish(self._rows)

    def seal(self, about: Mapping[str, Any]) -> None:
        """The rows so far are those of a complete shard; see `interrupted.Part.seal`."""
        self._part.seal(about, check)

    def _text(self, rows: Iterable[Sequence[str]]) -> bytes:
        stream = io.StringIO()
        separator = _SEPARATORS[self.path.suffix]
        csv.writer(stream, delimiter=separator, lineterminator="\n").writerows(rows)
        text = stream.getvalue()
        if self.path.suffix == ".parquet":
            self._longest = max(self._longest, max(map(len, text.split("\n")), default=0))
        # bytes of the input that are not UTF-8, which a table cannot hold, become "?"
        return text.encode("utf-8", "replace")

    def _emptied(self, settings: Mapping[str, Any]) -> Self:
        header = self._text([list(self.columns)])
        with self._part.cleared(settings):
            self._rows.write_bytes(header)
            self._begin = self._end = len(header)
            self._mark()
        return self

    def _mark(self) -> None:
        """Note what is done, written beside and renamed."""
        beside = self._part.folder / f"{DONE}.new"
        state = {
            "inputs": self.inputs_done,
            "begin": self._begin,
            "end": self._end,
            "longest": self._longest,
        }
        beside.write_text(json.dumps(state))
        beside.replace(self._part.folder / DONE)

    def _restored(self) -> bool:
        """Whether the state of an interrupted run is whole; what came after it is cut off."""
        try:
            state = json.loads((self._part.folder / DONE).read_text())
            done, begin, end, longest = (int(state[key]) for key in _STATE)
            if done < 0 or not 0 < begin <= end <= self._rows.stat().st_size:
                return False
            with self._rows.open("r+b") as stream:
                stream.truncate(end)
        except (OSError, ValueError, KeyError, TypeError):
            return False
        self.inputs_done, self._begin, self._end, self._longest = done, begin, end, longest
        return True


def _to_parquet(rows: Path, whole: Path, columns: Mapping[str, ColumnType], block: int) -> None:
    """Rows as text to Parquet, a block at a time."""
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    types = {"text": pyarrow.string(), "integer": pyarrow.int64(), "number": pyarrow.float32()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
    reader = pyarrow.csv.open_csv(
        rows,
        read_options=pyarrow.csv.ReadOptions(block_size=block, use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=False),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={name: schema.field(name).type for name in columns},
            strings_can_be_null=False,
            null_values=[""],  # a number that is missing
        ),
    )
    with pyarrow.parquet.ParquetWriter(whole, schema) as writer:
        for batch in reader:
            writer.write_batch(batch)


def check(part: Path) -> int:
    """Inputs of the complete shard in a folder.

    Raises OSError, ValueError, KeyError and TypeError for one that is damaged.
    """
    state = json.loads((part / DONE).read_text())
    interrupted.require_size(part / ROWS, state["end"])
    if (part / KEPT).exists():
        json.loads((part / KEPT).read_text())
    return int(state["inputs"])


def gather(parts: Sequence[Path], folder: Path) -> None:
    """Put the rows of the folders of complete shards, in order, into the folder of a whole run.

    What was kept is that of the first. Raises OSError and ValueError for one that is damaged.
    """
    states = [json.loads((part / DONE).read_text()) for part in parts]
    with (folder / ROWS).open("wb") as out:
        for number, (part, state) in enumerate(zip(parts, states, strict=True)):
            begin = 0 if number == 0 else state["begin"]
            copy_bytes(part / ROWS, out, begin, state["end"])
        end = out.tell()
    whole = {
        "inputs": sum(state["inputs"] for state in states),
        "begin": states[0]["begin"],
        "end": end,
        "longest": max(state["longest"] for state in states),
    }
    (folder / DONE).write_text(json.dumps(whole))
    if (parts[0] / KEPT).exists():
        (folder / KEPT).write_bytes((parts[0] / KEPT).read_bytes())


def copy_bytes(source: Path, out: IO[bytes], begin: int, end: int) -> None:
    """Copy the bytes begin .. end - 1. Raises ValueError where the file is shorter."""
    with source.open("rb") as stream:
        stream.seek(begin)
        left = end - begin
        while left:
            block = stream.read(min(left, _BLOCK))
            if not block:
                raise ValueError(f"{source}: ends too early")
            out.write(block)
            left -= len(block)
