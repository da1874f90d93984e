"""How good a baseline is on the valid part: what hyperparameters and epochs are chosen by."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from hyenadna.alphabet import IGNORED
from hyenadna.data.labelled_data import LabelledData
from hyenadna.errors import InputError
from hyenadna.task_kinds import TaskKind
from hyenadna.train.metrics import LOWER_IS_BETTER, main_metric, metrics


def flat_targets(data: LabelledData) -> npt.NDArray[Any]:
    """The targets as the metrics take them: those of bases one sequence after another."""
    if isinstance(data.targets, tuple):
        return np.concatenate(data.targets)
    return data.targets


def valid_score(
    kind: TaskKind, targets: npt.NDArray[Any], outputs: npt.NDArray[Any], *, where: str
) -> tuple[float, float]:
    """(main metric, minus loss) of outputs for targets; the greater is the better.

    The metric is the one that models are compared by, so that a baseline is chosen by what it is
    measured by; the loss decides between equals, and where the metric cannot be said.

    kind, targets, outputs: as `hyenadna.train.metrics.metrics` takes them. where: for messages.

    Raises InputError where no target is known.
    """
    known = targets != IGNORED if targets.dtype.kind == "i" else ~np.isnan(targets)
    if not known.any():
        raise InputError(f"{where}: all targets of the valid part are missing; cannot choose")
    name = main_metric(kind).name
    value = metrics(kind, targets, outputs)[name]
    if math.isnan(value):
        value = -math.inf
    elif name in LOWER_IS_BETTER:
        value = -value
    return value, -_loss(kind, targets, outputs.astype(np.float64), known)


def _loss(
    kind: str, targets: npt.NDArray[Any], outputs: npt.NDArray[Any], known: npt.NDArray[Any]
) -> float:
    """Log loss of classes and labels, squared error of values, mean over known targets."""
    if kind in ("classes", "tokens"):
        rows = np.flatnonzero(known)
        return float(-np.log(np.maximum(outputs[rows, targets[rows]], 1e-7)).mean())
    target, output = targets[known].astype(np.float64), outputs[known]
    if kind == "values":
        return float(((target - output) ** 2).mean())
    output = np.clip(output, 1e-7, 1 - 1e-7)
    return float(-(target * np.log(output) + (1 - target) * np.log(1 - output)).mean())
