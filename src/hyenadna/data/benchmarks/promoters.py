"""Promoters that are not human: bacteria, Arabidopsis and mouse, in two layouts.

    DATA/<task>.csv                              columns sequence, label (1: promoter), split
    DATA/Ecoli_prom.fa, Ecoli_non_prom.fa, ...   the original pairs of FASTA

Umarov and Solovyev 2017 (CNNProm, 10.1371/journal.pone.0171410): 81 bases of bacteria, 251 of the
others. There is no published split; one is made by similarity. The sets of DeePromoter (human and
mouse TATA promoters) are not here: only promoters are published of them, and their negatives are
made up by each user, so that no two results are of the same rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from hyenadna.data.benchmarks.layouts import find_task_files
from hyenadna.data.benchmarks.remote import RemoteFile, github_address
from hyenadna.data.benchmarks.suite import FASTA, TABLES, BenchmarkTask, Suite, find_task
from hyenadna.data.labelled import LabelledData, read_labelled
from hyenadna.data.labelled_data import Task
from hyenadna.data.text_files import suffix_of
from hyenadna.errors import InputError

CLASSES: Final = ("0", "1")
"""Not a promoter, and a promoter."""
# name, bases, rows, FASTA of the promoters, FASTA of the others; rows counted from the FASTA files.
_ROWS: Final = (
    ("ecoli_sigma70", 81, 3839, "Ecoli_prom", "Ecoli_non_prom"),
    ("bacillus", 81, 1373, "Bacillus_prom", "Bacillus_non_prom"),
    ("arabidopsis_tata", 251, 4376, "Arabidopsis_tata", "Arabidopsis_non_prom"),
    ("arabidopsis_nontata", 251, 17364, "Arabidopsis_non_tata", "Arabidopsis_non_prom_big"),
    ("mouse_tata", 251, 4785, "Mouse_tata", "Mouse_nonprom"),
    ("mouse_tata_dbtss", 251, 4884, "Mouse_tata_dbtss", "Mouse_nonprom"),
)
_SUFFIXES: Final = (*TABLES, *FASTA)
# The only commit of the authors' repository.
_REPOSITORY: Final = ("solovictor/CNNPromoterData", "b4d2949e9bc5206f3049b35a488b036125ccc653")


def list_tasks() -> tuple[BenchmarkTask, ...]:
    """The six sets; MCC, which the paper calls CC. `train` counts all rows: there is no split."""
    return tuple(
        BenchmarkTask(
            name=name, kind="classes", outputs=2, length=length, metric="mcc", train=rows,
            aliases=(promoters,),
        )
        for name, length, rows, promoters, _ in _ROWS
    )  # fmt: skip


def load(task: str, data_dir: str | Path) -> LabelledData:
    """One set, of classes 0 and 1; without splits unless its table has some.

    Raises InputError for an unknown task, for files that are missing or not as told above, and for
    promoters without the file of the others.
    """
    facts = find_task(list_tasks(), task, "promoters")
    found = find_task_files(data_dir, facts.file_names, suffixes=_SUFFIXES)
    if suffix_of(found) not in FASTA:
        return read_labelled(found, task="classes", name=facts.name)
    others = next(others for name, *_, others in _ROWS if name == facts.name)
    pair = [found, find_task_files(found.parent, [others], suffixes=FASTA)]
    if pair[1].is_dir():
        raise InputError(f"{pair[1]}: is a folder; a FASTA file is needed beside {found.name}")
    return _as_zero_and_one(read_labelled(pair, task="classes", name=facts.name), facts.aliases)


def _as_zero_and_one(data: LabelledData, promoters: Sequence[str]) -> LabelledData:
    """The same with the class named as in the tables, where the two files gave the names."""
    positive = [i for i, name in enumerate(data.task.names) if name in promoters]
    targets = np.isin(np.asarray(data.targets), positive).astype(np.int64)
    return dataclasses.replace(data, targets=targets, task=Task("classes", CLASSES))


def where_from() -> str:
    """Where the data comes from, and the steps."""
    return (
        "Umarov and Solovyev 2017 (CNNProm), https://github.com/solovictor/CNNPromoterData: pairs "
        "of FASTA, promoters and others; --download fetches them.\n"
        "1. Put Ecoli_prom.fa and Ecoli_non_prom.fa, and so on, into DATA.\n"
        "2. Or a table for each set: DATA/<task>.csv with columns sequence, label (1: promoter) "
        "and, if you like, split.\n"
        "The files of human promoters and of mouse promoters without TATA are not in the "
        "repository; those of human are GenomicBenchmarks' human_nontata_promoters."
    )


def remote_files() -> tuple[RemoteFile, ...]:
    """The FASTA pairs, at the only commit."""
    stems = dict.fromkeys(stem for row in _ROWS for stem in row[3:])
    return tuple(
        RemoteFile(
            address=github_address(*_REPOSITORY, f"{stem}.fa"),
            path=f"{stem}.fa",
            tasks=tuple(row[0] for row in _ROWS if stem in row[3:]),
        )
        for stem in stems
    )


SUITE: Final = Suite(
    "promoters", "Promoters of bacteria, Arabidopsis and mouse", list_tasks, load, where_from,
    remote_files, _SUFFIXES,
)  # fmt: skip
