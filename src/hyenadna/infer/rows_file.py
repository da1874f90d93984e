"""Tables on disk: rows go into a file beside, which in the end takes the name.

    OUT.part/settings.json   what the rows are computed with
    OUT.part/done.json       how much of the input is done, and where its rows end
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
from typing import Any, Final, Literal, Self

from hyenadna.errors import InputError
from hyenadna.infer import interrupted

ColumnType = Literal["text", "integer", "number"]

_SEPARATORS: Final = {".csv": ",", ".tsv": "\t", ".parquet": ","}
_ROWS, _DONE, _WHOLE, _KEPT = "rows", "done.json", "whole", "kept.json"
_BLOCK: Final = 1 << 24


def require_free(path: Path, *, what: str, resume: bool = False) -> None:
    """Nothing, where a table can be written to `path`. Raises InputError otherwise.

    what: the rows, such as `predictions`, for the message.
    """
    if path.suffix not in _SEPARATORS:
        raise InputError(
            f"{path}: {what} are written as {', '.join(_SEPARATORS)}; give a name that ends so"
        )
    interrupted.require_free(path, what=what, resume=resume)


class RowsFile:
    """The rows of one run on their way into a table; made by `start` or `resume`."""

    def __init__(self, path: Path, columns: Mapping[str, ColumnType]) -> None:
        """Hold the folder beside `path`. Raises InputError where another process does."""
        self.path, self.columns = path, dict(columns)
        self.inputs_done = 0
        """Sequences, variants or whatever the input holds, whose rows are on disk."""
        self._end = 0
        self._longest = 0
        self._part = interrupted.Part(path, (_ROWS, _DONE, _WHOLE, _KEPT))
        self._rows = self._part.folder / _ROWS

    @classmethod
    def start(
        cls, path: Path, columns: Mapping[str, ColumnType], settings: Mapping[str, Any]
    ) -> Self:
        """A file without rows yet. Rows of an interrupted run are dropped.

        columns: names and types. settings: plain values, all that the rows depend on.

        Raises InputError where `path` cannot be written.
        """
        interrupted.require_free(path, what="rows", resume=True)
        return cls(path, columns)._emptied(settings)

    @classmethod
    def resume(
        cls, path: Path, columns: Mapping[str, ColumnType], settings: Mapping[str, Any]
    ) -> tuple[Self, str]:
        """The file of an interrupted run with its rows, and an empty text.

        Where there is none, or a damaged one, a file without rows and a line that says why. Raises
        InputError where it was made with other settings (its rows stay), and where `path` cannot be
        written.
        """
        interrupted.require_free(path, what="rows", resume=True)
        file = cls(path, columns)
        reason = file._part.why_not_resumed(settings)
        if not reason and not file._restored():
            reason = file._part.damaged()
        if reason:
            return file._emptied(settings), reason
        return file, ""

    def append(self, rows: Iterable[Sequence[str]], inputs: int) -> None:
        """Add the rows of so many inputs. Raises InputError when the disk is full."""
        text = self._text(rows)
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
        beside = self._part.folder / f"{_KEPT}.new"
        beside.write_text(json.dumps(value))
        beside.replace(self._part.folder / _KEPT)

    def kept(self) -> Any:
        """The value that was stored; None without one, or a damaged one."""
        try:
            return json.loads((self._part.folder / _KEPT).read_text())
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
            self._end = len(header)
            self._mark()
        return self

    def _mark(self) -> None:
        """Note what is done, written beside and renamed."""
        beside = self._part.folder / f"{_DONE}.new"
        state = {"inputs": self.inputs_done, "end": self._end, "longest": self._longest}
        beside.write_text(json.dumps(state))
        beside.replace(self._part.folder / _DONE)

    def _restored(self) -> bool:
        """Whether the state of an interrupted run is whole; what came after it is cut off."""
        try:
            state = json.loads((self._part.folder / _DONE).read_text())
            done, end, longest = (int(state[key]) for key in ("inputs", "end", "longest"))
            if done < 0 or not 0 < end <= self._rows.stat().st_size:
                return False
            with self._rows.open("r+b") as stream:
                stream.truncate(end)
        except (OSError, ValueError, KeyError, TypeError):
            return False
        self.inputs_done, self._end, self._longest = done, end, longest
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
