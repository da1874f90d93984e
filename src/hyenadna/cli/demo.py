"""`hyenadna demo`."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from hyenadna.cli.console import make_console, make_table
from hyenadna.cli.demo_shipped import show_shipped
from hyenadna.cli.evaluate import evaluate
from hyenadna.cli.pretrain import Request, start_run
from hyenadna.cli.process import prepare_process
from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.training_config import PretrainConfig

if TYPE_CHECKING:
    from hyenadna.genome.synthetic import SyntheticContig, SyntheticGenome
    from hyenadna.infer.evaluate import ContextBin, Evaluation

# A shape that learns the embedded genome in about a minute on two cores: more positional
# features than the published shapes, because it must find lags to the base.
SHAPE = ModelConfig(
    d_model=64,
    n_layer=2,
    max_seq_len=514,
    emb_dim=33,
    embed_dropout=0.0,
    initializer_range=0.05,
)
TRAIN_BASES, VALID_BASES, TEST_BASES = 4_000_000, 66_000, 263_000


def demo(fasta: Path | None = None, /, *, out: Path | None = None, steps: int = 1500) -> int:
    """Train a small model in about a minute, and use one that comes with the package.

    Without a FASTA the genome is one that we generate: motifs, copies at fixed distances and
    hairpins, with an exactly known entropy, so that the model can be held against the best that
    any model could do. Then `starter-1k` embeds, scores and generates.

    Parameters
    ----------
    fasta
        A genome of yours instead.
    out
        New folder for the genome, the run and the pictures; `demo`, or the next free `demo-2`, …
    steps
        Training steps.
    """
    options = demo_options(steps, reverse_complement=fasta is not None)
    out = _next_free() if out is None else out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists and is not empty; remove it or give another --out")
    code = _own_genome(fasta, out, options) if fasta else _embedded_genome(out, options)
    return code or show_shipped(out, fasta, make_console())


def _next_free() -> Path:
    names = (Path("demo" if i == 1 else f"demo-{i}") for i in count(1))
    return next(path for path in names if not path.exists())


def embedded_contigs() -> list[SyntheticContig]:
    """The embedded default genome: contigs train1, valid1 and test1."""
    from hyenadna.genome.synthetic import SyntheticGenome

    source = SyntheticGenome()
    return [
        *source.generate(TRAIN_BASES, 0, prefix="train"),
        *source.generate(VALID_BASES, 1, prefix="valid"),
        *source.generate(TEST_BASES, 2, prefix="test"),
    ]


def demo_options(steps: int, *, reverse_complement: bool) -> PretrainConfig:
    """Training options of the demo."""
    return PretrainConfig(
        steps=steps,
        length=512,
        tokens_per_step=4096,
        stages="none",
        reverse_complement=reverse_complement,
        evaluate_bases=66_000,
        beta2=0.95,
        lr=3e-3,
        filter_init="paper",
        warmup_steps=min(50, steps),
    )


def _own_genome(fasta: Path, out: Path, options: PretrainConfig) -> int:
    from hyenadna.data.corpus import SplitRule

    request = Request(fasta=[fasta], rule=SplitRule(), model=SHAPE, options=options)
    code = start_run(request, out / "run", make_console())
    if code == 0:
        evaluate(str(out / "run"))
    return code


def _embedded_genome(out: Path, options: PretrainConfig) -> int:
    prepare_process()
    from hyenadna.data.corpus import SplitRule
    from hyenadna.genome.synthetic import SyntheticGenome
    from hyenadna.genome.write_fasta import write_fasta

    console = make_console()
    source = SyntheticGenome()
    console.print(
        f"Generating a genome of known entropy: {source.entropy_rate:.4f} bits per base for a "
        f"reader of {source.longest_lag} bases, {source.bound_by_context(12):.4f} for one of 12.\n",
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        fasta = write_fasta(embedded_contigs(), out / "synthetic.fa")
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror})") from error
    # No reverse complement: the other strand is another process, of unknown entropy.
    rule = SplitRule(valid_contigs=("valid1",), test_contigs=("test1",))
    request = Request(fasta=[fasta], rule=rule, model=SHAPE, options=options)
    code = start_run(request, out / "run", console)
    if code == 0:
        _show_against_the_bound(out, source, console)
    return code


def _show_against_the_bound(out: Path, source: SyntheticGenome, console: Console) -> None:
    from hyenadna.checkpoint.load import load
    from hyenadna.data.corpus import SplitRule, open_corpus
    from hyenadna.infer.evaluate import evaluate as measure
    from hyenadna.infer.evaluate import fit_markov, with_yardsticks
    from hyenadna.report.plots import context_curve

    rule = SplitRule(valid_contigs=("valid1",), test_contigs=("test1",))
    (genome,) = open_corpus([out / "synthetic.fa"], rule)
    console.print("measuring on the test contig …\n")
    regions = genome.split.test
    result = measure(load(out / "run"), genome.reader, regions, length=512)
    markov = fit_markov([(genome.reader, genome.split.train)], both_strands=False)
    result = with_yardsticks(result, genome.reader, regions, markov, compression=False)
    _print_by_context(result, source, console)
    picture = out / "context.png"
    context_curve(
        [(b.first * b.last) ** 0.5 for b in result.by_context],
        [b.bits_per_base for b in result.by_context],
        picture,
        title="What context is worth: a model, Markov models, and the true bound",
        markov=result.best_markov,
        bound=[_bound(source, each) for each in result.by_context],
    )
    console.print(
        f"Picture: {picture}   training curve: {out / 'run' / 'curve.png'}\n"
        "Of yours: hyenadna pretrain YOUR_GENOME.fa --out RUN\n",
    )


def _print_by_context(result: Evaluation, source: SyntheticGenome, console: Console) -> None:
    best = result.best_markov
    assert best is not None
    table = make_table(
        "Bits per base on bases never seen in training",
        "bases of context",
        "this model",
        f"best Markov model ({best[0]})",
        "true bound",
    )
    for each in result.by_context:
        table.add_row(
            f"{each.first:,}" if each.first == each.last else f"{each.first:,}–{each.last:,}",
            f"{each.bits_per_base:.3f}",
            f"{best[1]:.3f}",
            f"{_bound(source, each):.3f}",
        )
    console.print(table)
    console.print(
        "The bound is that of a reader who is told where the segments begin; a model has to find "
        "out.\n",
    )


def _bound(source: SyntheticGenome, each: ContextBin) -> float:
    """Mean over the contexts of a bin of the least possible bits per base."""
    bounds = [source.bound_by_context(c) for c in range(each.first, each.last + 1)]
    return sum(bounds) / len(bounds)
