"""`hyenadna prompt-tune`."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

from cyclopts import Parameter
from rich.console import Console

from hyenadna.cli.console import make_console
from hyenadna.cli.finetune_options import (
    FinetuneRequest,
    HeadOptions,
    ReadingOptions,
    SplitOptions,
    require_same_request,
    seed_list,
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
from hyenadna.cli.run_description import (
    done_text,
    read_description,
    require_free,
    run_or_stop,
    say_complete,
    write_description,
)
from hyenadna.cli.units import size
from hyenadna.errors import InputError
from hyenadna.training_config import PromptConfig

if TYPE_CHECKING:
    import torch

    from hyenadna.cli.prompt_job import PromptJob

DESCRIPTION: Final = "prompt_tune.json"
COMPARISONS: Final = ("linear", "lora", "full", "kmer", "majority")
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
    compare: str = "linear,full,kmer,majority",
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
        Run folder, checkpoint folder or published name.
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
    files = {"train": train, "valid": valid, "test": test}
    request = PromptRequest(
        common=FinetuneRequest(
            model=model or "",
            data=tuple(map(str, data)),
            parts={split: str(path) for split, path in files.items() if path is not None},
            reading=reading,
            splitting=splitting,
            head=head,
            seeds=seed_list(seeds),
            baselines=(),
        ),
        options=options.resolved(published=published),
        compare=comparison_list(compare),
    )
    stored: dict[str, Any] = {}
    if resume:
        stored = read_description(out, DESCRIPTION, "prompt-tuning run")
        own = PromptRequest.from_dict(stored["request"])
        request.require_same(own)
        request = own
        if say_complete(out, console, as_json=json_):
            return 0
        threads = stored.get("threads") if threads is None else threads
        device = str(stored.get("device", device)) if device == "auto" else device
    else:
        require_free(out, DESCRIPTION)
        if not request.common.model:
            raise InputError("no model given; name a run, a folder, or a published model")
    prepare_process()
    set_threads(threads)
    where = choose_device(device)
    start = time.monotonic()
    with explain_memory(_LESS_MEMORY):
        job = _prepare(request, where, stored, console)
        _announce(job, out, console)
        if not resume:
            _start(out, request, job)
        return _run(job, request, out, console, start, resume=resume, as_json=json_)


@dataclass(frozen=True, kw_only=True)
class PromptRequest:
    """All that the result of a run depends on, but device and threads."""

    common: FinetuneRequest = field(default_factory=lambda: FinetuneRequest(baselines=()))
    """Model, data and head; its training options and baselines are not used."""
    options: PromptConfig = field(default_factory=lambda: PromptConfig().resolved())
    """Resolved."""
    compare: tuple[str, ...] = ("linear", "full", "kmer", "majority")

    def to_dict(self) -> dict[str, Any]:
        """Plain values by field name."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`, also through JSON. Raises InputError for other values."""
        try:
            return cls(
                common=FinetuneRequest.from_dict(values["common"]),
                options=PromptConfig.from_dict(values["options"]),
                compare=tuple(values["compare"]),
            )
        except (KeyError, TypeError) as error:
            raise InputError(f"the request of the run cannot be read ({error!r})") from error

    def require_same(self, stored: PromptRequest) -> None:
        """Nothing, where all that is given is the default, or as the run has it.

        Raises InputError otherwise.
        """
        require_same_request(self.common, stored.common)
        default = PromptRequest()
        given = {"compare": self.compare} | self.options.to_dict()
        usual = {"compare": default.compare} | default.options.to_dict()
        own = {"compare": stored.compare} | stored.options.to_dict()
        for name, value in given.items():
            if value not in (usual[name], own[name]):
                raise InputError(
                    f"--{name.replace('_', '-')} is {value}, but the run was started with "
                    f"{own[name]}; resume with --resume alone, or start a new run"
                )


def comparison_list(text: str) -> tuple[str, ...]:
    """What `--compare` names, each once; nothing for `none`. Raises InputError for other names."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if names == ("none",):
        return ()
    for name in names:
        if name not in COMPARISONS:
            raise InputError(
                f"--compare: there is no {name!r}; there are {', '.join(COMPARISONS)}, or none"
            )
    return names


def _prepare(
    request: PromptRequest, device: torch.device, stored: Mapping[str, Any], console: Console
) -> PromptJob:
    from hyenadna.cli.finetune_data import prepare_data, read_data
    from hyenadna.cli.finetune_models import RANDOM, find_model
    from hyenadna.cli.prompt_job import PromptJob, check_job

    common = request.common
    if common.model.startswith(RANDOM):
        raise InputError(f"{common.model}: a frozen model with random weights has nothing to adapt")
    source = find_model(common.model)
    announce_native(console, source.config)
    data = prepare_data(read_data(common), common.splitting, console)
    if stored and stored.get("data_digest") != data.digest:
        raise InputError(
            f"{data.learning.name}: is not the data that the run was started with; resume with the "
            "same, or start a new run"
        )
    return check_job(
        PromptJob(
            data=data,
            source=source,
            head=common.head,
            options=request.options,
            compare=request.compare,
            seeds=common.seeds,
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
                f"Next: hyenadna predict {shlex.quote(request.common.model)} INPUT "
                f"-o predictions.csv --prompt-file {shlex.quote(str(prompt))}"
            )
        if as_json:
            print(json.dumps(summary, indent=2))

    return run_or_stop(work, "prompt-tune", out, console)
