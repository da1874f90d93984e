"""Pictures of the page; each is written only where there is something to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.gpu.jobs import engine_of
from benchmarks.gpu.summary import OURS, TWINS, Measured, name_of
from benchmarks.long_context.plots import INK, frame, logarithmic, save
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

# Okabe and Ito's colours, and told apart without colour too.
STYLES: Final[Mapping[str, tuple[str, str, str]]] = {
    "triton": ("#0072B2", "o", "-"),
    "torch": ("#009E73", "v", "-"),
    "plain": ("#8a8f98", "D", ":"),
    "original": ("#000000", "s", "-"),
    "attention2": ("#D55E00", "^", "-"),
    "attention8": ("#E69F00", "^", "--"),
}
COLORS: Final[Mapping[str, str]] = {"bf16": "#0072B2", "fp16": "#D55E00", "float32": "#000000"}
LINES: Final = ("-", "--", ":", "-.", (0, (6, 2)), (0, (1, 3)))


def steps(table: Sequence[Measured], path: Path) -> bool:
    """Time of a step against length, and how many times as fast the fastest of ours is."""
    names = {name for each in table for name in each.rows if each.seconds(name) is not None}
    if len(table) < 2 or not names:
        return False
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.6), layout="constrained")
    frame(left, "A training step", "length, tokens", "seconds")
    frame(right, "The fastest of ours: times as fast as", "length, tokens", "")
    for name in sorted(names, key=lambda name: list(STYLES).index(engine_of(name))):
        _line(left, name, [(m.job.length, m.seconds(name)) for m in table])
        if engine_of(name) in ("original", *TWINS):
            _line(right, name, [(m.job.length, ratio(m, name)) for m in table])
    right.axhline(1, color=INK, linewidth=0.8)
    logarithmic(left, right)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    save(figure, path)
    return True


def ratio(each: Measured, name: str) -> float | None:
    """Seconds of a contestant over those of the fastest of ours."""
    best, seconds = each.best(OURS), each.seconds(name)
    return seconds / best[1] if best and seconds is not None else None


def curves(runs: Sequence[tuple[str, str, Sequence[Sequence[float]]]], path: Path) -> bool:
    """Loss against steps; runs: label, precision, points."""
    runs = [run for run in runs if run[2]]
    if not runs:
        return False
    figure, axes = plt.subplots(figsize=(8.4, 4.2), layout="constrained")
    frame(axes, "Training on the generated genome", "step", "bits per base")
    for number, (label, precision, points) in enumerate(runs):
        line = LINES[number % len(LINES)]
        axes.plot(*zip(*points, strict=True), color=COLORS[precision], linestyle=line,
                  linewidth=1.3, label=label)  # fmt: skip
    axes.legend(frameon=False, fontsize=9)
    save(figure, path)
    return True


def _line(axes: Axes, name: str, points: Sequence[tuple[int, float | None]]) -> None:
    found = [(x, y) for x, y in points if y is not None]
    if found:
        color, marker, line = STYLES[engine_of(name)]
        axes.plot(*zip(*found, strict=True), color=color, marker=marker, linestyle=line,
                  markersize=5, linewidth=1.5, label=name_of(name))  # fmt: skip
