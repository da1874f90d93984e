"""lentiMPRA: the activity of 230 bases in a reporter assay, a number (log2 RNA / DNA).

    DATA/<cell>.csv     columns sequence, label (or mean_value), split, seq_id

Most elements were measured in both orientations (`_Reversed:` behind the id); the two are one
group, so that a split by group keeps them together.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

from hyenadna.data.benchmarks.layouts import find_task_files
from hyenadna.data.benchmarks.suite import BenchmarkTask, Suite, find_task
from hyenadna.data.labelled import LabelledData, read_labelled
from hyenadna.data.tables import open_table

REVERSED: Final = "_Reversed:"
_CELLS: Final = ("HepG2", "K562", "WTC11")


def list_tasks() -> tuple[BenchmarkTask, ...]:
    """One task a cell line; Pearson's correlation."""
    return tuple(
        BenchmarkTask(name=cell, kind="values", outputs=1, length=230, metric="pearson")
        for cell in _CELLS
    )


def load(task: str, data_dir: str | Path) -> LabelledData:
    """One cell line, split as its table says; the group of a row is its element.

    Raises InputError for an unknown task and for a table that is missing or not as told above.
    """
    facts = find_task(list_tasks(), task, "lentimpra")
    found = find_task_files(data_dir, facts.file_names)
    data = read_labelled(found, task="values", labels=_label(found), name=facts.name)
    elements = tuple(name.split("#")[0].removesuffix(REVERSED) for name in data.ids)
    return dataclasses.replace(data, groups=elements)


def _label(path: Path) -> tuple[str, ...] | None:
    """The column of the authors' tables, where it is there; otherwise the usual names."""
    named = path.is_file() and "mean_value" in open_table(path).columns
    return ("mean_value",) if named else None


def where_from() -> str:
    """Where the data comes from, and the steps."""
    return (
        "Agarwal et al., Nature 2025 (lentiMPRA of HepG2, K562 and WTC11).\n"
        "1. Take the activities (mean_value) and sequences (230 bases with adapters) of the "
        "supplementary tables, or of MPRA-MNIST (https://github.com/autosome-imtf/MPRA-MNIST).\n"
        "2. Put them at DATA/<cell>.csv with columns sequence, label, split, seq_id."
    )


SUITE: Final = Suite("lentimpra", "lentiMPRA activity", list_tasks, load, where_from)
