"""Pictures of substitutions: heat maps and sequence logos, in rows of a page's width."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import numpy as np
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2D

from hyenadna.report.mutate_map import LETTERS, Floats, MutationMap
from hyenadna.report.plots import GREY, INK

ROW: Final = 120
"""Positions of a row."""
_WIDTH: Final = 11.0
_UNKNOWN: Final = "#d9dbdf"
_COLOURS: Final = {"A": "#1f9e4b", "C": "#2a6fdb", "G": "#e0a01f", "T": "#d3382f"}


def score_unit(settings: Mapping[str, Any]) -> str:
    """The unit of the scores of a run with these settings."""
    return f"units of {settings['output']}" if settings.get("task") == "values" else "nats"


def heat_map(found: MutationMap, unit: str = "nats") -> Figure:
    """Rows of A C G T, blue for less likely than the reference, red for more; dots mark the latter.

    Colours reach as far as 99 % of the scores, and are the same in all rows.
    """
    figure, rows = _rows(found, f"scores, {unit}", height=0.95)
    limit = float(np.nanpercentile(np.abs(found.score), 99)) if found.known.any() else 1.0
    # not the background of the axes, which also lies behind the end of a short row
    colours = colormaps["RdBu_r"].with_extremes(bad=_UNKNOWN)
    image = None
    for axes, start in rows:
        part = found.score[start : start + ROW]
        first = found.first + start + 1
        image = axes.imshow(
            part.T, aspect="auto", cmap=colours, vmin=-(limit or 1), vmax=limit or 1,
            interpolation="nearest",
            extent=(first - 0.5, first + len(part) - 0.5, 3.5, -0.5),
        )  # fmt: skip
        letters = found.letters[start : start + ROW]
        marks = [(first + at, LETTERS.index(x)) for at, x in enumerate(letters) if x in LETTERS]
        if marks:
            axes.plot(*zip(*marks, strict=True), ".", color=INK, markersize=2.5)
        axes.set_yticks(range(4), LETTERS, fontsize=7)
        axes.tick_params(axis="y", length=0)
    assert image is not None
    bar = figure.colorbar(image, ax=[axes for axes, _ in rows], fraction=0.02, pad=0.01)
    bar.ax.tick_params(labelsize=7)
    return figure


def importance_logo(found: MutationMap, unit: str = "nats") -> Figure:
    """The reference, each letter as high as minus the mean score of its substitutions."""
    figure, rows = _rows(found, f"importance, {unit}", height=1.1)
    heights = found.importance
    low, high = _span(heights)
    for axes, start in rows:
        part = heights[start : start + ROW]
        letters = found.letters[start : start + ROW]
        drawn = [
            (letter, found.first + start + 1 + at, min(0.0, height), max(0.0, height))
            for at, (letter, height) in enumerate(zip(letters, part.tolist(), strict=True))
            if letter in LETTERS and height == height
        ]
        _draw_letters(axes, drawn)
        axes.set_ylim(low, high)
        axes.axhline(0, color=GREY, linewidth=0.5)
    return figure


def predicted_logo(found: MutationMap) -> Figure:
    """The model's own bases: p(base | before), each column as high as 2 bits less its entropy."""
    figure, rows = _rows(found, "what the model expects, bits", height=1.1)
    share = found.probabilities
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.nansum(share * np.log2(share), axis=1)
    heights = share * (2 - entropy)[:, None]
    high = _span(heights.sum(1))[1]
    for axes, start in rows:
        drawn = []
        for at, column in enumerate(heights[start : start + ROW]):
            if np.isnan(column).any():
                continue
            bottom = 0.0
            for base in np.argsort(column).tolist():
                top = bottom + float(column[base])
                drawn.append((LETTERS[base], found.first + start + 1 + at, bottom, top))
                bottom = top
        _draw_letters(axes, drawn)
        axes.set_ylim(0, high)
    return figure


def _rows(found: MutationMap, what: str, *, height: float) -> tuple[Figure, list[tuple[Axes, int]]]:
    """A figure with axes for each row of positions, and the index at which each begins."""
    length = len(found.letters)
    starts = range(0, length, ROW)
    width = min(length, ROW)
    title = f"{found.title}: {what}"
    # as wide as its title, which would be cut off above a short sequence
    inches = max(4.5, _WIDTH * width / ROW, min(_WIDTH, 0.2 + 0.075 * len(title)))
    figure, grid = plt.subplots(
        len(starts), 1, squeeze=False, layout="constrained",
        figsize=(inches, height * len(starts) + 0.55),
    )  # fmt: skip
    figure.suptitle(title, fontsize=9, x=0.01, ha="left", color=INK)
    rows = [(axes, start) for axes, start in zip(grid[:, 0], starts, strict=True)]
    for axes, start in rows:
        first = found.first + start + 1
        axes.set_xlim(first - 0.5, first + width - 0.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=7)
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    return figure, rows


def _span(heights: Floats) -> tuple[float, float]:
    """Limits of an axis that holds nearly all heights, and 0."""
    some = heights[~np.isnan(heights)]
    if not len(some):
        return -1.0, 1.0
    low, high = min(0.0, float(some.min())), max(0.0, float(some.max()))
    room = 0.05 * (high - low) or 1.0
    return low - room * (low < 0), high + room


def _draw_letters(axes: Axes, drawn: list[tuple[str, int, float, float]]) -> None:
    """Letters as shapes: (letter, x of its middle, bottom, top)."""
    for letter in LETTERS:
        outlines = [
            _letter(letter).transformed(
                Affine2D().scale(0.92, top - bottom).translate(x - 0.46, bottom)
            )
            for each, x, bottom, top in drawn
            if each == letter and top > bottom
        ]
        if outlines:
            together = Outline.make_compound_path(*outlines)
            axes.add_collection(
                PathCollection([together], facecolor=_COLOURS[letter], edgecolor="none"),
                autolim=False,
            )


@cache
def _letter(letter: str) -> Outline:
    """The outline of a letter, stretched over the unit square."""
    path = TextPath((0, 0), letter, size=1, prop=FontProperties(weight="bold"))
    box = path.get_extents()
    return path.transformed(
        Affine2D().translate(-box.x0, -box.y0).scale(1 / box.width, 1 / box.height)
    )
