"""Embeddings as `.npz`: plain arrays of numpy, read by `numpy.load` without pickles."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from hyenadna.infer.embedding_formats.free_names import free_names
from hyenadna.infer.embeddings_spill import FinishedRows

EMBEDDINGS: Final = "embeddings"
RESERVED: Final = (EMBEDDINGS, "model", "settings")
# Fixed, so that the same embeddings are the same file.
_DATE: Final = (1980, 1, 1, 0, 0, 0)
_KINDS: Final = {"integer": np.dtype("<i8"), "number": np.dtype("<f8")}


def write(path: Path, rows: FinishedRows, settings: Mapping[str, Any]) -> list[str]:
    """Write all rows: `embeddings` (rows, D), an array for each column, `model` and `settings`.

    Text is padded to its longest value, which packs well.
    """
    layout = rows.layout
    with zipfile.ZipFile(path, "w") as archive:
        with _member(archive, EMBEDDINGS) as stream, rows.raw().open("rb") as spill:
            _write_header(stream, layout.numpy, (layout.rows, layout.width))
            shutil.copyfileobj(spill, stream, 1 << 20)
        for name, key in free_names(layout.names, RESERVED, slashes=False).items():
            kind = rows.kind(name)
            text = np.dtype(f"<U{rows.kinds[name].widest}") if kind == "text" else None
            dtype = text or _KINDS[kind]
            with _member(archive, key, packed=text is not None) as stream:
                _write_header(stream, dtype, (layout.rows,))
                for block in rows.blocks([name]):
                    stream.write(block.columns[name].astype(dtype).tobytes())
        texts = {
            "model": str(settings.get("model", "")),
            "settings": json.dumps(dict(settings), sort_keys=True),
        }
        for reserved, value in texts.items():
            with _member(archive, reserved) as stream:
                np.lib.format.write_array(stream, np.array(value))
    return []


def _write_header(stream: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)


@contextmanager
def _member(archive: zipfile.ZipFile, key: str, *, packed: bool = False) -> Iterator[IO[bytes]]:
    info = zipfile.ZipInfo(f"{key}.npy", _DATE)
    info.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with archive.open(info, "w", force_zip64=True) as stream:
        yield stream
