"""Labelled sequences as the fine-tuning steps read them: by tokens, or by features kept once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hyenadna.alphabet import SEP
from hyenadna.data.labelled_batches import labelled_batches, make_batch, plan_batches
from hyenadna.data.labelled_data import LabelledData, fit_length
from hyenadna.errors import InputError
from hyenadna.model.heads import TaskModel
from hyenadna.model.parallel.ranks import ALONE, Ranks
from hyenadna.train.baselines import known_targets
from hyenadna.training_config import FinetuneConfig, Stage

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Progress = Callable[[int, int], None]
"""Called with how much is done, and of how much."""


@dataclass(frozen=True, eq=False)
class Piece:
    """Rows that go through the model together."""

    inputs: Tensor
    """Tokens (B, L), or features (B, F)."""
    lengths: Tensor
    """Real tokens of each row, (B,)."""
    targets: Tensor
    index: Tensor
    """Which rows of their part they are, (B,)."""

    @property
    def tokens(self) -> int:
        """Tokens that the model reads, padding included; 0 for features."""
        return 0 if self.inputs.is_floating_point() else self.inputs.numel()


@dataclass(frozen=True, eq=False)
class Crop:
    """How a step of length warm-up reads its sequences: in random stretches, anew in each step."""

    length: int
    """Tokens that are left of a longer sequence."""
    seed: int
    step: int
    """The optimiser step, from 0."""
    whole: Int64s | None = None
    """Tokens of all rows of the step, where this rank reads a part of them."""
    own: Int64s | None = None
    """Which of these rows it reads."""

    def starts(self, lengths: Int64s) -> Int64s:
        """First token of the stretch of each row, each place as likely as any other, (n,).

        lengths: tokens of the rows, (n,); 0 is given for those that are not too long.
        """
        room = np.maximum((lengths if self.whole is None else self.whole) - self.length, 0)
        drawn = np.random.default_rng([self.seed, self.step, 2]).integers(0, room, endpoint=True)
        return drawn if self.own is None else drawn[self.own]


class Examples(Protocol):
    """The train and the valid part, in pieces."""

    def step(self, index: Int64s, turned: Bools, crop: Crop | None = None) -> Iterator[Piece]:
        """Rows `index` (B,) of the train part; those of `turned` (B,) read on the other strand.

        crop: of longer sequences, while the length warms up; None at full length.
        """

    def valid(self, max_length: int | None = None) -> Iterator[Piece]:
        """All rows of the valid part, in any order, cropped to their middle `max_length` tokens."""

    def outputs(self, model: TaskModel, piece: Piece) -> Tensor:
        """What the model says of a piece."""

    def release(self, model: TaskModel) -> None:
        """Make the model's head one for features as the model gives them."""


class SequenceExamples:
    """Tokens that go through the whole model."""

    def __init__(self, train: LabelledData, valid: LabelledData, tokens: int) -> None:
        self._train, self._valid, self._tokens = train, valid, tokens
        self._lengths = train.lengths

    def step(self, index: Int64s, turned: Bools, crop: Crop | None = None) -> Iterator[Piece]:
        """See `Examples`; rows of similar lengths make a piece, the more rows the shorter."""
        lengths, data, place = self._lengths[index], self._train, index
        if crop is not None:
            data, place = crop_rows(self._train, index, crop), np.arange(len(index))
            lengths = np.minimum(lengths, crop.length)
        for rows in plan_batches(lengths, tokens=self._tokens):
            for alike in _alike(rows, lengths):
                batch = make_batch(data, place[alike], turned[alike])
                index_of = torch.from_numpy(index[alike])
                yield Piece(batch.tokens, batch.lengths, batch.targets, index_of)

    def valid(self, max_length: int | None = None) -> Iterator[Piece]:
        """See `Examples`."""
        batches = labelled_batches(
            self._valid, tokens=self._tokens, max_length=max_length, too_long="centre"
        )
        return (Piece(b.tokens, b.lengths, b.targets, b.index) for b in batches)

    def outputs(self, model: TaskModel, piece: Piece) -> Tensor:
        """See `Examples`."""
        device = model.device
        out: Tensor = model(piece.inputs.to(device), piece.lengths.to(device))
        return out

    def release(self, model: TaskModel) -> None:
        """Nothing to do: the head read features as they are."""


def crop_rows(data: LabelledData, index: Int64s, crop: Crop) -> LabelledData:
    """The rows `index` (n,) of some data as a crop reads them, classes of bases with their bases.

    Rows come in the order of the index; of a sequence that is not too long all is left.
    """
    rows = index.tolist()
    whole = [data.sequences[i] for i in rows]
    starts = crop.starts(np.array([len(ids) for ids in whole], dtype=np.int64)).tolist()
    kept = [slice(start, start + crop.length) for start in starts]
    targets = data.targets
    return LabelledData(
        name=data.name,
        sequences=tuple(ids[cut] for ids, cut in zip(whole, kept, strict=True)),
        targets=tuple(targets[i][cut] for i, cut in zip(rows, kept, strict=True))
        if isinstance(targets, tuple)
        else targets[index],
        task=data.task,
        splits=data.splits[index],
        ids=tuple(data.ids[i] for i in rows),
    )


def _alike(rows: Int64s, lengths: Int64s) -> list[Int64s]:
    """The rows, longest first, cut where padding would be a third of a row."""
    cuts, longest = [], 0
    for at, length in enumerate(lengths[rows].tolist()):
        if 3 * length < 2 * longest:
            cuts.append(at)
            longest = length
        longest = max(longest, length)
    return np.split(rows, cuts)


class FeatureExamples:
    """Features of a frozen backbone, computed once, that go through the head alone.

    They are standardised by the train part, which the optimiser needs: the features of all
    sequences share a large mean. `release` moves the standardisation into the head, exactly.
    """

    def __init__(
        self,
        model: TaskModel,
        train: LabelledData,
        valid: LabelledData,
        config: FinetuneConfig,
        *,
        precision: torch.dtype | None,
        progress: Progress | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """ranks: the processes among which the features are shared out; each then has all."""
        both = config.reverse_complement and model.strands != "average"
        parts = [(train, 0), (valid, 0)] + ([(train, 1)] if both else [])
        counter = _Counter(sum(len(part) for part, _ in parts), progress)
        kept = [_all_features(model, *each, config, precision, counter, ranks) for each in parts]
        self._strands = torch.stack([kept[0].inputs, *(piece.inputs for piece in kept[2:])])
        self._train, self._valid = kept[0], kept[1]
        self._both = both
        features = self._strands[0]
        self.mean = features.mean(0, dtype=torch.float64)
        variance = (features - self.mean.to(features.dtype)).square().mean(0, dtype=torch.float64)
        self.scale = torch.where(variance > 1e-12, variance.sqrt(), 1.0)
        for kept_features in (self._strands, self._valid.inputs):
            kept_features.sub_(self.mean).div_(self.scale)

    def step(self, index: Int64s, turned: Bools, crop: Crop | None = None) -> Iterator[Piece]:
        """See `Examples`; features are of whole sequences, so no crop is taken."""
        assert crop is None  # the configuration refuses it
        rows = torch.from_numpy(index)
        strand = torch.from_numpy(turned & self._both).long()
        inputs = self._strands[strand, rows]
        yield Piece(inputs, self._train.lengths[rows], self._train.targets[rows], rows)

    def valid(self, max_length: int | None = None) -> Iterator[Piece]:
        """See `Examples`; as in `step`, of whole sequences."""
        yield self._valid

    def outputs(self, model: TaskModel, piece: Piece) -> Tensor:
        """See `Examples`."""
        return model.logits(piece.inputs.to(model.device))

    @torch.no_grad()
    def release(self, model: TaskModel) -> None:
        """See `Examples`: W (x - mean) / scale + b as one linear map of x."""
        head = model.head
        weight = head.weight.double().cpu() / self.scale
        bias = head.bias.double().cpu() - weight @ self.mean
        head.weight.copy_(weight)
        head.bias.copy_(bias)


class _Counter:
    """Counts rows, and says so."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def add(self, rows: int) -> None:
        self.done += rows
        if self.progress:
            self.progress(self.done, self.total)


@torch.no_grad()
def _all_features(
    model: TaskModel,
    data: LabelledData,
    other_strand: int,
    config: FinetuneConfig,
    precision: torch.dtype | None,
    counter: _Counter,
    ranks: Ranks,
) -> Piece:
    """The features (n, F) of all rows, in their order, on the CPU."""
    device = model.device
    batches = labelled_batches(
        data, tokens=config.micro_batch_tokens, reverse_complement=other_strand
    )
    rows = []
    features = torch.zeros(len(data), model.head.in_features, dtype=model.head.weight.dtype)
    model.eval()
    for number, batch in enumerate(batches):
        if number % ranks.count == ranks.rank:
            with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
                found = model.features(batch.tokens.to(device), batch.lengths.to(device))
            features[batch.index] = found.cpu().to(features.dtype)
        rows.append((batch.index, batch.lengths, batch.targets))
        counter.add(len(batch.index))
    features = ranks.sum_of(features, device)  # zero but on the rank that read them
    index, lengths, targets = (torch.cat(each) for each in zip(*rows, strict=True))
    place = index.argsort()
    return Piece(features, lengths[place], targets[place], torch.arange(len(data)))


def steps_of_epoch(rows: int, batch_size: int, *, seed: int, epoch: int) -> list[Int64s]:
    """Row numbers of each optimiser step of an epoch: every row once, in an order of its own.

    Steps differ by one row at most; none is a small rest with a noisy gradient. epoch: from 0.
    """
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    return np.array_split(order, -(-rows // batch_size))


def turned_rows(rows: int, *, seed: int, step: int) -> Bools:
    """Which of a step's rows are read on the other strand: half of them, at random, (rows,)."""
    return np.random.default_rng([seed, step, 1]).random(rows) < 0.5


def run_stages(train: LabelledData, valid: LabelledData, config: FinetuneConfig) -> list[Stage]:
    """The stages of length warm-up of a run on these rows, in optimiser steps.

    Raises InputError for stages that the rows do not allow: as long as the longest training
    sequence, with pairs, which are never cut, or so short that of no base in the middle of the
    valid sequences the class is known.
    """
    steps_per_epoch = -(-len(train) // config.batch_size)
    stages = config.length_stages(int(train.lengths.max()), steps_per_epoch)
    if len(stages) == 1:
        return stages
    for part in (train, valid):
        # windows of a genome are single sequences, and are read on demand only
        sequences = part.sequences if isinstance(part.sequences, tuple) else ()
        pair = next((i for i, ids in enumerate(sequences) if (ids == SEP).any()), None)
        if pair is not None:
            raise InputError(
                f"{part.name}: --stages {config.stages} crops sequences, but {part.ids[pair]!r} "
                "is a pair, which is never cut; leave --stages out"
            )
    shortest = stages[0].length
    if valid.task.kind == "tokens" and not known_targets(valid.middle(shortest)):
        raise InputError(
            f"{valid.name}: --stages {config.stages}: no base in the middle {shortest} of the "
            "valid sequences has a class; take longer stages"
        )
    return stages


def step_shares(stages: Sequence[Stage], lengths: Int64s) -> Float64s:
    """What share of all tokens of a run each of its steps reads, (steps,); they add up to 1.

    lengths: tokens of the training sequences, (n,). For estimates of time: rows of a step are taken
    to be of the mean length, cropped to its stage.
    """
    tokens = [float(np.minimum(lengths, stage.length).mean()) for stage in stages]
    each = np.repeat(tokens, [stage.steps for stage in stages])
    shares: Float64s = each / each.sum()
    return shares


def require_parts(
    data: LabelledData, config: FinetuneConfig, longest: int
) -> tuple[LabelledData, LabelledData]:
    """The train and the valid part, no sequence longer than the model reads; no other is touched.

    Raises InputError where one has no rows or no targets, and for sequences that are too long.
    """
    parts = []
    for split in ("train", "valid"):
        if not (data.splits == split).any():
            raise InputError(
                f"{data.name}: no rows are {split}; make a valid part from train "
                "(hyenadna.data.splits.with_valid), and keep test apart"
            )
        part = fit_length(data.part(split), config.max_length, "centre")
        part = fit_length(part, longest, "refuse")
        if not known_targets(part):
            raise InputError(f"{data.name}: all targets of the {split} part are missing")
        parts.append(part)
    return parts[0], parts[1]
