"""How well scores rank one yes/no answer: areas under the curves, and F1; exact, ties counted half.

No curve is drawn. Both answers are sorted on their own, and each yes looks up how many of either
answer lie below it. AUROC is the share of pairs in the right order (Mann and Whitney 1947); average
precision the mean, over the yes rows, of the precision at their score: the sum over thresholds
(R_k - R_k-1) P_k without the thresholds at which nothing is found.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.floating[Any]]

HALF: Final = 0.5
"""F1 is that of a yes at this score and above."""


class Ranked(NamedTuple):
    """Figures of one yes/no answer; all NaN where only one answer occurs."""

    auroc: float
    """Area under the ROC, ties counted half."""
    auprc: float
    """Average precision."""
    f1: float
    """At a score of 0.5; 0 where nothing is found."""


def ranked(true: npt.NDArray[np.bool_], score: Scores) -> Ranked:
    """AUROC, average precision and F1 of scores (n,) for answers (n,)."""
    yes, no = np.sort(score[true]), np.sort(score[~true])
    if not len(yes) or not len(no):
        return Ranked(math.nan, math.nan, math.nan)
    below, up_to = (np.searchsorted(no, yes, side=side) for side in ("left", "right"))
    found = len(yes) - np.searchsorted(yes, yes, side="left")
    auroc = (int(below.sum()) + int(up_to.sum())) / (2 * len(yes) * len(no))
    auprc = float((found / (found + len(no) - below)).mean())
    hits, alarms = (int(np.count_nonzero(part >= HALF)) for part in (yes, no))
    return Ranked(auroc, auprc, 2 * hits / (hits + alarms + len(yes)))


def auroc(true: npt.NDArray[np.bool_], score: Scores) -> float:
    """Area under the ROC, ties counted half; NaN where only one answer occurs."""
    return ranked(true, score).auroc


def auprc(true: npt.NDArray[np.bool_], score: Scores) -> float:
    """Average precision; NaN where only one answer occurs."""
    return ranked(true, score).auprc
