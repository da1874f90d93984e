"""The models that ship with the package: their data, their training, their measurement.

    python -m benchmarks.shipped_models prepare ../shared/data GENOMES     # FASTA and BED files
    python -m benchmarks.shipped_models train GENOMES RUNS [--only NAME] [--threads 1]
    python -m benchmarks.shipped_models evaluate RUNS [--only NAME]       # on held-out bases
    python -m benchmarks.shipped_models package RUNS                      # into src and docs

Each step is a few commands of `hyenadna`, which it prints. Training takes some five
hours on a core for each model, and goes on where it was when it is started again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.shipped_card import card_of, card_text, draw_pictures, models_page
from benchmarks.shipped_relatives import relatives
from benchmarks.shipped_sources import SOURCES, Source

from hyenadna.checkpoint import load, save
from hyenadna.data.corpus import split_as_bed
from hyenadna.data.windows import default_split, split_by_contigs
from hyenadna.genome.fasta import Genome
from hyenadna.genome.write_fasta import write_fasta
from hyenadna.shipped import SHIPPED, card, shipped_names

PICTURES: Final = Path("docs/pictures")
PAGE: Final = Path("docs/models.md")
LARGEST: Final = 4 * 2**20
"""Bytes of a model in the package."""


SHARED_OPTIONS: Final = "--optimizer muon --embed-dropout 0 --final-lr 0.02 --evaluate-bases 60000"


@dataclass(frozen=True)
class Run:
    """A run of `hyenadna pretrain`."""

    options: str
    weights: tuple[float, ...]
    """Relative chances of the windows of the first so many SOURCES, in their order."""
    init: str | None = None
    """The run that it goes on from."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """What it reads."""
        return tuple(SOURCES.values())[: len(self.weights)]


_LATER: Final = (1.5, 6.5, 1.2, 2.6, 2.6, 1.2, 0.9, 0.5)  # more of what was far from its best
_THIRD: Final = (1.5, 8.0, 1.0, 3.0, 4.0, 2.5, 0.6, 0.4)
_FOURTH: Final = (3.0, 8.0, 1.2, 2.0, 2.0, 1.5, 0.5, 0.9)  # again of what had been forgotten
_FIFTH: Final = (3.0, 9.5, 1.3, 2.0, 2.0, 1.6, 0.6, 0.5, 2.0)  # with relatives of mitochondria
RUNS: Final[Mapping[str, Run]] = {
    "base": Run(
        "--preset tiny-1k --stages none --steps 10000 --evaluate-every 1000",
        (3.0, 4.5, 1.2, 1.6, 1.6, 1.2, 0.4, 0.1),
    ),
    "short": Run("--stages none --steps 2500 --lr 0.0007 --evaluate-every 500", _LATER, "base"),
    "shallow-1k": Run(
        "--stages none --steps 1400 --lr 0.0004 --evaluate-every 700", _THIRD, "short"
    ),
    "long": Run(
        "--max-seq-len 16386 --length 16384 --stages 2048:300,8192:300 --steps 1000 --lr 0.0007 "
        "--evaluate-every 250",
        _LATER,
        "base",
    ),
    "shallow-16k": Run(
        "--length 16384 --stages 2048:300,8192:300 --steps 850 --lr 0.0004 --evaluate-every 425",
        _THIRD,
        "long",
    ),
    "deep-1k": Run(
        "--n-layer 3 --stages none --steps 6400 --lr 0.001 --save-every 400 --evaluate-every 1600",
        _FOURTH,
        "shallow-1k",
    ),
    "polished-1k": Run(
        "--stages none --steps 1300 --lr 0.0003 --evaluate-every 650",
        (3.0, 10.0, 1.2, 2.0, 2.4, 1.6, 0.5, 0.9),
        "deep-1k",
    ),
    "deep-16k": Run(
        "--n-layer 3 --length 16384 --stages 2048:1500,8192:1400 --steps 3600 --lr 0.001 "
        "--save-every 400 --evaluate-every 900",
        _FOURTH,
        "shallow-16k",
    ),
    "starter-1k": Run(
        "--n-layer 4 --stages none --steps 6200 --lr 0.001 --save-every 400 --evaluate-every 1550",
        _FIFTH,
        "polished-1k",
    ),
    "starter-16k": Run(
        "--n-layer 4 --length 16384 --stages 2048:1300,8192:1200 --steps 3100 --lr 0.001 "
        "--save-every 200 --evaluate-every 775",
        _FIFTH,
        "deep-16k",
    ),
}
"""In the order of training."""
MODELS: Final = ("starter-1k", "starter-16k")
"""The runs that ship."""


def main() -> None:
    """One step."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    steps = parser.add_subparsers(dest="step", required=True)
    prepare_step = steps.add_parser("prepare")
    prepare_step.add_argument("data", type=Path)
    prepare_step.add_argument("genomes", type=Path)
    train_step = steps.add_parser("train")
    train_step.add_argument("genomes", type=Path)
    train_step.add_argument("runs", type=Path)
    train_step.add_argument("--threads", type=int, default=1)
    evaluate_step = steps.add_parser("evaluate")
    package_step = steps.add_parser("package")
    for step in (evaluate_step, package_step):
        step.add_argument("runs", type=Path)
    for step, names in ((train_step, RUNS), (evaluate_step, MODELS), (package_step, MODELS)):
        step.add_argument("--only", choices=list(names))
    options = parser.parse_args()
    if options.step == "prepare":
        prepare(options.data, options.genomes)
        return
    every = RUNS if options.step == "train" else MODELS
    for name in [options.only] if options.only else every:
        if options.step == "train":
            train(name, options.genomes, options.runs, threads=options.threads)
        elif options.step == "evaluate":
            hyenadna("evaluate", str(options.runs / name), "--no-compression", "--threads", "1")
        else:
            package(name, options.runs / name)
    if options.step == "package":
        cards = [card(name) for name in MODELS if name in shipped_names()]
        PAGE.write_text(models_page(cards))
        print(PAGE)


def prepare(data: Path, genomes: Path) -> None:
    """Writes the FASTA and GENOMES/NAME.bed of each source."""
    genomes.mkdir(parents=True, exist_ok=True)
    for source in SOURCES.values():
        fasta = genomes / source.fasta
        if source.relatives_of:
            whose = Genome.open(genomes / SOURCES[source.relatives_of].fasta)
            write_fasta(relatives(whose, source.contigs), fasta)
        else:
            with fasta.open("wb") as out:  # gzip files behind each other are one gzip file
                for file in source.files:
                    with (data / file).open("rb") as part:
                        shutil.copyfileobj(part, out)
        bed = genomes / f"{source.name}.bed"
        bed.write_text(source.bed or _split(source, fasta))
        print(f"{fasta}  {bed}")


def _split(source: Source, fasta: Path) -> str:
    """The split of a genome as BED."""
    genome = Genome.open(fasta)
    if source.relatives_of:
        return "".join(f"{name}\t0\t{size}\ttrain\n" for name, size in genome.contigs.items())
    if not source.test:
        return split_as_bed(default_split(genome))
    split = split_by_contigs(genome, valid=list(source.valid), test=list(source.test))
    rows = split_as_bed(split).splitlines(keepends=True)
    return "".join(row for row in rows if row.split("\t")[0] not in source.leave_out)


def train(name: str, genomes: Path, runs: Path, *, threads: int) -> None:
    """Trains a model, or goes on with it."""
    out = runs / name
    if (out / "last").exists():
        command = ["pretrain", "--out", str(out), "--resume", "--threads", str(threads)]
    else:
        run = RUNS[name]
        command = ["pretrain", *(str(genomes / s.fasta) for s in run.sources)]
        command += ["--out", str(out), "--threads", str(threads), *run.options.split()]
        command += [*SHARED_OPTIONS.split(), "--weights", ",".join(map(str, run.weights))]
        if run.init:
            command += ["--init", str(runs / run.init)]
        for source in run.sources:
            command += ["--bed", str(genomes / f"{source.name}.bed")]
    hyenadna(*command)


def package(name: str, run: Path) -> None:
    """Writes the weights and the card below src, and pictures below docs."""
    folder = SHIPPED / name
    values = card_of(name, run)
    texts = {"card.json": json.dumps(values, indent=2) + "\n", "README.md": card_text(values)}
    save(load(run), folder, tables=False, extra_files=texts)
    draw_pictures(name, run, PICTURES)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder}  {size / 2**20:.2f} MiB")
    if size > LARGEST:
        raise SystemExit(f"{folder}: larger than {LARGEST / 2**20:.0f} MiB")


def hyenadna(*arguments: str) -> None:
    """Runs a command, and ends where it fails."""
    print("hyenadna", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "hyenadna", *arguments], check=True)


if __name__ == "__main__":
    main()
