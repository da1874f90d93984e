"""AdamW and Muon from the same start: bits per base after the same number of bases.

    python -m benchmarks.optimizers genome.fa.gz --valid-contigs VI --test-contigs IV,XV

One run after the other, each with the learning rates that its row names; nothing is chosen on the
test part. Writes optimizers.json and optimizers.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.long_context.cells import cells, table_head
from benchmarks.training_choices import Job, measure, write_runs

from hyenadna.cli.pretrain import comma_list
from hyenadna.cli.process import prepare_process
from hyenadna.config import preset
from hyenadna.training_config import PretrainConfig


def main() -> None:
    """Runs all, and writes the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--valid-contigs", default="")
    parser.add_argument("--test-contigs", default="")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    options = parser.parse_args()
    prepare_process()
    genome = options.fasta.name.split(".")[0]
    model = preset("tiny-1k").replace(embed_dropout=0.0)
    held_out = (comma_list(options.valid_contigs), comma_list(options.test_contigs))
    rows = []
    with tempfile.TemporaryDirectory(prefix="optimizers-") as work:
        for index, config in enumerate(variants(options.steps)):
            job = Job(genome, options.fasta, model, config, *held_out)
            rows.append(measure(job, config, Path(work) / str(index)))
            write(rows, options.out)


def variants(steps: int) -> Iterator[PretrainConfig]:
    """AdamW at four learning rates, Muon at two of its matrices."""
    shared = PretrainConfig(steps=steps, stages="none", final_lr=0.02, evaluate_every=steps)
    for lr in (7.5e-4, 1.5e-3, 3e-3, 6e-3):
        yield replace(shared, lr=lr)
    for matrix_lr in (3e-3, 6e-3):
        yield replace(shared, optimizer="muon", matrix_lr=matrix_lr)


def write(rows: list[dict[str, Any]], out: Path) -> None:
    """The figures as JSON and as a table."""
    table = []
    for row in rows:
        config = row["config"]
        matrix = config["matrix_lr"] if config["optimizer"] == "muon" else config["lr"]
        table.append(
            cells([
                config["optimizer"], f"{config['lr']:g}", f"{matrix:g}",
                f"{row['bits_per_base']:.4f}", f"{row['seconds_of_training']:.0f}",
            ])
        )  # fmt: skip
    first = rows[0]
    text = (
        f"tiny-1k on {first['genome']}, {first['tokens'] / 1e6:.1f} Mb in "
        f"{first['config']['steps']:,} steps, the same first weights and windows; the cosine to "
        f"{first['config']['final_lr']:.0%}. Bits per base of {first['valid_bases']:,} bases of "
        "the valid part. One thread on a machine that others use too: seconds are rough."
    )
    columns = ["optimiser", "lr", "of the matrices", "valid, bits per base", "training, s"]
    write_runs(out / "optimizers.md", "AdamW and Muon", text, rows, [*table_head(columns), *table])


if __name__ == "__main__":
    main()
