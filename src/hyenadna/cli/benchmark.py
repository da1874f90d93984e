"""`hyenadna benchmark`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

from hyenadna.cli.benchmark_data import BenchmarkDataOptions
from hyenadna.cli.console import make_console
from hyenadna.cli.finetune_options import BASELINE_CHOICES, HeadOptions, name_list, seed_list
from hyenadna.cli.memory import explain_memory
from hyenadna.cli.process import announce_native, choose_device, prepare_process, set_threads
from hyenadna.cli.units import duration
from hyenadna.errors import InputError
from hyenadna.training_config import FinetuneConfig

if TYPE_CHECKING:
    from hyenadna.cli.benchmark_data import TaskData
    from hyenadna.cli.benchmark_run import BenchmarkRequest, Contestant
    from hyenadna.cli.finetune_data import PreparedData
    from hyenadna.data.benchmarks.suite import BenchmarkTask
    from hyenadna.train.ledger import LedgerEntry

_LESS_MEMORY = "give --max-memory, a smaller --micro-batch-tokens or a shorter --max-length"


def benchmark(
    name: str | None = None,
    /,
    *,
    data: Path | None = None,
    model: Annotated[tuple[str, ...], Parameter(consume_multiple=False)] = (),
    out: Path | None = None,
    download: bool = False,
    ledger: Path = Path("ledger"),
    seeds: str = "1",
    baselines: str = "majority,kmer",
    device: str = "auto",
    threads: int | None = None,
    max_memory: str | None = None,
    rows: Annotated[BenchmarkDataOptions, Parameter(name="*")] = BenchmarkDataOptions(),  # noqa: B008
    head: Annotated[HeadOptions, Parameter(name="*")] = HeadOptions(),  # noqa: B008
    options: Annotated[FinetuneConfig, Parameter(name="*")] = FinetuneConfig(),  # noqa: B008
) -> int:
    """Run a published benchmark suite: models beside baselines and published figures.

    Without NAME the suites are listed, without `--data` one of them with its source. Nothing is
    downloaded unless `--download` is given. Each finished run is an entry of the ledger and is not
    run again; a command that was stopped goes on when it is given again.

    Parameters
    ----------
    name
        Suite: genomic_benchmarks, nucleotide_transformer, gue, promoters, chromatin, species,
        lentimpra.
    data
        Folder that holds the files of the suite.
    model
        Run folder, checkpoint folder or model name to start from, several times for several;
        `random:` before a name or a folder for that shape with random weights.
    out
        Folder for the runs, one for each task and model, and the table, `results.md`.
    ledger
        Folder of the ledger: a JSON file for each finished run.
    download
        First fetch into `--data` what has a stable public address, checked, and not what is there;
        of the tasks named by `--tasks`, or of all. Without `--model` that is all that is done.
    seeds
        How many runs, such as `3` (seeds 0, 1 and 2), or which seeds, such as `3,5`.
    baselines
        What to measure beside each model, separated by commas: `majority`, `kmer`, `cnn`, `random`,
        `transformer`; `none` for none.
    device
        `cpu`, `cuda`, `cuda:1`, …; `auto` takes a GPU where there is one.
    threads
        CPU threads; all cores when left out.
    max_memory
        Memory that this process may take, such as `4GiB`.
    rows
        Options of tasks and rows.
    head
        Options of the head.
    options
        Options of training.
    """
    console = make_console()
    if download:
        from hyenadna.cli.benchmark_download import download_suite

        download_suite(name, data, rows, console)
        if not model and out is None:
            return 0
    if name is None or data is None:
        _list(name, given=bool(model or out), console=console)
        return 0
    if not model:
        raise InputError("no model given; name one by --model: a run, a folder, or random:tiny-1k")
    if out is None:
        raise InputError("no --out given; name a folder for the runs")
    wanted_seeds = seed_list(seeds)
    wanted_baselines = name_list("--baselines", baselines, BASELINE_CHOICES)
    prepare_process()
    from hyenadna.data.benchmarks.suites import suite

    chosen = suite(name)
    set_threads(threads)
    from hyenadna.cli.benchmark_run import BenchmarkRequest

    request = BenchmarkRequest(
        suite=chosen,
        data=data,
        rows=rows,
        head=head,
        config=options,
        seeds=wanted_seeds,
        baselines=wanted_baselines,
        out=out,
        ledger=ledger,
        device=choose_device(device),
    )
    with explain_memory(_LESS_MEMORY):
        return _run(request, model, max_memory, console)


def _list(name: str | None, *, given: bool, console: Console) -> None:
    """Print all suites, or one with where its data comes from."""
    from hyenadna.cli.benchmark_tables import show_suite
    from hyenadna.data.benchmarks.suites import SUITES, suite

    found = list(SUITES.values()) if name is None else [suite(name)]
    if given:
        raise InputError("no data given; name a suite, and its folder by --data")
    for each in found:
        show_suite(each, console, where_from=name is not None)
    if name is None:
        console.print("Where the data of a suite comes from: hyenadna benchmark NAME")


@dataclass(frozen=True)
class _Plan:
    """What is to be run."""

    tasks: tuple[BenchmarkTask, ...]
    tokens: dict[str, int]
    longest: int
    """Bases of the longest window of a suite by length."""


def _run(
    request: BenchmarkRequest, models: Sequence[str], max_memory: str | None, console: Console
) -> int:
    """Run all tasks and models; returns the exit code."""
    from hyenadna.cli.benchmark_run import contestant
    from hyenadna.cli.benchmark_tables import show_results, write_page
    from hyenadna.cli.finetune_job import Interrupted
    from hyenadna.cli.finetune_models import find_model
    from hyenadna.train.ledger import read_ledger

    sources = [find_model(name, max_memory) for name in dict.fromkeys(models)]
    everyone = [contestant(source, request) for source in sources]
    titles = [each.title for each in everyone]
    if len(set(titles)) < len(titles):
        raise InputError(f"--model: two are called {titles[0]!r}; rename the folder of one")
    read_ledger(request.ledger)  # a damaged one is told before the work
    plan = _plan(request, everyone, console)
    for each in everyone:
        announce_native(console, each.source.config)
    done: list[LedgerEntry] = []
    try:
        for entry in _pairs(request, plan, everyone, console):
            done.append(entry)
            write_page(request.suite, plan.tasks, done, request.out)
    except Interrupted as stop:
        console.print("stopped; give the same command again to go on")
        return 128 + stop.signal
    except KeyboardInterrupt:
        console.print("stopped; give the same command again to go on")
        raise
    show_results(request.suite, plan.tasks, done, console)
    console.print(f"results: {request.out / 'results.md'}; ledger: {request.ledger}")
    return 0


def _plan(request: BenchmarkRequest, everyone: Sequence[Contestant], console: Console) -> _Plan:
    """The tasks, each read once to see that it can be; says what will be run, and what is missing.

    Raises InputError for data that is not as it should be, or too long for a model.
    """
    from hyenadna.cli.benchmark_data import (
        BY_LENGTH,
        ONE_CLASS,
        choose_tasks,
        load_rows,
        task_facts,
    )  # fmt: skip

    suite = request.suite
    reads = min(each.source.config.max_seq_len for each in everyone)
    names = choose_tasks(suite, request.data, request.rows, reads)
    longest = 0
    if suite.name in BY_LENGTH:
        longest = max(task_facts(suite, name).length for name in names.tasks)
    facts, tokens, count = [], {}, 0
    for name in names.tasks:
        try:
            with console.status(f"reading {name} …"):
                task = load_rows(suite, name, request.data, request.rows, longest)
        except InputError as error:
            if request.rows.tasks or ONE_CLASS not in str(error):
                raise
            console.print(f"left out: {error}")  # a part of a benchmark; the other tasks can be run
            continue
        _require_fit(task, request, reads)
        facts.append(task.facts)
        tokens[name] = task.tokens
        count += len(task.data)
    if not facts:
        raise InputError(f"{request.data}: no task here has rows of two classes")
    if names.missing:
        console.print(f"not here, or longer than the models read: {', '.join(names.missing)}")
        console.print(f"where the data comes from: hyenadna benchmark {suite.name}")
    seeds = len(request.seeds)
    console.print(
        f"{suite.title}: {len(facts)} task{'s' * (len(facts) != 1)}, {count:,} rows, "
        f"{len(everyone)} model{'s' * (len(everyone) != 1)} ({'; '.join(m.title for m in everyone)}"
        f"), {seeds} seed{'s' * (seeds != 1)} each; the time is told after the first"
    )
    if request.rows.choose_on_test:
        console.print(
            "warning: --choose-on-test: models will be chosen on the test part (the paper's "
            "protocol), which flatters them"
        )
    return _Plan(tuple(facts), tokens, longest)


def _require_fit(task: TaskData, request: BenchmarkRequest, reads: int) -> None:
    longest, limit = int(task.data.lengths.max()), request.config.max_length
    if min(longest, limit or longest) > reads:
        raise InputError(
            f"{task.facts.name}: has sequences of {longest:,} bases, but a model reads up to "
            f"{reads:,}; crop with --max-length {reads}, or leave it out by --tasks"
        )


def _pairs(
    request: BenchmarkRequest, plan: _Plan, everyone: Sequence[Contestant], console: Console
) -> Iterator[LedgerEntry]:
    """The entry of each task and model in turn, found in the ledger or run now."""
    from hyenadna.cli.benchmark_data import load_rows
    from hyenadna.cli.benchmark_run import find_entry, run_pair
    from hyenadna.cli.benchmark_tables import result_line
    from hyenadna.train.ledger import read_ledger

    clock = _Clock(sum(plan.tokens.values()) * len(everyone))
    for number, facts in enumerate(plan.tasks, start=1):
        task = load_rows(request.suite, facts.name, request.data, request.rows, plan.longest)
        console.print(f"\n{facts.name} ({number} of {len(plan.tasks)})")
        prepared: PreparedData | None = None
        for model in everyone:
            entry = find_entry(request, task, model, read_ledger(request.ledger))
            if entry is not None:
                console.print(f"done already: {result_line(entry)}")
                clock.skip(task.tokens)
                yield entry
                continue
            prepared = prepared or _prepare(task, console)
            console.print(f"{facts.name}: {model.title}")
            start = time.monotonic()
            entry = run_pair(request, task, prepared, model, console)
            console.print(result_line(entry))
            left = clock.add(task.tokens, time.monotonic() - start)
            if left:
                console.print(f"about {duration(left)} left, by the runs so far")
            yield entry


def _prepare(task: TaskData, console: Console) -> PreparedData:
    from hyenadna.cli.finetune_data import prepare_data

    if task.own_split:
        console.print(f"note: {task.own_split}")
    return prepare_data(task.data, task.splitting, console)


class _Clock:
    """How long the runs that are left will take, by tokens and the time of those that were run."""

    def __init__(self, tokens: int) -> None:
        self._left, self._run, self._seconds = tokens, 0, 0.0

    def skip(self, tokens: int) -> None:
        """Count a run that was not needed."""
        self._left -= tokens

    def add(self, tokens: int, seconds: float) -> float:
        """Count a run; seconds that are left."""
        self.skip(tokens)
        self._run, self._seconds = self._run + tokens, self._seconds + seconds
        return self._left * self._seconds / max(self._run, 1)
