"""Where the files of a task lie in a data folder: the same search for all suites."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from hyenadna.data.benchmarks.suite import TABLES
from hyenadna.data.labelled_data import split_named
from hyenadna.data.text_files import stem_of, suffix_of
from hyenadna.errors import InputError


def find_task_files(
    data_dir: str | Path, names: Sequence[str], *, suffixes: Iterable[str] = TABLES
) -> Path:
    """The folder or the file of a task: `DATA/<name>`, `DATA/<name>.csv.gz`, or one folder deeper.

    DATA itself where it is a file, or where it has the name of the task (something may stand before
    it, and a split behind: `gb_<name>_test`) and holds the files right there.
    names: what it may be called, the best first.

    Raises InputError where there is none, naming what was looked for, and where two fit equally.
    """
    folder, kinds = Path(data_dir), tuple(suffixes)
    if folder.is_file():
        return folder
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the one that holds the benchmark's files")
    inside = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    for name in names:
        for level in ([folder], inside):
            found = [path for parent in level for path in _called(parent, name, kinds)]
            if len(found) > 1:
                raise InputError(
                    f"{folder}: {name} is both {found[0]} and {found[1]}; give the folder of one"
                )
            if found:
                return found[0]
    if any(_named_after(folder, name) for name in names) and _holds_rows(folder, kinds):
        return folder
    raise InputError(
        f"{folder}: holds no {' or '.join(names)} (a folder, or a file that ends in "
        f"{', '.join(kinds)}, also .gz)"
    )


def _called(parent: Path, name: str, suffixes: tuple[str, ...]) -> list[Path]:
    """Entries of a folder that are this task: a folder of the name, or a file of a known suffix."""
    inside = parent / name
    found = [inside] if inside.is_dir() else []
    if "/" in name:
        return found
    return found + sorted(
        path
        for path in parent.iterdir()
        if path.is_file() and stem_of(path) == name and suffix_of(path) in suffixes
    )


def _named_after(folder: Path, name: str) -> bool:
    """Whether a folder has the name of a task, up to words before it and a split behind it."""
    called = folder.resolve().name
    head, _, last = called.rpartition("_")
    if head and split_named(last):
        called = head
    return called == name or called.endswith(f"_{name}")


def _holds_rows(folder: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether files of the folder are of one task: splits (`train.csv`), or one called `data`."""
    stems = [stem_of(p) for p in folder.iterdir() if p.is_file() and suffix_of(p) in suffixes]
    return stems == ["data"] or (bool(stems) and all(split_named(stem) for stem in stems))
