"""Throughput of each verb beside the plain loop over whole forward passes, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from benchmarks.embedding import with_embed, with_loop
from benchmarks.mutating import score as one_pass
from benchmarks.scoring import read
from benchmarks.tracking import plain_loop
from benchmarks.workbench.variants import FOLDER

from hyenadna.checkpoint.load import load
from hyenadna.genome.fasta import Genome
from hyenadna.genome.intervals import Interval
from hyenadna.infer.mutate import PIECE, Piece, Reach, mutate_piece
from hyenadna.infer.score import Scorer, plan_windows
from hyenadna.infer.track import track_interval
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.decoding import Decoder

LENGTHS: Final = (1024, 8192)
TURNS: Final = 2
AFTER: Final = 128
REAL: Final = 20_000_000
"""Position on the shared chromosome 22 behind which its sequence is known."""


@dataclass(frozen=True)
class Way:
    """One way to do a piece of work."""

    units: int
    """How much of it: sequences, variants, substitutions, bases."""
    run: Callable[[], np.ndarray]
    """Does it; values that both ways must share come back."""


@dataclass(frozen=True)
class Comparison:
    """A verb's way and the plain loop, at one length of context."""

    verb: str
    unit: str
    length: int
    fast: Way
    plain: Way
    compared: Callable[[np.ndarray], np.ndarray] = lambda values: values
    """Those values of the verb that the plain loop has too, where it does a part of the work."""

    def row(self) -> str:
        """The line of the table."""
        best = [float("inf")] * 2
        found: list[np.ndarray] = []
        for turn in range(TURNS + 1):
            for i, way in enumerate((self.fast, self.plain)):
                begun = time.process_time()
                values = way.run()
                taken = time.process_time() - begun
                if turn:  # the first warms up
                    best[i] = min(best[i], taken)
                else:
                    found.append(values)
        apart = float(np.nanmax(np.abs(self.compared(found[0]) - found[1])))
        rates = [w.units / b for w, b in zip((self.fast, self.plain), best, strict=True)]
        numbers = " | ".join(f"{rate:,.1f}" if rate < 1000 else f"{rate:,.0f}" for rate in rates)
        times = rates[0] / rates[1]
        return (
            f"| `{self.verb}` | {self.unit} | {self.length:,} | {numbers} | {times:.1f} | "
            f"{apart:.0e} |"
        )


def section(model: Path, data: Path) -> list[str]:
    """Lines of the page; in this process, on one thread."""
    torch.set_num_threads(1)
    network = load(str(model)).eval()
    genome = Genome.open(data / FOLDER / "chr22_1-22000000.fa.gz")
    variants = data / FOLDER / "1000g_ada2_gab4.vcf.gz"
    lines = [
        "## Speed",
        "",
        "Units a second of processor time on one thread, float32: each verb, and a loop that "
        "passes one whole sequence after the other through the plain modules (`score` and "
        "`mutate`: one for each allele, on a part of the work). In turns, the better of "
        f"{TURNS} counts. The last column is the largest difference of a value. `score` and "
        f"`mutate` count {AFTER} bases behind the allele.",
        "",
        "| verb | unit | bases read | verb | plain loop | times faster | differ by |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for length in LENGTHS:
        for make in (_embed, _track, _mutate):
            lines.append(make(network, genome, length).row())
            print(lines[-1], flush=True)
        lines.append(_score(network, genome, variants, length).row())
        print(lines[-1], flush=True)
    return [*lines, ""]


def _embed(model: HyenaDNA, genome: Genome, length: int) -> Comparison:
    count = 32_768 // length
    rows = [genome.tokens("22", REAL + i * length, REAL + (i + 1) * length) for i in range(count)]
    return Comparison(
        "embed", "sequences", length,
        Way(count, lambda: with_embed(model, rows)), Way(count, lambda: with_loop(model, rows)),
    )  # fmt: skip


def _track(model: HyenaDNA, genome: Genome, length: int) -> Comparison:
    at = Interval("22", REAL, REAL + 4 * length)

    def fast() -> np.ndarray:
        model.set_engine("auto")
        found = track_interval(model, genome, at, length=length, context=length // 2)
        return np.stack([found[s]["surprisal"] for s in ("forward", "reverse")])

    def plain() -> np.ndarray:
        found = plain_loop(model, genome, at, length, length // 2)
        return np.stack([found[s] for s in ("forward", "reverse")])

    return Comparison("track", "bases", length, Way(at.length, fast), Way(at.length, plain))


def _mutate(model: HyenaDNA, genome: Genome, length: int) -> Comparison:
    """The substitutions of two pieces in the middle; the loop does the first base of each."""
    ids = genome.tokens("22", REAL, REAL + length)
    starts = [length // 2 // PIECE * PIECE, (length // 2 // PIECE - 1) * PIECE]
    reach = Reach(after=AFTER, context=length, piece=PIECE)
    decoder = Decoder(model)

    def fast() -> np.ndarray:
        model.set_engine("auto")
        found = []
        for start in starts:
            piece = Piece(start, start + PIECE, start, start + PIECE)
            scores = mutate_piece(decoder, lambda a, b: ids[a:b], length, piece, reach, "forward")
            found.append(scores.score)
        return np.stack(found)

    @torch.no_grad()
    def plain() -> np.ndarray:
        model.set_engine("plain")
        return np.stack([one_pass(model, ids, start, AFTER, length) for start in starts])

    return Comparison(
        "mutate", "substitutions", length,
        Way(len(starts) * PIECE * 3, fast), Way(len(starts) * 3, plain),
        lambda values: values[:, 0],
    )  # fmt: skip


def _score(model: HyenaDNA, genome: Genome, path: Path, length: int) -> Comparison:
    alleles = read(str(path), genome)[:200]
    windows = plan_windows(model.config, length=length, after=min(AFTER, length // 4))
    few = alleles[::50]

    def scored(method: Literal["shared", "whole"], chosen: Sequence) -> np.ndarray:
        model.set_engine("auto" if method == "shared" else "plain")
        return np.array(
            [s.llr for s in Scorer(model, genome, windows=windows, method=method).scores(chosen)]
        )

    return Comparison(
        "score", "variants", length,
        Way(len(alleles), lambda: scored("shared", alleles)),
        Way(len(few), lambda: scored("whole", few)),
        lambda values: values[::50],
    )  # fmt: skip
