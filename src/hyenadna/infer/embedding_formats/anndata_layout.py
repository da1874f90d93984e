"""Embeddings as AnnData, in one HDF5 file (`.h5ad`) or a zarr folder (`.zarr`).

X holds the embeddings, obs a row for each with all columns (few different words are a category),
var a name for each of the D dimensions, uns["hyenadna"] model and settings. The small parts are
written by anndata itself; X and obs are laid out as it lays them out and filled a block at a time,
because anndata writes what is in memory
(https://anndata.readthedocs.io/en/stable/fileformat-prose.html).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hyenadna.errors import InputError
from hyenadna.infer.embedding_formats.free_names import free_names
from hyenadna.infer.embeddings_spill import BLOCK_ROWS, FinishedRows
from hyenadna.infer.unique_names import UniqueNames

_CHUNK_BYTES: Final = 4 << 20
_INDEX: Final = "_index"
_EMPTY: Final = ("layers", "obsm", "obsp", "varm", "varp")
SUFFIXES: Final = (".h5ad", ".zarr")


def require_packages(path: Path) -> None:
    """Nothing, where this file can be written or read. Raises InputError with what is missing."""
    if path.suffix not in SUFFIXES:
        return
    try:
        import anndata  # noqa: F401

        if path.suffix == ".zarr":
            import zarr  # noqa: F401
    except ImportError as error:
        extra = "zarr,anndata" if path.suffix == ".zarr" else "anndata"
        raise InputError(
            f"{path}: {error.name} is not installed; `pip install 'hyenadna[{extra}]'`"
        ) from None


def write_h5ad(path: Path, rows: FinishedRows, settings: Mapping[str, Any]) -> list[str]:
    """Write all rows to one HDF5 file; says how many names had to be made different."""
    import h5py

    with h5py.File(path, "w") as root:
        return _write(root, rows, settings, _Hdf5(root))


def write_zarr(path: Path, rows: FinishedRows, settings: Mapping[str, Any]) -> list[str]:
    """Write all rows to a zarr folder (format 2, which every anndata reads); else as `.h5ad`."""
    import zarr

    root = zarr.open_group(path, mode="w", zarr_format=2)
    notes = _write(root, rows, settings, _Zarr())
    zarr.consolidate_metadata(root.store)
    return notes


class _Hdf5:
    """Makes arrays that are filled later."""

    def __init__(self, root: Any) -> None:
        self.root = root

    def numbers(self, group: Any, name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        return group.create_dataset(name, shape=shape, dtype=dtype)

    def texts(self, group: Any, name: str, count: int) -> Any:
        import h5py

        return group.create_dataset(name, shape=(count,), dtype=h5py.string_dtype("utf-8"))


class _Zarr:
    """The same in a zarr group."""

    def numbers(self, group: Any, name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        row = int(np.prod(shape[1:], dtype=int)) * np.dtype(dtype).itemsize
        most = BLOCK_ROWS if len(shape) == 1 else max(1, min(BLOCK_ROWS, _CHUNK_BYTES // row))
        chunks = (max(1, min(shape[0], most)), *shape[1:])
        return group.create_array(name, shape=shape, dtype=dtype, chunks=chunks)

    def texts(self, group: Any, name: str, count: int) -> Any:
        from numcodecs import VLenUTF8
        from zarr.core.dtype import VariableLengthUTF8

        return group.create_array(
            name,
            shape=(count,),
            dtype=VariableLengthUTF8(),
            filters=[VLenUTF8()],
            fill_value="",
            chunks=(max(1, min(count, BLOCK_ROWS)),),
        )


def _write(
    root: Any, rows: FinishedRows, settings: Mapping[str, Any], make: _Hdf5 | _Zarr
) -> list[str]:
    import pandas
    from anndata.io import write_elem

    layout = rows.layout
    root.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    names = [f"dim_{number}" for number in range(layout.width)]
    write_elem(root, "var", pandas.DataFrame(index=pandas.Index(names, dtype=object)))
    write_elem(root, "uns", {"hyenadna": _described(settings)})
    for name in _EMPTY:
        write_elem(root, name, {})
    numbers = _encoded(make.numbers(root, "X", (layout.rows, layout.width), layout.numpy), "array")
    _fill(numbers, _slices(rows))
    return _write_obs(root.create_group("obs"), rows, make)


def _described(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they can be looked at in `adata.uns`: plain ones each, and all as JSON."""
    plain = {k: v for k, v in settings.items() if isinstance(v, str | int | float)}
    return {**plain, "settings": json.dumps(dict(settings), sort_keys=True)}


def _write_obs(obs: Any, rows: FinishedRows, make: _Hdf5 | _Zarr) -> list[str]:
    keys = free_names(rows.layout.names, (_INDEX,), slashes=False)
    obs.attrs.update(
        {
            "encoding-type": "dataframe",
            "encoding-version": "0.2.0",
            _INDEX: _INDEX,
            "column-order": list(keys.values()),
        }
    )
    count = rows.layout.rows
    names = UniqueNames(rows)
    _fill(_encoded(make.texts(obs, _INDEX, count), "string-array"), names.blocks())
    for name, key in keys.items():
        categories = rows.kinds[name].categories if name in rows.kinds else None
        if rows.kind(name) != "text":
            dtype = np.dtype("<i8" if rows.kind(name) == "integer" else "<f8")
            values = _encoded(make.numbers(obs, key, (count,), dtype), "array")
            _fill(values, _column(rows, name))
        elif categories is None or len(categories) >= max(count, 2):
            _fill(_encoded(make.texts(obs, key, count), "string-array"), _column(rows, name))
        else:
            _write_categories(obs, key, rows, name, sorted(categories), make)
    return names.notes()


def _write_categories(
    obs: Any,
    key: str,
    rows: FinishedRows,
    name: str,
    categories: list[str],
    make: _Hdf5 | _Zarr,
) -> None:
    """A column of few words; an empty one is a missing value."""
    words = [word for word in categories if word]
    group = obs.create_group(key)
    group.attrs.update(
        {"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False}
    )
    texts = _encoded(make.texts(group, "categories", len(words)), "string-array")
    if words:
        texts[:] = np.array(words, dtype=object)
    code = {word: number for number, word in enumerate(words)} | {"": -1}
    codes = _encoded(make.numbers(group, "codes", (rows.layout.rows,), np.dtype("<i2")), "array")
    _fill(
        codes,
        (
            np.array([code[word] for word in values], dtype=np.int16)
            for values in _column(rows, name)
        ),
    )


def _encoded(array: Any, kind: str) -> Any:
    array.attrs.update({"encoding-type": kind, "encoding-version": "0.2.0"})
    return array


def _fill(array: Any, parts: Iterator[npt.NDArray[Any]]) -> None:
    first = 0
    for part in parts:
        array[first : first + len(part)] = part
        first += len(part)


def _slices(rows: FinishedRows) -> Iterator[npt.NDArray[Any]]:
    """The embeddings, whole chunks at a time."""
    most = max(1, min(BLOCK_ROWS, _CHUNK_BYTES // rows.layout.row_bytes))
    for first in range(0, rows.layout.rows, most):
        yield rows.embeddings(first, first + most)


def _column(rows: FinishedRows, name: str) -> Iterator[npt.NDArray[Any]]:
    for block in rows.blocks([name]):
        yield block.columns[name]
