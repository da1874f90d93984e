"""What a benchmark suite is: its tasks, how to load one, and where its data comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from hyenadna.data.benchmarks.remote import RemoteFile
from hyenadna.data.labelled_data import LabelledData
from hyenadna.errors import InputError
from hyenadna.task_kinds import TaskKind

TABLES: Final = (".csv", ".tsv", ".parquet")
FASTA: Final = (".fa", ".fasta", ".fna")


@dataclass(frozen=True, kw_only=True)
class BenchmarkTask:
    """One task of a suite, as published."""

    name: str
    kind: TaskKind
    outputs: int
    """Number of classes, labels or values."""
    length: int
    """Usual length of a sequence, bases (the longest where they differ)."""
    metric: str
    """What the papers report: accuracy, mcc, f1, auroc or pearson."""
    train: int | None = None
    """Training rows as published, where known."""
    test: int | None = None
    """Test rows as published, where known."""
    aliases: tuple[str, ...] = ()
    """Other names that files of this task go by."""

    @property
    def file_names(self) -> tuple[str, ...]:
        """Names of files or folders that may hold this task, the own name first."""
        return (self.name, *self.aliases)


@dataclass(frozen=True)
class Suite:
    """A benchmark suite: its functions, a name, and what its files may be."""

    name: str
    title: str
    list_tasks: Callable[[], tuple[BenchmarkTask, ...]]
    load: Callable[..., LabelledData]
    """load(task, data_dir, ...) -> LabelledData; raises InputError where the files are not so."""
    where_from: Callable[[], str]
    """Where the data comes from, and the steps to get it, as text."""
    remote_files: Callable[[], Sequence[RemoteFile]] = tuple
    """What has a stable public address, for `--download`."""
    suffixes: tuple[str, ...] = TABLES
    """Of files that hold a task; a folder may hold one as well."""
    partly: tuple[str, ...] = ()
    """Tasks of which `remote_files` are not everything."""

    def task(self, name: str) -> BenchmarkTask:
        """The task of a name or alias. Raises InputError for another, listing those there are."""
        return find_task(self.list_tasks(), name, self.name)


def find_task(tasks: Sequence[BenchmarkTask], name: str, suite: str) -> BenchmarkTask:
    """The task of a name or alias; its own name goes before the alias of another.

    Raises InputError for a name that is none, listing those there are.
    """
    for task in tasks:
        if name == task.name:
            return task
    for task in tasks:
        if name in task.aliases:
            return task
    listed = ", ".join(task.name for task in tasks)
    raise InputError(f"{suite}: no task {name!r}; there are {listed}")
