"""Where the files of a task lie in a data folder: the same search for all suites."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from hyenadna.data.text_files import stem_of, suffix_of
from hyenadna.errors import InputError

_TABLES: Final = (".csv", ".tsv", ".parquet")


def find_task_files(
    data_dir: str | Path, names: Sequence[str], *, suffixes: Iterable[str] = _TABLES
) -> Path:
    """The folder or the file of a task: `DATA/<name>`, `DATA/<name>.csv.gz`, or one folder deeper.

    names: what it may be called, the best first. The path itself where it is a file.

    Raises InputError where there is none, naming what was looked for, and where two fit equally.
    """
    folder = Path(data_dir)
    if folder.is_file():
        return folder
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the one that holds the benchmark's files")
    levels = [[folder], sorted(p for p in folder.iterdir() if p.is_dir())]
    for name in names:
        for level in levels:
            found = [path for parent in level for path in _called(parent, name, tuple(suffixes))]
            if len(found) > 1:
                raise InputError(
                    f"{folder}: {name} is both {found[0]} and {found[1]}; give the folder of one"
                )
            if found:
                return found[0]
    raise InputError(
        f"{folder}: holds no {' or '.join(names)} (a folder, or a file that ends in "
        f"{', '.join(suffixes)}, also .gz)"
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
