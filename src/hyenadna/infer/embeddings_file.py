"""Embeddings on disk: rows are appended beside, which in the end become one file.

    .npz      embeddings (rows, D); an array for each column; model, settings (JSON)
    .parquet  a column for each, and `embedding`, a list of D numbers
    .h5ad     AnnData: X, obs with the columns, settings in uns
    .zarr     the same AnnData as a zarr folder

Nothing of it is held in memory, however many rows there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from hyenadna.data.records import Record
from hyenadna.errors import InputError
from hyenadna.infer import interrupted
from hyenadna.infer.embedding_formats import anndata_layout, npz, parquet
from hyenadna.infer.embeddings_spill import (
    DONE,
    ROWS,
    SEQUENCES,
    FinishedRows,
    RowLayout,
    Spill,
    as_stored,
    check,
)
from hyenadna.infer.shards import Shard, place_of

Writer = Callable[[Path, FinishedRows, Mapping[str, Any]], list[str]]
"""Writes all rows with their settings to a path; returns notes for the user."""

WRITERS: Final[Mapping[str, Writer]] = {
    ".npz": npz.write,
    ".parquet": parquet.write,
    ".h5ad": anndata_layout.write_h5ad,
    ".zarr": anndata_layout.write_zarr,
}
FILES: Final = (ROWS, SEQUENCES, DONE, f"{DONE}.new", *(f"whole{suffix}" for suffix in WRITERS))
"""What stands in the folder of a run."""


def require_free(path: Path, *, resume: bool = False, shard: Shard | None = None) -> None:
    """Nothing, where embeddings, or a shard, can be written. Raises InputError otherwise."""
    if path.suffix not in WRITERS:
        raise InputError(
            f"{path}: embeddings are written as {', '.join(WRITERS)}; give a name that ends so"
        )
    anndata_layout.require_packages(path)
    if path.suffix == ".zarr" and path.exists():
        raise InputError(f"{path}: exists; remove it, or give another --out")
    interrupted.require_free(place_of(path, shard), what="rows", resume=resume)


class EmbeddingsFile:
    """The rows of one run on their way into a file; made by `start` or `resume`."""

    def __init__(
        self,
        path: Path,
        layout: RowLayout,
        settings: Mapping[str, Any],
        shard: Shard | None = None,
        within: int = 0,
    ) -> None:
        self.path, self.layout, self.settings = path, layout, dict(settings)
        self._part = interrupted.Part(place_of(path, shard), FILES)
        self._spill = Spill(self._part.folder, layout)
        self._within = within

    @classmethod
    def start(
        cls,
        path: Path,
        layout: RowLayout,
        settings: Mapping[str, Any],
        shard: Shard | None = None,
        within: int = 0,
    ) -> Self:
        """A file without rows yet. Rows of an interrupted run are dropped.

        settings: plain values that are stored with the rows, all that they depend on. shard: of
        which these are the rows, where it is not the whole. within: chunks of its first sequence
        that belong to the shard before.

        Raises InputError where `path` cannot be written.
        """
        require_free(path, resume=True, shard=shard)
        return cls(path, layout, settings, shard, within)._emptied()

    @classmethod
    def resume(
        cls,
        path: Path,
        layout: RowLayout,
        settings: Mapping[str, Any],
        shard: Shard | None = None,
        within: int = 0,
    ) -> tuple[Self, str]:
        """The file of an interrupted run with its rows, and an empty text.

        Where there is none, or a damaged one, a file without rows and a line that says why. Raises
        InputError where it was made with other settings (its rows stay), and where `path` cannot be
        written.
        """
        require_free(path, resume=True, shard=shard)
        file = cls(path, layout, settings, shard, within)
        reason = file._part.why_not_resumed(settings)
        if not reason and not file._spill.restore():
            reason = file._part.damaged()
        return (file._emptied(), reason) if reason else (file, "")

    def _emptied(self) -> Self:
        with self._part.cleared(self.settings):
            self._spill.empty(self._within)
        return self

    @property
    def sequences_done(self) -> int:
        """Sequences whose rows are all on disk."""
        return self._spill.sequences

    @property
    def chunks_done(self) -> int:
        """Chunks of the sequence behind them whose rows are on disk, or in the shard before."""
        return self._spill.within

    @property
    def rows_done(self) -> int:
        """Whole rows on disk."""
        return self._spill.rows

    def append(
        self, rows: npt.NDArray[np.float32], ended: Sequence[Record], within: int = 0
    ) -> None:
        """Add rows (R, D) behind those there are.

        ended: the sequences whose last rows these are. within: chunks of the one behind them that
        are done. Raises InputError for numbers that the type of the file has not, and OSError when
        the disk is full.
        """
        self._part.require_mine()
        self._spill.append(as_stored(rows, self.layout), ended, within)

    def seal(self, about: Mapping[str, Any]) -> None:
        """The rows so far are those of a complete shard; see `interrupted.Part.seal`."""
        self._part.seal(about, check)

    def finish(self) -> list[str]:
        """Make the file of all rows under its own name, and remove what was beside it.

        Returns what the user should know. Raises OSError when the disk is full; the rows are then
        still beside, to be resumed.
        """
        assert self.rows_done == self.layout.rows, (self.rows_done, self.layout.rows)
        whole = self._part.folder / f"whole{self.path.suffix}"
        interrupted.remove(whole)
        rows = FinishedRows(self._part.folder, self.layout)
        notes = WRITERS[self.path.suffix](whole, rows, self.settings)
        self._part.finish(whole)
        return notes
