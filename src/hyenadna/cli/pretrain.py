"""`hyenadna pretrain`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self

from cyclopts import Parameter
from rich.console import Console

from hyenadna import __version__
from hyenadna.cli.console import make_console
from hyenadna.cli.memory import explain_memory, limit_memory, note_no_effect
from hyenadna.cli.process import (
    announce_native,
    announce_slow_bf16,
    available_memory,
    most_loaded,
    prepare_process,
    set_threads,
)
from hyenadna.cli.progress import TrainingLine, stop_on_signals
from hyenadna.cli.ranks import goes_on, join_ranks, text_of, torchrun_job
from hyenadna.cli.units import bases, duration, size
from hyenadna.config import Mixer, ModelConfig, preset
from hyenadna.errors import InputError
from hyenadna.training_config import PretrainConfig

if TYPE_CHECKING:
    import torch

    from hyenadna.data.corpus import CorpusGenome, SplitRule
    from hyenadna.model.backbone import HyenaDNA
    from hyenadna.model.parallel.ranks import Ranks
    from hyenadna.train.loop import Trainer
    from hyenadna.train.parallel import Sharded
    from hyenadna.train.pretrain import ValidBatches
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
    fsdp: bool | None = None,
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
        Shape to start from (`hyenadna models` lists them); `tiny-1k` when left out.
    model_config
        JSON with any fields of the model configuration, instead of those of the shape.
    d_model
        Width, instead of the preset's.
    n_layer
        Number of blocks, instead of the preset's. With `--init` more than the checkpoint's: the new
        ones lie on top and change nothing until they are trained.
    max_seq_len
        Longest sequence that the model can read, instead of the preset's. With `--init` more than
        the checkpoint's: it reads what it could as before, and learns the rest.
    mixer
        `hyena`, or `attention` for the Transformer baseline.
    num_heads
        Attention heads of the Transformer baseline, instead of 8.
    embed_dropout
        Dropout on the token embeddings, instead of the paper's 0.1 or that of `--init`.
    init
        Start from the weights and shape of this checkpoint (run, folder or model name).
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
    fsdp
        Keep parameters and moments in parts, one on each rank (FSDP2), in place of a copy on each:
        for models that one process cannot hold. With `--resume` as the run was, when left out.
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
    machine = RunMachine(device, threads, max_memory, context_ranks, fsdp)
    if torchrun_job():
        prepare_process(spare_memory=_spares_memory(machine, options, in_parts=bool(fsdp)))
    if goes_on(machine.device, machine.context_ranks, lambda: _left_here(out)):
        return _resume(out, list(fasta), options, machine, console)
    if resume:
        others = {"init": init, "weights": weights, "embed_dropout": embed_dropout}
        _refuse_on_resume(given | others | {"split": rule != SplitRule()})
        return _resume(out, list(fasta), options, machine, console)
    if not fasta:
        raise InputError("no FASTA file given; name one or more genomes")
    if init:
        for name in ("n_layer", "max_seq_len"):  # a checkpoint can be made deeper and longer
            given.pop(name, None)
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
        n_layer=n_layer if init else None,
        max_seq_len=max_seq_len if init else None,
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
    fsdp: bool | None = None
    """None: no, but as it was for a run that goes on with several ranks."""


def _spares_memory(machine: RunMachine, options: PretrainConfig, *, in_parts: bool) -> bool:
    """Whether memory matters more than time.

    Kept freed memory would take away what checkpointing saves (docs/decisions/plan.md).
    """
    return machine.context_ranks > 1 or in_parts or options.gradient_checkpointing


def _left_here(out: Path) -> bool:
    """Whether this start of torchrun has left a checkpoint of the run.

    A run of its own that has not got so far begins once more: what it had made goes. One of others
    is left alone, and then refused.
    """
    from hyenadna.checkpoint.folder import standing
    from hyenadna.train.run_folder import RunFolder

    if not (out / "run.json").is_file():
        return False
    if RunFolder.open(out).description.get("torchrun") != torchrun_job():
        return False
    if standing(out / "last") is not None:
        return True
    (out / "run.json").unlink()
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
    n_layer: int | None = None
    """More blocks than those of `init`, which then keeps what it has."""
    max_seq_len: int | None = None
    """Longer than that of `init`, which then goes on as it is."""
    embed_dropout: float | None = None
    """Instead of that of `init`."""


def start_run(
    request: Request,
    out: Path,
    console: Console,
    machine: RunMachine = RunMachine(),
) -> int:
    """Make a run folder and train to the end; returns the exit code."""
    spare = _spares_memory(machine, request.options, in_parts=bool(machine.fsdp))
    prepare_process(spare_memory=spare)
    set_threads(machine.threads, spare_memory=spare)
    import torch

    from hyenadna.data.corpus import split_as_bed
    from hyenadna.train.build import genome_records
    from hyenadna.train.run_folder import RunFolder, require_free

    max_memory = machine.max_memory
    where, ranks = join_ranks(machine.device, machine.context_ranks)
    require_free(out)
    torch.manual_seed(request.options.seed)
    new = _new_model(request, where, in_parts=bool(machine.fsdp))
    limit_memory(new.model, max_memory)
    corpus = _open(request.fasta, request.rule, request.weights, console)
    trainer, validation = _trainer(new, corpus, request.options, ranks)
    announce_native(console, trainer.model.config)
    announce_slow_bf16(console, request.options.precision, where)
    _announce(console, trainer, corpus, out, max_memory)
    seconds = _seconds(trainer)
    description = {
        "hyenadna": __version__,
        "torch": torch.__version__,
        "device": str(trainer.device),
        "threads": torch.get_num_threads(),
        "torchrun": torchrun_job(),
        "max_memory": max_memory,
        "init": request.init,
        "model": trainer.model.config.to_dict(),
        "options": request.options.to_dict(),
        "genomes": genome_records(corpus),
    }
    splits = {g.name: split_as_bed(g.split) for g in corpus}
    ranks.wait()  # until all have found the folder free
    run = RunFolder.create(out, description, splits, writes=ranks.first)
    with run.held():
        run.save_last(trainer)
        return _train(run, trainer, validation, seconds, console)


def _resume(
    out: Path,
    fasta: list[Path],
    options: PretrainConfig,
    machine: RunMachine,
    console: Console,
) -> int:
    from hyenadna.checkpoint.pieces import is_in_pieces
    from hyenadna.data.corpus import SplitRule
    from hyenadna.train.run_folder import RunFolder

    if torchrun_job():
        _, ranks = join_ranks(machine.device, machine.context_ranks)
        ranks.require_one_folder(out, text_of(out / "run.json"))
    before = RunFolder.open(out)
    stored, last = before.description, before.last()
    if last is None:
        raise InputError(
            f"{out}: stopped before its first checkpoint; remove the folder and start again"
        )
    own = PretrainConfig.from_dict(stored["options"])
    in_pieces = is_in_pieces(last)
    in_parts = in_pieces if machine.fsdp is None else machine.fsdp
    spare = _spares_memory(machine, own, in_parts=in_parts)
    prepare_process(spare_memory=spare)
    threads = stored["threads"] if machine.threads is None else machine.threads
    set_threads(threads, spare_memory=spare)
    import torch

    from hyenadna.train.build import require_same_genomes

    _require_same_options(out, options, own)
    device = stored["device"] if machine.device == "auto" else machine.device
    where, ranks = join_ranks(device, machine.context_ranks)
    run = RunFolder.open(out, writes=ranks.first)
    for what, now in (("torch", torch.__version__), ("device", str(where))):
        if stored.get(what) != now:
            console.print(
                f"note: the run was started with {what} {stored.get(what)}, this is {now}; "
                "the result will not be the same to the last bit"
            )
    stored_memory = stored.get("max_memory")
    max_memory = stored_memory if machine.max_memory is None else machine.max_memory
    in_parts = (in_pieces and ranks.together) if machine.fsdp is None else machine.fsdp
    new = _loaded(str(last), where, in_parts=in_parts)
    limit_memory(new.model, max_memory)
    paths = fasta or [Path(genome["path"]) for genome in stored["genomes"]]
    weights = [genome["weight"] for genome in stored["genomes"]]
    corpus = _open(paths, SplitRule(beds=run.split_beds()), weights, console)
    require_same_genomes(stored["genomes"], corpus)
    trainer, validation = _trainer(new, corpus, own, ranks)
    with run.held():
        run.restore(trainer)
        ranks.require_one_folder(out, trainer.steps_done)
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


class _NewModel(NamedTuple):
    """A model to train; `sharded` where its weights come later, in parts."""

    model: HyenaDNA
    sharded: Sharded | None = None


def _new_model(request: Request, where: torch.device, *, in_parts: bool) -> _NewModel:
    from hyenadna.model.backbone import HyenaDNA, rescale_filters
    from hyenadna.model.parallel.sharded import draw_weights, empty_model
    from hyenadna.train.parallel import Sharded

    if request.init:
        new = _loaded(request.init, where, in_parts=in_parts)
        if request.n_layer is not None or request.max_seq_len is not None:
            new = _grown(new, request.n_layer, request.max_seq_len)
        if request.embed_dropout is not None:
            new.model.set_embed_dropout(request.embed_dropout)
        return new
    assert request.model is not None
    rescaled = request.options.filter_init == "scaled"
    if in_parts:
        draw = partial(draw_weights, rescaled=rescaled)
        return _NewModel(empty_model(request.model), Sharded(where, draw))
    model = HyenaDNA(request.model)
    if rescaled:
        rescale_filters(model)
    return _NewModel(model.to(where))


def _loaded(source: str, where: torch.device, *, in_parts: bool) -> _NewModel:
    """The model of a checkpoint; in parts each rank will read its own from it."""
    from hyenadna.checkpoint.load import fill, load
    from hyenadna.checkpoint.reading import open_checkpoint
    from hyenadna.model.parallel.sharded import empty_model
    from hyenadna.train.parallel import Sharded

    if not in_parts:
        return _NewModel(load(source, device=where))
    with open_checkpoint(source) as reading:
        model = empty_model(reading.config)

    def read_parts(model: HyenaDNA) -> None:
        with open_checkpoint(source) as reading:
            fill(model, reading)

    return _NewModel(model, Sharded(where, read_parts))


def _grown(new: _NewModel, n_layer: int | None, max_seq_len: int | None) -> _NewModel:
    """The model with more blocks, or a longer reach."""
    from hyenadna.model.deeper import deeper
    from hyenadna.model.longer import longer

    if new.sharded:
        option = "--max-seq-len" if n_layer is None else "--n-layer"
        raise InputError(
            f"{option} with --init and --fsdp: make the model larger in one process first "
            "(--steps 1 without --fsdp)"
        )
    model = new.model
    if n_layer is not None:
        model = deeper(model, n_layer)
    if max_seq_len is not None:
        model = longer(model, max_seq_len)
    return _NewModel(model)


def _trainer(
    new: _NewModel, corpus: Sequence[CorpusGenome], options: PretrainConfig, ranks: Ranks
) -> tuple[Trainer, dict[str, ValidBatches]]:
    """The trainer and its valid batches; both refuse useless data before anything is written."""
    from hyenadna.train.build import final_length, training_stream, validation_batches
    from hyenadna.train.loop import Trainer

    length = final_length(new.model.config, options)
    stream = training_stream(corpus, options, length)
    validation = validation_batches(corpus, options, length)
    trainer = Trainer(
        new.model, stream, options, final_length=length, ranks=ranks, sharded=new.sharded
    )
    return trainer, validation


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
