"""`hyenadna fewshot`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from hyenadna.cli.console import make_console
from hyenadna.cli.fewshot_options import (
    COMPARED,
    ContextOptions,
    FewshotRequest,
    require_useful,
)
from hyenadna.cli.finetune_options import (
    FinetuneRequest,
    ReadingOptions,
    SplitOptions,
    name_list,
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
from hyenadna.cli.process import announce_native, choose_device, prepare_process, set_threads
from hyenadna.errors import InputError
from hyenadna.training_config import InstructConfig, number_list

if TYPE_CHECKING:
    import torch

    from hyenadna.cli.fewshot_job import FewshotJob

DESCRIPTION = "fewshot.json"
_LESS_MEMORY = "give --max-memory, a smaller --batch-tokens, fewer --shots or a --max-length"


def fewshot(
    model: str | None = None,
    /,
    *data: Path,
    out: Path,
    shots: str = "",
    tuning_samples: str = "0",
    compare: str = "",
    train: Path | None = None,
    valid: Path | None = None,
    test: Path | None = None,
    resume: bool = False,
    device: str = "auto",
    threads: int | None = None,
    max_memory: str | None = None,
    json_: Annotated[bool, Parameter(name="--json")] = False,
    context: Annotated[ContextOptions, Parameter(name="*")] = ContextOptions(),  # noqa: B008
    tuning: Annotated[InstructConfig, Parameter(name="*")] = InstructConfig(),  # noqa: B008
    reading: Annotated[ReadingOptions, Parameter(name="*")] = ReadingOptions(),  # noqa: B008
    splitting: Annotated[SplitOptions, Parameter(name="*")] = SplitOptions(),  # noqa: B008
) -> int:
    """Ask a model for classes behind demonstrations; say whether it learns from them.

    Labels are spelled in letters of DNA. Demonstrations come from the training rows; the same ones
    with shuffled labels, in another order, and none at all are measured beside them.

    Parameters
    ----------
    model
        Run folder, checkpoint folder or model name; `random:` before a name or a folder for
        that shape with random weights.
    data
        CSV, TSV, Parquet, FASTA or BED with a class for each sequence, or a folder with a file or a
        folder for each split or class.
    out
        Folder of the run: report.html, metrics.json, predictions.csv, and the best tuned model.
    shots
        Demonstrations of each class, such as `4`, or several numbers, such as `0,2,8`.
    tuning_samples
        Rows on which a copy of the model is tuned before it is asked, such as `0,16,64`; 0: none.
    compare
        What to train on the same rows for comparison, separated by commas: `full`, `lora`, `linear`
        (a frozen model's features), `kmer`.
    train
        File of the training rows, instead of DATA.
    valid
        File of the valid rows.
    test
        File of the test rows.
    resume
        Go on with the run in `--out`; give nothing else.
    device
        `cpu`, `cuda`, `cuda:1`, …; `auto` takes a GPU where there is one.
    threads
        CPU threads; all cores when left out.
    max_memory
        Memory that this process may take, such as `4GiB`.
    json_
        Print the figures as JSON; all else goes to standard error.
    context
        Options of demonstrations.
    tuning
        Options of tuning.
    reading
        Options of reading.
    splitting
        Options of splitting.
    """
    console = make_console(stderr=json_)
    request = FewshotRequest(
        source=FinetuneRequest.of(
            model, data, train, valid, test, reading=reading, splitting=splitting
        ),
        shots=number_list("--shots", shots) if shots else (),
        tuning_samples=number_list("--tuning-samples", tuning_samples),
        compare=name_list("--compare", compare, COMPARED),
        context=context,
        tuning=tuning,
    )
    machine = Machine(device, threads, max_memory)
    stored: dict[str, Any] = {}
    if resume:
        stored = read_description(out, DESCRIPTION, "few-shot run")
        request = stored_request(request, stored)
        if say_complete(out, console, as_json=json_):
            return 0
        machine = machine.or_stored(stored)
    else:
        require_free(out, DESCRIPTION)
        if not request.source.model:
            raise InputError("no model given; name a run, a folder, or random:tiny-1k")
        if not request.shots:
            raise InputError("--shots: give demonstrations of each class, such as --shots 0,2,8")
        require_useful(request)
    prepare_process()
    set_threads(machine.threads)
    where, max_memory = choose_device(machine.device), machine.max_memory
    start = time.monotonic()
    with explain_memory(_LESS_MEMORY):
        job = _prepare(request, where, max_memory, stored, console)
        if not resume:
            _start(out, job, max_memory)
        return _run(job, out, console, start, as_json=json_)


def _prepare(
    request: FewshotRequest,
    device: torch.device,
    max_memory: str | None,
    stored: dict[str, Any],
    console: Console,
) -> FewshotJob:
    """The job of a request, checked, and said."""
    from hyenadna.cli.fewshot_job import check_job
    from hyenadna.cli.finetune_data import prepare_data, read_data
    from hyenadna.cli.finetune_models import find_model

    source = find_model(request.source.model, max_memory)
    announce_native(console, source.config)
    labelled = read_data(request.source)
    if labelled.task.kind != "classes":
        raise InputError(
            f"{labelled.name}: the labels are {labelled.task.kind}, but demonstrations are of "
            "classes; give one column with a class for each sequence, or --task classes"
        )
    data = prepare_data(labelled, request.source.splitting, console)
    job = check_job(request, data, source, device)
    require_same_digest(stored, "data", data.digest, data.learning.name)
    require_same_digest(stored, "model", job.model_digest, request.source.model)
    _announce(job, console)
    return job


def _announce(job: FewshotJob, console: Console) -> None:
    config, context = job.source.config, job.request.context
    console.print(
        f"{job.source.described}: {config.mixer}, {config.n_layer} layers, width {config.d_model}, "
        f"{config.num_parameters():,} parameters, reads up to {config.max_seq_len:,} tokens"
    )
    if job.source.weights is None:
        console.print("note: nothing is pretrained here; the model has random weights")
    spelled = ", ".join(
        f"{name} is {word}" for name, word in zip(job.words.names, job.words.words, strict=True)
    )
    cells = len(job.cells)
    console.print(
        f"labels: {spelled}; {cells} cell{'s' * (cells > 1)} (tuning samples × shots), "
        f"{context.draws} draw{'s' * (context.draws > 1)} each, {len(job.measured):,} rows measured"
        f" and {len(job.valid):,} to choose by, on {job.device}"
    )
    for text in job.caveats:
        console.print(f"warning: {text}")


def _start(out: Path, job: FewshotJob, max_memory: str | None) -> None:
    """Make the run folder with its description."""
    write_description(
        out,
        DESCRIPTION,
        device=job.device,
        request=job.request.to_dict(),
        max_memory=max_memory,
        data_digest=job.data.digest,
        model_digest=job.model_digest,
    )


def _run(job: FewshotJob, out: Path, console: Console, start: float, *, as_json: bool) -> int:
    """Ask, measure and write; returns the exit code."""
    from hyenadna.cli.fewshot_job import run_job
    from hyenadna.cli.fewshot_report import FinishedFewshot, show_results, write_results

    def work() -> None:
        outcome = run_job(job, out, console)
        with console.status("intervals and the report …"):
            run = FinishedFewshot(outcome, time.monotonic() - start)
            summary = write_results(run, out)
        show_results(run, console)
        report, rows = out / "report.html", out / "predictions.csv"
        console.print(f"{done_text(start)}. Report: {report}, predictions: {rows}")
        if as_json:
            print(json.dumps(summary, indent=2))

    return run_or_stop(work, "fewshot", out, console)
