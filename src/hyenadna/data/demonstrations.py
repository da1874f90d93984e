"""Demonstrations for learning in context: which rows are shown, what is said of them, how they are
laid out as tokens.

    sequence [SEP] word [SEP]   for each demonstration, one after another: the prefix
    sequence [SEP]              the query, behind which the model is asked for the word

Everything is drawn from rows that the caller hands over (those of a train part), and is a function
of them, the seed and the keys given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hyenadna.alphabet import IGNORED, PAD, SEP, Ids
from hyenadna.errors import InputError
from hyenadna.label_words import LabelWords

Int64s = npt.NDArray[np.int64]

# What a random number is for, so that no two uses share theirs.
_SHOWN, _LABELS, _ORDER, _SOME, _OTHERS, _TUNED = range(6)
_SEPARATORS: Final = 2


@dataclass(frozen=True, eq=False)
class Demonstrations:
    """Rows that are shown, in their order, and the class that each is said to have."""

    rows: Int64s
    """Numbers of rows, (S,)."""
    said: Int64s
    """Numbers of classes, (S,)."""

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Layout:
    """How sequences and words become tokens."""

    words: LabelWords
    width: int | None = None
    """Sequences are padded on the left to so many tokens, as the original does; None: not at
    all."""

    def query(self, sequence: Ids) -> Ids:
        """`sequence [SEP]`, uint8. Raises InputError for a sequence over the width."""
        missing = 0 if self.width is None else self.width - len(sequence)
        if missing < 0:
            raise InputError(
                f"layout: a sequence of {len(sequence):,} tokens, over the width of {self.width:,}"
            )
        padding = np.full(missing, PAD, dtype=np.uint8)
        return np.concatenate([padding, sequence, np.array([SEP], dtype=np.uint8)])

    def demonstration(self, sequence: Ids, said: int) -> Ids:
        """`sequence [SEP] word [SEP]`, uint8; said: the number of the class."""
        end = np.array([SEP], dtype=np.uint8)
        return np.concatenate([self.query(sequence), self.words.ids[said], end])

    def prefix(self, sequences: Sequence[Ids], shown: Demonstrations) -> Ids:
        """All demonstrations one after another, uint8 (P,); empty for none."""
        parts = [
            self.demonstration(sequences[row], said)
            for row, said in zip(shown.rows.tolist(), shown.said.tolist(), strict=True)
        ]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint8)

    def tokens_of(self, length: int) -> int:
        """Tokens of a demonstration of a sequence of so many."""
        return (length if self.width is None else self.width) + self.words.length + _SEPARATORS


def draw(
    targets: Int64s, shots: int, classes: int, *, seed: int, number: int, without: int | None = None
) -> Demonstrations:
    """So many rows of each class with their true labels, without repeats, in random order.

    targets: class of each row, (n,), IGNORED where missing. number: which draw; each is another
    one. without: a row that must not be among them.

    Raises InputError for fewer rows of a class than shots.
    """
    require_rows(targets, shots, classes, spare=without is not None)
    random = np.random.default_rng([seed, _SHOWN, shots, number])
    found: list[int] = []
    for each in range(classes):
        own = np.flatnonzero(targets == each)
        # the row is left out after shuffling: nobody else's place depends on it
        own = random.permutation(own).tolist()
        found += [row for row in own if row != without][:shots]
    rows = random.permutation(np.array(found, dtype=np.int64))
    return Demonstrations(rows, targets[rows].astype(np.int64))


def require_rows(
    targets: Int64s,
    shots: int,
    classes: int,
    *,
    names: Sequence[str] | None = None,
    spare: bool = False,
) -> None:
    """Nothing, where there are enough rows of each class. spare: one more is needed for a query.

    Raises InputError otherwise.
    """
    if shots < 0:
        raise InputError(f"--shots is {shots}; it must not be negative")
    for each in range(classes):
        have = int((targets == each).sum())
        if shots and have < shots + spare:
            name = str(each) if names is None else repr(names[each])
            beside = " beside the query" if spare else ""
            raise InputError(
                f"--shots is {shots}, but the train part has {have:,} rows of class {name}"
                f"{beside}; give at most {max(0, have - spare):,}, or more rows"
            )


def with_shuffled_labels(
    shown: Demonstrations, classes: int, *, seed: int, number: int
) -> Demonstrations:
    """The same rows in the same order with labels that say nothing: the control.

    The demonstrations of each class get the labels of all classes as evenly as can be, and each
    label comes as often as before, so that no label is right more than by chance. Where the shots
    are no multiple of the classes the odd ones are wrong (which is information too, if a model can
    use it): see `right_when_shuffled`.
    """
    random = np.random.default_rng([seed, _LABELS, len(shown), number])
    circle = random.permutation(classes)
    said = shown.said.copy()
    for place, true in enumerate(circle.tolist()):
        own = random.permutation(np.flatnonzero(shown.said == true))
        # from the next class on around the circle, its own one last
        turn = circle[(place + 1 + np.arange(len(own))) % classes]
        said[own] = turn
    return dataclasses.replace(shown, said=said)


def right_when_shuffled(shots: int, classes: int) -> float:
    """Share of shuffled labels that are right; 1 / classes only for a multiple of the classes."""
    return shots // classes / shots


def reordered(shown: Demonstrations, *, seed: int, number: int) -> Demonstrations:
    """The same rows with the same labels in another order (of two or more, never the same one)."""
    random = np.random.default_rng([seed, _ORDER, len(shown), number])
    order = random.permutation(len(shown))
    if len(order) > 1 and (order == np.arange(len(order))).all():
        order = np.roll(order, 1)
    return Demonstrations(shown.rows[order], shown.said[order])


def some_of_each(targets: Int64s, most: int | None, *, seed: int) -> Int64s:
    """Numbers of at most so many rows that have a class, rising: of each class its share.

    None takes all of them. Shares are rounded so that the sum is right, to the largest remainders.
    Raises InputError for a number below 1.
    """
    known = np.flatnonzero(targets != IGNORED)
    if most is not None and most < 1:
        raise InputError(f"--limit is {most}; it must be at least 1")
    if most is None or most >= len(known):
        return known
    random = np.random.default_rng([seed, _SOME])
    kinds, counts = np.unique(targets[known], return_counts=True)
    wanted = counts * most / counts.sum()
    taken = np.floor(wanted).astype(np.int64)
    short = most - int(taken.sum())
    taken[np.argsort(taken - wanted, kind="stable")[:short]] += 1
    parts = [
        random.permutation(known[targets[known] == kind])[:count]
        for kind, count in zip(kinds.tolist(), taken.tolist(), strict=True)
    ]
    return np.sort(np.concatenate(parts))


def others(targets: Int64s, most: int, *, without: Int64s, seed: int) -> Int64s:
    """At most so many random rows beside those `without`; their classes do not count."""
    left = np.setdiff1d(np.arange(len(targets)), without)
    random = np.random.default_rng([seed, _OTHERS])
    return random.permutation(left)[:most]


def tuning_queries(targets: Int64s, count: int, classes: int, *, seed: int) -> Int64s:
    """Rows to tune on, without repeats: the classes in turn as long as each has rows.

    Raises InputError for more rows than there are with a class.
    """
    known = int((targets != IGNORED).sum())
    if count > known:
        raise InputError(
            f"--tuning-samples is {count}, but the train part has {known:,} rows; give at most that"
        )
    random = np.random.default_rng([seed, _TUNED, count])
    queues = [random.permutation(np.flatnonzero(targets == each)) for each in range(classes)]
    # by place in the queue, then in a random order of the classes
    turn = np.repeat(random.permutation(classes), [len(queue) for queue in queues])
    place = np.concatenate([np.arange(len(queue)) for queue in queues])
    return np.concatenate(queues)[np.lexsort((turn, place))][:count]


def tuning_row(
    layout: Layout,
    sequences: Sequence[Ids],
    shown: Demonstrations,
    query: int,
    target: int,
    *,
    every_label: bool,
) -> tuple[Ids, Int64s]:
    """What a model reads in tuning, (L,), and what it should say next at each place, (L,).

    Targets are the letters of the word of the query, or of every demonstration too, and IGNORED
    elsewhere.
    """
    words = layout.words
    whole = np.concatenate(
        [layout.prefix(sequences, shown), layout.query(sequences[query]), words.ids[target]]
    )
    counts = np.zeros(len(whole), dtype=bool)
    counts[-words.length :] = True
    if every_label:
        at = 0
        for row in shown.rows.tolist():
            at += layout.tokens_of(len(sequences[row]))
            counts[at - 1 - words.length : at - 1] = True
    targets = np.where(counts, whole.astype(np.int64), IGNORED)
    return whole[:-1], targets[1:]
