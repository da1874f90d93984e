"""`hyenadna evaluate`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from hyenadna.cli.pretrain import Repeated, choose_device, comma_list
from hyenadna.cli.process import prepare_process
from hyenadna.cli.progress import progress_bar
from hyenadna.errors import InputError
from hyenadna.training_config import Precision

if TYPE_CHECKING:
    from hyenadna.data.corpus import CorpusGenome, SplitRule
    from hyenadna.infer.evaluate import Evaluation


def evaluate(
    model: str,
    /,
    *fasta: Path,
    part: Literal["train", "valid", "test"] | None = None,
    bed: Annotated[tuple[Path, ...], Repeated] = (),
    valid_contigs: str = "",
    test_contigs: str = "",
    exclude_contigs: str = "",
    length: int | None = None,
    context: int | None = None,
    markov: int = 12,
    compression: bool = True,
    precision: Precision = "float32",
    device: str = "auto",
    threads: int | None = None,
    json_: Annotated[bool, Parameter(name="--json")] = False,
    out: Path | None = None,
) -> None:
    """Measure how well a model predicts held-out bases, beside Markov models and compression.

    For a run folder, genomes and split are those of the run unless you give others.

    Parameters
    ----------
    model
        Run folder, checkpoint folder or published name.
    fasta
        Genomes; those of the run when left out.
    part
        Part of the split to measure on; test when left out, valid where there is no test part.
    bed
        Regions with train, valid or test in the 4th column; one file for all genomes or one each.
    valid_contigs
        Contigs held out for validation, separated by commas.
    test_contigs
        Contigs held out for test.
    exclude_contigs
        Contigs left out altogether.
    length
        Bases of a window; the longest that the model reads when left out.
    context
        Least number of bases before a counted base (windows overlap by it); half a window when left
        out.
    markov
        Highest order of the Markov models, which learn from the train part; -1 for none.
    compression
        Whether to measure adaptive compression too.
    precision
        Type of the matrix products.
    device
        `cpu`, `cuda`, …; `auto` takes a GPU where there is one.
    threads
        CPU threads; all cores when left out.
    json_
        Print JSON instead of tables.
    out
        Folder for evaluation.json and pictures; RUN/evaluation for a run.
    """
    prepare_process()
    import torch

    from hyenadna.checkpoint.load import load
    from hyenadna.data.corpus import SplitRule
    from hyenadna.infer.evaluate import evaluate as measure
    from hyenadna.infer.evaluate import fit_markov, with_yardsticks
    from hyenadna.train.loop import PRECISIONS

    console = Console(stderr=json_)
    if threads:
        torch.set_num_threads(threads)
    run = Path(model)
    is_run = (run / "run.json").is_file()
    rule = SplitRule(
        bed, comma_list(valid_contigs), comma_list(test_contigs), comma_list(exclude_contigs)
    )
    network = load(model).to(choose_device(device))
    corpus = _corpus(run if is_run else None, list(fasta), rule, console)
    yardstick = None
    if markov >= 0:
        console.print(f"fitting Markov models of order 0 to {markov} …", highlight=False)
        yardstick = fit_markov(
            [(g.reader, g.split.train) for g in corpus],
            order=markov,
            both_strands=_both_strands(run if is_run else None),
        )
    results = []
    for genome in corpus:
        chosen = part or ("test" if genome.split.test.bases > 1 else "valid")
        regions = genome.split.part(chosen)
        with progress_bar(console, f"{genome.name} ({chosen})") as show:
            result = measure(
                network,
                genome.reader,
                regions,
                length=length,
                context=context,
                precision=PRECISIONS[precision],
                progress=show,
            )
        result = with_yardsticks(result, genome.reader, regions, yardstick, compression=compression)
        results.append((chosen, result))
        if not json_:
            show_evaluation(console, chosen, result)
    folder = out or (run / "evaluation" if is_run else None)
    if folder:
        _write(folder, model, results)
        console.print(f"figures and pictures in {folder}", highlight=False, soft_wrap=True)
    if json_:
        print(json.dumps(_as_dict(model, results), indent=2))


def _corpus(
    run: Path | None, fasta: list[Path], rule: SplitRule, console: Console
) -> list[CorpusGenome]:
    from hyenadna.data.corpus import SplitRule, open_corpus
    from hyenadna.train.run_folder import RunFolder

    if run and not fasta:
        folder = RunFolder.open(run)
        fasta = [Path(g["path"]) for g in folder.description["genomes"]]
        if rule == SplitRule():
            rule = SplitRule(beds=folder.split_beds())
    if not fasta:
        raise InputError("no FASTA file given; name one or more genomes")
    return open_corpus(
        fasta, rule, progress=lambda name: console.print(f"reading {name} …", highlight=False)
    )


def _both_strands(run: Path | None) -> bool:
    """Whether the Markov models read both strands: as the network did."""
    from hyenadna.train.run_folder import RunFolder

    return run is None or bool(RunFolder.open(run).description["options"]["reverse_complement"])


def show_evaluation(console: Console, part: str, result: Evaluation) -> None:
    """Print the figures of one evaluation as tables."""
    table = Table(title=f"{result.genome}, {part}: {result.bases:,} bases", title_justify="left")
    table.add_column("predictor")
    table.add_column("bits per base", justify="right")
    table.add_column("perplexity", justify="right")
    table.add_row(
        "this model", f"{result.bits_per_base:.4f}", f"{result.perplexity:.4f}", style="bold"
    )
    best = result.best_markov
    for order, bits in result.markov.items():
        mark = "  (best)" if best and order == best[0] else ""
        table.add_row(f"Markov, order {order}{mark}", f"{bits:.4f}", f"{2**bits:.4f}")
    for name, bits in result.compression.items():
        table.add_row(f"compression, {name}", f"{bits:.4f}", f"{2**bits:.4f}")
    console.print(table)
    bins = Table(title="by bases of context", title_justify="left")
    bins.add_column("context")
    bins.add_column("bits per base", justify="right")
    for each in result.by_context:
        label = f"{each.first:,}" if each.first == each.last else f"{each.first:,}–{each.last:,}"
        bins.add_row(label, f"{each.bits_per_base:.4f}")
    console.print(bins)
    if best:
        verdict = "below" if result.bits_per_base < best[1] else "NOT below"
        console.print(
            f"{result.bits_per_base:.4f} bits per base is {verdict} the best Markov model "
            f"(order {best[0]}, {best[1]:.4f})\n",
            highlight=False,
        )


def _as_dict(model: str, results: Sequence[tuple[str, Evaluation]]) -> dict[str, object]:
    return {
        "model": model,
        "genomes": [{"part": part, **result.to_dict()} for part, result in results],
    }


def _write(folder: Path, model: str, results: Sequence[tuple[str, Evaluation]]) -> None:
    from hyenadna.report.plots import context_curve

    try:
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / ".evaluation.json.part"
        beside.write_text(json.dumps(_as_dict(model, results), indent=2) + "\n")
        beside.replace(folder / "evaluation.json")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from error
    for part, result in results:
        context_curve(
            [(b.first * b.last) ** 0.5 for b in result.by_context],
            [b.bits_per_base for b in result.by_context],
            folder / f"{result.genome}.{part}.png",
            title=f"{result.genome}, {part} part",
            markov=result.markov,
        )
