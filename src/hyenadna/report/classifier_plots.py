"""Pictures of classifiers: confusion, ROC, precision-recall, calibration, learning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hyenadna.report.plots import BLUE, GREY, INK, ORANGE, in_legend, new_axes
from hyenadna.train.curves import Curve, Reliability

# Told apart by eyes of all kinds (Okabe and Ito 2008, without black and yellow), ours first.
COLOURS: Final = (BLUE, ORANGE, "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a8f98", "#7a5195")
_NAMED: Final = len(COLOURS)  # more curves than this are all grey, without a legend
_CELLS: Final = 12  # more classes than this have no numbers in the cells
_NAMED_CLASSES: Final = 30  # more than this have no names at the axes
_SMALL: Final = (4.8, 3.9)


def small_axes(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    """Axes of a size that stays legible on a phone."""
    figure, axes = new_axes(title, x, y)
    figure.set_size_inches(*_SMALL)
    return figure, axes


def confusion_plot(counts: npt.NDArray[np.int64], names: Sequence[str]) -> Figure:
    """Share of each true class (rows) that was taken for each class (columns), with counts."""
    figure, axes = small_axes("Confusion", "predicted", "true")
    classes = len(names)
    axes.grid(False)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    # Blue that lets the page through: right on white and on dark paper.
    blue = np.broadcast_to(np.array(to_rgba(BLUE)), (*share.shape, 4)).copy()
    blue[..., 3] = 0.9 * share
    axes.imshow(blue, interpolation="nearest", aspect="auto")
    if classes <= _CELLS:
        size = 10 if classes <= 4 else 7
        for row, column in np.ndindex(classes, classes):
            text = f"{counts[row, column]:,}"
            text += f"\n{share[row, column]:.0%}" if classes <= 6 else ""
            axes.text(column, row, text, ha="center", va="center", fontsize=size, color=INK)
    if classes <= _NAMED_CLASSES:
        short = [_shorten(name) for name in names]
        slanted = classes > 3 or max(map(len, short)) > 10
        axes.set_xticks(range(classes), short, rotation=45 if slanted else 0,
                        ha="right" if slanted else "center")  # fmt: skip
        axes.set_yticks(range(classes), short)
    axes.tick_params(length=0, labelsize=8)
    return figure


def _shorten(name: str, longest: int = 18) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def roc_plot(curves: Sequence[Curve]) -> Figure:
    """True against false positive rate of each class or label, with the areas under them."""
    figure, axes = small_axes("ROC", "false positive rate", "true positive rate")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    _curves(axes, curves, "AUROC", "default")
    return figure


def precision_recall_plot(curves: Sequence[Curve]) -> Figure:
    """Precision against recall of each class or label, with average precisions.

    The dotted line is the precision of a guess, where there is one curve.
    """
    figure, axes = small_axes("Precision and recall", "recall", "precision")
    drawn = [curve for curve in curves if len(curve.x)]
    if len(drawn) == 1:
        axes.axhline(drawn[0].positive, color=GREY, linewidth=0.8, linestyle=":")
    _curves(axes, curves, "AUPRC", "steps-pre")
    return figure


def _curves(axes: Axes, curves: Sequence[Curve], metric: str, style: Any) -> None:
    drawn = [curve for curve in curves if len(curve.x)]
    named = len(drawn) <= _NAMED
    for index, curve in enumerate(drawn):
        axes.plot(
            curve.x,
            curve.y,
            drawstyle=style,
            color=COLOURS[index] if named else GREY,
            linewidth=1.5 if named else 0.6,
            alpha=1 if named else 0.5,
            label=in_legend(f"{_shorten(curve.name)}: {metric} {curve.area:.3f}"),
        )
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.03)
    if not drawn:
        axes.text(0.5, 0.5, "one answer only: undefined", ha="center", color=GREY)
    elif named:
        axes.legend(frameon=False, fontsize=8, loc="best")
    else:
        areas = [curve.area for curve in drawn]
        axes.set_title(
            f"{axes.get_title(loc='left')}: {len(drawn)} curves, median {metric} "
            f"{np.median(areas):.3f}", loc="left", fontsize=11, color=INK,
        )  # fmt: skip


def reliability_plot(points: Reliability, *, promise: str) -> Figure:
    """What came true against what was promised, over 15 bins, and how many rows each bin holds.

    promise: what the probabilities are of, for the axis.
    """
    figure, axes = small_axes(
        f"Calibration (expected error {points.error:.3f})", promise, "share that came true"
    )
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    rows = axes.twinx()
    rows.bar(points.promised, points.count, width=0.03, color=GREY, alpha=0.35, linewidth=0)
    rows.set_ylim(0, 4 * points.count.max())  # bars stay in the lowest quarter
    rows.set_yticks([])
    rows.spines[:].set_visible(False)
    axes.set_zorder(rows.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.plot(points.promised, points.observed, "o-", color=BLUE, markersize=4, linewidth=1.4)
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.03)
    return figure


def learning_plot(
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
    series: Mapping[str, str],
    *,
    title: str,
    y: str,
) -> Figure:
    """Series of training logs against steps: a colour for each run, a line style for each series.

    histories: run (such as "seed 0") -> evaluations with "step", some of the series, and "best":
    the last one that is has a ring on the last series. series: key -> name shown, at most 3. What
    is missing or not finite is passed over.
    """
    figure, axes = small_axes(title, "step", y)
    for index, (run, entries) in enumerate(histories.items()):
        colour = COLOURS[index % len(COLOURS)]
        for (key, name), style in zip(series.items(), ("-", "--", ":"), strict=False):
            points = {e["step"]: e[key] for e in entries if _there(e.get(key))}
            label = ", ".join(part for part in (run if len(histories) > 1 else "", name) if part)
            if points:
                axes.plot(
                    list(points), list(points.values()), linestyle=style, color=colour,
                    marker="o" if len(points) < 30 else None, markersize=3, linewidth=1.4,
                    label=in_legend(label),
                )  # fmt: skip
        kept = [e for e in entries if e.get("best") and _there(e.get(list(series)[-1]))][-1:]
        rings = [e["step"] for e in kept], [e[list(series)[-1]] for e in kept]
        axes.plot(*rings, "o", markersize=10, color=colour, fillstyle="none")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)
    return figure


def _there(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def spread_plot(values: Mapping[str, Sequence[float]], *, metric: str, what: str) -> Figure:
    """How a metric is spread over many labels or targets: groups stacked, a line at each median.

    values: group ("" for all together) -> values, NaN passed over. what: what is counted.
    """
    known = {
        group: [value for value in each if not math.isnan(value)] for group, each in values.items()
    }
    figure, axes = small_axes(f"{metric} of each of the {what}", metric, what)
    everything = [value for each in known.values() for value in each]
    low, high = (min(everything), max(everything)) if everything else (0.0, 1.0)
    edges = np.linspace(low, high if high > low else low + 1e-3, 31)
    below = np.zeros(30)
    for index, (group, each) in enumerate((g, e) for g, e in known.items() if e):
        colour, middle = COLOURS[index % len(COLOURS)], float(np.median(each))
        label = f"{group + ': ' if group else ''}median {middle:.3f}"
        height = np.histogram(each, edges)[0]
        axes.bar(
            edges[:-1], height, np.diff(edges), below, align="edge", color=colour, alpha=0.6,
            label=in_legend(label),
        )  # fmt: skip
        axes.axvline(middle, color=colour, linewidth=1.2)
        below = below + height
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if everything:
        axes.set_ylim(0, 1.3 * below.max())  # the legend stands above the bars
        axes.legend(frameon=False, fontsize=8)
    return figure
