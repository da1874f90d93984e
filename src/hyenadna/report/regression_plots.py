"""Pictures of regression: predicted against true."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from hyenadna.report.classifier_plots import small_axes
from hyenadna.report.plots import BLUE, GREY

_DOTS: Final = 1500  # more rows than this are counted in hexagons
# From nearly nothing to blue: the page shows through, be it white or dark.
_DENSITY: Final = LinearSegmentedColormap.from_list(
    "density", [(0.16, 0.44, 0.86, 0.15), (0.16, 0.44, 0.86, 1.0)]
)


def predicted_plot(
    true: npt.NDArray[np.float64], predicted: npt.NDArray[np.float64], name: str, *, note: str = ""
) -> Figure:
    """Predicted against true values of one target; rows without a target (NaN) are passed over.

    Dots, or hexagons shaded by the logarithm of their rows where there are many. The dotted line is
    a perfect prediction. note: figures for the title.
    """
    known = ~np.isnan(true)
    true, predicted = true[known], predicted[known]
    title = f"{name}: {note}" if note else name
    figure, axes = small_axes(title, "true", "predicted")
    axes.grid(axis="x", color="#e6e8eb", linewidth=0.8)
    if not len(true):
        axes.text(0.5, 0.5, "no known target", ha="center", color=GREY, transform=axes.transAxes)
        return figure
    low, high = float(true.min()), float(true.max())
    axes.plot([low, high], [low, high], color=GREY, linewidth=1, linestyle=":", zorder=3)
    if len(true) > _DOTS:
        axes.hexbin(true, predicted, gridsize=45, bins="log", mincnt=1, cmap=_DENSITY, linewidths=0)
    else:
        axes.plot(true, predicted, "o", color=BLUE, alpha=0.45, markersize=3, markeredgewidth=0)
    return figure
