"""Simple models on the same rows, so that nobody fools themselves: `fit_baseline`.

    majority   the share of each class or label, or the mean value, of the train part
    kmer       linear model on k-mer counts (`hyenadna.train.baseline_kmers`); for a class per base,
               on the words around it (`hyenadna.train.baseline_context`)
    hmm        hidden Markov model over the classes of bases (`hyenadna.train.baseline_hmm`)
    cnn        small dilated convolutional network (`hyenadna.train.baseline_cnn`)

All learn from `train` and choose on `valid`; none sees another part. A fit is a function of the
data and the seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from hyenadna.alphabet import IGNORED, Ids
from hyenadna.data.labelled_data import LabelledData, Task
from hyenadna.errors import InputError

Float32s = npt.NDArray[np.float32]
BaselineName = Literal["majority", "kmer", "hmm", "cnn"]
BASELINES: Final[tuple[BaselineName, ...]] = get_args(BaselineName)
_ROWS_AT_ONCE: Final = 4096


class Baseline(Protocol):
    """A fitted baseline."""

    @property
    def name(self) -> str:
        """`majority`, `kmer`, `hmm` or `cnn`."""

    @property
    def chosen(self) -> str:
        """What was chosen on the valid part, in words."""

    def predict(self, sequences: Sequence[Ids]) -> Float32s:
        """Probabilities (n, C) of classes or (n, T) of labels, or values (n, T), float32.

        For one class per base: probabilities (bases of all sequences, C), one after another.
        """


def fit_baseline(
    name: BaselineName, data: LabelledData, seed: int, *, device: str = "cpu"
) -> Baseline:
    """A baseline of this name, fitted on the train part and chosen on the valid part.

    `device` serves the network only; the others are numpy, scipy and scikit-learn.

    Raises InputError for a name that there is not, for data without a train or a valid part, for a
    train part without a single target, and for `hmm` where bases have no classes.
    """
    if name not in BASELINES:
        raise InputError(f"no baseline {name!r}; there are {', '.join(BASELINES)}")
    train, valid = _part(data, "train"), _part(data, "valid")
    require_targets(train)
    if name == "majority":
        return Majority.fit(train)
    if name == "cnn":
        from hyenadna.train.baseline_cnn import fit_cnn

        return fit_cnn(train, valid, seed, device=device)
    if name == "hmm":
        from hyenadna.train.baseline_hmm import fit_hmm

        return fit_hmm(train, valid)
    if data.task.kind == "tokens":
        from hyenadna.train.baseline_context import fit_context

        return fit_context(train, valid, seed)
    from hyenadna.train.baseline_kmers import fit_kmers

    return fit_kmers(train, valid, seed)


def _part(data: LabelledData, split: str) -> LabelledData:
    if not (data.splits == split).any():
        raise InputError(
            f"{data.name}: no rows are {split}; make a valid part from train "
            "(hyenadna.data.splits.with_valid), and keep test apart"
        )
    return data.part(split)


def require_targets(data: LabelledData) -> None:
    """Nothing, where some target is known. Raises InputError otherwise."""
    if not known_targets(data):
        raise InputError(f"{data.name}: all targets of the train part are missing; nothing to fit")


def known_targets(data: LabelledData) -> int:
    """How many targets are there, those that are masked left out."""
    if data.task.kind == "tokens":
        return sum(int((row != IGNORED).sum()) for row in data.targets)
    if data.task.kind == "classes":
        return int(np.count_nonzero(np.asarray(data.targets) != IGNORED))
    return sum(int(np.count_nonzero(~np.isnan(block))) for block in _row_blocks(data))


def _row_blocks(data: LabelledData) -> Iterator[npt.NDArray[Any]]:
    """Targets (n, T), some rows at a time: an array as large as theirs may not fit the memory."""
    targets = np.asarray(data.targets)
    for start in range(0, len(targets), _ROWS_AT_ONCE):
        yield targets[start : start + _ROWS_AT_ONCE]


@dataclass(frozen=True)
class Majority:
    """The same answer for every row: class or label shares, or mean values; made by `fit`."""

    task: Task
    answer: Float32s
    """Shape (T,)."""
    name: str = "majority"
    chosen: str = "nothing to choose"

    @classmethod
    def fit(cls, train: LabelledData) -> Majority:
        """The shares or means of the train part; a label without a single target gets 1/2."""
        task = train.task
        if task.kind in ("classes", "tokens"):
            targets = np.concatenate(train.targets) if task.kind == "tokens" else train.targets
            counts = np.bincount(targets[targets != IGNORED], minlength=task.outputs)
            return cls(task, (counts / counts.sum()).astype(np.float32))
        total, count = np.zeros(task.outputs), np.zeros(task.outputs, dtype=np.int64)
        for values in _row_blocks(train):
            known = ~np.isnan(values)
            total += np.where(known, values, 0).sum(axis=0, dtype=np.float64)
            count += known.sum(axis=0)
        unknown = 0.5 if task.kind == "labels" else 0.0
        mean = np.where(count > 0, total / np.maximum(count, 1), unknown)
        return cls(task, mean.astype(np.float32))

    def predict(self, sequences: Sequence[Ids]) -> Float32s:
        """The answer, once for every sequence (for a class per base: for every base)."""
        rows = len(sequences)
        if self.task.kind == "tokens":
            rows = sum(len(sequence) for sequence in sequences)
        return np.tile(self.answer, (rows, 1))
