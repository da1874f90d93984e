"""Pictures of the page: one more base against context, and the whole cost of many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import matplotlib

matplotlib.use("Agg")
from benchmarks.generation.growth import Whole
from benchmarks.generation.jobs import NAMES
from benchmarks.generation.summary import Cost, Points, points
from benchmarks.generation.tables import size
from benchmarks.long_context.plots import frame, save, tokens
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

# Colour, marker and line: Okabe and Ito's colours, and told apart without colour too.
STYLES: Final[Mapping[str, tuple[str, str, str]]] = {
    "ours": ("#0072B2", "o", "-"),
    "rows": ("#0072B2", "v", "--"),
    "recompute": ("#D55E00", "^", "-"),
    "direct": ("#009E73", "s", "-"),
}


def one_base(found: Sequence[Cost], path: Path) -> bool:
    """Time of one more base and memory against context, a column a model.

    False, and no picture, without two contexts.
    """
    shapes = list(dict.fromkeys(c.job.shape for c in found))
    if len({c.job.context for c in found}) < 2:
        return False
    batch = max(c.job.batch for c in found)
    figure, panels = plt.subplots(
        2, len(shapes), figsize=(5.25 * len(shapes), 7.6), layout="constrained", sharey="row",
        squeeze=False,
    )  # fmt: skip
    for shape, (time, memory) in zip(shapes, panels.T, strict=True):
        first = shape == shapes[0]
        frame(time, f"{shape}: one more base", "", "time" * first)
        frame(memory, f"{shape}: peak memory", "context, bases", "beyond the imports" * first)
        for way, label in NAMES.items():
            _line(time, way, points(found, way, shape), label)
            own = [c for c in found if (c.job.task, c.job.shape, c.job.batch) == (way, shape, 1)]
            _line(memory, way, sorted((c.job.context, float(c.memory)) for c in own), label)
        if batch > 1:
            _line(time, "rows", points(found, "ours", shape, batch), f"ours, base of {batch} rows")
        _logarithmic(time, _seconds)
        _logarithmic(memory, lambda value, _: size(value))
        memory.yaxis.set_major_locator(LogLocator(base=2))
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    save(figure, path)
    return True


def whole(cost: Whole, path: Path) -> bool:
    """Seconds until so many new bases are there; False without two marks."""
    if len(cost.marks) < 2:
        return False
    figure, axes = plt.subplots(figsize=(6.6, 4.6), layout="constrained")
    job = cost.record.job
    frame(axes, f"{job.shape}, after {job.context:,} bases", "new bases", "time in all")
    _line(axes, "ours", list(zip(cost.marks, cost.ours, strict=True)), "ours, measured")
    for way, seconds in cost.others.items():
        label = f"{NAMES[way]}, extrapolated"
        _line(axes, way, list(zip(cost.marks, seconds, strict=True)), label, dashed=True)
    _logarithmic(axes, _seconds)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    save(figure, path)
    return True


def _line(axes: Axes, name: str, at: Points, label: str, *, dashed: bool = False) -> None:
    if at:
        color, marker, line = STYLES[name]
        axes.plot(
            *zip(*at, strict=True), color=color, marker=marker, linestyle=":" if dashed else line,
            markersize=5, linewidth=1.6, label=label,
        )  # fmt: skip


def _logarithmic(axes: Axes, words: Callable[[float, object], str]) -> None:
    """Both axes; `words` for the ticks of y."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(tokens))
    axes.yaxis.set_major_formatter(FuncFormatter(words))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())


def _seconds(value: float, _: object) -> str:
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= scale:
            return f"{value / scale:,.0f} {unit}"
    return ""
