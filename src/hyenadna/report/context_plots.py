"""Pictures of learning in context: a score against how much context was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from hyenadna.report.plots import BLUE, GREY, INK, ORANGE, in_legend, new_axes

_COLOURS = (BLUE, ORANGE, "#2f9e63", "#8e5bd0", "#c2405f", "#5a6b7d")
_DASHES = ("--", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (7, 2)))


@dataclass(frozen=True)
class ContextPoint:
    """One measured point of a curve."""

    amount: int
    """Of soft tokens, demonstrations or samples; 0 is drawn at the left edge."""
    value: float
    low: float
    """Lower end of the interval; the value itself where there is none."""
    high: float


def context_plot(
    title: str,
    x: str,
    y: str,
    curves: Mapping[str, Sequence[ContextPoint]],
    levels: Mapping[str, float],
    *,
    chance: float | None = None,
) -> Figure:
    """Curves over an axis that is linear from 0 to 1 and logarithmic (base 2) above.

    levels: name -> a score without an amount, such as that of full fine-tuning: a dashed line each.
    chance: what guessing gives, a dotted line.
    """
    figure, axes = new_axes(title, x, y)
    axes.set_xscale("symlog", base=2, linthresh=1)
    amounts = sorted({point.amount for points in curves.values() for point in points})
    axes.set_xticks(amounts, [f"{amount:,}" for amount in amounts])
    axes.minorticks_off()
    for number, (name, points) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        ordered = sorted(points, key=lambda point: point.amount)
        where = [point.amount for point in ordered]
        axes.plot(
            where, [p.value for p in ordered], "o-", color=colour, markersize=4,
            label=in_legend(name),
        )  # fmt: skip
        axes.fill_between(
            where, [p.low for p in ordered], [p.high for p in ordered], color=colour, alpha=0.15,
            linewidth=0,
        )  # fmt: skip
    for number, (name, value) in enumerate(levels.items()):
        axes.axhline(
            value, color=INK, linewidth=1, alpha=0.75, linestyle=_DASHES[number % len(_DASHES)],
            label=in_legend(f"{name}: {value:.3f}"),
        )  # fmt: skip
    if chance is not None:
        axes.axhline(chance, color=GREY, linewidth=1, linestyle=":", label=f"chance: {chance:.3f}")
    # below the plot: inside it the lines of the levels would run through the names
    figure.set_figheight(4.8)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure
