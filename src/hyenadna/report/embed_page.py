"""What the report of `hyenadna embed` shows: the rows in two dimensions, their norms, some rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from hyenadna.infer.embeddings_read import Embeddings, read_embeddings
from hyenadna.infer.projection import project
from hyenadna.infer.run_record import RunRecord
from hyenadna.report.page import Block, Cell, caveat, heading, paragraph, picture, pictures, table
from hyenadna.report.projection_plots import Colouring, colouring, norms_figure, scatter_figure

_MOST: Final = 5000
_ROWS: Final = 8
_USUAL: Final = ("biotype", "kind", "label", "class", "type", "species", "contig", "strand")
_MOST_CLASSES: Final = 30


def blocks(out: Path, record: RunRecord) -> list[Block]:
    """Pictures and tables of a file of embeddings; at most 5,000 of its rows are drawn.

    Raises InputError where it cannot be read.
    """
    found = read_embeddings(out, most=_MOST, seed=0)
    made = [heading("The rows"), paragraph(_summary(found))]
    finite = np.isfinite(found.values).all(1)
    if not finite.all():
        made.append(caveat(f"{int((~finite).sum()):,} of the rows drawn hold NaN or infinity."))
    values = found.values[finite]
    shown = []
    if len(values) >= 3:
        projection = project(values, "pca", 0)
        colours = informative(found, finite)
        figure = scatter_figure([("PCA", projection.points, projection.axes)], colours)
        by = f", coloured by {colours.column}" if colours else ""
        shown.append(picture(figure, f"First two principal components{by}: {projection.note}."))
    if len(values):
        shown.append(picture(norms_figure(values), "Length of the rows, as vectors."))
    return [*made, pictures(shown), _first_rows(found)]


def informative(found: Embeddings, rows: Any = slice(None)) -> Colouring | None:
    """Colours by the column that says most: one of the usual names, else one of few classes."""
    columns: Mapping[str, Any] = found.columns
    usual = [name for name in _USUAL if name in columns]
    for name in [*usual, *(name for name in columns if name not in usual)]:
        values = columns[name]
        if values.dtype.kind == "f":
            continue
        kinds = len({str(value) for value in values})
        if 2 <= kinds <= _MOST_CLASSES and kinds < len(values):
            return colouring(name, values[rows])
    return None


def _summary(found: Embeddings) -> str:
    text = f"{found.in_file:,} rows of {found.values.shape[1]} numbers"
    if len(found) < found.in_file:
        text += f"; the pictures show {len(found):,} of them, drawn at random (seed 0)"
    return text + "."


def _first_rows(found: Embeddings) -> Block:
    columns = list(found.columns)
    few = list(range(min(4, found.values.shape[1])))
    rows: list[list[Cell]] = []
    for i in range(min(_ROWS, len(found))):
        cells: list[Cell] = [found.columns[name][i] for name in columns]
        plain = [cell.item() if isinstance(cell, np.generic) else cell for cell in cells]
        rows.append([*plain, *(float(found.values[i, j]) for j in few), "…"])
    names = [*columns, *(f"dim {j}" for j in few), ""]
    return table(names, rows, caption="First rows drawn")
