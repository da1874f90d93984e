"""lentiMPRA: the activity of 230 bases in a reporter assay, a number (log2 RNA / DNA).

    DATA/<cell>.csv                        columns sequence, label (or mean_value), split, seq_id
    DATA/<cell>/{train,val,test}.tsv       columns seq_id, seq, mean_value

Most elements were measured in both orientations, which lie between the same adapters: the whole
sequences are no reverse complements. The two are one group, known by the bases between the adapters
(names differ from table to table: `_Reversed:`, `_F` and `_R`) and by the name where it says so, so
that a split by group keeps them together.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from hyenadna.alphabet import Ids
from hyenadna.data.benchmarks.layouts import find_task_files
from hyenadna.data.benchmarks.remote import RemoteFile, github_address
from hyenadna.data.benchmarks.suite import BenchmarkTask, Suite, find_task
from hyenadna.data.labelled import LabelledData, read_labelled
from hyenadna.data.similar import components, same_sequences
from hyenadna.data.sources import find_files
from hyenadna.data.tables import open_table

REVERSED: Final = "_Reversed:"
_CELLS: Final = ("HepG2", "K562", "WTC11")
# The commit that still has the folds, as recorded beside the shared copy of them. Training folds
# are not in it.
_REPOSITORY: Final = ("autosome-imtf/MPRA-MNIST", "0a4b122102a076e52c14dbfc1c38f9ca55988fb4")
_FOLDS: Final = (("HepG2", "val"), ("HepG2", "test"), ("WTC11", "val"), ("WTC11", "test"))


def list_tasks() -> tuple[BenchmarkTask, ...]:
    """One task a cell line; Pearson's correlation."""
    return tuple(
        BenchmarkTask(name=cell, kind="values", outputs=1, length=230, metric="pearson")
        for cell in _CELLS
    )


def load(task: str, data_dir: str | Path) -> LabelledData:
    """One cell line, split as its files say; the group of a row is its element.

    Raises InputError for an unknown task and for files that are missing or not as told above.
    """
    facts = find_task(list_tasks(), task, "lentimpra")
    found = find_task_files(data_dir, facts.file_names)
    data = read_labelled(found, task="values", labels=_label(found), name=facts.name)
    return dataclasses.replace(data, groups=_elements(data))


def _label(path: Path) -> tuple[str, ...] | None:
    """The column of the authors' tables, where all have it; otherwise the usual names."""
    tables = [open_table(file.path) for file in find_files(path)]
    named = all("mean_value" in table.columns for table in tables)
    return ("mean_value",) if named else None


def _elements(data: LabelledData) -> tuple[str, ...]:
    """The element of each row, called by the first row that has it, whatever the orientation."""
    names = np.array([re.sub(r"#\d+$", "", name).removesuffix(REVERSED) for name in data.ids])
    by_name = np.unique(names, return_index=True, return_inverse=True)
    by_bases = same_sequences(between_adapters(data.sequences)).strandless
    firsts = np.unique(by_bases, return_index=True, return_inverse=True)
    rows = np.arange(len(data))
    element = components(
        len(data),
        np.concatenate([rows, rows]),
        np.concatenate([by_name[1][by_name[2]], firsts[1][firsts[2]]]),
    )
    return tuple(names[element].tolist())


def between_adapters(sequences: Sequence[Ids]) -> list[Ids]:
    """The sequences without the bases that all of them have at the start and at the end."""
    shortest = min(len(ids) for ids in sequences)
    start = _shared(np.stack([ids[:shortest] for ids in sequences]))
    stop = _shared(np.stack([ids[::-1][: shortest - start] for ids in sequences]))
    return [ids[start : len(ids) - stop] for ids in sequences]


def _shared(rows: Ids) -> int:
    """How many columns at the start are the same in all rows."""
    same = (rows == rows[0]).all(axis=0)
    return len(same) if same.all() else int(same.argmin())


def where_from() -> str:
    """Where the data comes from, and the steps."""
    return (
        "Agarwal et al., Nature 2025 (lentiMPRA of HepG2, K562 and WTC11). --download fetches the "
        "validation and test folds of HepG2 and WTC11 that MPRA-MNIST "
        "(https://github.com/autosome-imtf/MPRA-MNIST) once held; without a training part the "
        "valid rows are learned from.\n"
        "1. For K562, and for all rows, take the activities (mean_value) and sequences (230 bases "
        "with adapters) of the supplementary tables.\n"
        "2. Put them at DATA/<cell>.csv with columns sequence, label, split, seq_id."
    )


def remote_files() -> tuple[RemoteFile, ...]:
    """Validation and test folds of two cell lines."""
    return tuple(
        RemoteFile(
            address=github_address(*_REPOSITORY, f"datasets/Vikram_splited/{fold}_{cell}.tsv"),
            path=f"{cell}/{fold}.tsv",
            tasks=(cell,),
        )
        for cell, fold in _FOLDS
    )


SUITE: Final = Suite(
    "lentimpra",
    "lentiMPRA activity",
    list_tasks,
    load,
    where_from,
    remote_files,
    partly=("HepG2", "WTC11"),
)
