"""`hyenadna prompt-tune`."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter
from rich.console import Console

from hyenadna.cli.console import make_console
from hyenadna.cli.finetune_options import (
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
from hyenadna.cli.memory import explain_memory
from hyenadna.cli.process import (
    announce_native,
    announce_slow_bf16,
    available_memory,
    choose_device,
    prepare_process,
    set_threads,
)
from hyenadna.cli.prompt_options import COMPARISONS, PromptRequest
from hyenadna.cli.units import size
from hyenadna.errors import InputError
from hyenadna.training_config import PromptConfig

if TYPE_CHECKING:
    import torch

    from hyenadna.cli.prompt_job import PromptJob

DESCRIPTION: Final = "prompt_tune.json"
_LESS_MEMORY: Final = (
    "give fewer --tokens, a smaller --micro-batch-tokens or a shorter --max-length"
)


def prompt_tune(
    model: str | None = None,
    /,
    *data: Path,
    out: Path,
    train: Path | None = None,
    valid: Path | None = None,
    test: Path | None = None,
    seeds: str = "1",
    compare: str = ",".join(PromptRequest.compare),
    published: bool = False,
    resume: bool = False,
    device: str = "auto",
    threads: int | None = None,
    json_: Annotated[bool, Parameter(name="--json")] = False,
    head: Annotated[HeadOptions, Parameter(name="*")] = HeadOptions(),  # noqa: B008
    reading: Annotated[ReadingOptions, Parameter(name="*")] = ReadingOptions(),  # noqa: B008
    splitting: Annotated[SplitOptions, Parameter(name="*")] = SplitOptions(),  # noqa: B008
    options: Annotated[PromptConfig, Parameter(name="*")] = PromptConfig(),  # noqa: B008
) -> int:
    """Adapt a frozen model to labelled sequences by soft tokens: learned vectors before each.

    The model itself stays as it is, to the bit; what is learned is one small file, which `predict`,
    `embed` and `generate` take as `--prompt-file`. Data are read, split and measured as in
    `finetune`: the vectors learn from the training rows and are chosen on the valid rows, and the
    test rows are met once, at the end.

    Parameters
    ----------
    model
        Run folder, checkpoint folder or model name.
    data
        CSV, TSV, Parquet, FASTA or BED with labels, or a folder with a file or a folder for each
        split or class.
    out
        Folder of the run: best/prompt.safetensors, report.html, metrics.json, predictions.csv.
    train
        File of the training rows, instead of DATA.
    valid
        File of the valid rows.
    test
        File of the test rows.
    seeds
        How many runs of each number of tokens, such as `3`, or which seeds, such as `3,5`.
    compare
        What to measure beside the prompts, separated by commas: `linear` (a head on the frozen
        model), `lora`, `full` (fine-tuning), `kmer`, `majority`; `none` for none.
    published
        The original's settings (label words, loss over the vocabulary, rate 1e-3, batches of 16,
        both strands, no average) in place of our defaults; options given beside it count.
    resume
        Go on with the run in `--out`; give nothing else.
    device
        `cpu`, `cuda`, `cuda:1`, …; `auto` takes a GPU where there is one.
    threads
        CPU threads; all cores when left out.
    json_
        Print the figures as JSON; all else goes to standard error.
    head
        Options of the head (not with `--readout label`).
    reading
        Options of reading.
    splitting
        Options of splitting.
    options
        Options of tuning.
    """
    console = make_console(stderr=json_)
    request = PromptRequest(
        source=FinetuneRequest.of(
            model,
            data,
            train,
            valid,
            test,
            reading=reading,
            splitting=splitting,
            head=head,
            seeds=seed_list(seeds),
        ),
        options=options.resolved(published=published),
        compare=name_list("--compare", compare, COMPARISONS),
    )
    machine = Machine(device, threads)
    stored: dict[str, Any] = {}
    if resume:
        stored = read_description(out, DESCRIPTION, "prompt-tuning run")
        request = stored_request(request, stored)
        if say_complete(out, console, as_json=json_):
            return 0
        machine = machine.or_stored(stored)
    else:
        require_free(out, DESCRIPTION)
        if not request.source.model:
            raise InputError("no model given; name a run, a folder, or a published model")
    prepare_process()
    set_threads(machine.threads)
    where = choose_device(machine.device)
    start = time.monotonic()
    with explain_memory(_LESS_MEMORY):
        job = _prepare(request, where, stored, console)
        _announce(job, out, console)
        if not resume:
            _start(out, request, job)
        return _run(job, request, out, console, start, resume=resume, as_json=json_)


def _prepare(
    request: PromptRequest, device: torch.device, stored: Mapping[str, Any], console: Console
) -> PromptJob:
    from hyenadna.cli.finetune_data import prepare_data, read_data
    from hyenadna.cli.finetune_models import RANDOM, find_model
    from hyenadna.cli.prompt_job import PromptJob, check_job

    asked = request.source
    if asked.model.startswith(RANDOM):
        raise InputError(f"{asked.model}: a frozen model with random weights has nothing to adapt")
    source = find_model(asked.model)
    announce_native(console, source.config)
    data = prepare_data(read_data(asked), asked.splitting, console)
    require_same_digest(stored, "data", data.digest, data.learning.name)
    return check_job(
        PromptJob(
            data=data,
            source=source,
            head=asked.head,
            options=request.options,
            compare=request.compare,
            seeds=asked.seeds,
            device=device,
        )
    )


def _announce(job: PromptJob, out: Path, console: Console) -> None:
    config = job.source.config
    console.print(
        f"{job.source.described}: {config.mixer}, {config.n_layer} layers, width {config.d_model}, "
        f"{config.num_parameters():,} parameters, all of them frozen"
    )
    if job.words is not None:
        pairs = zip(job.words.names, job.words.words, strict=True)
        console.print("label words: " + ", ".join(f"{name} = {word}" for name, word in pairs))
    counts = ", ".join(f"{count:,}" for count in job.options.counts())
    seeds = len(job.seeds)
    console.print(
        f"soft tokens: {counts}; at most {job.options.epochs} epochs, {seeds} "
        f"seed{'s' * (seeds > 1)}; on {job.device}, run in {out}"
    )
    console.print(f"about {size(job.memory)} of memory")
    free = available_memory()
    if job.device.type == "cpu" and free is not None and job.memory > free:
        console.print(f"note: only {size(free)} are free; {_LESS_MEMORY}")
    announce_slow_bf16(console, job.options.precision, job.device)
    if job.data.part == "valid":
        console.print(
            "warning: there is no test part; figures will be of the valid part, on which the "
            "prompt is chosen (--test-fraction holds some rows out)"
        )


def _start(out: Path, request: PromptRequest, job: PromptJob) -> None:
    """Make the run folder with its description."""
    task = job.data.learning.task
    write_description(
        out,
        DESCRIPTION,
        device=job.device,
        request=request.to_dict(),
        task={"kind": task.kind, "names": list(task.names)},
        data_digest=job.data.digest,
    )


def _run(
    job: PromptJob,
    request: PromptRequest,
    out: Path,
    console: Console,
    start: float,
    *,
    resume: bool,
    as_json: bool,
) -> int:
    """Tune, measure and write; returns the exit code."""
    from hyenadna.cli.prompt_job import run_job
    from hyenadna.cli.prompt_report import FinishedPrompts, show_results, write_results

    def work() -> None:
        outcome = run_job(job, out, console, resume=resume)
        run = FinishedPrompts(outcome, request, time.monotonic() - start)
        with console.status("writing the report …"):
            summary = write_results(run, out)
        show_results(run, console)
        console.print(f"{done_text(start)}. Report: {out / 'report.html'}")
        prompt = out / "best" / "prompt.safetensors"
        if prompt.exists():
            console.print(
                f"Next: hyenadna predict {shlex.quote(request.source.model)} INPUT "
                f"-o predictions.csv --prompt-file {shlex.quote(str(prompt))}"
            )
        if as_json:
            print(json.dumps(summary, indent=2))

    return run_or_stop(work, "prompt-tune", out, console)
