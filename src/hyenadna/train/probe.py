"""How well classes can be told from fixed features: a boosted classifier over folds.

The test of the paper's embeddings (HyenaDNA, section 4.4 and table 4.4: weighted F1 of a boosted
classifier on the mean of the last layer), here over k folds and beside features that cost nothing:
all features see the same rows in the same folds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hyenadna.alphabet import Ids
from hyenadna.errors import InputError
from hyenadna.train.baseline_kmers import word_frequencies

MAJORITY: Final = "majority class"
DEPTH: Final = 3
RATE: Final = 0.1
PENALTY: Final = 1.0
LEAF: Final = 5

Ints = npt.NDArray[np.int64]
Features = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Folds:
    """Rows that are classified, and the fold in which each is held out."""

    rows: Ints
    """Numbers of the rows, from 0, of all that were given."""
    classes: Ints
    """Class of each of them."""
    names: tuple[str, ...]
    fold: Ints
    count: int
    notes: tuple[str, ...]
    """What was left out, and last, how the folds were made."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """The notes on rows and classes that are left out."""
        return self.notes[:-1]


@dataclass(frozen=True, eq=False)
class ProbeScore:
    """What one kind of features is good for."""

    name: str
    f1: npt.NDArray[np.float64]
    """Weighted F1 of each fold."""
    f1_macro: float
    """Mean F1 of the classes, each of the same weight, over all rows."""
    accuracy: float
    """Over all rows."""
    confusion: Ints
    """(C, C): true classes by predicted ones, over all rows."""

    @property
    def mean(self) -> float:
        """Mean weighted F1 over the folds."""
        return float(self.f1.mean())

    @property
    def spread(self) -> float:
        """Standard deviation over the folds."""
        return float(self.f1.std(ddof=1)) if len(self.f1) > 1 else 0.0


def make_folds(
    labels: Sequence[str], groups: Sequence[str] | None, *, folds: int, seed: int
) -> Folds:
    """Folds with the classes in proportion; rows of a group are held out together.

    labels: class of each row; an empty one is not known, and left out. groups: such as the gene of
    each transcript; an empty one is a group by itself. Classes of fewer rows (or groups) than there
    are folds are left out, and the notes say so.

    Raises InputError for fewer than 2 folds, and where fewer than two classes are left.
    """
    if folds < 2:
        raise InputError(f"--folds is {folds}; it must be at least 2")
    names = np.array([*labels, None], dtype=object)[:-1]
    known = names != ""
    notes = (
        [f"{int((~known).sum()):,} rows without a class are left out"] if not known.all() else []
    )
    group = _group_numbers(groups, len(names))
    kept = known.copy()
    small = []
    for name in sorted(set(names[known].tolist())):
        mine = names == name
        if len(np.unique(group[mine])) < folds:
            small.append(f"{name} ({int(mine.sum())})")
            kept &= ~mine
    if small:
        what = "groups" if groups is not None else "rows"
        notes.append(
            f"classes of fewer {what} than the {folds} folds are left out: {', '.join(small)}"
        )
    classes, numbers = np.unique(names[kept].astype(str), return_inverse=True)
    if len(classes) < 2:
        there = ", ".join(classes.tolist()) or "none"
        raise InputError(
            f"--classify: fewer than two classes have {folds} rows or more ({there}); take fewer "
            "--folds, or another column"
        )
    fold = _assign(numbers.astype(np.int64), group[kept], folds, seed, groups is not None)
    notes.append(
        f"{folds} folds by seed {seed}, classes in proportion"
        + (f"; {len(np.unique(group[kept])):,} groups stay whole" if groups is not None else "")
    )
    return Folds(
        np.flatnonzero(kept), numbers.astype(np.int64), tuple(classes.tolist()), fold, folds,
        tuple(notes),
    )  # fmt: skip


def _group_numbers(groups: Sequence[str] | None, count: int) -> Ints:
    if groups is None:
        return np.arange(count)
    alone = iter(range(count))
    return np.unique(
        np.array([each or f"\0{next(alone)}" for each in groups]), return_inverse=True
    )[1].reshape(-1)


def _assign(classes: Ints, groups: Ints, folds: int, seed: int, grouped: bool) -> Ints:
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    split = StratifiedGroupKFold if grouped else StratifiedKFold
    fold = np.zeros(len(classes), np.int64)
    by = groups if grouped else None
    parts = split(folds, shuffle=True, random_state=seed).split(classes, classes, by)
    for number, (_, held) in enumerate(parts):
        fold[held] = number
    return fold


def majority_score(folds: Folds) -> ProbeScore:
    """What the most frequent class of the other folds is good for."""
    predicted = np.zeros_like(folds.classes)
    for number in range(folds.count):
        held = folds.fold == number
        predicted[held] = np.bincount(folds.classes[~held]).argmax()
    return _score(MAJORITY, folds, predicted)


def probe(
    name: str,
    features: Features,
    folds: Folds,
    *,
    seed: int,
    trees: int = 100,
    progress: Progress | None = None,
) -> ProbeScore:
    """How well a boosted classifier tells the classes from features (n, F) of the chosen rows.

    `HistGradientBoostingClassifier` with trees of depth 3 and learning rate 0.1, as the paper has
    them (of XGBoost, and 1,000 of them), and XGBoost's penalty of 1 on the leaves: without one a
    class of a few dozen rows now and then blows up a fold. A leaf holds 5 rows or more. Nothing is
    chosen on the held-out fold. progress: told (folds done, of how many).
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    predicted = np.zeros_like(folds.classes)
    for number in range(folds.count):
        held = folds.fold == number
        model = HistGradientBoostingClassifier(
            max_iter=trees, max_depth=DEPTH, learning_rate=RATE, l2_regularization=PENALTY,
            min_samples_leaf=LEAF, early_stopping=False, random_state=seed,
        )  # fmt: skip
        model.fit(features[~held], folds.classes[~held])
        predicted[held] = model.predict(features[held])
        if progress:
            progress(number + 1, folds.count)
    return _score(name, folds, predicted)


def _score(name: str, folds: Folds, predicted: Ints) -> ProbeScore:
    from sklearn.metrics import confusion_matrix, f1_score

    f1 = []
    for number in range(folds.count):
        held = folds.fold == number
        if held.any():
            f1.append(
                f1_score(folds.classes[held], predicted[held], average="weighted", zero_division=0)
            )
    table: Any = confusion_matrix(folds.classes, predicted, labels=range(len(folds.names)))
    macro = float(f1_score(folds.classes, predicted, average="macro", zero_division=0))
    accuracy = float((folds.classes == predicted).mean())
    return ProbeScore(name, np.array(f1), macro, accuracy, table.astype(np.int64))


def composition(sequences: Sequence[Ids], k: int) -> Features:
    """Frequencies of all words of 1 .. k bases of each sequence, (n, F); not its length."""
    raw = word_frequencies(sequences, k, canonical=False)
    dense: Features = raw[:, :-1].toarray().astype(np.float32)
    return dense


def scores_table(scores: Sequence[ProbeScore]) -> list[Mapping[str, Any]]:
    """A row of figures for each kind of features."""
    return [
        {
            "features": score.name,
            "weighted F1": score.mean,
            "sd over folds": score.spread,
            "lowest fold": float(score.f1.min()),
            "highest fold": float(score.f1.max()),
            "macro F1": score.f1_macro,
            "accuracy": score.accuracy,
        }
        for score in scores
    ]
