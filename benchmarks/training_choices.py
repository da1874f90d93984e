"""What two defaults of `hyenadna pretrain` are worth: length warm-up and filter initialisation.

    python -m benchmarks.training_choices --real genome.fa.gz --test-contigs IV,XV

Trains the same model from the same seed, on the embedded genome and on a real one, for the same
number of tokens: as a baseline, with sequence-length warm-up switched, and with the other filter
initialisation. One run after the other on one machine; times are those of training alone. Writes
training_choices.json and training_choices.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.long_context.cells import cells, table_head
from benchmarks.pages import write_sections

from hyenadna.cli.console import make_console
from hyenadna.cli.demo import SHAPE, embedded_contigs
from hyenadna.cli.pretrain import Request, comma_list, start_run
from hyenadna.cli.process import prepare_process
from hyenadna.config import ModelConfig, preset
from hyenadna.training_config import PretrainConfig


@dataclass(frozen=True)
class Job:
    """One genome with its model and baseline."""

    name: str
    fasta: Path
    model: ModelConfig
    baseline: PretrainConfig
    valid: tuple[str, ...]
    test: tuple[str, ...]

    def variants(self) -> Iterator[PretrainConfig]:
        """The baseline, then each choice switched."""
        yield self.baseline
        yield replace(self.baseline, stages="double")
        other: Literal["scaled", "paper"] = (
            "paper" if self.baseline.filter_init == "scaled" else "scaled"
        )
        yield replace(self.baseline, filter_init=other)


def main() -> None:
    """Run all variants and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--real", type=Path, help="FASTA of a real genome")
    parser.add_argument("--valid-contigs", default="", help="held-out contigs of the real genome")
    parser.add_argument("--test-contigs", default="")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    options = parser.parse_args()
    prepare_process()
    with tempfile.TemporaryDirectory(prefix="training-choices-") as name:
        work = Path(name)
        rows = [
            measure(job, config, work / f"{job.name}-{index}")
            for job in jobs(options, work)
            for index, config in enumerate(job.variants())
        ]
    write(rows, options.out)


def jobs(options: argparse.Namespace, work: Path) -> Iterator[Job]:
    """The embedded genome, and the real one if there is one."""
    from hyenadna.genome.write_fasta import write_fasta

    shared = PretrainConfig(
        steps=options.steps, stages="none", warmup_length=64, evaluate_every=options.steps
    )
    embedded = replace(
        shared, length=512, tokens_per_step=4096, lr=3e-3, filter_init="paper",
        reverse_complement=False,
    )  # fmt: skip
    fasta = write_fasta(embedded_contigs(), work / "embedded.fa")
    yield Job("embedded", fasta, SHAPE, embedded, ("valid1",), ("test1",))
    if options.real:
        held_out = (comma_list(options.valid_contigs), comma_list(options.test_contigs))
        name = options.real.name.split(".")[0]
        shape = preset("tiny-1k").replace(embed_dropout=0.0)
        yield Job(name, options.real, shape, replace(shared, precision="bf16"), *held_out)


def measure(job: Job, config: PretrainConfig, out: Path) -> dict[str, Any]:
    """Train once and measure the last weights on the valid part: no choice sees the test part."""
    from hyenadna.checkpoint.load import load
    from hyenadna.data.corpus import SplitRule, open_corpus
    from hyenadna.infer.evaluate import evaluate

    rule = SplitRule(valid_contigs=job.valid, test_contigs=job.test)
    request = Request(fasta=[job.fasta], rule=rule, model=job.model, options=config)
    with Path(os.devnull).open("w") as nowhere:
        code = start_run(request, out, make_console(file=nowhere))
    if code:
        raise SystemExit(f"{job.name}: training stopped with code {code}")
    steps = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    steps = [entry for entry in steps if "loss" in entry]
    (genome,) = open_corpus([job.fasta], SplitRule(beds=tuple((out / "splits").glob("*.bed"))))
    valid = genome.split.valid
    result = evaluate(load(out / "last"), genome.reader, valid, length=steps[-1]["length"])
    row = {
        "genome": job.name,
        "lengths": sorted({entry["length"] for entry in steps}),
        "filter_init": config.filter_init,
        "tokens": steps[-1]["tokens"],
        "seconds_of_training": round(sum(entry["seconds"] for entry in steps), 1),
        "bits_per_base": result.bits_per_base,
        "valid_bases": result.bases,
        "parameters": job.model.num_parameters(),
        "config": config.to_dict(),
    }
    print(json.dumps({k: v for k, v in row.items() if k != "config"}), flush=True)
    return row


def write(rows: list[dict[str, Any]], out: Path) -> None:
    """The figures as JSON and as a table."""
    table = [
        cells([
            row["genome"], " → ".join(f"{n:,}" for n in row["lengths"]), row["filter_init"],
            f"{row['tokens'] / 1e6:.1f}", f"{row['seconds_of_training']:.0f}",
            f"{row['bits_per_base']:.4f}",
        ])
        for row in rows
    ]  # fmt: skip
    columns = [
        "genome", "lengths", "filter init", "million tokens", "training, s", "valid, bits per base",
    ]  # fmt: skip
    title = "What length warm-up and the filter initialisation are worth"
    text = "Per genome: same model, seed, number of tokens and learning rates."
    write_runs(out / "training_choices.md", title, text, rows, [*table_head(columns), *table])


def write_runs(
    page: Path, title: str, text: str, rows: list[dict[str, Any]], table: list[str]
) -> None:
    """A page of one table, and beside it the rows of `measure` as JSON, with the machine."""
    import torch

    machine = f"{os.cpu_count()} CPU cores ({platform.machine()}), torch {torch.__version__}"
    page.parent.mkdir(parents=True, exist_ok=True)
    figures = json.dumps({"machine": machine, "rows": rows}, indent=2)
    page.with_suffix(".json").write_text(figures + "\n")
    generated = f"Generated by `python -m benchmarks.{page.stem}` on {machine}."
    write_sections(page, [[f"# {title}", "", f"{text} {generated}", "", *table]])


if __name__ == "__main__":
    main()
