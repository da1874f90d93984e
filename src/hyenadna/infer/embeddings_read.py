"""Embeddings read back from any of the files that they are written to, or from another AnnData."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from hyenadna.errors import InputError
from hyenadna.infer.embedding_formats.anndata_layout import require_packages
from hyenadna.infer.embedding_formats.npz import EMBEDDINGS, RESERVED
from hyenadna.infer.embedding_formats.parquet import EMBEDDING, METADATA

SUFFIXES: Final = (".npz", ".parquet", ".h5ad", ".zarr")
_AT_ONCE: Final = 1 << 14

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Rows of a file, or a sample of them, in its order."""

    values: npt.NDArray[np.float32]
    """(n, D)."""
    columns: dict[str, Array]
    """n values each: int64, float64 or object (text)."""
    rows: npt.NDArray[np.int64]
    """Which rows of the file these are, from 0."""
    in_file: int
    """Rows of the file."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What they were made with, as far as the file says."""

    def __len__(self) -> int:
        return len(self.values)

    def column(self, name: str) -> Array:
        """A column. Raises InputError where there is none of this name."""
        if name not in self.columns:
            there = ", ".join(self.columns) or "none"
            raise InputError(f"the embeddings have no column {name!r}; they have {there}")
        return self.columns[name]


def read_embeddings(path: Path, *, most: int | None = None, seed: int = 0) -> Embeddings:
    """The rows of a `.npz`, `.parquet`, `.h5ad` or `.zarr`, no more than `most`.

    Where there are more, a sample that the seed draws, in the order of the file; the others are
    passed over a block at a time.

    Raises InputError for a file that is missing, damaged, without rows, or of another kind.
    """
    readers = {".npz": _npz, ".parquet": _parquet, ".h5ad": _h5ad, ".zarr": _zarr}
    if path.suffix not in readers:
        raise InputError(f"{path}: is none of {', '.join(readers)}; give embeddings")
    if not path.exists():
        raise InputError(f"{path}: no such file")
    require_packages(path)
    try:
        found = readers[path.suffix](path, most, seed)
    except InputError:
        raise
    except Exception as error:  # each library has its own for damage
        why = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: cannot be read as embeddings ({why})") from error
    if not len(found):
        raise InputError(f"{path}: holds no rows")
    return found


def _chosen(count: int, most: int | None, seed: int) -> npt.NDArray[np.int64]:
    if most is None or count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def _npz(path: Path, most: int | None, seed: int) -> Embeddings:
    with zipfile.ZipFile(path) as archive:
        members = [name.removesuffix(".npy") for name in archive.namelist()]
        if EMBEDDINGS not in members:
            raise InputError(f"{path}: has no array {EMBEDDINGS!r}; it has {', '.join(members)}")
        with archive.open(f"{EMBEDDINGS}.npy") as stream:
            shape, dtype = _header(stream)
            if len(shape) != 2:
                raise InputError(f"{path}: embeddings are of shape {shape}, not (rows, D)")
            rows = _chosen(shape[0], most, seed)
            values = _rows_of(stream, shape, dtype, rows)
        columns: dict[str, Array] = {}
        settings: dict[str, Any] = {}
        for name in members:
            if name in RESERVED:
                if name == "settings":
                    with archive.open("settings.npy") as stream:
                        settings = json.loads(str(np.lib.format.read_array(stream)))
                continue
            with archive.open(f"{name}.npy") as stream:
                size, dtype = _header(stream)
                if size != shape[:1] or dtype.hasobject:
                    continue
                column = _rows_of(stream, size, dtype, rows)
                columns[name] = column.astype(object) if dtype.kind == "U" else column
    return Embeddings(values.astype(np.float32), columns, rows, shape[0], settings)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0
    shape, fortran, dtype = (read if version == (1, 0) else np.lib.format.read_array_header_2_0)(
        stream
    )
    if fortran and len(shape) > 1:
        raise ValueError("an array in the order of Fortran")
    return shape, dtype


def _rows_of(
    stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], rows: npt.NDArray[np.int64]
) -> Array:
    """Some rows of the array that follows in a stream, which is read once."""
    width = int(np.prod(shape[1:], dtype=int))
    most = max(1, min(_AT_ONCE, (64 << 20) // max(1, width * dtype.itemsize)))
    found = np.empty((len(rows), *shape[1:]), dtype)
    for first in range(0, shape[0], most):
        last = min(first + most, shape[0])
        data = stream.read((last - first) * width * dtype.itemsize)
        block = np.frombuffer(data, dtype).reshape(last - first, *shape[1:])
        begin, end = np.searchsorted(rows, (first, last))
        found[begin:end] = block[rows[begin:end] - first]
    return found


def _parquet(path: Path, most: int | None, seed: int) -> Embeddings:
    import pyarrow
    from pyarrow import parquet

    file = parquet.ParquetFile(path)
    schema = file.schema_arrow
    if EMBEDDING not in schema.names:
        raise InputError(f"{path}: has no column {EMBEDDING!r}; it has {', '.join(schema.names)}")
    count = file.metadata.num_rows
    rows = _chosen(count, most, seed)
    parts, first = [], 0
    for batch in file.iter_batches(_AT_ONCE):
        begin, end = np.searchsorted(rows, (first, first + batch.num_rows))
        parts.append(batch.take(pyarrow.array(rows[begin:end] - first)))
        first += batch.num_rows
    table = pyarrow.Table.from_batches(parts, schema=schema)
    vectors = table.column(EMBEDDING).combine_chunks()
    values = (
        vectors.flatten()
        .to_numpy(zero_copy_only=False)
        .reshape(len(rows), schema.field(EMBEDDING).type.list_size)
    )
    columns = {
        name: _as_column(table.column(name).to_pandas().to_numpy())
        for name in schema.names
        if name != EMBEDDING
    }
    settings = json.loads((schema.metadata or {}).get(METADATA, b"{}"))
    return Embeddings(values.astype(np.float32), columns, rows, count, settings)


def _h5ad(path: Path, most: int | None, seed: int) -> Embeddings:
    import h5py

    with h5py.File(path, "r") as root:
        return _anndata(path, root, most, seed)


def _zarr(path: Path, most: int | None, seed: int) -> Embeddings:
    import zarr

    return _anndata(path, zarr.open_group(path, mode="r"), most, seed)


def _anndata(path: Path, root: Any, most: int | None, seed: int) -> Embeddings:
    from anndata.io import read_elem

    if "X" not in root or "obs" not in root:
        raise InputError(f"{path}: is no AnnData: it has no X, or no obs")
    if not hasattr(root["X"], "shape"):
        raise InputError(f"{path}: X is sparse; embeddings are dense")
    count, width = root["X"].shape
    rows = _chosen(count, most, seed)
    values = np.empty((len(rows), width), np.float32)
    for first in range(0, count, _AT_ONCE):
        begin, end = np.searchsorted(rows, (first, first + _AT_ONCE))
        if end > begin:
            block = np.asarray(root["X"][first : first + _AT_ONCE])
            values[begin:end] = block[rows[begin:end] - first]
    frame = read_elem(root["obs"]).iloc[rows]
    columns = {str(name): _as_column(frame[name].to_numpy()) for name in frame.columns}
    columns.setdefault("obs_name", _as_column(frame.index.to_numpy()))
    described = read_elem(root["uns"]).get("hyenadna", {}) if "uns" in root else {}
    settings = json.loads(str(described.get("settings", "{}")))
    return Embeddings(values, columns, rows, count, settings)


def _as_column(values: Array) -> Array:
    """int64, float64 or text as object; missing text is empty."""
    if values.dtype.kind in "iub":
        return values.astype(np.int64)
    if values.dtype.kind == "f":
        return values.astype(np.float64)
    texts = ["" if value is None or value != value else str(value) for value in values]
    return np.array([*texts, None], dtype=object)[:-1]
