"""A model that one process need not hold: memory and time from the first weights to one folder.

    python -m benchmarks.large_model [SHAPE:RANKS:STATE ...]

SHAPE is a preset, or WIDTHxLAYERS. STATE is `training` (a training step, so that moments are there
and are saved) or `weights` (no step). Each cell is measured in fresh processes of this machine, one
thread each, as `pretrain --fsdp` and `convert` do it: the model is made in parts, saved in pieces,
and read again by as many ranks; then one process writes it as a Hugging Face folder, and one loads
that. Peaks are of one process, beside what it held before the model. Measurements are kept in
benchmarks/results; writes docs/benchmarks/large_model.md of the newest. Cells left out: a model of
404 MB on 1 rank (which is not in parts), 2 and 4, and xlarge-1m (5.3 GB) on 2.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from benchmarks.measurements import append_row, newest_rows
from benchmarks.processes import ROOT, resident_bytes
from benchmarks.ranks import joined, on_ranks

from hyenadna.config import PRESETS, ModelConfig

PAGE: Final = ROOT / "docs" / "benchmarks" / "large_model.md"
RESULTS: Final = ROOT / "benchmarks" / "results" / "large_model.jsonl"
CELLS: Final = (
    "1024x8:1:training", "1024x8:2:training", "1024x8:4:training", "xlarge-1m:2:weights",
)  # fmt: skip
LENGTH: Final = 64
"""Bases of the training step: the model is what takes memory here."""
STAGES: Final = {
    "start": "first weights",
    "step": "training step",
    "save": "save in pieces",
    "read": "read the pieces",
    "convert": "convert to one folder",
    "load": "load that folder",
}


def main() -> None:
    """Measure all cells, print and write the page."""
    for cell in sys.argv[1:] or CELLS:
        row = measured(cell)
        print(json.dumps(row), flush=True)
        append_row(row, RESULTS)
    write_page()
    print(PAGE.read_text())


def write_page() -> None:
    """The page of the newest measurements."""
    rows = newest_rows(RESULTS, lambda row: row["cell"]).values()
    PAGE.write_text(page(sorted(rows, key=lambda row: (row["parameters"], row["ranks"]))))


def shape(name: str) -> ModelConfig:
    """The configuration that the first part of a cell names."""
    if name in PRESETS:
        return PRESETS[name].replace(embed_dropout=0)
    width, layers = map(int, name.split("x"))
    return ModelConfig(d_model=width, n_layer=layers, max_seq_len=1026, embed_dropout=0)


def measured(cell: str) -> dict[str, Any]:
    """Figures of one cell: of each stage, of the slowest and of the largest rank."""
    name, ranks, state = cell.split(":")
    config, count = shape(name), int(ranks)
    with tempfile.TemporaryDirectory() as folder:
        jobs: list[tuple[int, Callable[..., Figures]]] = [
            (count, partial(write, training=state == "training")),
            (count, read),
            (1, convert),
            (1, load),
        ]
        stages: Figures = {}
        for number, job in jobs:
            each = on_ranks(number, work, job, config, Path(folder))
            for stage in each[0]:
                stages[stage] = {
                    key: max(figures[stage][key] for figures in each) for key in each[0][stage]
                }
    parameters = config.num_parameters()
    return {
        "cell": cell,
        "ranks": count,
        "parameters": parameters,
        "state": 4 * parameters * (3 if state == "training" else 1),
        "stages": stages,
    }


Figures = dict[str, dict[str, float]]


def work(
    rank: int,
    ranks: int,
    meeting: Path,
    job: Callable[..., Figures],
    config: ModelConfig,
    folder: Path,
) -> Figures:
    """One rank of a job, as the command line sets its process."""
    from hyenadna.cli.process import return_freed_memory

    return_freed_memory()
    with joined(rank, ranks, meeting):
        return job(rank, ranks, config, folder)


def write(rank: int, ranks: int, config: ModelConfig, folder: Path, *, training: bool) -> Figures:
    """Make the model, do a step where wanted, save; one rank alone holds it whole."""
    from hyenadna.model.backbone import HyenaDNA, rescale_filters
    from hyenadna.model.parallel.ranks import Ranks
    from hyenadna.model.parallel.sharded import draw_weights, empty_model
    from hyenadna.train.loop import Trainer
    from hyenadna.train.parallel import Sharded
    from hyenadna.train.run_folder import RunFolder
    from hyenadna.training_config import PretrainConfig

    figures: Figures = {}
    options = PretrainConfig(steps=10, tokens_per_step=ranks * LENGTH, stages="none")
    torch.manual_seed(0)
    with stage("start", figures):
        sharded = None
        if ranks == 1:
            model = HyenaDNA(config)
            rescale_filters(model)
        else:
            model = empty_model(config)
            sharded = Sharded(torch.device("cpu"), partial(draw_weights, rescaled=True))
        trainer = Trainer(
            model, _Bases(), options, final_length=LENGTH, ranks=Ranks(rank, ranks), sharded=sharded
        )
    if training:
        with stage("step", figures):
            trainer.step()
    run = RunFolder(folder / "run", {}, writes=rank == 0)
    run.path.mkdir(exist_ok=True)
    with stage("save", figures):
        if training:
            run.save_last(trainer)
        else:
            run.save_best(trainer)
    return figures


def read(rank: int, ranks: int, config: ModelConfig, folder: Path) -> Figures:
    """Read what was saved, each rank its own part."""
    from hyenadna.checkpoint import load
    from hyenadna.checkpoint.load import fill
    from hyenadna.checkpoint.reading import open_checkpoint
    from hyenadna.model.parallel.sharded import empty_model, shard

    figures: Figures = {}
    with stage("read", figures):
        if ranks == 1:
            model = load(folder / "run")
        else:
            with open_checkpoint(folder / "run") as reading:
                model = empty_model(reading.config)
                shard(model, torch.device("cpu"))
                fill(model, reading)
    return figures


def convert(rank: int, ranks: int, config: ModelConfig, folder: Path) -> Figures:
    """One process writes the folder of published layout."""
    from hyenadna.checkpoint import convert as run

    figures: Figures = {}
    with stage("convert", figures):
        run(folder / "run", folder / "hf", tables=False, shard_bytes=10**9)
    return figures


def load(rank: int, ranks: int, config: ModelConfig, folder: Path) -> Figures:
    """One process loads that folder."""
    from hyenadna.checkpoint import load as run

    figures: Figures = {}
    with stage("load", figures):
        run(folder / "hf")
    return figures


class _Bases:
    """The same bases again and again."""

    def batch(
        self, batch_size: int, length: int, *, rank: int = 0, ranks: int = 1
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.full((batch_size, length), 7)[rank::ranks]
        return rows, rows

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Any) -> None:
        pass


@contextmanager
def stage(name: str, figures: Figures) -> Iterator[None]:
    """Seconds and peak memory of what is done inside, beside what the process held at its start."""
    # what loads on first use belongs to the process and not to the model
    import torch.distributed.checkpoint
    import torch.distributed.fsdp  # noqa: F401

    _base.setdefault("bytes", resident_bytes("VmRSS"))
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    dist.barrier()
    begun = time.perf_counter()
    yield
    dist.barrier()
    figures[name] = {
        "seconds": time.perf_counter() - begun,
        "peak": resident_bytes("VmHWM") - _base["bytes"],
    }


_base: dict[str, int] = {}


def page(rows: list[dict[str, Any]]) -> str:
    """The page's text."""
    lines = [
        "# A model that one process need not hold",
        "",
        "Generated by `python -m benchmarks.large_model`; float32, one thread each, gloo, on "
        f"{os.cpu_count()} cores ({platform.platform(terse=True)}) that others use too, torch "
        f"{torch.__version__}. Peak: bytes of the largest rank beside what the process held before "
        "the model. State: weights, and the two moments where a training step was done. One rank "
        "holds the model whole, and writes whole files.",
    ]
    for row in rows:
        name = row["cell"].split(":")[0]
        ranks = "1 rank" if row["ranks"] == 1 else f"{row['ranks']} ranks"
        lines += [
            "",
            f"**{name}**, {row['parameters']:,} parameters, state {row['state'] / 2**30:.2f} GiB, "
            f"{ranks}",
            "",
            "| stage | processes | seconds | peak of one (GiB) | of the state |",
            "|:--|--:|--:|--:|--:|",
        ]
        for key, words in STAGES.items():
            if (figures := row["stages"].get(key)) is None:
                continue
            processes = 1 if key in ("convert", "load") else row["ranks"]
            lines.append(
                f"| {words} | {processes} | {figures['seconds']:.1f} "
                f"| {figures['peak'] / 2**30:.2f} | {figures['peak'] / row['state']:.0%} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
