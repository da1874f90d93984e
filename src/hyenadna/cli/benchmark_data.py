"""The rows of a benchmark task: found, read, and split here where the source has no test part."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import numpy as np
from cyclopts import Parameter

from hyenadna.cli.finetune_options import LeakLook, SplitBy, SplitOptions
from hyenadna.errors import InputError

if TYPE_CHECKING:
    from hyenadna.data.benchmarks.suite import BenchmarkTask, Suite
    from hyenadna.data.labelled_data import LabelledData

BY_LENGTH: Final = ("species", "chromatin")
"""Suites whose tasks are lengths of windows."""
ONE_CLASS: Final = "holds 1 class"
"""What the error says of a table that cannot be learned from, though nothing is wrong with it."""
_Each = Parameter(consume_multiple=False)


@dataclass(frozen=True, kw_only=True)
class BenchmarkDataOptions:
    """Which tasks, and which rows of them."""

    tasks: str = ""
    """Tasks, separated by commas; all that are found in the data when left out."""
    length: str = ""
    """Species and chromatin: window lengths, separated by commas, such as `1k,4k,16k` (4k is 4,096
    bases); those of the paper that the models read when left out."""
    genome: Annotated[tuple[str, ...], _Each] = ()
    """FASTA that intervals are cut from, several times for several (genomic_benchmarks; one for
    chromatin)."""
    windows: int = 1000
    """Species: windows of each of train, valid and test."""
    subset: int | None = None
    """Rows of a task for a quick look, drawn by `--split-seed`; its figures are marked, and never
    stand beside published ones."""
    valid_fraction: float = 0.1
    """Share of the training rows for validation, where the source has no valid part."""
    test_fraction: float = 0.2
    """Share of all rows for test, where the source has no test part."""
    split_by: Literal["auto", "random", "group", "similarity"] = "auto"
    """What is held out together, where the source does not say; `auto` is by group (such as
    chromosomes) where groups are known; else by similarity where a test part is made, so that no
    near duplicate of its rows is learned from, and at random where only a valid part is."""
    split_seed: int = 0
    """Another one holds out other rows, and draws other windows."""
    leaks: LeakLook | None = None
    """What is looked for between the splits; `near` when left out, `none` for windows of genomes,
    which are split by place."""
    drop_leaks: bool = False
    """Leave out training rows that stand in valid or test, and valid rows that stand in test."""
    choose_on_test: bool = False
    """The paper's protocol: choose the model on the test part, which flatters it; the ledger entry
    says so."""

    def __post_init__(self) -> None:
        for name, least in (("windows", 3), ("subset", 10)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"--{name} is {value}; it must be at least {least}")
        self.splitting(by="random", own_test=True)  # refuses what is out of range

    def splitting(self, *, by: SplitBy, own_test: bool, windows: bool = False) -> SplitOptions:
        """The options of `prepare_data`.

        own_test: a test part is made here. windows: the rows are windows of genomes.
        """
        return SplitOptions(
            valid_fraction=self.valid_fraction,
            test_fraction=self.test_fraction if own_test else None,
            split_by=by,
            split_seed=self.split_seed,
            leaks=self.leaks or ("none" if windows and not self.drop_leaks else "near"),
            drop_leaks=self.drop_leaks,
            choose_on_test=self.choose_on_test,
        )


@dataclass(frozen=True, eq=False)
class TaskData:
    """The rows of a task, and how they are to be split."""

    facts: BenchmarkTask
    data: LabelledData
    splitting: SplitOptions
    own_split: str
    """How the test part is made here, in words; empty where the source has one."""
    source_digest: str
    """Of the rows as they were read, before any split of ours."""
    label_groups: tuple[str, ...] | None = None

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return int(self.data.lengths.sum())


@dataclass(frozen=True)
class TaskList:
    """Which tasks are to be run, and which are not there."""

    tasks: tuple[str, ...]
    missing: tuple[str, ...] = ()


def named_tasks(suite: Suite, options: BenchmarkDataOptions) -> tuple[str, ...]:
    """The tasks that the user names, each once; none where nothing is named.

    Of suites by length they are lengths. Raises InputError for names that there are not, and for
    both `--tasks` and `--length`.
    """
    if suite.name in BY_LENGTH:
        if options.tasks and options.length:
            raise InputError("give either --tasks or --length; for this suite they are the same")
        names = [task.name for task in suite.list_tasks()]
        words = _words(options.length or options.tasks)
        return tuple(dict.fromkeys(_length_name(word, names) for word in words))
    if options.length:
        raise InputError(f"--length: {suite.name} has tasks of fixed lengths; it is for species")
    return tuple(dict.fromkeys(suite.task(name).name for name in _words(options.tasks)))


def choose_tasks(
    suite: Suite, folder: Path, options: BenchmarkDataOptions, longest: int
) -> TaskList:
    """The tasks of a suite to run on the data of a folder.

    longest: tokens that every model reads; of lengths that are not named, longer ones are left out.

    Raises InputError for names that there are not, tasks that are named and not found, and a folder
    without any.
    """
    named = named_tasks(suite, options)
    if suite.name in BY_LENGTH:
        return TaskList(named) if named else _lengths(suite, folder, longest)
    if named:
        for task in named:
            _place(suite, task, folder)
        return TaskList(named)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the one that holds the benchmark's files")
    names = [task.name for task in suite.list_tasks()]
    found = [name for name in names if _is_there(suite, name, folder)]
    if not found:
        raise InputError(
            f"{folder}: holds no task of {suite.name} ({', '.join(names[:3])}, …); where the data "
            f"comes from: hyenadna benchmark {suite.name}"
        )
    return TaskList(tuple(found), tuple(name for name in names if name not in found))


def _lengths(suite: Suite, folder: Path, longest: int) -> TaskList:
    """The lengths of the paper that the data and the models allow."""
    names = [task.name for task in suite.list_tasks()]
    if suite.name == "chromatin" and not any(folder.glob("*coords_targets*")):
        return TaskList(("1k",))  # matrices hold 1,000 bases
    fitting = tuple(t.name for t in suite.list_tasks() if t.length <= longest)
    if not fitting:
        raise InputError(
            f"--length: the models read up to {longest:,} tokens, less than each task of "
            f"{suite.name}; name shorter windows"
        )
    return TaskList(fitting, tuple(name for name in names if name not in fitting))


def _length_name(word: str, names: Sequence[str]) -> str:
    """The task of a length: as the paper calls it, or bases as a number; `4k` is 4096."""
    if word in names or word.isdecimal():
        return word
    if word[-1:] in ("k", "K") and word[:-1].isdecimal():
        return str(1024 * int(word[:-1]))
    raise InputError(f"--length: {word!r} is none; give {', '.join(names)}, 4k, or 4096")


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _place(suite: Suite, task: str, folder: Path) -> Path:
    from hyenadna.data.benchmarks.layouts import find_task_files

    return find_task_files(folder, suite.task(task).file_names, suffixes=suite.suffixes)


def _is_there(suite: Suite, task: str, folder: Path) -> bool:
    try:
        _place(suite, task, folder)
    except InputError as error:
        if "holds no" in str(error):
            return False
        raise  # two files that fit
    return True


def load_rows(
    suite: Suite, task: str, folder: Path, options: BenchmarkDataOptions, region_length: int = 0
) -> TaskData:
    """The rows of a task. region_length: of species, the longest window of all that are measured.

    Raises InputError where they cannot be read.
    """
    facts = task_facts(suite, task)
    data = suite.load(task, folder, **_load_options(suite, facts, options, region_length))
    groups = None
    if suite.name == "chromatin":
        from hyenadna.data.benchmarks.chromatin import label_groups

        groups = label_groups(data.task.names)
    digest = data.digest()
    windowed = suite.name in BY_LENGTH
    return TaskData(facts, *_split(data, options, windowed), digest, groups)


def _load_options(
    suite: Suite, facts: BenchmarkTask, options: BenchmarkDataOptions, region_length: int
) -> dict[str, Any]:
    """What the loader of a suite takes beside task and folder."""
    genomes = options.genome
    most = {"genomic_benchmarks": len(genomes), "chromatin": 1}.get(suite.name, 0)
    if len(genomes) > most:
        raise InputError(
            f"--genome {genomes[-1]}: {suite.name} is read "
            + ("with one genome" if most else "without a genome")
        )
    if suite.name == "genomic_benchmarks":
        return {"genomes": genomes}
    if suite.name == "chromatin" and genomes:
        return {"genome": genomes[0]}
    if suite.name == "species":
        return {
            "seed": options.split_seed,
            "windows": dict.fromkeys(("train", "valid", "test"), options.windows),
            "region_length": max(region_length, facts.length),
        }
    return {}


def task_facts(suite: Suite, task: str) -> BenchmarkTask:
    """What is known of a task; also of a window length that the paper has not."""
    if suite.name in BY_LENGTH and task.isdecimal():
        return dataclasses.replace(
            suite.list_tasks()[0], name=task, length=int(task), train=None, test=None
        )
    return suite.task(task)


def _split(
    data: LabelledData, options: BenchmarkDataOptions, windowed: bool
) -> tuple[LabelledData, SplitOptions, str]:
    """The rows with the splits of the source that can be kept, the options, the split in words."""
    has = {part for part in ("train", "valid", "test") if (data.splits == part).any()}
    own, text = "test" not in has or has == {"test"}, ""
    by = _by(data, own) if options.split_by == "auto" else options.split_by
    if own:
        held = ", ".join(sorted(has)) or "no split"
        text = (
            f"the source holds {held} only; {options.test_fraction:.0%} held out for test here by "
            f"{by}, seed {options.split_seed}"
        )
        data = dataclasses.replace(data, splits=np.full(len(data), "", dtype="<U5"))
    elif "train" not in has:
        text = "the source holds no train part; its valid rows are learned from"
        splits = np.where(data.splits == "valid", "train", data.splits)
        data = dataclasses.replace(data, splits=splits)
    if options.subset is not None and options.subset < len(data):
        data = data.select(_subset(data, options.subset, options.split_seed))
    return data, options.splitting(by=by, own_test=own, windows=windowed), text


def _by(data: LabelledData, own_test: bool) -> SplitBy:
    """What is held out together, where the user does not say."""
    if data.groups is not None and len(set(data.groups)) >= 2 + own_test:  # one for each part
        return "group"
    return "similarity" if own_test else "random"


def _subset(data: LabelledData, rows: int, seed: int) -> Any:
    """Row numbers of a share of each part, the same for all, in their order."""
    order = np.random.default_rng(seed).permutation(len(data))
    share, taken = rows / len(data), []
    for part in np.unique(data.splits):
        mine = order[data.splits[order] == part]
        taken.append(mine[: max(1, round(share * len(mine)))])
    return np.sort(np.concatenate(taken))
