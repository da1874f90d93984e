"""Targets and outputs of one set of sequences, checked, without the rows that have no target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hyenadna.alphabet import IGNORED
from hyenadna.errors import InputError
from hyenadna.task_kinds import TaskKind

_SUM_TOLERANCE: Final = 1e-2  # half-precision probabilities of many classes are that far from 1


@dataclass(frozen=True, eq=False)
class Scored:
    """Rows that count: what is true and what was predicted. Made by `scored`."""

    kind: TaskKind
    targets: npt.NDArray[Any]
    """classes, tokens: int64 (n,); labels: (n, T) of 0, 1 and NaN, or bool, of the type that came
    in; values: float64 (n, T) with NaN."""
    outputs: npt.NDArray[Any]
    """classes, tokens: probabilities (n, C); labels: probabilities (n, T); values: (n, T). float64,
    but labels that came in as float32 stay so: there may be 200 million, and nothing is copied."""
    rows: npt.NDArray[np.int64]
    """Which rows of the arrays that came in these are, (n,)."""

    @property
    def by_class(self) -> bool:
        """Whether each row has one of several classes."""
        return self.kind in ("classes", "tokens")

    def __len__(self) -> int:
        return len(self.targets)


def scored(kind: TaskKind, targets: npt.ArrayLike, outputs: npt.ArrayLike) -> Scored:
    """The rows that have a target, as arrays that every metric can use.

    kind, targets, outputs: as in `hyenadna.train.metrics.metrics`.

    Raises InputError for shapes that do not go together, outputs that are not finite or no
    probabilities, targets that are no class or no yes/no, and where no row has a target.
    """
    if kind not in ("classes", "labels", "values", "tokens"):
        raise InputError(
            f"metrics: task is {kind!r}; it is 'classes', 'labels', 'values', 'tokens'"
        )
    true, predicted = np.asarray(targets), np.asarray(outputs)
    by_class = kind in ("classes", "tokens")
    if kind != "labels" or predicted.dtype != np.float32:
        predicted = predicted.astype(np.float64, copy=False)
    fits = len(true) == len(predicted) if by_class else true.shape == predicted.shape
    if predicted.ndim != 2 or true.ndim != (1 if by_class else 2) or not fits:
        want = "(n,) and (n, C)" if by_class else "(n, T) both"
        raise InputError(
            f"metrics: targets have shape {true.shape} and outputs {predicted.shape}; "
            f"{kind} need {want}"
        )
    if by_class:
        true = _class_targets(true, predicted.shape[1])
    elif kind == "values" or true.dtype.kind not in "biuf":
        true = true.astype(np.float64)
    known = true != IGNORED if by_class else ~np.isnan(true).all(1)
    rows = np.flatnonzero(known)
    if not len(rows):
        raise InputError(f"metrics: none of {len(true)} rows has a target; nothing to measure")
    if len(rows) < len(true):
        true, predicted = true[rows], predicted[rows]
    if kind == "labels":
        _require(true, np.isnan(true) | (true == 0) | (true == 1), rows, "target", "is not 0 or 1")
    elif kind == "values":
        _require(true, ~np.isinf(true), rows, "target", "is not finite")
    _require(predicted, np.isfinite(predicted), rows, "output", "is not finite; did it diverge?")
    if kind != "values":
        inside = (predicted >= 0) & (predicted <= 1 + 1e-6)
        _require(predicted, inside, rows, "output", "is no probability; give probabilities")
    if by_class:
        total = predicted.sum(1)
        close = abs(total - 1) <= _SUM_TOLERANCE
        _require(total, close, rows, "sum of probabilities", "is not 1; give a softmax")
    return Scored(kind, true, predicted, rows)


def _class_targets(true: npt.NDArray[Any], classes: int) -> npt.NDArray[np.int64]:
    if classes < 2:
        raise InputError(f"metrics: outputs have {classes} classes; at least 2 are needed")
    if true.dtype.kind not in "iub":
        raise InputError(f"metrics: class targets are {true.dtype}; give whole numbers from 0")
    whole = true.astype(np.int64)
    fits = (whole == IGNORED) | ((whole >= 0) & (whole < classes))
    rows = np.arange(len(whole))
    _require(whole, fits, rows, "target", f"is no class of 0 to {classes - 1} and not {IGNORED}")
    return whole


def _require(
    values: npt.NDArray[Any],
    right: npt.NDArray[np.bool_],
    rows: npt.NDArray[np.int64],
    what: str,
    wrong: str,
) -> None:
    """Raise InputError that names the first value that is not right, and how many there are."""
    if right.all():
        return
    first = np.unravel_index(int(np.argmin(right)), right.shape)
    value, count = values[first].item(), int((~right).sum())
    raise InputError(
        f"metrics: row {rows[first[0]]}: {what} {value:g} {wrong} ({count:,} such values)"
    )
