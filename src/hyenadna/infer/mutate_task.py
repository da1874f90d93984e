"""Every substitution of every base: how it changes an output of a fine-tuned model.

The score is the change of the output: of the log odds of a class or label (in nats), of a value.
The head pools over all positions, and only those from the substitution on change; so what stands
before is read once, its part of the pool is kept, and each mutant is read from the beginning of
its block to its end. `mutate_task_whole` is the slow twin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hyenadna.alphabet import BASES, A, Ids, T, reverse_complement_ids
from hyenadna.errors import InputError
from hyenadna.infer.mutate_strand import Floats, evaluating
from hyenadna.model.decoding.decoder import Decoder
from hyenadna.model.decoding.shared_reading import ROW_TOKENS
from hyenadna.model.heads import TaskModel
from hyenadna.model.probabilities import probabilities

BLOCK = 16
"""Positions between two states."""


class OutputChanges(NamedTuple):
    """What the substitutions of n bases do; columns are A C G T, NaN as for `Substitutions`."""

    bases: Ids
    """(n,): tokens of the reference."""
    score: Floats
    """(n, 4): change of the log odds of a class or label, or of a value."""
    output: Floats
    """(n, 4): probability, or value, of the mutant."""
    reference: float
    """Probability, or value, of the sequence as it is."""


def choose_output(task_model: TaskModel, name: str | None) -> int:
    """The number of the output of that name; where none is given, of the only one, or of the
    second of two classes.

    Raises InputError for another name, for a class of each base, and where one must be chosen.
    """
    task = task_model.task
    names = ", ".join(map(repr, task.names))
    if task.kind == "tokens":
        raise InputError("mutate: the model gives a class to each base; it has no one output")
    if name is not None:
        if name not in task.names:
            raise InputError(f"mutate: no output {name!r}; the model has {names}")
        return task.names.index(name)
    if task.outputs == 1 or (task.kind == "classes" and task.outputs == 2):
        return task.outputs - 1
    raise InputError(f"mutate: the model has the outputs {names}; choose one with --output")


@torch.no_grad()
def mutate_task(
    task_model: TaskModel,
    ids: Ids,
    *,
    output: str | None = None,
    first: int = 0,
    last: int | None = None,
    block: int = BLOCK,
    row_tokens: int = ROW_TOKENS,
    progress: Callable[[int], None] | None = None,
) -> OutputChanges:
    """The substitutions of the positions first .. last - 1 (all when left out) of a sequence.

    ids: (L,) from `hyenadna.encode`. output: see `choose_output`. Both strands are read as the
    model was trained to. block: positions between two states. row_tokens: tokens of a pass.
    Results depend on neither, beyond rounding. progress: told how many more tokens have been read,
    of `task_tokens`. The model is in evaluation mode meanwhile.

    Raises InputError as `choose_output` does, for a sequence that is empty or too long, and for
    another range of positions.
    """
    chosen = choose_output(task_model, output)
    last = len(ids) if last is None else last
    _check(task_model, ids, first, last)
    with evaluating(task_model):
        found = [
            _strand_features(task_model, ids, first, last, reverse, block, row_tokens, progress)
            for reverse in _directions(task_model)
        ]
        mutants, reference = (_joined(task_model, each) for each in zip(*found, strict=True))
        said = _said(task_model, torch.cat([mutants.flatten(0, 1), reference[None]]), chosen)
    return _changes(ids[first:last], *said)


def task_tokens(
    task_model: TaskModel, length: int, first: int, last: int, *, block: int = BLOCK
) -> int:
    """Tokens that are read for these positions, about: each has 3 mutants."""
    total = 0
    for reverse in _directions(task_model):
        turned = _turned(length, first, last, reverse)
        total += length + sum(tokens for _, _, tokens in _blocks(length, *turned, block))
    return total


@torch.no_grad()
def mutate_task_whole(
    task_model: TaskModel, ids: Ids, *, output: str | None = None
) -> OutputChanges:
    """The slow twin of `mutate_task`: each mutant passes through the model alone, whole."""
    chosen = choose_output(task_model, output)
    with evaluating(task_model):
        features = [task_model.features(row)[0] for row in (*_all_mutants(ids), ids)]
        return _changes(ids, *_said(task_model, torch.stack(features), chosen))


def _all_mutants(ids: Ids) -> Iterator[Ids]:
    for position in range(len(ids)):
        for base in BASES:
            mutant = ids.copy()
            mutant[position] = base
            yield mutant


def _check(task_model: TaskModel, ids: Ids, first: int, last: int) -> None:
    if not 1 <= len(ids) <= task_model.max_length:
        raise InputError(
            f"mutate: a sequence of {len(ids):,} tokens; this model reads 1 to "
            f"{task_model.max_length:,}, so leave it out or cut it"
        )
    if not 0 <= first < last <= len(ids):
        raise InputError(
            f"mutate: positions {first} .. {last} (from 0) of a sequence of {len(ids)} bases"
        )


def _directions(task_model: TaskModel) -> tuple[bool, ...]:
    return (False,) if task_model.strands == "forward" else (False, True)


def _turned(length: int, first: int, last: int, reverse: bool) -> tuple[int, int]:
    return (length - last, length - first) if reverse else (first, last)


def _blocks(length: int, first: int, last: int, block: int) -> Iterator[tuple[int, int, int]]:
    """Begin, end and tokens of all mutants of each block."""
    for start in range(first, last, block):
        stop = min(start + block, last)
        yield start, stop, 3 * (stop - start) * (length - start)


def _strand_features(
    task_model: TaskModel,
    ids: Ids,
    first: int,
    last: int,
    reverse: bool,
    block: int,
    row_tokens: int,
    progress: Callable[[int], None] | None,
) -> tuple[Tensor, Tensor]:
    """Features of the mutants of one strand, (n, 4, D), and of the reference, (D,).

    In the order of the forward strand, with the columns A C G T of it. The base that stands there
    has the reference's.
    """
    model = task_model.model
    given = reverse_complement_ids(ids) if reverse else ids
    first, last = _turned(len(ids), first, last, reverse)
    text = torch.from_numpy(given.astype(np.int64)).to(task_model.device)
    states = model.embed(text)
    reference = task_model.pooled(states, torch.tensor([len(text)], device=text.device))[0]
    features = reference.expand(last - first, len(BASES), -1).clone()
    decoder = Decoder(model)
    state = decoder.prefill([text[:first]], room=len(text) - first) if first else None
    if progress:
        progress(len(text))
    for start, stop, tokens in _blocks(len(text), first, last, block):
        if start > first:
            if state is None:
                state = decoder.prefill([text[:start]], room=len(text) - start)
            else:
                decoder.extend(state, text[None, start - block : start])
        front = _Front.of(task_model, states[0, :start])
        mutants = _mutants(text, start, stop)
        for some in mutants.split(max(1, row_tokens // (len(text) - start))):
            if not len(some):
                continue
            rows = text[start:].repeat(len(some), 1)
            rows.scatter_(1, some[:, :1] - start, some[:, 1:] + A)
            ends = model.embed(rows) if state is None else decoder.read(state, rows)
            features[some[:, 0] - first, some[:, 1]] = front.pooled(task_model, ends)
        if progress:
            progress(tokens)
    return (features.flip(0, 1) if reverse else features), reference


def _mutants(text: Tensor, start: int, stop: int) -> Tensor:
    """(R, 2): position and column of each substitution."""
    here = text[start:stop, None]
    bases = torch.tensor(BASES, device=text.device)
    found = ((here >= A) & (here <= T) & (here != bases)).nonzero()
    found[:, 0] += start
    return found


@dataclass(frozen=True)
class _Front:
    """What the bases before a block give to the pool of each mutant."""

    count: int
    first: Tensor | None
    """(D,): state of the first."""
    weight: Tensor
    """Logarithm of the sum of their weights, ()."""
    mean: Tensor
    """(D,): their weighted mean."""

    @classmethod
    def of(cls, task_model: TaskModel, states: Tensor) -> _Front:
        """Of states (n, D), n at least 0."""
        states = states.to(torch.promote_types(states.dtype, torch.float32))
        if not len(states):
            none = states.new_tensor(-torch.inf)
            return cls(0, None, none, states.new_zeros(states.shape[1]))
        scores = _scores(task_model, states)
        mean = scores.softmax(0) @ states
        return cls(len(states), states[0], scores.logsumexp(0), mean)

    def pooled(self, task_model: TaskModel, ends: Tensor) -> Tensor:
        """Features (R, D) of mutants whose states from the block on are (R, n, D)."""
        ends = ends.to(torch.promote_types(ends.dtype, torch.float32))
        if task_model.pooling == "last":
            return ends[:, -1]
        if task_model.pooling == "first":
            return ends[:, 0] if self.first is None else self.first.expand(len(ends), -1)
        scores = _scores(task_model, ends)
        mean = torch.bmm(scores.softmax(1)[:, None], ends)[:, 0]
        share = torch.sigmoid(scores.logsumexp(1) - self.weight)[:, None]
        pooled = self.mean + share * (mean - self.mean)
        return pooled * (self.count + ends.shape[1]) if task_model.pooling == "sum" else pooled


def _scores(task_model: TaskModel, states: Tensor) -> Tensor:
    """Logarithms of the weights (...) of states (..., D) in the pool."""
    if task_model.attention is None:
        return states.new_zeros(states.shape[:-1])
    return task_model.attention.scores(states)


def _joined(task_model: TaskModel, strands: tuple[Tensor, ...]) -> Tensor:
    """What the head reads, of the features of each strand."""
    if task_model.strands == "concatenate":
        return torch.cat(strands, dim=-1)
    return torch.stack(strands).mean(0)


def _said(task_model: TaskModel, features: Tensor, chosen: int) -> tuple[Floats, Floats]:
    """Log odds, or values, and probabilities, or values, of features (n, D): float64 (n,)."""
    kind, logits = task_model.task.kind, task_model.logits(features).double()
    output = probabilities(kind, logits)[:, chosen]
    odds = logits[:, chosen]
    if kind == "classes":
        others = torch.arange(logits.shape[1], device=logits.device) != chosen
        odds = odds - logits[:, others].logsumexp(1)
    return odds.cpu().numpy(), output.cpu().numpy()


def _changes(ids: Ids, odds: Floats, output: Floats) -> OutputChanges:
    """Of the mutants in order, the reference last."""
    shape = (len(ids), len(BASES))
    same = ids[:, None] == np.array(BASES)
    missing = same | (ids < A)[:, None] | (ids > T)[:, None]
    score = np.where(missing, np.nan, (odds[:-1] - odds[-1]).reshape(shape))
    return OutputChanges(
        ids.copy(), score, np.where(missing, np.nan, output[:-1].reshape(shape)), float(output[-1])
    )
