"""Tracks of a genome: bases a second, beside a plain loop over full forward passes.

    python benchmarks/tracking.py RUN genome.fa [CONTIG:FIRST-LAST]

Both read the same windows of the same bases on both strands, in turns, so that other work on the
machine meets both, and their values are compared. The loop is what a user would write: the plain
modules, one window after the other, `model(tokens)`, log-softmax, the base that stands there.
Writes docs/benchmarks/tracking.md. About three minutes on two cores.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from hyenadna.checkpoint.load import load
from hyenadna.genome.fasta import Genome
from hyenadna.genome.intervals import Interval
from hyenadna.infer.track import track_interval
from hyenadna.infer.track_windows import TrackPlan
from hyenadna.model.backbone import HyenaDNA

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks" / "tracking.md"
ROUNDS = 3
BASES = {1024: 40_000, 8192: 80_000}
BIGWIG = (5_000_000, 20_000_000)


def main() -> None:
    """Measure and write the page."""
    model, genome = load(sys.argv[1]).eval(), Genome.open(sys.argv[2])
    first = sys.argv[3] if len(sys.argv) > 3 else f"{next(iter(genome.contigs))}:1-100000"
    start = Interval.parse(first)
    rows = []
    for length, count in BASES.items():
        at = Interval(start.contig, start.start, start.start + count)
        rows.append(_compare(model, genome, at, length))
    files = [_bigwig(kind, count) for count in BIGWIG for kind in ("ours", "pyBigWig")]
    _write(rows, files, at=first, model=sys.argv[1])


def _compare(model: HyenaDNA, genome: Genome, at: Interval, length: int) -> str:
    """One row of the table."""
    context = length // 2
    ways: dict[str, Callable[[], dict[str, np.ndarray]]] = {
        "track": lambda: {
            strand: found["surprisal"]
            for strand, found in track_interval(
                model, genome, at, length=length, context=context
            ).items()
        },
        "loop": lambda: plain_loop(model, genome, at, length, context),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    values = {}
    for round_ in range(ROUNDS + 1):
        for name, way in ways.items():
            begun = time.perf_counter()
            values[name] = way()
            if round_:  # the first warms up
                seconds[name].append(time.perf_counter() - begun)
    apart = max(
        float(np.nanmax(np.abs(values["track"][strand] - values["loop"][strand])))
        for strand in values["track"]
    )
    rates = {name: [at.length / each for each in taken] for name, taken in seconds.items()}
    middle = {name: statistics.median(each) for name, each in rates.items()}
    times = middle["track"] / middle["loop"]
    cells = [f"{length:,}", f"{at.length:,}"]
    cells += [
        f"{middle[name]:,.0f} ({min(rates[name]):,.0f}–{max(rates[name]):,.0f})" for name in ways
    ]
    return f"| {' | '.join([*cells, f'{times:.1f}', f'{apart:.0e}'])} |"


@torch.inference_mode()
def plain_loop(
    model: HyenaDNA, genome: Genome, at: Interval, length: int, context: int
) -> dict[str, np.ndarray]:
    """Surprisal of each base and strand, one window after the other through the plain modules."""
    plan = TrackPlan(genome.contigs, (at,), length, context)
    found = {strand: np.full(at.length, np.nan, dtype=np.float32) for strand in plan.strands}
    complement = torch.tensor([0, 1, 2, 3, 4, 5, 6, 10, 9, 8, 7, 11])
    model.set_engine("plain")
    try:
        for window in plan.windows():
            ids = genome.tokens(window.contig, window.start, window.stop).astype(np.int64)
            tokens = torch.from_numpy(ids)
            if window.strand == "reverse":
                tokens = complement[tokens.flip(0)]
            logs = model(tokens[None, :-1])[0].log_softmax(-1) / -np.log(2)
            bits = logs.gather(1, tokens[1:, None])[:, 0]
            bits = bits.where((tokens[1:] >= 7) & (tokens[1:] <= 10), np.nan).numpy()
            count = window.last - window.first
            if count > len(bits):
                bits = np.concatenate([[np.nan], bits])
            bits = bits[-count:]
            into = found[window.strand][window.first - at.start : window.last - at.start]
            into[:] = bits[::-1] if window.strand == "reverse" else bits
    finally:
        model.set_engine("auto")
    return {str(strand): values for strand, values in found.items()}


def _bigwig(kind: str, count: int) -> str:
    """One row of the table of files: seconds and memory of a bigWig, in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("tracking_files.py")), kind, str(count)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    seconds, memory, size = done.stdout.split()
    name = "`hyenadna.genome.bigwig`" if kind == "ours" else "pyBigWig"
    return f"| {count:,} | {name} | {float(seconds):.1f} | {memory} | {float(size):.1f} |"


def _write(rows: list[str], files: list[str], *, at: str, model: str) -> None:
    arguments = " ".join([Path(model).name, Path(sys.argv[2]).name, at])
    text = (
        "# Tracks of a genome\n\n"
        f"Generated by `python benchmarks/tracking.py {arguments}`; float32, "
        f"{torch.get_num_threads()} threads on {os.cpu_count()} cores that were not idle "
        f"otherwise, {platform.platform(terse=True)}, torch {torch.__version__}.\n\n"
        "## Values\n\n"
        "Surprisal on both strands; each base behind at least half a window, so each is read twice "
        f"a strand. Median of {ROUNDS} rounds in turns (least–most), and the largest difference of "
        "a value in bits.\n\n"
        "| window | bases | `hyenadna track`, bases a second | plain loop, bases a second | "
        "times as fast | apart |\n|---:|---:|---:|---:|---:|---:|\n" + "\n".join(rows) + "\n\n"
        "## Files\n\n"
        "A bigWig of one contig, with zoom levels. Memory: above that before the first value.\n\n"
        "| bases | written by | seconds | memory, MiB | MB |\n|---:|---|---:|---:|---:|\n"
        + "\n".join(files)
        + "\n"
    )
    beside = PAGE.with_name(f".{PAGE.name}.part")
    beside.write_text(text)
    beside.replace(PAGE)
    print(text)


if __name__ == "__main__":
    main()
