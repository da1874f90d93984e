"""Species from sequence against context, 1k to 64k bases, with length warm-up and without.

    python -m benchmarks.species_context --data /work/shared/data --out RUN

Seven real genomes, windows of each length from the same held-out regions. One small model from
random weights is fine-tuned at 1,024 bases, then at 4,096 from the weights it has, and so on to
65,536: that is warm-up by length, and each length is measured on the way. The control has the same
shape and reads as many tokens at the full length alone. k-mers are fitted to the same windows.

One thread; about 35 minutes of an idle core. What is done in RUN is not done again, so a run that
was stopped goes on when it is started again. `--scale 0.05` is a look of some minutes. Writes
species.md and species.png to `--docs`, also while not all is measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from benchmarks.pages import write_sections

from hyenadna.cli.console import make_console
from hyenadna.cli.finetune_progress import FinetuneLines
from hyenadna.cli.process import prepare_process, set_threads
from hyenadna.cli.units import bases, duration
from hyenadna.config import ModelConfig
from hyenadna.data.benchmarks import species
from hyenadna.errors import InputError
from hyenadna.training_config import FinetuneConfig

if TYPE_CHECKING:
    from hyenadna.data.genome_windows import WindowedData
    from hyenadna.model.heads import TaskModel
    from hyenadna.report.suite_table import LengthScore

GENOMES: Final[Mapping[str, str]] = {
    "B. subtilis": "bacteria_4/Bacillus.fa.gz",
    "C. vibrioides": "bacteria_4/Caul.fa.gz",
    "E. coli": "ecoli_K12_MG1655/*.fa.gz",
    "M. genitalium": "bacteria_4/Myco.fa.gz",
    "S. aureus": "bacteria_4/Staph.fa.gz",
    "human": "human_hg*/*.fa.gz",
    "yeast": "yeast_R64/*.fa.gz",
}
"""Species -> its files under the folder of data."""
SHAPE: Final = ModelConfig(
    d_model=64, n_layer=2, max_seq_len=65538, initializer_range=0.1, embed_dropout=0.0
)
"""Of this width, first weights of 0.02 (the default) make the branches vanish: slow to begin."""
SEED: Final = 0
BLOCK: Final = 65536
"""Bases of the stretches that are drawn together for intervals: windows in one overlap."""
TOKENS_AT_ONCE: Final = 65536


@dataclass(frozen=True)
class Rung:
    """One length of the warm-up, or the control."""

    name: str
    length: int
    train: int
    """Windows, all species together; each is read once."""
    valid: int
    test: int
    batch_size: int
    lr: float

    @property
    def tokens(self) -> int:
        """Tokens that training reads."""
        return self.train * self.length

    @property
    def config(self) -> FinetuneConfig:
        """One pass, measured on valid four times."""
        return FinetuneConfig(
            epochs=1, evaluations_per_epoch=4, patience=None, metric="loss", warmup_share=0.1,
            batch_size=self.batch_size, lr=self.lr, embed_dropout=0.0,
        )  # fmt: skip

    def windows(self) -> dict[str, int]:
        """Windows of each part."""
        return {"train": self.train, "valid": self.valid, "test": self.test}


def ladder(scale: float) -> list[Rung]:
    """The lengths in turn, each with `scale` of the windows of the full benchmark."""

    def of(length: int, train: int, valid: int, test: int, size: int, lr: float) -> Rung:
        least = len(GENOMES)
        counts = [max(least, round(scale * count)) for count in (train, valid, test)]
        return Rung(f"warm-up-{length}", length, counts[0], counts[1], counts[2], size, lr)

    return [
        of(1024, 42_000, 700, 1400, 8, 1e-3),
        of(4096, 4_200, 350, 1400, 8, 5e-4),
        of(16384, 1_050, 210, 1400, 8, 4e-4),
        of(65536, 280, 105, 700, 4, 3e-4),
    ]


def control(rungs: Sequence[Rung]) -> Rung:
    """As many tokens as all rungs, at the length of the last alone."""
    last, tokens = rungs[-1], sum(rung.tokens for rung in rungs)
    return dataclasses.replace(last, name="control", train=tokens // last.length, lr=rungs[0].lr)


@dataclass(frozen=True, eq=False)
class Measured:
    """What one predictor says of the test windows of a length."""

    probabilities: npt.NDArray[np.float32]
    """(n, species)"""
    targets: npt.NDArray[np.int64]
    blocks: npt.NDArray[np.int64]
    """The stretch of its genome that each window lies in, (n,)."""
    names: tuple[str, ...]
    seconds: float
    """Of the training; of the fit, for k-mers."""
    note: str

    def save(self, path: Path) -> None:
        """Write beside, then rename."""
        beside = path.with_name(f".{path.name}.part.npz")
        said = json.dumps({"names": self.names, "seconds": self.seconds, "note": self.note})
        np.savez(
            beside, probabilities=self.probabilities, targets=self.targets, blocks=self.blocks,
            said=np.array(said),
        )  # fmt: skip
        beside.replace(path)

    @classmethod
    def read(cls, path: Path) -> Measured:
        """The inverse of `save`."""
        with np.load(path) as file:
            said = json.loads(str(file["said"]))
            return cls(
                file["probabilities"], file["targets"], file["blocks"], tuple(said["names"]),
                said["seconds"], said["note"],
            )  # fmt: skip


def main() -> None:
    """Measure what is not measured yet, and write the page after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the shared data")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--docs", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--scale", type=float, default=1.0, help="share of the windows")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    prepare_process()
    set_threads(1)
    rungs = ladder(options.scale)
    genomes = link_genomes(options.data, options.out / "genomes")
    options.docs.mkdir(parents=True, exist_ok=True)
    require_same_plan(options.out / "plan.json", [*rungs, control(rungs)])
    for _ in measure_all(rungs, genomes, options.out):
        write_page(rungs, genomes, options.out, options.docs)


def require_same_plan(path: Path, rungs: Sequence[Rung]) -> None:
    """Note what a run is; raises InputError where the folder holds another."""
    plan = json.dumps([dataclasses.asdict(r) for r in rungs] + [SHAPE.to_dict()], indent=1)
    if path.exists() and path.read_text() != plan:
        raise InputError(f"{path.parent}: holds a run of another scale; give another --out")
    path.write_text(plan)


def link_genomes(data: Path, folder: Path) -> Path:
    """A folder with a folder for each species, of links to its files.

    Raises InputError where a file is missing.
    """
    for name, pattern in GENOMES.items():
        files = sorted(data.glob(pattern))
        if not files:
            raise InputError(f"{data}: no {pattern}; give the folder of the shared data")
        (folder / name).mkdir(parents=True, exist_ok=True)
        for file in files:
            link = folder / name / file.name
            if not link.is_symlink():
                link.symlink_to(file.resolve())
    return folder


def load(genomes: Path, rung: Rung) -> WindowedData:
    """The windows of a rung; those of all rungs lie in the same regions."""
    return species.load(
        str(rung.length), genomes, seed=SEED, windows=rung.windows(), region_length=BLOCK
    )


def measure_all(rungs: Sequence[Rung], genomes: Path, out: Path) -> Iterator[str]:
    """Do what is not done; yields the name of each measurement as it is there."""
    model: TaskModel | None = None
    for rung in rungs:
        model = fit(rung, genomes, out, start=model)
        yield once(out, rung.name, partial(test_model, model, rung, genomes, out))
    for rung in rungs:
        yield once(out, f"kmer-{rung.length}", partial(test_kmers, rung, genomes))
    assert model is not None
    for rung in rungs[:-1]:  # the same weights, shown less
        yield once(out, f"last-{rung.length}", partial(test_model, model, rung, genomes, out))
    other = control(rungs)
    plain = fit(other, genomes, out, start=None)
    yield once(out, other.name, partial(test_model, plain, other, genomes, out))


def once(out: Path, name: str, measure: Callable[[], Measured]) -> str:
    """Measure and save what is not there; its name."""
    path = out / f"{name}.npz"
    if not path.exists():
        measure().save(path)
        print(f"{name}: measured", flush=True)
    return name


def fit(rung: Rung, genomes: Path, out: Path, *, start: TaskModel | None) -> TaskModel:
    """The model fitted to a rung, from `start` or from random weights; on what there is already."""
    import torch

    from hyenadna.cli.finetune_models import ModelSource
    from hyenadna.cli.finetune_options import HeadOptions
    from hyenadna.train.finetune import finetune
    from hyenadna.train.finetune_reports import (
        FinetuneEvaluation,
        FinetuneResult,
        FinetuneStep,
    )

    data = load(genomes, rung)
    if start is None:
        torch.manual_seed(SEED)
        start = ModelSource("width 64", SHAPE).make_task(data.task, HeadOptions())
    folder = out / rung.name
    lines = FinetuneLines(make_console(), "classes", seeds=1, prefix=f"{rung.name}: ")
    for report in finetune(start, data, rung.config, seed=SEED, folder=folder, resume=True):
        if isinstance(report, FinetuneStep):
            lines.step(SEED, report)
        elif isinstance(report, FinetuneEvaluation):
            lines.evaluation(SEED, report)
        elif isinstance(report, FinetuneResult):
            lines.result(report)
            (folder / "seconds.json").write_text(json.dumps(report.seconds))
    return start


def test_model(model: TaskModel, rung: Rung, genomes: Path, out: Path) -> Measured:
    """What a model says of the test windows of a rung."""
    from hyenadna.infer.predict import predict

    data = load(genomes, rung)
    test = data.select(data.splits == "test")
    said = np.stack(list(predict(model, test.sequences, batch_tokens=TOKENS_AT_ONCE)))
    seconds = json.loads((out / rung.name / "seconds.json").read_text())
    return _measured(test, said, seconds, "")


def test_kmers(rung: Rung, genomes: Path) -> Measured:
    """What k-mers fitted to the train windows of a rung say of its test windows."""
    from hyenadna.train.baselines import fit_baseline

    data = load(genomes, rung)
    start = time.perf_counter()
    fitted = fit_baseline("kmer", data, SEED)
    seconds = time.perf_counter() - start
    test = data.select(data.splits == "test")
    return _measured(test, fitted.predict(test.sequences), seconds, fitted.chosen)


def _measured(
    test: WindowedData, said: npt.NDArray[np.float32], seconds: float, note: str
) -> Measured:
    windows = test.windows
    middle = (windows.start + windows.stop) // 2
    places = np.stack([windows.source, middle // BLOCK], axis=1)
    blocks = np.unique(places, axis=0, return_inverse=True)[1].reshape(-1)
    targets = np.asarray(test.targets, dtype=np.int64)
    return Measured(said, targets, blocks.astype(np.int64), test.task.names, seconds, note)


# -- the page --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """The scores of one measurement."""

    measured: Measured
    accuracy: LengthScore
    loss: LengthScore

    @property
    def wrong(self) -> int:
        """Windows that are taken for another species."""
        return int((self.measured.probabilities.argmax(1) != self.measured.targets).sum())


def read_row(path: Path, length: int) -> Row | None:
    """A measurement with its intervals, or None where it is not made yet."""
    from hyenadna.report.suite_table import LengthScore
    from hyenadna.train.bootstrap import intervals

    if not path.exists():
        return None
    measured = Measured.read(path)
    found = intervals("classes", measured.targets, measured.probabilities, clusters=measured.blocks)
    scores = [
        LengthScore(length, each.value, (each.low, each.high), len(measured.targets))
        for each in (found["accuracy"], found["log_loss"])
    ]
    return Row(measured, *scores)


def write_page(rungs: Sequence[Rung], genomes: Path, out: Path, docs: Path) -> None:
    """Write species.md and species.png of what is measured so far."""
    kinds = {"each length": "warm-up", "64k model": "last", "k-mers": "kmer"}
    rows: dict[str, dict[int, Row]] = {}
    for title, kind in kinds.items():
        found = {r.length: read_row(out / f"{kind}-{r.length}.npz", r.length) for r in rungs}
        rows[title] = {length: row for length, row in found.items() if row is not None}
    last = rungs[-1].length
    if last in rows["each length"] and rows["64k model"]:
        rows["64k model"][last] = rows["each length"][last]
    plain = read_row(out / "control.npz", last)
    _draw({title: of for title, of in rows.items() if of}, docs / "species.png")
    sections = [
        _head(rungs),
        _table(rungs, rows),
        [
            "![errors and log-loss by length](species.png)",
            "",
            "Hollow: no window was wrong; drawn where half a window would be. Bars are intervals.",
        ],
        _longer(rows),
        _beside_kmers(rows["each length"], rows["k-mers"]),
        _warm_up(rungs, rows["each length"], plain),
        _confusions(rows),
        _regions(rungs, genomes),
        _how(rungs),
    ]
    write_sections(docs / "species.md", sections)


def _draw(rows: Mapping[str, Mapping[int, Row]], path: Path) -> None:
    from hyenadna.report.suite_table import context_plot, error_of

    errors = {name: [error_of(row.accuracy) for row in of.values()] for name, of in rows.items()}
    losses = {name: [row.loss for row in of.values()] for name, of in rows.items()}
    context_plot({"share of windows that are wrong": errors, "log-loss": losses}, path)


def _head(rungs: Sequence[Rung]) -> list[str]:
    lengths = ", ".join(f"{rung.length:,}" for rung in rungs)
    return [
        "# Species from sequence, against context",
        "",
        "Generated by `python -m benchmarks.species_context`.",
        "",
        f"From which of {len(GENOMES)} genomes is a window of {lengths} bases? "
        f"{SHAPE.n_layer} Hyena layers of width {SHAPE.d_model} "
        f"({SHAPE.num_parameters():,} parameters) from random weights, fitted at the first length "
        "and then at each next one from the weights it has (`each length`). `64k model`: the model "
        "after the last length, shown less. `k-mers`: linear on k-mer counts, fitted to the same "
        "windows of each length. One seed.",
    ]


def _table(rungs: Sequence[Rung], rows: Mapping[str, Mapping[int, Row]]) -> list[str]:
    head = ["bases", "test windows"]
    head += [f"{title}: {what}" for title in rows for what in ("accuracy", "wrong", "log-loss")]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for rung in rungs:
        cells = [f"{rung.length:,}", f"{rung.test:,}"]
        for of in rows.values():
            cells += _cells(of.get(rung.length))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _cells(row: Row | None) -> list[str]:
    if row is None:
        return ["", "", ""]
    return [score_text(row.accuracy, 4), str(row.wrong), score_text(row.loss, 3)]


def score_text(score: LengthScore, digits: int) -> str:
    """`0.9843 [0.9771, 0.9904]`."""
    text = f"{score.value:.{digits}f}"
    if score.interval is not None:
        text += f" [{score.interval[0]:.{digits}f}, {score.interval[1]:.{digits}f}]"
    return text


def _longer(rows: Mapping[str, Mapping[int, Row]]) -> list[str]:
    from hyenadna.report.suite_table import longer_text

    lines = []
    for title, of in rows.items():
        if len(of) > 1:
            scores, losses = [r.accuracy for r in of.values()], [r.loss for r in of.values()]
            lines.append(f"- {title}: {longer_text(scores, losses)}.")
    return ["## Is longer better?", "", *lines] if lines else []


def _beside_kmers(models: Mapping[int, Row], kmers: Mapping[int, Row]) -> list[str]:
    """What the model has over k-mers at each length, or lacks."""
    both = [length for length in models if length in kmers]
    lines = [
        f"- {length:,} bases: {difference_text(models[length], kmers[length])}" for length in both
    ]
    return ["## The model less k-mers, on the same windows", "", *lines] if lines else []


def difference_text(one: Row, other: Row) -> str:
    """Differences of accuracy and log-loss, with intervals."""
    from hyenadna.train.bootstrap import paired_differences

    first, second = one.measured, other.measured
    gap = paired_differences(
        "classes", first.targets, first.probabilities, second.probabilities, clusters=first.blocks
    )
    return ", ".join(
        f"{word} {gap[name].value:+.4f} [{gap[name].low:+.4f}, {gap[name].high:+.4f}]"
        for word, name in (("accuracy", "accuracy"), ("log-loss", "log_loss"))
    )


def _warm_up(rungs: Sequence[Rung], chain: Mapping[int, Row], plain: Row | None) -> list[str]:
    """The last length with and without the shorter ones before."""
    warm = chain.get(rungs[-1].length)
    if warm is None or plain is None:
        return []
    other = control(rungs)
    lines = [
        f"## {rungs[-1].length:,} bases with and without length warm-up",
        "",
        "| | tokens | training | accuracy | wrong | log-loss |",
        "|---|---|---|---|---|---|",
    ]
    way = " → ".join(f"{rung.length:,}" for rung in rungs)
    seconds = sum(row.measured.seconds for row in chain.values())
    tokens = sum(rung.tokens for rung in rungs)
    for name, count, row in ((way, tokens, warm), ("full length alone", other.tokens, plain)):
        took = duration(seconds if row is warm else row.measured.seconds)
        cells = [name, bases(count), took, *_cells(row)]
        lines.append("| " + " | ".join(cells) + " |")
    told = difference_text(warm, plain)
    return [*lines, "", f"With warm-up less without, on the same windows: {told}."]


def _confusions(rows: Mapping[str, Mapping[int, Row]]) -> list[str]:
    lines = []
    for title, of in rows.items():
        for length, row in of.items():
            pairs = worst_pairs(row.measured)
            if pairs:
                lines.append(f"- {title}, {length:,} bases: {'; '.join(pairs)}")
    return ["## What is taken for what", "", *lines] if lines else []


def worst_pairs(measured: Measured, most: int = 3) -> list[str]:
    """The commonest confusions: `S. aureus as M. genitalium 31 of 200`."""
    said = measured.probabilities.argmax(1)
    n = len(measured.names)
    counts = np.bincount(measured.targets * n + said, minlength=n * n).reshape(n, n)
    of = counts.sum(1)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:most]
    pairs = [divmod(int(at), n) for at in order]
    return [
        f"{measured.names[true]} as {measured.names[other]} {counts[true, other]} of {of[true]}"
        for true, other in pairs
        if counts[true, other]
    ]


def _regions(rungs: Sequence[Rung], genomes: Path) -> list[str]:
    """How many bases the parts of each species have, and what that means for long windows."""
    longest = rungs[-1].length
    lines = ["## Regions", "", "| species | train | valid | test |", "|---|---|---|---|"]
    short = []
    for name, parts in region_bases(genomes, longest).items():
        lines.append(f"| {name} | " + " | ".join(bases(parts[p]) for p in species.PARTS) + " |")
        if parts["test"] < 2 * longest:
            short.append(name)
    lines += [
        "",
        f"Windows of all lengths are drawn from the same regions, those that hold {longest:,} "
        "bases. Long windows of a part overlap, so that intervals are of stretches of "
        f"{BLOCK:,} bases, drawn together.",
    ]
    if short:
        lines.append(
            f"The test part of {', '.join(short)} is less than two of the longest windows: it "
            "shows there how one place is taken, not a genome."
        )
    lines.append(
        "Left out: phages (lambda has 48,502 bases, phiX174 5,386), which hold no window of the "
        "longest; eukaryotes of evo2_exon_8species, of which there are 8,192 bases a place."
    )
    return lines


def region_bases(genomes: Path, longest: int) -> dict[str, dict[str, int]]:
    """Species -> part -> bases that are not N, of regions that hold a window."""
    from hyenadna.alphabet import N
    from hyenadna.data.genome_windows import ContigSource

    found = {}
    for name, readers in species.open_species(genomes).items():
        sources = [ContigSource(reader, contig) for reader in readers for contig in reader.contigs]
        counts = dict.fromkeys(species.PARTS, 0)
        for part, regions in species.split_regions(sources, longest).items():
            for at, region in regions:
                if region.length >= longest:
                    ids = sources[at].genome.tokens(region.contig, region.start, region.stop)
                    counts[part] += int((ids != N).sum())
        found[name] = counts
    return found


def _how(rungs: Sequence[Rung]) -> list[str]:
    import torch

    from hyenadna.train.ledger import machine_text

    lines = [
        "## How",
        "",
        "| bases | train windows | tokens | sequences a step | learning rate |",
        "|---|---|---|---|---|",
    ]
    for rung in [*rungs, control(rungs)]:
        name = "" if rung.name != "control" else " (no warm-up)"
        lines.append(
            f"| {rung.length:,}{name} | {rung.train:,} | {bases(rung.tokens)} | "
            f"{rung.batch_size} | {rung.lr:g} |"
        )
    used = rungs[0].config
    return [
        *lines,
        "",
        f"Each window is read once; {used.evaluations_per_epoch} times a pass the model is "
        "measured on valid, and the one with the lowest log-loss is tested. Intervals are 95 % "
        f"bootstrap intervals. {machine_text()}, 1 thread used, torch {torch.__version__}.",
    ]


if __name__ == "__main__":
    main()
