"""Embeddings on disk: rows are appended to a file beside, which in the end becomes one `.npz`.

    OUT.npz.part/settings.json     what the rows were computed with
    OUT.npz.part/embeddings.npy    the rows so far, behind a header for all of them
    OUT.npz                        embeddings (rows, D) float32; contig, start, stop (0-based, half
                                   open) of each row; model, settings (JSON)

Nothing of it is held in memory, however many rows there are.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, Self

import numpy as np
import numpy.typing as npt

from hyenadna.errors import InputError
from hyenadna.infer import interrupted
from hyenadna.infer.embed import Tiling

_ROWS_AT_ONCE: Final = 1 << 16
# Fixed, so that the same embeddings are the same file.
_DATE: Final = (1980, 1, 1, 0, 0, 0)
_FLOAT: Final = np.dtype("<f4")


def require_free(path: Path, *, resume: bool = False) -> None:
    """Nothing, where embeddings can be written to `path`. Raises InputError otherwise."""
    if path.suffix != ".npz":
        raise InputError(f"{path}: embeddings are written as .npz; give a name that ends so")
    interrupted.require_free(path, what="rows", resume=resume)


class EmbeddingsFile:
    """The rows of one run on their way into an `.npz`; made by `start` or `resume`."""

    def __init__(self, path: Path, tiling: Tiling, width: int, settings: Mapping[str, Any]) -> None:
        self.path, self.tiling, self.width = path, tiling, width
        self.settings = dict(settings)
        self._part = interrupted.Part(path, ("embeddings.npy", "whole.npz"))
        self._folder = self._part.folder
        self._spill = self._folder / "embeddings.npy"
        self._data_from = 0  # bytes of the header

    @classmethod
    def start(cls, path: Path, tiling: Tiling, width: int, settings: Mapping[str, Any]) -> Self:
        """A file without rows yet. Rows of an interrupted run are dropped.

        width: D. settings: plain values that are stored with the rows.

        Raises InputError where `path` cannot be written.
        """
        require_free(path, resume=True)
        return cls(path, tiling, width, settings)._emptied()

    @classmethod
    def resume(
        cls, path: Path, tiling: Tiling, width: int, settings: Mapping[str, Any]
    ) -> tuple[Self, str]:
        """The file of an interrupted run with its rows, and an empty text.

        Where there is none, or a damaged one, a file without rows and a line that says why. Raises
        InputError where it was made with other settings (its rows stay), and where `path` cannot be
        written.
        """
        require_free(path, resume=True)
        file = cls(path, tiling, width, settings)
        reason = file._part.why_not_resumed(settings)
        if reason:
            return file._emptied(), reason
        try:
            with file._spill.open("rb") as stream:
                np.lib.format.read_magic(stream)
                shape, _, _ = np.lib.format.read_array_header_1_0(stream)
                file._data_from = stream.tell()
        except (OSError, ValueError):
            shape = ()
        if shape != (tiling.rows, width):
            return file._emptied(), file._part.damaged()
        return file, ""

    def _emptied(self) -> Self:
        with self._part.cleared(self.settings), self._spill.open("wb") as stream:
            _write_header(stream, _FLOAT, (self.tiling.rows, self.width))
            self._data_from = stream.tell()
        return self

    @property
    def rows_done(self) -> int:
        """Whole rows on disk."""
        bytes_done = self._spill.stat().st_size - self._data_from
        return bytes_done // (self.width * _FLOAT.itemsize)

    def keep(self, rows: int) -> None:
        """Drop all rows but the first ones (and half a row that a kill may have left)."""
        with self._spill.open("r+b") as stream:
            stream.truncate(self._data_from + rows * self.width * _FLOAT.itemsize)

    def append(self, rows: npt.NDArray[np.float32]) -> None:
        """Add rows (R, D) behind those there are. Raises OSError when the disk is full."""
        with self._spill.open("ab") as stream:
            stream.write(np.ascontiguousarray(rows, dtype=_FLOAT).data)

    def finish(self) -> None:
        """Make the `.npz` of all rows under its own name, and remove what was beside it.

        Raises OSError when the disk is full; the rows are then still beside, to be resumed.
        """
        assert self.rows_done == self.tiling.rows, (self.rows_done, self.tiling.rows)
        whole = self._folder / "whole.npz"
        tiling, rows = self.tiling, (self.tiling.rows,)
        contig = np.dtype(f"<U{max(map(len, tiling.contigs))}")
        with zipfile.ZipFile(whole, "w") as archive:
            with _member(archive, "embeddings") as stream, self._spill.open("rb") as spill:
                shutil.copyfileobj(spill, stream, 1 << 20)
            columns: dict[str, tuple[np.dtype[Any], Column]] = {
                "contig": (contig, lambda name, index, last: np.full(len(index), name)),
                "start": (np.dtype("<i8"), lambda name, index, last: index * tiling.bin),
                "stop": (
                    np.dtype("<i8"),
                    lambda name, index, last: np.minimum((index + 1) * tiling.bin, last),
                ),
            }
            for key, (dtype, column) in columns.items():
                with _member(archive, key) as stream:
                    _write_header(stream, dtype, rows)
                    for part in _column(tiling, column):
                        stream.write(part.astype(dtype).tobytes())
            texts = {"model": str(self.settings.get("model", "")), "settings": self._json()}
            for key, text in texts.items():
                with _member(archive, key) as stream:
                    np.lib.format.write_array(stream, np.array(text))
        self._part.finish(whole)

    def _json(self) -> str:
        return json.dumps(self.settings, sort_keys=True)


Column = Callable[[str, npt.NDArray[np.int64], int], npt.NDArray[Any]]
"""Values of a column for the bins `index` of a contig of a name and a length."""


def _column(tiling: Tiling, column: Column) -> Iterator[npt.NDArray[Any]]:
    """A column in pieces, one value for each row."""
    for contig, bases in tiling.contigs.items():
        rows = -(-bases // tiling.bin)
        for first in range(0, rows, _ROWS_AT_ONCE):
            index = np.arange(first, min(first + _ROWS_AT_ONCE, rows), dtype=np.int64)
            yield column(contig, index, bases)


def _write_header(stream: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)


@contextmanager
def _member(archive: zipfile.ZipFile, key: str) -> Iterator[IO[bytes]]:
    with archive.open(zipfile.ZipInfo(f"{key}.npy", _DATE), "w", force_zip64=True) as stream:
        yield stream
