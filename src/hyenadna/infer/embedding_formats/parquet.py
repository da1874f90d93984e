"""Embeddings as Parquet: a column for each, and `embedding`, a list of D numbers a row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hyenadna.infer.embedding_formats.free_names import free_names
from hyenadna.infer.embeddings_spill import BLOCK_ROWS, FinishedRows

EMBEDDING: Final = "embedding"
METADATA: Final = b"hyenadna"
_GROUP_BYTES: Final = 64 << 20


def write(path: Path, rows: FinishedRows, settings: Mapping[str, Any]) -> list[str]:
    """Write all rows, a row group at a time; the settings are JSON in the schema's metadata."""
    import pyarrow
    import pyarrow.parquet

    layout = rows.layout
    types = {"text": pyarrow.string(), "integer": pyarrow.int64(), "number": pyarrow.float64()}
    names = free_names(layout.names, (EMBEDDING,))
    number = pyarrow.float16() if layout.dtype == "float16" else pyarrow.float32()
    vectors = pyarrow.list_(number, layout.width)
    schema = pyarrow.schema(
        [*((names[name], types[rows.kind(name)]) for name in layout.names), (EMBEDDING, vectors)],
        metadata={METADATA: json.dumps(dict(settings), sort_keys=True).encode()},
    )
    most = max(1, min(BLOCK_ROWS, _GROUP_BYTES // layout.row_bytes))
    # random mantissas pack badly by dictionary; the columns of words pack well
    texts = [names[name] for name in layout.names if rows.kind(name) == "text"]
    with pyarrow.parquet.ParquetWriter(
        path, schema, compression="zstd", use_dictionary=texts
    ) as writer:
        for block in rows.blocks(most=most):
            flat = rows.embeddings(block.first, block.first + len(block)).reshape(-1)
            arrays = [
                pyarrow.array(block.columns[name], types[rows.kind(name)], from_pandas=False)
                for name in layout.names
            ]
            arrays.append(
                pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(flat, number), layout.width)
            )
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
    return []
