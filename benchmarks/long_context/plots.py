"""Pictures of the page: time and memory against length, ratios as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import matplotlib

matplotlib.use("Agg")
from benchmarks.long_context.jobs import NAMES
from benchmarks.long_context.summary import Row
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

INK, RULE = "#222222", "#e6e8eb"
# Colour and marker of each competitor: Okabe and Ito's colours, and told apart without colour too.
STYLES: Final[Mapping[str, tuple[str, str, str]]] = {
    "original": ("#000000", "s", "-"),
    "multimolecule": ("#CC79A7", "X", "--"),
    "attention": ("#D55E00", "^", "-"),
    "plain": ("#8a8f98", "D", ":"),
    "torch": ("#009E73", "o", "-"),
    "torch+bf16": ("#009E73", "v", "--"),
    "native": ("#0072B2", "o", "-"),
    "native+bf16": ("#0072B2", "v", "--"),
}


def growth(rows: Sequence[Row], path: Path, *, title: str) -> None:
    """Time and peak memory against length, both axes logarithmic; nothing without two lengths."""
    if len({row.job.length for row in rows}) < 2:
        return
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.4), layout="constrained")
    frame(left, f"{title}: time", "length, tokens", "seconds")
    frame(right, f"{title}: peak memory", "length, tokens", "GiB")
    for name in STYLES:
        _line(left, name, [(r.job.length, r.time(name)) for r in rows])
        gib = [(r.job.length, r.peak[name] / 2**30) for r in rows if name in r.peak]
        _line(right, name, gib)
    logarithmic(left, right)
    right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    save(figure, path)


def ratios(rows: Sequence[tuple[str, Row]], path: Path) -> None:
    """Bars of how many times faster than the original, by case; nothing without a ratio."""
    groups = [
        (label, [(n, r) for n in STYLES if n != "original" and (r := row.ratio(n)) is not None])
        for label, row in rows
    ]
    if not any(bars for _, bars in groups):
        return
    height = sum(len(bars) + 1 for _, bars in groups)
    figure, axes = plt.subplots(figsize=(8.4, 1.2 + 0.21 * height), layout="constrained")
    frame(axes, "Times as fast as the original's algorithm", "", "", grid="x")
    y, middles = 0.0, []
    for _, bars in groups:
        middles.append(y + (len(bars) - 1) / 2)
        for name, value in bars:
            axes.barh(y, value, 0.84, color=_bar_color(name), label=NAMES[name])
            axes.annotate(
                f"{value:.1f}", (value, y), xytext=(3, -0.5), va="center", fontsize=8, color=INK,
                textcoords="offset points",
            )  # fmt: skip
            y += 1
        y += 1
    axes.axvline(1, color=INK, linewidth=0.8)
    axes.set_yticks(middles, [label for label, _ in groups], fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(y - 1, -1)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    shown = [NAMES[name] for name in STYLES if NAMES[name] in handles]
    figure.legend(
        [handles[name] for name in shown], shown, loc="outside lower center", ncols=3,
        frameon=False, fontsize=9,
    )  # fmt: skip
    save(figure, path)


def _bar_color(name: str) -> tuple[float, ...]:
    """The colour of the competitor, lighter where its line is broken."""
    color, _, line = STYLES[name]
    share = 1.0 if line == "-" else 0.5
    return tuple(1 - share * (1 - part) for part in to_rgb(color))


def frame(axes: Axes, title: str, x: str, y: str, grid: str = "both") -> None:
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color=RULE, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def _line(axes: Axes, name: str, points: Sequence[tuple[int, float | None]]) -> None:
    found = [(x, y) for x, y in points if y is not None]
    if not found:
        return
    color, marker, line = STYLES[name]
    ours = name.startswith(("native", "torch"))
    axes.plot(
        *zip(*found, strict=True), color=color, marker=marker, linestyle=line, markersize=5,
        linewidth=1.8 if ours else 1.4, label=NAMES[name], zorder=3 if ours else 2,
    )  # fmt: skip


def logarithmic(*frames: Axes) -> None:
    """Length in tokens against anything, both logarithmic."""
    for axes in frames:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(tokens))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())


def tokens(value: float, _: object) -> str:
    """A number of tokens as an axis shows it: 32k."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def save(figure: Figure, path: Path) -> None:
    """Write beside and rename, so that a picture is whole or absent."""
    beside = path.with_name(f".{path.name}.part{path.suffix}")
    try:
        figure.savefig(beside, dpi=150)
        beside.replace(path)
    finally:
        plt.close(figure)
        beside.unlink(missing_ok=True)
