"""`hyenadna finetune`."""

from __future__ import annotations

import dataclasses
import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from hyenadna.cli.console import make_console
from hyenadna.cli.finetune_options import (
    BASELINE_CHOICES,
    FinetuneRequest,
    HeadOptions,
    ReadingOptions,
    SplitOptions,
    name_list,
    seed_list,
)
from hyenadna.cli.labelled_run import (
    Machine,
    done_text,
    read_description,
    require_free,
    require_same_digest,
    run_or_stop,
    say_complete,
    stored_request,
    write_description,
)
from hyenadna.cli.memory import explain_memory, note_no_effect
from hyenadna.cli.process import (
    announce_native,
    announce_slow_bf16,
    available_memory,
    prepare_process,
    set_threads,
)
from hyenadna.cli.ranks import goes_on, join_ranks, several, text_of, torchrun_job
from hyenadna.cli.units import size
from hyenadna.errors import InputError
from hyenadna.training_config import FinetuneConfig

if TYPE_CHECKING:
    import torch

    from hyenadna.cli.finetune_job import FinetuneJob, Outcome
    from hyenadna.model.parallel.ranks import Ranks

DESCRIPTION = "finetune.json"


def finetune(
    model: str | None = None,
    /,
    *data: Path,
    out: Path,
    train: Path | None = None,
    valid: Path | None = None,
    test: Path | None = None,
    seeds: str = "1",
    baselines: str = "majority,kmer",
    resume: bool = False,
    device: str = "auto",
    threads: int | None = None,
    max_memory: str | None = None,
    fsdp: bool = False,
    json_: Annotated[bool, Parameter(name="--json")] = False,
    head: Annotated[HeadOptions, Parameter(name="*")] = HeadOptions(),  # noqa: B008
    reading: Annotated[ReadingOptions, Parameter(name="*")] = ReadingOptions(),  # noqa: B008
    splitting: Annotated[SplitOptions, Parameter(name="*")] = SplitOptions(),  # noqa: B008
    options: Annotated[FinetuneConfig, Parameter(name="*")] = FinetuneConfig(),  # noqa: B008
) -> int:
    """Fit a model to labelled sequences, and measure it beside baselines.

    It learns from the training rows, is chosen on the valid rows, and meets the test rows once, at
    the end. Where there is no valid part, a tenth of the training rows is held out.

    Parameters
    ----------
    model
        Run folder, checkpoint folder or model name to start from; `random:` before a name or a
        folder for that shape with random weights.
    data
        CSV, TSV, Parquet, FASTA or BED with labels, or a folder with a file or a folder for each
        split or class.
    out
        Folder of the run: best model, report.html, metrics.json, predictions.csv.
    train
        File of the training rows, instead of DATA.
    valid
        File of the valid rows.
    test
        File of the test rows.
    seeds
        How many runs, such as `3` (seeds 0, 1 and 2), or which seeds, such as `3,5`; several give
        a mean and a standard deviation.
    baselines
        What to measure beside the model, separated by commas: `majority`, `kmer`, `hmm` (a
        class of each base), `cnn`, `random` (the same architecture from random weights),
        `transformer` (its twin from random weights); `none` for none.
    resume
        Go on with the run in `--out`; give nothing else.
    device
        `cpu`, `cuda`, `cuda:1`, …; `auto` takes a GPU where there is one.
    threads
        CPU threads; all cores when left out.
    max_memory
        Memory that this process may take, such as `4GiB`. With smaller passes for it the
        draws of dropout are others; nothing else changes beyond rounding.
    fsdp
        Under `torchrun`: keep parameters, gradients and moments in parts, one on each rank (FSDP2),
        in place of a copy on each. For `--mode full` and `last`.
    json_
        Print the figures as JSON; all else goes to standard error.
    head
        Options of the head.
    reading
        Options of reading.
    splitting
        Options of splitting.
    options
        Options of training.
    """
    console = make_console(stderr=json_)
    request = FinetuneRequest.of(
        model,
        data,
        train,
        valid,
        test,
        reading=reading,
        splitting=splitting,
        head=head,
        options=options,
        seeds=seed_list(seeds),
        baselines=name_list("--baselines", baselines, BASELINE_CHOICES),
    )
    machine = Machine(device, threads, max_memory)
    stored: dict[str, Any] = {}
    if torchrun_job():
        prepare_process()
        resume = goes_on(device, 1, lambda: _left_here(out)) or resume
    if resume:
        stored = read_description(out, DESCRIPTION, "fine-tuning run")
        request = stored_request(request, stored)
        if say_complete(out, console, as_json=json_):
            return 0
        machine = machine.or_stored(stored)
    else:
        require_free(out, DESCRIPTION)
        if not request.model:
            raise InputError("no model given; name a run, a folder, or random:tiny-1k")
        if request.model.startswith("random:") and "random" in request.baselines:
            raise InputError("--baselines random: the model starts from random weights itself")
    prepare_process()
    set_threads(machine.threads)
    where, ranks = join_ranks(machine.device)
    max_memory = machine.max_memory
    start = time.monotonic()
    with explain_memory(_LESS_MEMORY):
        request, job = _prepare(request, (where, ranks, fsdp), max_memory, stored, console)
        _announce(job, request, out, max_memory, console)
        if resume:
            ranks.require_one_folder(out, text_of(out / DESCRIPTION))
        ranks.wait()  # until all have found the folder free
        if not resume and ranks.first:
            _start(out, request, job, max_memory)
        return _run(job, request, out, console, start, resume=resume, as_json=json_)


def _left_here(out: Path) -> bool:
    """Whether the run in a folder is one that this start of torchrun has begun."""
    if not (out / DESCRIPTION).exists():
        return False
    found = read_description(out, DESCRIPTION, "fine-tuning run")
    return bool(found.get("torchrun") == torchrun_job())


_LESS_MEMORY = "give --max-memory, a smaller --micro-batch-tokens or a shorter --max-length"


def _prepare(
    request: FinetuneRequest,
    where: tuple[torch.device, Ranks, bool],
    max_memory: str | None,
    stored: dict[str, Any],
    console: Console,
) -> tuple[FinetuneRequest, FinetuneJob]:
    """The job of a request, checked; and the request with the passes that fit the memory.

    where: the device of this process, its place among those that train together, and whether
    parameters lie in parts on these.
    """
    from hyenadna.cli.finetune_data import prepare_data, read_data
    from hyenadna.cli.finetune_job import FinetuneJob, check_job
    from hyenadna.cli.finetune_models import find_model

    source = find_model(request.model, max_memory)
    announce_native(console, source.config)
    data = prepare_data(read_data(request), request.splitting, console)
    require_same_digest(stored, "data", data.digest, data.learning.name)
    job = check_job(
        FinetuneJob(
            data=data,
            source=source,
            head=request.head,
            config=request.options,
            seeds=request.seeds,
            baselines=request.baselines,
            device=where[0],
            ranks=where[1],
            sharded=where[2],
        )
    )
    return dataclasses.replace(request, options=job.config), job


def _announce(
    job: FinetuneJob, request: FinetuneRequest, out: Path, max_memory: str | None, console: Console
) -> None:
    from hyenadna.model.engine.sizes import resident_bytes

    config, options = job.source.config, job.config
    console.print(
        f"{job.source.described}: {config.mixer}, {config.n_layer} layers, width {config.d_model}, "
        f"{config.num_parameters():,} parameters, reads up to {config.max_seq_len:,} tokens"
    )
    if job.source.weights is None:
        console.print("note: nothing is pretrained here; the backbone starts from random weights")
    if job.data.chosen_on == "test":
        console.print(
            "warning: --choose-on-test: the model will be chosen on the test part (the paper's "
            "protocol), which flatters it"
        )
    elif job.data.part == "valid":
        console.print(
            "warning: there is no test part; figures will be of the valid part, on which the model "
            "is chosen (--test-fraction holds some rows out)"
        )
    strands = "" if job.head.strands == "forward" else f", both strands ({job.head.strands})"
    epochs, seeds = options.epochs, len(job.seeds)
    console.print(
        f"{options.mode}: {job.trained:,} parameters trained{strands}; at most {epochs} "
        f"epoch{'s' * (epochs > 1)}, {seeds} seed{'s' * (seeds > 1)}; {job.precision} on "
        f"{job.device}{several(job.ranks)}, run in {out}"
    )
    announce_slow_bf16(console, job.precision, job.device)
    console.print(f"about {size(job.memory)} of memory")
    free = available_memory()
    if job.device.type == "cpu" and free is not None and job.memory - resident_bytes() > free:
        console.print(f"note: only {size(free)} are free; {_LESS_MEMORY}")
    note_no_effect(console, max_memory, engine=job.engine)


def _start(out: Path, request: FinetuneRequest, job: FinetuneJob, max_memory: str | None) -> None:
    """Make the run folder with its description."""
    task = job.data.learning.task
    write_description(
        out,
        DESCRIPTION,
        device=job.device,
        request=request.to_dict(),
        torchrun=torchrun_job(),
        max_memory=max_memory,
        task={"kind": task.kind, "names": list(task.names)},
        data_digest=job.data.digest,
    )


def _run(
    job: FinetuneJob,
    request: FinetuneRequest,
    out: Path,
    console: Console,
    start: float,
    *,
    resume: bool,
    as_json: bool,
) -> int:
    """Train, measure and write; returns the exit code."""
    from hyenadna.cli.finetune_job import measure_all, train_all

    def work() -> None:
        trained = train_all(job, out, console, resume=resume)
        if job.ranks:
            job.ranks.leave()
            if not job.ranks.first:  # which goes on alone
                return
        outcome = measure_all(job, trained, out, console)
        _finish(outcome, request, out, console, start, as_json=as_json)

    return run_or_stop(work, "finetune", out, console)


def _finish(
    outcome: Outcome,
    request: FinetuneRequest,
    out: Path,
    console: Console,
    start: float,
    *,
    as_json: bool,
) -> None:
    from hyenadna.cli.finetune_report import FinishedRun, show_results, write_results

    run = FinishedRun(outcome, request, time.monotonic() - start)
    with console.status("writing the report …"):
        summary = write_results(run, out)
    show_results(run, console)
    console.print(
        f"{done_text(start)}. Report: {out / 'report.html'}, "
        f"predictions: {out / 'predictions.csv'}\n"
        f"Next: hyenadna predict {shlex.quote(str(out))} INPUT -o predictions.csv"
    )
    if as_json:
        print(json.dumps(summary, indent=2))
