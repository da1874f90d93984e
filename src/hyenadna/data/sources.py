"""The files of a labelled source, and what their names say: the split, the class.

    one file                              table, FASTA or BED
    train.csv dev.csv test.csv            a table or FASTA for each split (`H3_train_1.fa` as well)
    promoter.fa background.fa             a FASTA for each class
    folder/<split>/<class>/*.txt          a sequence for each file (GenomicBenchmarks)
    folder/<split>/<class>.fa             a FASTA for each split and class
    folder/<class>/*                      the same without splits

Names are sorted, so that nothing depends on the order in which a file system lists them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from hyenadna.data.labelled_data import split_named
from hyenadna.data.tables import BED_SUFFIXES
from hyenadna.data.text_files import open_text, stem_of, suffix_of
from hyenadna.errors import InputError

FileKind = Literal["table", "fasta", "sequence"]
Source = str | Path | Sequence[str | Path] | Mapping[str, str | Path]

_TABLES: Final = (".csv", ".tsv", ".parquet", *BED_SUFFIXES)
_FASTA: Final = (".fa", ".fasta", ".fna", ".fas")
_TEXT: Final = ".txt"
KNOWN: Final = (*_TABLES, *_FASTA, _TEXT)
_LIKE_SPLIT: Final = re.compile(
    r".*(?<!s)(train|test|valid)(ing|ation)?(set|data|part|split|seqs?|sequences?)?\d*"
)


@dataclass(frozen=True)
class SourceFile:
    """One file of a source."""

    path: Path
    split: str = ""
    """As its name or folder says, or an empty text."""
    label: str | None = None
    """The class that its name or folder says."""


def find_files(source: Source) -> list[SourceFile]:
    """The files of a source: a path, several, a folder, or paths by split.

    Raises InputError where there is none, for a name that is no split, and for a folder whose
    layout is not one of those above.
    """
    if isinstance(source, Mapping):
        found = []
        for name, path in source.items():
            split = split_named(name)
            if not split:
                raise InputError(f"{path}: split is {name!r}; it must be train, valid or test")
            found += [replace(file, split=split) for file in find_files(path)]
        return found
    if not isinstance(source, str | Path):
        return _by_names([Path(path) for path in source])
    path = Path(source)
    return _in_folder(path) if path.is_dir() else [SourceFile(path)]


def require_no_named_classes(source: Source) -> None:
    """Nothing, where no name of a file or folder of a source would be taken for a class.

    Raises InputError otherwise: for layouts whose labels stand in the files.
    """
    for file in find_files(source):
        if file.label is not None:
            raise InputError(
                f"{file.path}: its name would be the class {file.label!r}, but the labels stand in "
                "the files here; name the files by their splits: train, valid, test"
            )


def source_name(source: Source) -> str:
    """A short name for a source: that of its file or folder."""
    if isinstance(source, Mapping):
        source = list(source.values())
    if isinstance(source, str | Path):
        path = Path(source)
        return path.name if path.is_dir() else stem_of(path)
    names = [stem_of(Path(path)) for path in source]
    return names[0] if len(names) == 1 else "+".join(names[:4]) + ("+…" if len(names) > 4 else "")


def kind_of(file: SourceFile) -> FileKind:
    """How a file is read: by its suffix; a `.txt` is one sequence where its folder is a class.

    Raises InputError for another suffix.
    """
    suffix = suffix_of(file.path)
    if suffix in _TABLES:
        return "table"
    if suffix in _FASTA:
        return "fasta"
    if suffix == _TEXT:
        if file.label is not None:
            return "sequence"
        with open_text(file.path) as text:
            return "fasta" if text.readline().startswith(">") else "table"
    raise InputError(
        f"{file.path}: it is not clear what this holds; give a file that ends in "
        f"{', '.join(KNOWN)} (also .gz)"
    )


def _in_folder(folder: Path) -> list[SourceFile]:
    entries = sorted(e for e in folder.iterdir() if not e.name.startswith("."))
    folders = [e for e in entries if e.is_dir()]
    files = [e for e in entries if e.is_file() and suffix_of(e) in KNOWN]
    if folders and files:
        raise InputError(
            f"{folder}: holds both folders ({folders[0].name}) and files ({files[0].name}); "
            "give one of the two"
        )
    if not folders and not files:
        raise InputError(f"{folder}: holds no file that ends in {', '.join(KNOWN)}")
    splits = {e: split_named(e.name) for e in folders}
    if folders and all(splits.values()):
        # `pos.fa` alone in one split is a class where another split has a `neg.fa`
        stems = {stem_of(f) for e in folders for f in e.iterdir() if suffix_of(f) in _FASTA}
        classes = len(stems) > 1 and not all(map(_split_in, stems))
        if classes:
            _require_all_or_none([Path(stem) for stem in sorted(stems)])
        return [
            replace(file, split=str(splits[e]))
            for e in folders
            for file in _by_classes(e, classes=classes)
        ]
    return _by_classes(folder) if folders else _by_names(files)


def _by_classes(folder: Path, *, classes: bool = False) -> list[SourceFile]:
    """Files of a folder with a subfolder for each class; without subfolders, by their names.

    classes: whether the names of FASTA files are known to be classes.
    """
    entries = sorted(e for e in folder.iterdir() if not e.name.startswith("."))
    folders = [e for e in entries if e.is_dir()]
    if not folders:
        files = [e for e in entries if suffix_of(e) in KNOWN]
        if classes:
            return [SourceFile(file, label=stem_of(file)) for file in files]
        return _by_names(files)
    return [
        SourceFile(file, label=e.name)
        for e in folders
        for file in sorted(e.iterdir())
        if suffix_of(file) in KNOWN and not file.name.startswith(".")
    ]


def _by_names(paths: Sequence[Path]) -> list[SourceFile]:
    """Files whose names are all splits, or all classes of FASTA files, or say nothing.

    Raises InputError where some names say a split, or nearly do, and others do not: rows of a test
    part would be learnt from, or the parts be taken for classes.
    """
    if not paths:
        raise InputError("no files are given; name at least one")
    splits = [_split_in(stem_of(path)) for path in paths]
    if all(splits):
        return [SourceFile(path, split=str(s)) for path, s in zip(paths, splits, strict=True)]
    if len(paths) == 1:
        return [SourceFile(paths[0])]
    _require_all_or_none(paths)
    if all(suffix_of(path) in _FASTA for path in paths):
        return [SourceFile(path, label=stem_of(path)) for path in paths]
    return [SourceFile(path) for path in paths]


def _require_all_or_none(paths: Sequence[Path]) -> None:
    """Nothing, where each name says a split, or none says anything like it."""
    hints = [path for path in paths if _split_in(stem_of(path)) or _like_split(stem_of(path))]
    unclear = [path for path in paths if not _split_in(stem_of(path))]
    if hints and unclear:
        other = next((path for path in paths if path != unclear[0]), unclear[0])
        raise InputError(
            f"{unclear[0]}: its name says no split (train, valid, test), but the names of the "
            f"files, such as {other.name}, speak of splits; rename it, or give the files by "
            "--train, --valid and --test"
        )


def _split_in(stem: str) -> str | None:
    """The split that the words of a name say: `train`, `H3_train_seqs`, `test.1`, `dev2`.

    None where no word is a split, and where two are different ones.
    """
    words = re.split(r"[\W_]+", stem)
    found = {split_named(word.rstrip("0123456789")) for word in words} - {None, ""}
    return found.pop() if len(found) == 1 else None


def _like_split(stem: str) -> bool:
    """Whether a word of a name is nearly a split: `mytrain`, `testset`; not `strain`, `testis`."""
    return any(_LIKE_SPLIT.fullmatch(word) for word in re.split(r"[\W_]+", stem.casefold()))
