"""A hidden Markov model over the classes of bases: what gene finders were before networks.

The class of each base is the state. A state emits its base given the k bases before it (order k),
and a table of transitions gives the next state; all is counted from the train part. What is said of
a sequence are the posterior probabilities of the states, by the forward and the backward pass
(Rabiner 1989, Proc. IEEE 77:257). Where classes have strands, the other strand of each training
sequence is counted as well, with the classes turned. The order is chosen on the valid part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hyenadna.alphabet import IGNORED, Ids
from hyenadna.data.labelled_data import LabelledData, other_strand, turned_classes
from hyenadna.errors import InputError
from hyenadna.train.baseline_choice import flat_targets, valid_score
from hyenadna.train.baseline_kmers import as_bases, require_two_classes, word_codes

Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

ORDERS: Final = (1, 2, 3, 4, 5)
_LOWER_WEIGHT: Final = 16.0
"""Bases that the next lower order is worth: p_k = (count + 16 p_(k-1)) / (total + 16)."""
_UNSEEN: Final = 0.1
"""Added to each transition, so that none is impossible."""
_BASES_TO_CHOOSE: Final = 500_000
_BASES_AT_ONCE: Final = 1 << 18
_GAP: Final = 255


@dataclass(frozen=True, eq=False)
class HiddenMarkovModel:
    """States with their tables, all of probabilities; made by `count_hmm` or `fit_hmm`."""

    begin: Float64s
    """Of the first state, (C,)."""
    transitions: Float64s
    """Row: a state, column: the next one; (C, C)."""
    emissions: tuple[Float64s, ...]
    """emissions[j][word, c]: of the last base of the word of j + 1 bases, after the others, in the
    state c; (4^(j + 1), C)."""
    chosen: str = ""
    name: str = "hmm"

    def predict(self, sequences: Sequence[Ids]) -> Float32s:
        """Posterior probabilities (bases of all sequences, C), one sequence after another.

        Each sequence for itself, whatever the others are.
        """
        if not len(sequences):
            raise InputError("hmm baseline: no sequences to predict")
        lengths = np.array([len(ids) for ids in sequences], dtype=np.int64)
        ends = np.cumsum(lengths)
        out = np.empty((int(ends[-1]), len(self.begin)), dtype=np.float32)
        for rows in _batches(lengths):
            posterior = self._posterior([sequences[i] for i in rows])
            for row, i in enumerate(rows):
                out[ends[i] - lengths[i] : ends[i]] = posterior[: lengths[i], row]
        return out

    def _posterior(self, sequences: Sequence[Ids]) -> Float64s:
        """(L, B, C) of sequences of which none is longer than the one before it."""
        lengths = np.array([len(ids) for ids in sequences])
        longest, states = int(lengths[0]), len(self.begin)
        emitted = np.ones((longest, len(sequences), states))
        for row, ids in enumerate(sequences):
            emitted[: len(ids), row] = self._emitted(ids)
        # rows that are as long as each place needs stand first
        active = np.searchsorted(-lengths, -np.arange(longest), side="left").tolist()
        forward = np.ones_like(emitted)
        state = np.broadcast_to(self.begin, emitted.shape[1:])
        for t in range(longest):
            n = active[t]
            state = (state[:n] if t == 0 else state[:n] @ self.transitions) * emitted[t, :n]
            state = state / state.sum(1, keepdims=True)
            forward[t, :n] = state
        behind = np.ones((len(sequences), states))
        for t in range(longest - 2, -1, -1):
            n = active[t + 1]
            after = (behind[:n] * emitted[t + 1, :n]) @ self.transitions.T
            behind[:n] = after / after.sum(1, keepdims=True)
            forward[t, :n] *= behind[:n]
        found: Float64s = forward / forward.sum(2, keepdims=True)
        return found

    def _emitted(self, ids: Ids) -> Float64s:
        """Probability of each base in each state, (L, C), by as many bases before as there are.

        1 for what is no base, which breaks the context.
        """
        out = np.ones((len(ids), len(self.begin)))
        for j, table in enumerate(self.emissions):
            code, real = word_codes(as_bases(ids), j + 1)
            out[j:][real] = table[code[real]]  # a longer context takes the place of a shorter one
        return out


def _batches(lengths: Int64s) -> Iterator[list[int]]:
    """Rows, longest first, in batches of some bases; a longer one alone."""
    batch: list[int] = []
    for i in np.argsort(-lengths, kind="stable").tolist():
        if not lengths[i]:
            continue
        if batch and (len(batch) + 1) * lengths[batch[0]] > _BASES_AT_ONCE:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def count_hmm(
    sequences: Iterable[Ids], classes: Iterable[Int64s], states: int, order: int
) -> HiddenMarkovModel:
    """The model of sequences (L,) with the classes (L,) of their bases, -100 where none is known.

    states: C. order: bases that an emission depends on, at least 0.

    Raises InputError where no base has a class.
    """
    gap = np.array([_GAP], dtype=np.uint8)
    bases = np.concatenate([part for ids in sequences for part in (as_bases(ids), gap)])
    unknown = np.array([IGNORED], dtype=np.int64)
    state = np.concatenate([part for row in classes for part in (row, unknown)])
    known = state != IGNORED
    if not known.any():
        raise InputError("hmm baseline: no base has a class; nothing to count")
    begin = np.bincount(state[known], minlength=states) + _UNSEEN
    pair = known[:-1] & known[1:]
    steps = np.bincount(state[:-1][pair] * states + state[1:][pair], minlength=states**2)
    transitions = steps.reshape(states, states) + _UNSEEN
    return HiddenMarkovModel(
        begin / begin.sum(),
        transitions / transitions.sum(1, keepdims=True),
        _emissions(bases, state, states, order),
    )


def _emissions(
    bases: npt.NDArray[np.uint8], state: Int64s, states: int, order: int
) -> tuple[Float64s, ...]:
    """Tables of the orders 0 .. order; each falls back on the one below."""
    lower = np.full((1, 4, states), 0.25)
    tables = []
    for j in range(order + 1):
        code, real = word_codes(bases, j + 1)
        at = state[j:]
        counted = real & (at != IGNORED)
        counts = np.bincount(
            code[counted] * states + at[counted], minlength=4 ** (j + 1) * states
        ).reshape(-1, 4, states)
        # the context without its oldest base is the last j - 1 digits of the word
        below = np.tile(lower, (len(counts) // len(lower), 1, 1))
        total = counts.sum(1, keepdims=True)
        lower = (counts + _LOWER_WEIGHT * below) / (total + _LOWER_WEIGHT)
        tables.append(lower.reshape(-1, states))
    return tuple(tables)


def fit_hmm(train: LabelledData, valid: LabelledData) -> HiddenMarkovModel:
    """The model of the train part, its order chosen on the valid part (on 500,000 bases of it).

    Raises InputError where bases have no classes, or the train part has a single one.
    """
    if train.task.kind != "tokens":
        raise InputError(f"hmm baseline: is for a class of each base, not for {train.task.kind}")
    require_two_classes(train)
    sequences, classes = list(train.sequences), list(train.targets)
    both = train.task.twins is not None
    if both:
        sequences += [other_strand(ids) for ids in train.sequences]
        classes += [turned_classes(row, train.task) for row in train.targets]
    some = valid.select(_spread(valid))
    largest = count_hmm(sequences, classes, train.task.outputs, max(ORDERS))
    best: tuple[tuple[float, float], int, HiddenMarkovModel] | None = None
    for order in ORDERS:
        # the tables of an order are the first ones of any higher order
        model = dataclasses.replace(largest, emissions=largest.emissions[: order + 1])
        outputs = model.predict(some.sequences)
        score = valid_score("tokens", flat_targets(some), outputs, where=valid.name)
        if best is None or score > best[0]:
            best = score, order, model
    assert best is not None
    _, order, model = best
    chosen = f"{train.task.outputs} states, order {order}" + ", both strands" * both
    return dataclasses.replace(model, chosen=chosen)


def _spread(data: LabelledData) -> Int64s:
    """Rows with a class, evenly spread, of about as many bases as the choice needs; all of fewer.

    Raises InputError where no row has one.
    """
    rows = np.array(
        [i for i, row in enumerate(data.targets) if (row != IGNORED).any()], dtype=np.int64
    )
    if not len(rows):
        raise InputError(f"{data.name}: all targets of the valid part are missing; cannot choose")
    wanted = max(1, int(len(rows) * _BASES_TO_CHOOSE / max(int(data.lengths[rows].sum()), 1)))
    if wanted >= len(rows):
        return rows
    return rows[np.linspace(0, len(rows) - 1, wanted).astype(np.int64)]
