"""`hyenadna evaluate`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from hyenadna.cli.console import make_console, make_table
from hyenadna.cli.memory import explain_memory, fit_batch, limit_memory, note_no_effect
from hyenadna.cli.pretrain import Repeated, comma_list
from hyenadna.cli.process import (
    announce_native,
    announce_slow_bf16,
    most_loaded,
    prepare_process,
    set_threads,
)
from hyenadna.cli.progress import progress_bar
from hyenadna.cli.ranks import join_ranks
from hyenadna.errors import InputError
from hyenadna.training_config import Precision, SoftMasked

if TYPE_CHECKING:
    from hyenadna.data.corpus import CorpusGenome, SplitRule
    from hyenadna.data.windows import Part
    from hyenadna.infer.evaluate import Evaluation
    from hyenadna.train.run_folder import RunFolder


def evaluate(
    model: str,
    /,
    *fasta: Path,
    part: Literal["train", "valid", "test"] | None = None,
    bed: Annotated[tuple[Path, ...], Repeated] = (),
    valid_contigs: str = "",
    test_contigs: str = "",
    exclude_contigs: str = "",
    soft_masked: SoftMasked = "keep",
    length: int | None = None,
    context: int | None = None,
    markov: int = 12,
    compression: bool = True,
    precision: Precision = "float32",
    device: str = "auto",
    threads: int | None = None,
    max_memory: str | None = None,
    json_: Annotated[bool, Parameter(name="--json")] = False,
    out: Path | None = None,
) -> None:
    """Measure how well a model predicts held-out bases, beside Markov models and compression.

    For a run folder, genomes and split are those of the run unless you give others.

    Parameters
    ----------
    model
        Run folder, checkpoint folder or model name.
    fasta
        Genomes; those of the run when left out.
    part
        Part of the split to measure on; test when left out, valid where there is no test part. Of
        several genomes, those without it only teach the Markov models.
    bed
        Regions with train, valid or test in the 4th column; one file for all genomes or one each.
    valid_contigs
        Contigs held out for validation, separated by commas.
    test_contigs
        Contigs held out for test.
    exclude_contigs
        Contigs left out altogether.
    soft_masked
        Whether lower-case bases count.
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
    max_memory
        Memory that this process may take, such as `4GiB`; the result does not change beyond
        rounding.
    json_
        Print JSON instead of tables.
    out
        Folder for evaluation.json and pictures; RUN/evaluation for a run.
    """
    prepare_process()
    set_threads(threads)
    from hyenadna.checkpoint.load import load
    from hyenadna.data.batches import BATCH_TOKENS
    from hyenadna.data.corpus import SplitRule
    from hyenadna.infer.evaluate import evaluate as measure
    from hyenadna.infer.evaluate import fit_markov, require_window, with_yardsticks
    from hyenadna.train.loop import PRECISIONS
    from hyenadna.train.run_folder import RunFolder

    console = make_console(stderr=json_)
    rule = SplitRule(
        bed, comma_list(valid_contigs), comma_list(test_contigs), comma_list(exclude_contigs)
    )
    run = RunFolder.open(Path(model)) if (Path(model) / "run.json").is_file() else None
    where, ranks = join_ranks(device)
    network = load(model).to(where)
    limit_memory(network, max_memory)
    window, _ = require_window(network, length, context)
    announce_native(console, network.config)
    announce_slow_bf16(console, precision, network.head_weight.device)
    if not -1 <= markov <= 12:
        raise InputError(f"--markov is {markov}; it must be 0 to 12, or -1 for none")
    dtype = PRECISIONS[precision]
    corpus = _corpus(run, list(fasta), rule, console)
    _, need = fit_batch(network, window, BATCH_TOKENS, precision=dtype)
    note_no_effect(console, max_memory, engine=need is not None)
    held_out = _held_out(corpus, part, console)
    fit = partial(
        fit_markov,
        order=markov,
        both_strands=run is None or run.description["options"]["reverse_complement"],
    )
    if markov >= 0 and not any(genome.split.train.bases for genome in corpus):
        raise InputError("no train part for the Markov models to learn from; give --markov=-1")
    measured = []
    for genome, chosen in held_out:
        batch_tokens, _ = fit_batch(network, window, BATCH_TOKENS, precision=dtype)
        with (
            progress_bar(console, f"{genome.name} ({chosen})") as show,
            explain_memory("give a smaller --max-memory or a shorter --length"),
        ):
            result = measure(
                network,
                genome.reader,
                genome.split.part(chosen),
                length=length,
                context=context,
                soft_masked=soft_masked,
                batch_tokens=batch_tokens,
                precision=dtype,
                progress=show,
                ranks=ranks,
            )
        measured.append(result)
    ranks.leave()
    if not ranks.first:  # yardsticks are for one, and the others need not wait
        return
    together = None
    if markov >= 0:
        with console.status(f"fitting Markov models of order 0 to {markov} …"):
            together = fit([(g.reader, g.split.train) for g in corpus])
    results = []
    for (genome, chosen), result in zip(held_out, measured, strict=True):
        with console.status(f"yardsticks on {genome.name} …"):
            alone = markov >= 0 and len(corpus) > 1 and genome.split.train.bases > 0
            own = fit([(genome.reader, genome.split.train)]) if alone else None
            whole = with_yardsticks(
                result,
                genome.reader,
                genome.split.part(chosen),
                together,
                markov_own=own,
                compression=compression,
                soft_masked=soft_masked,
            )
        results.append((chosen, whole))
        if not json_:
            show_evaluation(console, chosen, whole)
    folder = out or (run.path / "evaluation" if run else None)
    if folder:
        _write(folder, model, results)
        console.print(f"figures and pictures in {folder}")
    if json_:
        print(json.dumps(_as_dict(model, results), indent=2))


def _corpus(
    run: RunFolder | None, fasta: list[Path], rule: SplitRule, console: Console
) -> list[CorpusGenome]:
    """The genomes to evaluate on, each with its split.

    A genome of the run keeps the run's split, unless another was asked for: a default split would
    score bases that the model was trained on.
    """
    from hyenadna.data.corpus import SplitRule, open_corpus
    from hyenadna.data.windows import split_from_bed
    from hyenadna.genome.intervals import read_bed
    from hyenadna.train.build import require_same_genomes

    own = not fasta
    if run and own:
        fasta = [Path(genome["path"]) for genome in run.description["genomes"]]
    if not fasta:
        raise InputError("no FASTA file given; name one or more genomes")
    use_run = run is not None and rule == SplitRule()
    if run and own and use_run:
        rule = SplitRule(beds=run.split_beds())
    corpus = open_corpus(
        fasta,
        rule,
        max_bytes=most_loaded(),
        progress=lambda name: console.print(f"reading {name} …"),
    )
    if run and own:
        require_same_genomes(run.description["genomes"], corpus)
    elif run and use_run:
        stored = [genome["digest"] for genome in run.description["genomes"]]
        for index, genome in enumerate(corpus):
            digest = genome.reader.digest()
            if digest in stored:
                bed = run.split_beds()[stored.index(digest)]
                split = split_from_bed(genome.reader, read_bed(bed), where=str(bed))
                corpus[index] = replace(genome, split=split)
    for genome in corpus:
        console.print(f"{genome.name}: {genome.split.rule}")
    return corpus


def _held_out(
    corpus: Sequence[CorpusGenome], part: Part | None, console: Console
) -> list[tuple[CorpusGenome, Part]]:
    """The genomes that have something to be measured on, each with its part.

    part: of all of them; where None, test, and valid where there is no test part.

    Those that a run only learned from are left out, and that is said. Raises InputError where none
    is left.
    """
    found: list[tuple[CorpusGenome, Part]] = []
    for genome in corpus:
        chosen: Part = part or ("test" if genome.split.test.bases > 1 else "valid")
        if genome.split.part(chosen).bases > 1:
            found.append((genome, chosen))
        else:
            missing = f"{genome.reader.path}: no {chosen} part ({genome.split.rule})"
            if len(corpus) == 1:
                raise InputError(missing)
            console.print(f"{missing}, so it is not measured")
    if not found:
        raise InputError(f"none of the {len(corpus)} genomes has a {part or 'valid'} part")
    return found


def show_evaluation(console: Console, part: str, result: Evaluation) -> None:
    """Print the figures of one evaluation as tables."""
    title = f"{result.genome}, {part}: {result.bases:,} bases"
    table = make_table(title, "predictor", "bits per base", "perplexity")
    ours = (f"{result.bits_per_base:.4f}", f"{result.perplexity:.4f}")
    table.add_row("this model", *ours, style="bold")
    best = result.best_markov
    for models, where in ((result.markov, ""), (result.markov_own, ", this genome alone")):
        for order, bits in models.items():
            mark = "  (best)" if best and bits == best[1] else ""
            label = f"Markov, order {order}{where}{mark}"
            table.add_row(label, f"{bits:.4f}", f"{2**bits:.4f}")
    for name, bits in result.compression.items():
        table.add_row(f"compression, {name}", f"{bits:.4f}", f"{2**bits:.4f}")
    console.print(table)
    bins = make_table("by bases of context", "context", "bits per base")
    for each in result.by_context:
        label = f"{each.first:,}" if each.first == each.last else f"{each.first:,}–{each.last:,}"
        bins.add_row(label, f"{each.bits_per_base:.4f}")
    console.print(bins)
    if best:
        verdict = "below" if result.bits_per_base < best[1] else "NOT below"
        console.print(
            f"{result.bits_per_base:.4f} bits per base is {verdict} the best Markov model "
            f"({best[0]}: {best[1]:.4f})\n",
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
            markov=result.best_markov,
        )
