"""The data of a fine-tuning run: read, split, looked through for leaks, and said."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from rich.console import Console

from hyenadna.alphabet import IGNORED
from hyenadna.cli.console import make_table
from hyenadna.cli.finetune_options import FinetuneRequest, SplitOptions, named_files
from hyenadna.data.labelled_data import LabelledData
from hyenadna.errors import InputError

if TYPE_CHECKING:
    from hyenadna.data.leaks import Leaks

Part = Literal["valid", "test"]
SPLITS = ("train", "valid", "test")
_CLASSES_SHOWN = 8
_COLUMNS_SHOWN = 6


@dataclass(frozen=True, eq=False)
class PreparedData:
    """Labelled data in two that have no row in common, and what was found in it.

    With `chosen_on` test, which is the exception, the measured rows are the valid ones of
    `learning` too; and so they are where there is no test part.
    """

    learning: LabelledData
    """Rows `train` and `valid`, to learn from and to choose by."""
    measured: LabelledData
    """Rows to measure on, once, at the end."""
    part: Part
    """Which part of the source these are."""
    chosen_on: Part
    """Which part of the source is `valid` in `learning`."""
    counts: dict[str, dict[str, int]]
    """Split -> what is counted -> count."""
    leaks: Leaks | None = None
    """None where nobody looked."""
    digest: str = ""
    """Of all rows, with their splits."""


def read_data(request: FinetuneRequest) -> LabelledData:
    """The labelled rows that a request names.

    Raises InputError where they cannot be read, or none are named.
    """
    from hyenadna.data.labelled import read_labelled

    reading = request.reading
    source: Any = dict(request.parts) or list(request.data)
    if not source and reading.tile is None:
        raise InputError("no data given; name a file or a folder, or give --train and --test")
    if request.parts and request.data:
        raise InputError(
            f"{request.data[0]}: give either DATA, or files by --train, --valid and --test"
        )
    if reading.tile is not None and request.splitting.split_by != "group":
        raise InputError(
            "--tile: windows side by side share genes, and must not be in two parts; give "
            "--split-by group"
        )
    return read_labelled(
        source[0] if len(source) == 1 and not request.parts else source or None,
        task=reading.task,
        sequence=reading.sequence,
        pair=reading.pair,
        labels=reading.label or None,
        split=reading.split,
        id=reading.id,
        group=reading.group,
        header=reading.header,
        genome=reading.genome,
        window=reading.window,
        outside=reading.outside,
        tile=reading.tile,
        tracks=named_files("--track", reading.track),
        frames=reading.frames,
        genes=reading.genes,
        stranded=reading.stranded,
        bigwigs=named_files("--bigwig", reading.bigwig),
        missing=reading.missing,
        empty=reading.empty,
    )


def prepare_data(data: LabelledData, options: SplitOptions, console: Console) -> PreparedData:
    """The data split, with its leaks; says what was read, and what the splits have in common.

    Raises InputError where there is nothing to learn from, to choose by or to measure on.
    """
    data = _with_parts(data, options)
    for note in data.notes:
        _say(note, console)
    _show_counts(data, console)
    leaks = None
    if options.leaks != "none":
        leaks = _look(data, options, console)
        if options.drop_leaks:
            before = len(data.notes)
            data, leaks = _drop(data, leaks, options)
            for note in data.notes[before:]:
                _say(note, console)
            if len(data.notes) > before:
                _say_what_is_left(leaks, console)
    return dataclasses.replace(divide(data, choose_on_test=options.choose_on_test), leaks=leaks)


def _say(note: str, console: Console) -> None:
    console.print(note if note.startswith("warning:") else f"note: {note}")


def _say_what_is_left(leaks: Leaks, console: Console) -> None:
    """The second look, after the leaks were dropped."""
    if leaks.total:
        console.print(
            f"warning: {leaks.total:,} rows still leak into a part that is chosen by or measured "
            "on; split the data anew (--split-by similarity)"
        )
    elif not leaks.complete:
        console.print(
            "warning: families of similar sequences are so large that some near duplicates may be "
            "left"
        )
    else:
        console.print("looked again: no leak is left")


def divide(data: LabelledData, *, choose_on_test: bool = False) -> PreparedData:
    """Data whose rows all have a split, as what is learnt from and what is measured on.

    Measured is the test part, or where there is none the valid part.

    Raises InputError where one of them has no rows, or none with a target.
    """
    from hyenadna.train.baselines import known_targets

    part: Part = "test" if _has(data, "test") else "valid"
    if choose_on_test and part != "test":
        raise InputError(f"{data.name}: --choose-on-test, but there is no test part")
    chosen_on: Part = "test" if choose_on_test else "valid"
    used = (data.splits == "train") | (data.splits == chosen_on)
    learning = data.select(used)
    splits = np.where(learning.splits == "train", "train", "valid")
    learning = dataclasses.replace(learning, splits=splits)
    measured = data.part(part)
    parts = {"train": learning.part("train"), chosen_on: learning.part("valid"), part: measured}
    for name, rows in parts.items():
        if not len(rows) or not known_targets(rows):
            what = "all targets are missing" if len(rows) else "there are no rows"
            raise InputError(f"{data.name}: {what} in the {name} part")
    return PreparedData(
        learning, measured, part, chosen_on, _count_splits(data), digest=data.digest()
    )


def _count_splits(data: LabelledData) -> dict[str, dict[str, int]]:
    return {split: count_rows(data.part(split)) for split in SPLITS if _has(data, split)}


def _has(data: LabelledData, split: str) -> bool:
    return bool((data.splits == split).any())


def _with_parts(data: LabelledData, options: SplitOptions) -> LabelledData:
    """The data with a split for each row, and a valid part unless the test part is to choose by."""
    from hyenadna.data.splits import hold_out, with_valid

    loose = int((data.splits == "").sum())
    if loose:
        splits = np.where(data.splits == "", "train", data.splits)
        data = dataclasses.replace(data, splits=splits)
        if loose < len(data):
            data = data.with_notes(f"{loose} rows without a split are training rows")
    if not _has(data, "train"):
        raise InputError(f"{data.name}: has no training rows; give some, or name the split column")
    by, seed = options.split_by, options.split_seed
    if options.test_fraction is not None:
        if _has(data, "test"):
            raise InputError(f"{data.name}: has a test part already; leave out --test-fraction")
        data = hold_out(data, "test", seed=seed, fraction=options.test_fraction, by=by)
    if options.choose_on_test:
        if _has(data, "valid"):
            count = int((data.splits == "valid").sum())
            data = data.with_notes(f"--choose-on-test: the {count} valid rows are not used")
        return data
    return with_valid(data, seed=seed, fraction=options.valid_fraction, by=by)


def _look(data: LabelledData, options: SplitOptions, console: Console) -> Leaks:
    from hyenadna.data.leaks import find_leaks

    with console.status("looking for sequences that the splits have in common …"):
        leaks = find_leaks(data, near=options.leaks == "near")
    near = options.leaks == "near"
    table = make_table(
        "Sequences that the splits have in common",
        "",
        "identical",
        "other strand",
        "near" if near else "",
        "rows",
        "conflicting",
    )
    for row in overlap_rows(leaks, near=near):
        cells = ("–" if value is None else str(value) for value in row.values())
        table.add_row(*cells)
    console.print(table)
    for line in leaks.lines()[len(leak_lines(leaks)) :]:
        console.print(line)
    if not leaks.complete:
        console.print(
            "warning: families are so large that not all near duplicates were looked for; the "
            "counts are the least there are"
        )
    if leaks.total and not options.drop_leaks:
        least = "at least " * (not leaks.complete)
        console.print(
            f"warning: {least}{leaks.total:,} rows leak into a part that is chosen by or measured "
            "on; --drop-leaks leaves them out"
        )
    return leaks


def overlap_rows(leaks: Leaks, *, near: bool = True) -> list[dict[str, str | int | None]]:
    """A row for each two splits: what they have in common, in numbers.

    identical, other strand, near: different sequences of the second split; rows: its rows with any
    of these; conflicting: sequences with other targets in the two. near: whether it was looked for.
    """
    return [
        {
            "splits": f"{o.one} and {o.other}",
            "identical": o.identical,
            "other strand": o.reverse_complement,
            "near": o.near if near else None,
            "rows": o.rows,
            "conflicting": o.conflicting,
        }
        for o in leaks.overlaps
    ]


def leak_lines(leaks: Leaks) -> list[str]:
    """What splits have in common, a sentence for each two that have something."""
    return leaks.lines()[: sum(o.rows > 0 for o in leaks.overlaps)]


def _drop(data: LabelledData, leaks: Leaks, options: SplitOptions) -> tuple[LabelledData, Leaks]:
    """The data without what leaks, and what is left in common (nothing, unless all is in test)."""
    from hyenadna.data.leaks import drop_leaks, find_leaks

    near = options.leaks == "near"
    kept = drop_leaks(data, leaks, near=near)
    return kept, leaks if kept is data else find_leaks(kept, near=near)


def count_rows(data: LabelledData) -> dict[str, int]:
    """Sequences of some rows, and by class or label, shortest and longest: names and counts."""
    lengths = data.lengths
    found = {"sequences": len(data)}
    kind, names = data.task.kind, data.task.names
    if kind == "values":
        pass
    elif kind == "labels":
        positive = (np.asarray(data.targets) == 1).sum(0).tolist()
        found |= {f"with {name}": count for name, count in zip(names, positive, strict=True)}
    else:
        unit = "bases of" if kind == "tokens" else "class"
        targets: Any = data.targets
        flat = np.concatenate(targets) if isinstance(targets, tuple) else targets
        known = np.bincount(flat[flat != IGNORED], minlength=len(names)).tolist()
        found |= {f"{unit} {name}": count for name, count in zip(names, known, strict=True)}
        if (flat == IGNORED).any():
            found["masked"] = int((flat == IGNORED).sum())
    return found | {"shortest": int(lengths.min()), "longest": int(lengths.max())}


def _show_counts(data: LabelledData, console: Console) -> None:
    counts = _count_splits(data)
    columns = list(dict.fromkeys(name for each in counts.values() for name in each))
    if data.task.outputs > _CLASSES_SHOWN:
        columns = ["sequences", "shortest", "longest"]
    task = data.task
    names = ", ".join(task.names[:_CLASSES_SHOWN]) + ", …" * (task.outputs > _CLASSES_SHOWN)
    title = f"{data.name}: {task.kind}, {task.outputs} ({names})"
    if len(columns) <= _COLUMNS_SHOWN:
        table = make_table(title, "split", *columns)
        for split, each in counts.items():
            table.add_row(split, *(f"{each.get(name, 0):,}" for name in columns))
    else:  # turned, so that nothing is cut off
        table = make_table(title, "", *counts)
        for name in columns:
            table.add_row(name, *(f"{each.get(name, 0):,}" for each in counts.values()))
    console.print(table)


def cropped(data: LabelledData, max_length: int | None, longest: int) -> LabelledData:
    """The data cropped to `max_length`, where that is given.

    longest: tokens that the model reads. Raises InputError for sequences that are longer.
    """
    from hyenadna.data.labelled_data import fit_length

    if max_length is not None and max_length > longest:
        raise InputError(
            f"--max-length is {max_length:,}, but this model reads up to {longest:,} tokens"
        )
    data = fit_length(data, max_length, "centre")
    lengths = data.lengths
    if (lengths > longest).any():
        first = int(np.argmax(lengths > longest))
        count = int((lengths > longest).sum())
        raise InputError(
            f"{data.name}: sequence {data.ids[first]!r} has {lengths[first]:,} tokens ({count:,} "
            f"are too long), but this model reads up to {longest:,}; crop to the middle with "
            f"--max-length {longest}, or take a model that reads more"
        )
    return data


def data_name(request: FinetuneRequest, data: LabelledData) -> str:
    """The data in words, for a report."""
    paths = [*request.data, *cast(dict[str, str], request.parts).values()]
    return f"{data.name} ({', '.join(paths)})" if paths else data.name
