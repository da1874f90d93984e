"""`hyenadna pretrain`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from cyclopts import Parameter
from rich.console import Console

from hyenadna import __version__
from hyenadna.cli.console import make_console
from hyenadna.cli.memory import explain_memory, limit_memory, note_no_effect
from hyenadna.cli.process import (
    announce_native,
    announce_slow_bf16,
    available_memory,
    choose_device,
    most_loaded,
    prepare_process,
    set_threads,
)
from hyenadna.cli.progress import TrainingLine, stop_on_signals
from hyenadna.cli.units import bases, duration, size
from hyenadna.config import Mixer, ModelConfig, preset
from hyenadna.errors import InputError
from hyenadna.training_config import PretrainConfig

if TYPE_CHECKING:
    import torch

    from hyenadna.data.corpus import CorpusGenome, SplitRule
    from hyenadna.model.backbone import HyenaDNA
    from hyenadna.train.loop import Trainer
    from hyenadna.train.pretrain import ValidBatches
    from hyenadna.train.ranks import Ranks
    from hyenadna.train.run_folder import RunFolder

Repeated = Parameter(consume_multiple=False)
DEFAULT_SHAPE = "tiny-1k"


def pretrain(
    *fasta: Path,
    out: Path,
    shape: Annotated[str | None, Parameter(name="--preset")] = None,
    model_config: Path | None = None,
    d_model: int | None = None,
    n_layer: int | None = None,
    max_seq_len: int | None = None,
    mixer: Mixer | None = None,
    num_heads: int | None = None,
    embed_dropout: float | None = None,
    init: str | None = None,
    bed: Annotated[tuple[Path, ...], Repeated] = (),
    valid_contigs: str = "",
    test_contigs: str = "",
    exclude_contigs: str = "",
    weights: str = "",
    resume: bool = False,
    device: str = "auto",
    threads: int | None = None,
    max_memory: str | None = None,
    context_ranks: int = 1,
    shard: bool = False,
    options: Annotated[PretrainConfig, Parameter(name="*")] = PretrainConfig(),  # noqa: B008
) -> int:
    """Train a model to predict the next nucleotide of one or more genomes.

    Without a split of yours, 5 % of each genome are kept for validation and 5 % for test.

    Parameters
    ----------
    fasta
        Genomes: FASTA, plain, gzip or bgzip.
    out
        Folder of the run: checkpoints, log, curve.
    shape
        Published shape to start from (`hyenadna models` lists them); `tiny-1k` when left out.
    model_config
        JSON with any fields of the model configuration, instead of those of the shape.
    d_model
        Width, instead of the preset's.
    n_layer
        Number of blocks, instead of the preset's.
    max_seq_len
        Longest sequence that the model can read, instead of the preset's.
    mixer
        `hyena`, or `attention` for the Transformer baseline.
    num_heads
        Attention heads of the Transformer baseline, instead of 8.
    embed_dropout
        Dropout on the token embeddings, instead of the paper's 0.1 or that of `--init`.
    init
        Start from the weights and shape of this checkpoint (run, folder or published name).
    bed
        Regions with train, valid or test in the 4th column; one file for all genomes or one each.
    valid_contigs
        Contigs to hold out for validation, separated by commas (`VI` or `genome:VI`).
    test_contigs
        Contigs to hold out for test.
    exclude_contigs
        Contigs to leave out altogether.
    weights
        Relative chance of each genome, separated by commas; by size when left out.
    resume
        Go on with the run in `--out`, with its data, split and options; give nothing else.
    device
        `cpu`, `cuda`, `cuda:1`, …; `auto` takes a GPU where there is one.
    threads
        CPU threads; all cores when left out.
    max_memory
        Memory that this process may take, such as `4GiB`; the result does not change beyond
        rounding.
    context_ranks
        Ranks that each sequence lies over, where `torchrun` has started several: memory for a
        sequence falls with their number. The rows of a batch fall to the rest.
    shard
        Keep parameters and moments in parts, one on each rank (FSDP2), in place of a copy on each.
    options
        Training options.
    """
    from hyenadna.data.corpus import SplitRule

    rule = SplitRule(
        bed, comma_list(valid_contigs), comma_list(test_contigs), comma_list(exclude_contigs)
    )
    chosen = {
        "preset": shape,
        "model_config": model_config,
        "d_model": d_model,
        "n_layer": n_layer,
        "max_seq_len": max_seq_len,
        "mixer": mixer,
        "num_heads": num_heads,
    }
    given = {k: v for k, v in chosen.items() if v is not None}
    console = make_console()
    machine = RunMachine(device, threads, max_memory, context_ranks, shard)
    if _restarted(out):
        return _resume(out, list(fasta), options, machine, console)
    if resume:
        others = {"init": init, "weights": weights, "embed_dropout": embed_dropout}
        _refuse_on_resume(given | others | {"split": rule != SplitRule()})
        return _resume(out, list(fasta), options, machine, console)
    if not fasta:
        raise InputError("no FASTA file given; name one or more genomes")
    if init and given:
        raise InputError(
            f"--{_flag(next(iter(given)))} and --init exclude each other: "
            "a checkpoint brings its own shape"
        )
    request = Request(
        fasta=list(fasta),
        rule=rule,
        weights=[_number(w) for w in comma_list(weights)],
        model=None if init else _model_config(given, embed_dropout),
        init=init,
        embed_dropout=embed_dropout,
        options=options,
    )
    return start_run(request, out, console, machine)


@dataclass(frozen=True)
class RunMachine:
    """On what a run is to run, as the command takes it."""

    device: str = "auto"
    threads: int | None = None
    max_memory: str | None = None
    context_ranks: int = 1
    shard: bool = False


def _spares_memory(machine: RunMachine, options: PretrainConfig) -> bool:
    """Whether memory matters more than time.

    Kept freed memory would take away what checkpointing saves (docs/decisions/plan.md).
    """
    return machine.context_ranks > 1 or options.gradient_checkpointing


def _restarted(out: Path) -> bool:
    """Whether torchrun starts the ranks of a run anew that has got to its first checkpoint.

    A run that has not begins once more: what it had made goes.
    """
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == 0:
        return False
    from hyenadna.checkpoint.folder import standing

    if standing(out / "last") is not None:
        return True
    (out / "run.json").unlink(missing_ok=True)
    return False


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a new run is asked for."""

    fasta: list[Path]
    rule: SplitRule
    model: ModelConfig | None
    """None where `init` gives the shape."""
    options: PretrainConfig
    weights: Sequence[float] = ()
    init: str | None = None
    """Checkpoint to start from."""
    embed_dropout: float | None = None
    """Instead of that of `init`."""


def start_run(
    request: Request,
    out: Path,
    console: Console,
    machine: RunMachine = RunMachine(),
) -> int:
    """Make a run folder and train to the end; returns the exit code."""
    prepare_process(spare_memory=_spares_memory(machine, request.options))
    set_threads(machine.threads)
    import torch

    from hyenadna.data.corpus import split_as_bed
    from hyenadna.train.build import genome_records
    from hyenadna.train.run_folder import RunFolder, require_free

    max_memory = machine.max_memory
    where, ranks = _join(machine, machine.device)
    require_free(out)
    torch.manual_seed(request.options.seed)
    model = _new_model(request)
    limit_memory(model, max_memory)
    corpus = _open(request.fasta, request.rule, request.weights, console)
    trainer, validation = _trainer(model.to(where), corpus, request.options, ranks, machine)
    announce_native(console, model.config)
    announce_slow_bf16(console, request.options.precision, where)
    _announce(console, trainer, corpus, out, max_memory)
    seconds = _seconds(trainer)
    description = {
        "hyenadna": __version__,
        "torch": torch.__version__,
        "device": str(trainer.device),
        "threads": torch.get_num_threads(),
        "max_memory": max_memory,
        "init": request.init,
        "model": model.config.to_dict(),
        "options": request.options.to_dict(),
        "genomes": genome_records(corpus),
    }
    splits = {g.name: split_as_bed(g.split) for g in corpus}
    ranks.wait()  # until all have found the folder free
    run = RunFolder.create(out, description, splits, writes=ranks.first)
    run.save_last(trainer)
    return _train(run, trainer, validation, seconds, console)


def _resume(
    out: Path,
    fasta: list[Path],
    options: PretrainConfig,
    machine: RunMachine,
    console: Console,
) -> int:
    from hyenadna.data.corpus import SplitRule
    from hyenadna.train.run_folder import RunFolder

    stored = RunFolder.open(out).description
    own = PretrainConfig.from_dict(stored["options"])
    prepare_process(spare_memory=_spares_memory(machine, own))
    set_threads(stored["threads"] if machine.threads is None else machine.threads)
    import torch

    from hyenadna.train.build import require_same_genomes

    _require_same_options(out, options, own)
    device = stored["device"] if machine.device == "auto" else machine.device
    where, ranks = _join(machine, device)
    run = RunFolder.open(out, writes=ranks.first)
    for what, now in (("torch", torch.__version__), ("device", str(where))):
        if stored.get(what) != now:
            console.print(
                f"note: the run was started with {what} {stored.get(what)}, this is {now}; "
                "the result will not be the same to the last bit"
            )
    model = run.last_model()
    if model is None:
        raise InputError(
            f"{out}: stopped before its first checkpoint; remove the folder and start again"
        )
    stored_memory = stored.get("max_memory")
    max_memory = stored_memory if machine.max_memory is None else machine.max_memory
    limit_memory(model, max_memory)
    paths = fasta or [Path(genome["path"]) for genome in stored["genomes"]]
    weights = [genome["weight"] for genome in stored["genomes"]]
    corpus = _open(paths, SplitRule(beds=run.split_beds()), weights, console)
    require_same_genomes(stored["genomes"], corpus)
    trainer, validation = _trainer(model.to(where), corpus, own, ranks, machine)
    run.restore(trainer)
    _announce(console, trainer, corpus, out, max_memory)
    console.print(f"resuming after step {trainer.steps_done:,}")
    return _train(run, trainer, validation, _seconds(trainer), console)


def _seconds(trainer: Trainer) -> float:
    """Estimated seconds for the steps that are left."""
    from hyenadna.train.estimate import estimate

    with explain_memory(_less_memory(trainer)):
        return estimate(trainer)


def _less_memory(trainer: Trainer) -> str:
    """What to give where memory does not do; checkpointing helps the plain modules only."""
    from hyenadna.train.estimate import runs_engine

    first = "--max-memory" if runs_engine(trainer) else "--gradient-checkpointing"
    return f"give {first}, a smaller --micro-batch-tokens or a shorter --length"


def _train(
    run: RunFolder,
    trainer: Trainer,
    validation: Mapping[str, ValidBatches],
    seconds: float,
    console: Console,
) -> int:
    from hyenadna.train.pretrain import EvaluationReport
    from hyenadna.train.pretrain import pretrain as run_pretraining

    steps = trainer.config.steps
    left = f"{steps - trainer.steps_done:,} steps"
    if math.isnan(seconds):
        console.print(f"{left}; the time that is left is told after the first ones\n")
    else:
        console.print(f"about {duration(seconds)} for {left} (evaluation not counted)\n")
    line = TrainingLine(console, steps, trainer.tokens_after)
    board = _TensorBoard(run.path, trainer.steps_done, console, writes=run.writes)
    with board, stop_on_signals() as stopped:
        with explain_memory(_less_memory(trainer)):
            for report in run_pretraining(
                trainer, validation, run, should_stop=lambda: stopped() is not None
            ):
                if isinstance(report, EvaluationReport):
                    line.show_evaluation(report)
                    board.add("valid/bits_per_base", report.bits_per_base, report.step)
                else:
                    line.show(report)
                    board.add("train/bits_per_base", report.bits_per_base, report.step)
                    board.add("train/lr", report.lr, report.step)
        signal = stopped()
    return _finish(console, run, trainer, signal)


def _finish(console: Console, run: RunFolder, trainer: Trainer, signal: int | None) -> int:
    from hyenadna.report.plots import training_curve

    if run.writes:
        training_curve(run.entries(), run.path / "curve.png")
    trainer.ranks.leave()
    if signal is not None and trainer.steps_done < trainer.config.steps:
        console.print(
            f"stopped after step {trainer.steps_done:,}; "
            f"go on: hyenadna pretrain --out {run.path} --resume"
        )
        return 128 + signal
    console.print(
        f"done. Curve: {run.path / 'curve.png'}\nNext: hyenadna evaluate {run.path}",
    )
    return 0


def _refuse_on_resume(given: dict[str, Any]) -> None:
    """A resumed run has its own shape, data and split: refuse what would be passed over."""
    for name, value in given.items():
        if value:
            flags = "--bed, --valid-contigs, --test-contigs and --exclude-contigs"
            flag = flags if name == "split" else f"--{_flag(name)}"
            raise InputError(f"{flag} cannot be changed by --resume; start a new run for it")


def _flag(field: str) -> str:
    return field.replace("_", "-")


def _require_same_options(out: Path, given: PretrainConfig, stored: PretrainConfig) -> None:
    """Refuse an option that is neither that of the run nor left at its default."""
    default, own = PretrainConfig().to_dict(), stored.to_dict()
    for field, value in given.to_dict().items():
        if value not in (own[field], default[field]):
            raise InputError(
                f"{out}: --{_flag(field)} is {value} but the run was started with {own[field]}; "
                "resume with --resume alone, or start a new run"
            )


def _model_config(given: dict[str, Any], embed_dropout: float | None) -> ModelConfig:
    changes = dict(given)
    config = preset(changes.pop("preset", DEFAULT_SHAPE))
    file = changes.pop("model_config", None)
    if file:
        config = _with_file(config, file)
    if embed_dropout is not None:
        changes["embed_dropout"] = embed_dropout
    config = config.replace(**changes)
    if "num_heads" in changes and config.mixer != "attention":
        raise InputError("--num-heads belongs to the Transformer baseline; give --mixer attention")
    return config


def _with_file(config: ModelConfig, file: Path) -> ModelConfig:
    try:
        fields = json.loads(file.read_text())
        unknown = set(fields) - set(config.to_dict())
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{file}: cannot be read as JSON with model fields ({error})") from error
    if unknown:
        raise InputError(
            f"{file}: no field {sorted(unknown)[0]!r} in a model configuration; "
            f"there are {', '.join(config.to_dict())}"
        )
    return config.replace(**fields)


def _new_model(request: Request) -> HyenaDNA:
    from hyenadna.checkpoint.load import load
    from hyenadna.model.backbone import HyenaDNA, rescale_filters

    if request.init:
        model = load(request.init)
        if request.embed_dropout is not None:
            model.set_embed_dropout(request.embed_dropout)
        return model
    assert request.model is not None
    model = HyenaDNA(request.model)
    if request.options.filter_init == "scaled":
        rescale_filters(model)
    return model


def _trainer(
    model: HyenaDNA,
    corpus: Sequence[CorpusGenome],
    options: PretrainConfig,
    ranks: Ranks,
    machine: RunMachine,
) -> tuple[Trainer, dict[str, ValidBatches]]:
    """The trainer and its valid batches; both refuse useless data before anything is written."""
    from hyenadna.train.build import final_length, training_stream, validation_batches
    from hyenadna.train.loop import Trainer

    length = final_length(model.config, options)
    stream = training_stream(corpus, options, length)
    validation = validation_batches(corpus, options, length)
    trainer = Trainer(
        model, stream, options, final_length=length, ranks=ranks, sharded=machine.shard
    )
    return trainer, validation


def _join(machine: RunMachine, device: str) -> tuple[torch.device, Ranks]:
    """The device of this process and its place among all; a GPU of its own for each."""
    import torch

    from hyenadna.train.ranks import Ranks, started_by_torchrun

    where = choose_device(device)
    if where.type == "cuda" and started_by_torchrun():
        where = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(where)
    return where, Ranks.join(where, machine.context_ranks)


def _open(
    paths: Sequence[Path], rule: SplitRule, weights: Sequence[float], console: Console
) -> list[CorpusGenome]:
    from hyenadna.data.corpus import open_corpus

    corpus = open_corpus(
        paths,
        rule,
        weights=weights,
        max_bytes=most_loaded(),
        progress=lambda name: console.print(f"reading {name} …"),
    )
    for genome in corpus:
        for warning in genome.summary.warnings if genome.summary else ():
            console.print(f"note: {warning}")
    return corpus


def _announce(
    console: Console,
    trainer: Trainer,
    corpus: Sequence[CorpusGenome],
    out: Path,
    max_memory: str | None,
) -> None:
    """Say what will be trained on what; refuse a `max_memory` that is too small for it."""
    from hyenadna.model.engine.sizes import resident_bytes
    from hyenadna.train.estimate import peak_bytes, require_memory, runs_engine

    require_memory(trainer)
    config, options = trainer.model.config, trainer.config
    console.print(
        f"{config.mixer} model: {config.n_layer} layers, width {config.d_model}, "
        f"{config.num_parameters():,} parameters, reads up to {config.max_seq_len:,} bases"
    )
    for genome in corpus:
        split = genome.split
        console.print(
            f"{genome.name}: train {bases(split.train.bases)}, valid {bases(split.valid.bases)}, "
            f"test {bases(split.test.bases)} ({split.rule})"
        )
    stages = ", ".join(
        f"{s.steps:,} of {trainer.batch_size(s.length):,} x {s.length:,}" for s in trainer.stages
    )
    console.print(
        f"{options.steps:,} steps, {bases(trainer.tokens_after(0))} in all: {stages} bases; "
        f"{options.precision} on {trainer.device}, run in {out}"
    )
    if trainer.ranks.together:
        console.print(_ranks_text(trainer))
    need, free = peak_bytes(trainer), available_memory()
    console.print(f"about {size(need)} of memory")
    if trainer.device.type == "cpu" and free is not None and need - resident_bytes() > free:
        console.print(f"note: only {size(free)} are free; {_less_memory(trainer)}")
    note_no_effect(console, max_memory, engine=runs_engine(trainer))


def _ranks_text(trainer: Trainer) -> str:
    ranks = trainer.ranks
    shared = f", each sequence over {ranks.context}" if ranks.context > 1 else ""
    parts = ", parameters in parts (FSDP2)" if trainer.parallel.sharded else ""
    return f"{ranks.count} ranks{shared}{parts}; figures are of all together, memory of one"


class _TensorBoard:
    """The log for TensorBoard; does nothing where that is not installed."""

    def __init__(
        self, out: Path, steps_done: int, console: Console, *, writes: bool = True
    ) -> None:
        self.writer: Any = None
        if not writes:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            console.print(
                "note: no TensorBoard log (pip install 'hyenadna[tensorboard]'); "
                f"the figures are in {out / 'log.jsonl'}"
            )
        else:
            # after a kill the old log may be ahead of the checkpoint
            self.writer = SummaryWriter(str(out / "tensorboard"), purge_step=steps_done + 1)

    def add(self, tag: str, value: float, step: int) -> None:
        """Log one number."""
        if self.writer:
            self.writer.add_scalar(tag, value, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        if self.writer:
            self.writer.close()


def comma_list(text: str) -> tuple[str, ...]:
    """Parts of an option that holds several, separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--weights: {text!r} is not a number") from None
