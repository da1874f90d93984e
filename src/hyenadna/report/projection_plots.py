"""Pictures of embeddings: rows in two dimensions, coloured by a column; their norms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hyenadna.report.classifier_plots import COLOURS
from hyenadna.report.plots import BLUE, GREY, INK, in_legend

OTHER: Final = "other"
_PALETTE: Final = (*(colour for colour in COLOURS if colour != GREY), "#8c564b")
"""Colours of classes; grey is that of the others, and of rows without a number."""
_CLASSES: Final = len(_PALETTE) - 1
_FEW_NUMBERS: Final = 8  # whole numbers of so few values are names of classes
_MAP: Final = "viridis"
_NAMED_POINTS: Final = 60


@dataclass(frozen=True, eq=False)
class Colouring:
    """What the colour of each row says."""

    column: str
    classes: tuple[str, ...] = ()
    """The largest first, `other` last; none for numbers."""
    codes: npt.NDArray[np.int64] | None = None
    """Class of each row."""
    numbers: npt.NDArray[np.float64] | None = None
    note: str = ""


def colouring(column: str, values: npt.NDArray[Any]) -> Colouring:
    """Colours by a column: a palette for text and whole numbers of few values, else a scale.

    Of more than 7 classes the largest are shown, and the others are one colour.
    """
    numeric = values.dtype.kind in "if"
    if numeric and not _are_classes(values):
        return Colouring(column, numbers=values.astype(np.float64))
    named = map(number_text if numeric else str, values)
    texts = np.array([name or "(none)" for name in named])
    names, counts = np.unique(texts, return_counts=True)
    order = sorted(range(len(names)), key=lambda i: (-counts[i], names[i]))
    shown = [str(names[i]) for i in order[: _CLASSES if len(order) > _CLASSES + 1 else None]]
    left = len(names) - len(shown)
    code = {name: number for number, name in enumerate(shown)}
    codes = np.array([code.get(text, len(shown)) for text in texts])
    classes = tuple(shown) + ((OTHER,) if left else ())
    note = f"{OTHER}: {left} smaller classes of {column}" if left else ""
    return Colouring(column, classes, codes, note=note)


def number_text(value: float) -> str:
    """A number with all its digits, whole ones without a point; empty for NaN."""
    if np.isnan(value):
        return ""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _are_classes(numbers: npt.NDArray[Any]) -> bool:
    """Whether these are whole numbers of few values; one missing cell makes a column float."""
    known = np.unique(numbers[~np.isnan(numbers)])
    return 0 < len(known) <= _FEW_NUMBERS and all(float(each).is_integer() for each in known)


def scatter_figure(
    panels: Sequence[tuple[str, npt.NDArray[np.float64], tuple[str, str]]],
    colours: Colouring | None,
    *,
    names: Sequence[str] | None = None,
) -> Figure:
    """A picture with a panel for each projection: (title, points (n, 2), axis labels).

    The legend stands beside them. Points are smaller and fainter the more there are; rare classes
    are drawn last. names: written beside the points, where these are few.
    """
    wide = 4.4 * len(panels) + (1.9 if colours else 0.2)
    figure, row = plt.subplots(1, len(panels), figsize=(wide, 4.2), layout="constrained")
    axes: list[Axes] = list(np.atleast_1d(np.array(row, dtype=object)))
    for each, (title, points, (x, y)) in zip(axes, panels, strict=True):
        drawn = _scatter(each, points, colours)
        each.set_title(title, loc="left", fontsize=11, color=INK)
        each.set_xlabel(x)
        each.set_ylabel(y)
        each.spines[["top", "right"]].set_visible(False)
        each.tick_params(labelsize=7)
        if names is not None and len(names) <= _NAMED_POINTS:
            for name, point in zip(names, points, strict=True):
                each.annotate(
                    name, point, xytext=(3, 2), textcoords="offset points", fontsize=6, color=INK
                )
    if colours is not None and colours.classes:
        handles = [
            plt.Line2D([], [], linestyle="", marker="o", markersize=5, color=_colour(i, colours))
            for i in range(len(colours.classes))
        ]
        labels = [in_legend(_label(colours, i)) for i in range(len(colours.classes))]
        figure.legend(
            handles, labels, title=in_legend(colours.column), loc="outside right upper",
            frameon=False, fontsize=8, title_fontsize=8,
        )  # fmt: skip
    elif colours is not None:
        bar = figure.colorbar(drawn, ax=axes, shrink=0.8)
        bar.set_label(colours.column, fontsize=8)
        bar.ax.tick_params(labelsize=7)
    return figure


def _label(colours: Colouring, number: int) -> str:
    assert colours.codes is not None
    name = colours.classes[number]
    count = int((colours.codes == number).sum())
    return f"{name if len(name) <= 24 else name[:23] + '…'} ({count:,})"


def _colour(number: int, colours: Colouring) -> str:
    return GREY if colours.classes[number] == OTHER else _PALETTE[number]


def _scatter(axes: Axes, points: npt.NDArray[np.float64], colours: Colouring | None) -> Any:
    size = float(np.clip(12_000 / len(points), 2.5, 25))
    alpha = float(np.clip(150 / np.sqrt(len(points)) / 4, 0.25, 0.85))
    style: dict[str, Any] = {"s": size, "alpha": alpha, "linewidths": 0, "rasterized": True}
    if colours is None:
        return axes.scatter(points[:, 0], points[:, 1], color=BLUE, **style)
    if colours.numbers is not None:
        known = np.isfinite(colours.numbers)
        axes.scatter(*points[~known].T, color=GREY, **style)
        return axes.scatter(
            points[known, 0], points[known, 1], c=colours.numbers[known], cmap=_MAP, **style
        )
    assert colours.codes is not None
    counts = np.bincount(colours.codes, minlength=len(colours.classes))
    for number in sorted(range(len(colours.classes)), key=lambda i: -counts[i]):
        mine = colours.codes == number
        rare = 1.6 if counts[number] < 0.1 * len(points) else 1.0
        axes.scatter(
            *points[mine].T, color=_colour(number, colours),
            **style | {"s": size * rare, "alpha": min(1.0, alpha * rare)},
        )  # fmt: skip
    return None


def norms_figure(values: npt.NDArray[np.float32]) -> Figure:
    """How long the rows are: a row far from the others is worth a look."""
    from hyenadna.report.classifier_plots import small_axes

    norms = np.linalg.norm(values.astype(np.float64), axis=1)
    figure, axes = small_axes("Length of the rows", "Euclidean norm", "rows")
    axes.hist(norms[np.isfinite(norms)], bins=40, color=BLUE)
    return figure
