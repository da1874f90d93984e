"""GUE, the tasks of DNABERT-2, in two layouts.

    DATA/<group>/<task>/{train,dev,test}.csv     as published: GUE/EMP/H3, GUE/tf/0, ...
    DATA/<task>.csv                              columns sequence, label, split

`dev` is valid. A table with a column `chrom` gives it as the group of each row; where it is empty
the group is `unplaced`, so that a split by chromosome is possible.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

from hyenadna.data.benchmarks.layouts import find_task_files
from hyenadna.data.benchmarks.remote import RemoteFile, github_address
from hyenadna.data.benchmarks.suite import BenchmarkTask, Suite, find_task
from hyenadna.data.labelled import LabelledData, read_labelled
from hyenadna.data.sources import require_no_named_classes
from hyenadna.data.tables import open_table

UNPLACED: Final = "unplaced"

_HISTONE: Final = (
    "H3", "H4", "H3K9ac", "H3K14ac", "H4ac", "H3K4me1", "H3K4me2", "H3K4me3", "H3K36me3",
    "H3K79me3",
)  # fmt: skip
_PROMOTER: Final = (
    ("prom_300_all", 300), ("prom_300_notata", 300), ("prom_300_tata", 300),
    ("prom_core_all", 70), ("prom_core_notata", 70), ("prom_core_tata", 70),
)  # fmt: skip
# A copy of GUE in a repository of its own (Apache-2.0, as GUE is): the archive of DNABERT-2 lies on
# a drive, without a stable address. It has all tasks but covid.
_REPOSITORY: Final = ("wds-seu/DeepGene", "486343e5212361d6cd7ed03c624f430ed3d5f02e")


def list_tasks() -> tuple[BenchmarkTask, ...]:
    """The 28 tasks; MCC, but macro F1 for the virus variants."""
    found = [_task(name, 500, (f"EMP/{name}",)) for name in _HISTONE]
    found += [_task(name, length, (f"prom/{name}",)) for name, length in _PROMOTER]
    found.append(_task("splice_reconstructed", 400, ("splice/reconstructed",), classes=3))
    found += [_task(f"tf{i}", 101, (f"tf/{i}",)) for i in range(5)]
    found += [_task(f"mouse{i}", 101, (f"mouse/{i}",)) for i in range(5)]
    found.append(_task("covid", 999, ("virus/covid",), classes=9, metric="f1_macro"))
    return tuple(found)


def _task(
    name: str, length: int, aliases: tuple[str, ...], *, classes: int = 2, metric: str = "mcc"
) -> BenchmarkTask:
    return BenchmarkTask(
        name=name, kind="classes", outputs=classes, length=length, metric=metric, aliases=aliases
    )


def load(task: str, data_dir: str | Path) -> LabelledData:
    """One task, split into train, valid and test as its files say.

    Raises InputError for an unknown task and for files that are missing or not as told above.
    """
    facts = find_task(list_tasks(), task, "gue")
    found = find_task_files(data_dir, facts.file_names)
    require_no_named_classes(found)
    data = read_labelled(found, task="classes", name=facts.name)
    if data.groups is None and found.is_file() and "chrom" in (table := open_table(found)).columns:
        groups = tuple(cells[0].strip() or UNPLACED for _, cells in table.rows(["chrom"]))
        if any(group != UNPLACED for group in groups):
            notes = tuple(note for note in data.notes if not note.startswith("groups are not"))
            return dataclasses.replace(data, groups=groups, notes=notes)
    return data


def where_from() -> str:
    """Where the data comes from, and the steps."""
    return (
        "GUE of DNABERT-2 (https://github.com/MAGICS-LAB/DNABERT_2, Apache-2.0; the README links "
        "one archive). --download fetches all but covid from a copy of it in "
        "https://github.com/wds-seu/DeepGene (Apache-2.0).\n"
        "1. Download and unpack GUE.zip.\n"
        "2. Give the folder GUE as DATA; tasks lie in EMP, prom, splice, tf, mouse and virus, each "
        "with train.csv, dev.csv and test.csv."
    )


def remote_files() -> tuple[RemoteFile, ...]:
    """The three tables of each task but covid."""
    return tuple(
        RemoteFile(
            address=github_address(*_REPOSITORY, f"data/GUE/{folder}/{split}.csv"),
            path=f"{folder}/{split}.csv",
            tasks=(task.name,),
        )
        for task in list_tasks()
        if task.name != "covid"
        for folder in task.aliases
        for split in ("train", "dev", "test")
    )


SUITE: Final = Suite("gue", "GUE (DNABERT-2)", list_tasks, load, where_from, remote_files)
