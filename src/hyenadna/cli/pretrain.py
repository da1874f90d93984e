"""`hyenadna pretrain`."""

from __future__ import annotations

import math
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from hyenadna import __version__
from hyenadna.cli.process import prepare_process
from hyenadna.cli.progress import TrainingLine, stop_on_signals
from hyenadna.cli.units import bases, duration, size
from hyenadna.config import Mixer, ModelConfig, preset
from hyenadna.errors import InputError
from hyenadna.training_config import PretrainConfig

if TYPE_CHECKING:
    from hyenadna.data.corpus import CorpusGenome, SplitRule
    from hyenadna.model.backbone import HyenaDNA
    from hyenadna.train.loop import Trainer
    from hyenadna.train.pretrain import ValidBatches
    from hyenadna.train.run_folder import RunFolder

Repeated = Parameter(consume_multiple=False)


def pretrain(
    *fasta: Path,
    out: Path,
    shape: Annotated[str, Parameter(name="--preset")] = "tiny-1k",
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
        Published shape to start from (`hyenadna models` lists them).
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
        Dropout on the token embeddings, instead of the paper's 0.1.
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
    options
        Training options.
    """
    from hyenadna.data.corpus import SplitRule

    console = Console()
    rule = SplitRule(
        bed, comma_list(valid_contigs), comma_list(test_contigs), comma_list(exclude_contigs)
    )
    given = _Request(
        fasta=list(fasta),
        rule=rule,
        weights=[_number(w) for w in comma_list(weights)],
        model=None
        if init
        else _model_config(
            shape,
            d_model=d_model,
            n_layer=n_layer,
            max_seq_len=max_seq_len,
            mixer=mixer,
            num_heads=num_heads,
            embed_dropout=embed_dropout,
        ),
        init=init,
        options=options,
    )
    if resume:
        return _resume(out, given, device, threads, console)
    if not fasta:
        raise InputError("no FASTA file given; name one or more genomes")
    return _train(given, out, None, device, threads, console)


@dataclass(frozen=True, kw_only=True)
class _Request:
    """What a run is asked for."""

    fasta: list[Path]
    rule: SplitRule
    weights: list[float]
    model: ModelConfig | None
    """None where `init` gives the shape."""
    init: str | None
    options: PretrainConfig


def train_run(
    fasta: list[Path],
    out: Path,
    model: ModelConfig,
    options: PretrainConfig,
    console: Console,
    *,
    valid_contigs: tuple[str, ...] = (),
    test_contigs: tuple[str, ...] = (),
) -> int:
    """A run from Python values, as the command does it; returns the exit code."""
    from hyenadna.data.corpus import SplitRule

    rule = SplitRule(valid_contigs=valid_contigs, test_contigs=test_contigs)
    request = _Request(fasta=fasta, rule=rule, weights=[], model=model, init=None, options=options)
    return _train(request, out, None, "auto", None, console)


def _resume(out: Path, given: _Request, device: str, threads: int | None, console: Console) -> int:
    from hyenadna.data.corpus import SplitRule
    from hyenadna.train.run_folder import RunFolder

    run = RunFolder.open(out)
    stored = run.description
    options = PretrainConfig.from_dict(stored["options"])
    model = ModelConfig.from_dict(stored["model"])
    _same_settings(out, given.options.to_dict(), options.to_dict(), PretrainConfig().to_dict())
    if given.model:
        _same_settings(out, given.model.to_dict(), model.to_dict(), preset("tiny-1k").to_dict())
    rule = SplitRule(beds=run.split_beds())
    request = _Request(
        fasta=given.fasta or [Path(g["path"]) for g in stored["genomes"]],
        rule=rule,
        weights=[g["weight"] for g in stored["genomes"]],
        model=model,
        init=None,
        options=options,
    )
    return _train(request, out, run, device, threads or stored["threads"], console)


def _same_settings(
    out: Path, given: dict[str, Any], stored: dict[str, Any], defaults: dict[str, Any]
) -> None:
    """Refuse an option that is neither that of the run nor left at its default."""
    for field, value in given.items():
        if value not in (stored[field], defaults[field]):
            raise InputError(
                f"{out}: --{field.replace('_', '-')} is {value} but the run was started with "
                f"{stored[field]}; resume with --resume alone, or start a new run"
            )


def _train(
    request: _Request,
    out: Path,
    run: RunFolder | None,
    device: str,
    threads: int | None,
    console: Console,
) -> int:
    prepare_process()
    import torch

    from hyenadna.train.estimate import estimate
    from hyenadna.train.loop import Trainer
    from hyenadna.train.pretrain import EvaluationReport
    from hyenadna.train.pretrain import pretrain as run_pretraining

    if threads:
        torch.set_num_threads(threads)
    where = choose_device(device)
    options = request.options
    torch.manual_seed(options.seed)
    model = _make_model(request).to(where)
    length = final_length(model.config, options)
    corpus = _open(request, console)
    if run:
        _same_genomes(run, corpus)
    trainer = Trainer(model, _stream(corpus, options, length), options, final_length=length)
    if run is None:
        run = _create(out, request, trainer, corpus, torch.get_num_threads())
    _announce(console, trainer, corpus, out)
    if run.load_last(trainer) is not None:
        console.print(f"resuming after step {trainer.steps_done:,}", highlight=False)
    cost = estimate(trainer)
    console.print(
        f"about {duration(cost.seconds)} and {size(cost.peak_bytes)} of memory for "
        f"{options.steps - trainer.steps_done:,} steps (evaluation not counted)\n",
        highlight=False,
    )
    line = TrainingLine(console, options.steps, _tokens_left(trainer))
    board = _tensorboard(out, console)
    with stop_on_signals(console) as stopped:
        for report in run_pretraining(
            trainer, _validation(corpus, options, length), run, should_stop=stopped
        ):
            if isinstance(report, EvaluationReport):
                line.show_evaluation(report)
                board("valid/bits_per_base", report.bits_per_base, report.step)
            else:
                line.show(report)
                board("train/bits_per_base", report.bits_per_base, report.step)
                board("train/lr", report.lr, report.step)
        interrupted = stopped()
    return _finish(console, run, trainer, interrupted)


def _finish(console: Console, run: RunFolder, trainer: Trainer, interrupted: bool) -> int:
    from hyenadna.report.plots import training_curve

    training_curve(run.entries(), run.path / "curve.png")
    if interrupted and trainer.steps_done < trainer.config.steps:
        console.print(
            f"stopped after step {trainer.steps_done:,}; "
            f"go on: hyenadna pretrain --out {run.path} --resume",
            highlight=False,
            soft_wrap=True,
        )
        return 128 + signal.SIGINT
    console.print(
        f"done. Curve: {run.path / 'curve.png'}\nNext: hyenadna evaluate {run.path}",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def choose_device(name: str) -> Any:
    """The torch device of that name; `auto` is a GPU where there is one. Raises InputError."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: {str(error).splitlines()[0]}") from error
    return device


def final_length(config: ModelConfig, options: PretrainConfig) -> int:
    """Bases per sequence of the last stage. Raises InputError where the model is too short."""
    length = options.length or max(config.max_seq_len - 2, 1)
    if length > config.max_seq_len:
        raise InputError(
            f"--length {length}: the model reads at most {config.max_seq_len}; "
            "give --max-seq-len or a longer --preset"
        )
    return length


def _model_config(shape: str, **changes: Any) -> ModelConfig:
    return preset(shape).replace(**{k: v for k, v in changes.items() if v is not None})


def _make_model(request: _Request) -> HyenaDNA:
    from hyenadna.checkpoint.load import load
    from hyenadna.model.backbone import HyenaDNA, rescale_filters

    if request.init:
        return load(request.init)
    assert request.model is not None
    model = HyenaDNA(request.model)
    if request.options.filter_init == "scaled":
        rescale_filters(model)
    return model


def _open(request: _Request, console: Console) -> list[CorpusGenome]:
    from hyenadna.data.corpus import open_corpus

    corpus = open_corpus(
        request.fasta,
        request.rule,
        weights=request.weights,
        progress=lambda name: console.print(f"reading {name} …", highlight=False),
    )
    for genome in corpus:
        for warning in genome.summary.warnings if genome.summary else ():
            console.print(f"note: {warning}", highlight=False, soft_wrap=True)
    return corpus


def _stream(corpus: Sequence[CorpusGenome], options: PretrainConfig, length: int) -> Any:
    from hyenadna.data.batches import TrainingSource, TrainingStream

    return TrainingStream(
        [TrainingSource(g.reader, g.split.train, g.weight) for g in corpus],
        length=length,
        batch_size=1,
        seed=options.seed,
        reverse_complement=options.reverse_complement,
        max_n_fraction=options.max_n_fraction,
        soft_masked=options.soft_masked,
        n_targets=options.n_targets,
    )


def _validation(
    corpus: Sequence[CorpusGenome], options: PretrainConfig, length: int
) -> dict[str, ValidBatches]:
    from itertools import islice

    from hyenadna.data.batches import evaluation_batches

    rows = max(1, options.micro_batch_tokens // length)
    limit = math.ceil(options.evaluate_bases / (rows * length))

    def batches(genome: CorpusGenome) -> ValidBatches:
        def make() -> Any:
            found = evaluation_batches(
                genome.reader,
                genome.split.valid,
                length=length,
                batch_size=rows,
                soft_masked=options.soft_masked,
                n_targets=options.n_targets,
            )
            return ((b.inputs, b.targets) for b in islice(found, limit))

        return make

    return {g.name: batches(g) for g in corpus if g.split.valid.bases > 1}


def _create(
    out: Path, request: _Request, trainer: Trainer, corpus: Sequence[CorpusGenome], threads: int
) -> RunFolder:
    import torch

    from hyenadna.data.corpus import split_as_bed
    from hyenadna.train.run_folder import RunFolder

    description = {
        "hyenadna": __version__,
        "torch": torch.__version__,
        "device": str(trainer.device),
        "threads": threads,
        "init": request.init,
        "model": trainer.model.config.to_dict(),
        "options": request.options.to_dict(),
        "genomes": [
            {
                "name": g.name,
                "path": str(g.reader.path.resolve()),
                "digest": g.reader.digest(),
                "bases": {part: g.split.part(part).bases for part in ("train", "valid", "test")},
                "split": g.split.rule,
                "weight": g.weight,
            }
            for g in corpus
        ],
    }
    return RunFolder.create(out, description, {g.name: split_as_bed(g.split) for g in corpus})


def _same_genomes(run: RunFolder, corpus: Sequence[CorpusGenome]) -> None:
    stored = run.description["genomes"]
    if len(stored) != len(corpus):
        raise InputError(f"{run.path}: the run has {len(stored)} genomes, {len(corpus)} were given")
    for old, new in zip(stored, corpus, strict=True):
        if old["digest"] != new.reader.digest():
            raise InputError(
                f"{new.reader.path}: not the genome that the run was started with "
                f"({old['name']}); give the same files in the same order"
            )


def _announce(
    console: Console, trainer: Trainer, corpus: Sequence[CorpusGenome], out: Path
) -> None:
    config, options = trainer.model.config, trainer.config
    console.print(
        f"{config.mixer} model: {config.n_layer} layers, width {config.d_model}, "
        f"{config.num_parameters():,} parameters, reads up to {config.max_seq_len:,} bases",
        highlight=False,
    )
    for genome in corpus:
        split = genome.split
        console.print(
            f"{genome.name}: train {bases(split.train.bases)}, valid {bases(split.valid.bases)}, "
            f"test {bases(split.test.bases)} ({split.rule})",
            highlight=False,
            soft_wrap=True,
        )
    stages = ", ".join(f"{s.steps:,} x {s.length:,}" for s in trainer.stages)
    tokens = sum(s.steps * s.length * trainer.batch_size(s.length) for s in trainer.stages)
    console.print(
        f"{options.steps:,} steps of about {options.tokens_per_step:,} bases "
        f"({bases(tokens)} in all); steps x length: {stages}; {options.precision} on "
        f"{trainer.device}, run in {out}",
        highlight=False,
        soft_wrap=True,
    )


def _tokens_left(trainer: Trainer) -> Any:
    """Tokens of all steps after a given one."""

    def left(step: int) -> float:
        total, start = 0, 0
        for stage in trainer.stages:
            remaining = stage.steps - min(max(step - start, 0), stage.steps)
            total += remaining * stage.length * trainer.batch_size(stage.length)
            start += stage.steps
        return total

    return left


def _tensorboard(out: Path, console: Console) -> Any:
    """A function (tag, value, step) that logs for TensorBoard, or does nothing without it."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        console.print(
            "note: no TensorBoard log (pip install 'hyenadna[tensorboard]'); "
            f"the figures are in {out / 'log.jsonl'}",
            highlight=False,
            soft_wrap=True,
        )
        return lambda tag, value, step: None
    writer = SummaryWriter(str(out / "tensorboard"))
    return writer.add_scalar


def comma_list(text: str) -> tuple[str, ...]:
    """Parts of an option that holds several, separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--weights: {text!r} is not a number") from None
