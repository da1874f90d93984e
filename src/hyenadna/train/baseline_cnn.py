"""A small dilated convolutional network as a baseline, with a short training loop of its own.

One-hot bases, a convolution of 9, then residual blocks (layer norm, convolution of 3 with dilation
1, 2, 4, ..., 64, GELU, a linear map): 48 channels, about 70,000 weights, and each base is seen with
131 on either side. Mean and maximum over real tokens, then a linear map; for a class per base the
linear map alone. Beside the bases the first convolution reads how far each is from the middle and
from both ends (e^-d/2, d/8, d/32, d/128), without which a pooled network could not tell where in an
aligned window a motif stands. AdamW, warm-up and cosine; the epoch that is best on the valid part,
by the main metric of the task, is kept. It is small, to run on a core in minutes.
Everything is masked, so padding and batch neighbours change nothing.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hyenadna.alphabet import BASES, IGNORED, PAD, VOCAB_SIZE, Ids
from hyenadna.data.labelled_data import LabelledData, Task
from hyenadna.errors import InputError
from hyenadna.task_kinds import TaskKind
from hyenadna.train.baseline_choice import flat_targets, valid_score

Float32s = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]

_PREDICT_TOKENS: Final = 1 << 16
_SCALES: Final = (2.0, 8.0, 32.0, 128.0)
_BUCKET: Final = 32
"""Batches whose rows are sorted by length together, so that little is padded."""


@dataclass(frozen=True, kw_only=True)
class CnnConfig:
    """Shape and training of the network."""

    width: int = 48
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    dropout: float = 0.1
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    batch_size: int = 64
    """Most rows of a batch; a small train part gets smaller ones, down to 16, and so more steps."""
    batch_tokens: int = 1 << 16
    """Longest batch in tokens, padding counted; one sequence may be longer."""
    epochs: int = 20
    max_steps: int = 4000
    patience: int = 4
    """Epochs without a better valid score after which training ends."""


class DilatedCnn(nn.Module):
    """Outputs (B, T), or (B, L, T) for a class per base, of tokens (B, L) and lengths (B,)."""

    one_hot: Tensor

    def __init__(self, kind: TaskKind, outputs: int, config: CnnConfig) -> None:
        super().__init__()
        width = config.width
        self.per_token = kind == "tokens"
        one_hot = torch.zeros(VOCAB_SIZE, len(BASES))
        one_hot[torch.tensor(BASES), torch.arange(len(BASES))] = 1.0  # what is no base is zeros
        self.register_buffer("one_hot", one_hot)
        self.stem = nn.Conv1d(len(BASES) + 3 * len(_SCALES), width, 9, padding=4)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in config.dilations)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, width, 3, padding=d, dilation=d) for d in config.dilations
        )
        self.mixes = nn.ModuleList(nn.Linear(width, width) for _ in config.dilations)
        self.dropout = nn.Dropout(config.dropout)
        features = width if self.per_token else 2 * width
        self.norm, self.head = nn.LayerNorm(features), nn.Linear(features, outputs)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        real = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        mask = real[:, :, None].to(torch.float32)
        x = torch.cat([self.one_hot[tokens], _places(real, lengths)], dim=2) * mask
        x = self.stem(x.transpose(1, 2)).transpose(1, 2) * mask
        for norm, convolution, mix in zip(self.norms, self.convolutions, self.mixes, strict=True):
            y = norm(x) * mask  # the bias of the norm must not leak in from the padding
            y = F.gelu(convolution(y.transpose(1, 2)).transpose(1, 2))
            x = (x + self.dropout(mix(y))) * mask
        if not self.per_token:
            mean = x.sum(dim=1) / lengths[:, None]
            x = torch.cat([mean, x.masked_fill(~real[:, :, None], -math.inf).amax(dim=1)], dim=1)
        out: Tensor = self.head(self.norm(x))
        return out


def _places(real: Tensor, lengths: Tensor) -> Tensor:
    """e^(-d / s) for the distance d of each place to the middle and both ends: (B, L, 12)."""
    at = torch.arange(real.shape[1], device=real.device, dtype=torch.float32)[None, :]
    last = (lengths[:, None] - 1).to(torch.float32)
    distance = torch.stack([(at - last / 2).abs(), at.expand(len(last), -1), last - at], dim=2)
    scales = torch.tensor(_SCALES, device=real.device)
    # behind the end the distance is negative, and masked
    return torch.exp(-distance.clamp(min=0)[..., None] / scales).flatten(2)


@dataclass(frozen=True, eq=False)
class CnnModel:
    """A trained network; made by `fit_cnn`."""

    network: DilatedCnn
    task: Task
    mean: Float32s
    scale: Float32s
    """Values are mean + scale * output; 0 and 1 for other kinds."""
    chosen: str
    name: str = "cnn"

    def predict(self, sequences: Sequence[Ids]) -> Float32s:
        """Probabilities (n, C) or (n, T), or values (n, T), float32; see `Baseline.predict`."""
        if not len(sequences):
            raise InputError("cnn baseline: no sequences to predict")
        lengths = [len(sequences[i]) for i in range(len(sequences))]
        out: list[Float32s] = [np.empty(0, dtype=np.float32)] * len(lengths)
        order = np.argsort(lengths, kind="stable")
        self.network.eval()
        with torch.inference_mode():
            for index in _cut(order, np.asarray(lengths), 1024, _PREDICT_TOKENS):
                scores = self._scores([sequences[i] for i in index])
                for i, score in zip(index, scores, strict=True):
                    out[i] = score[: lengths[i]] if self.network.per_token else score[None]
        return np.concatenate(out)

    def _scores(self, sequences: Sequence[Ids]) -> Float32s:
        device = next(self.network.parameters()).device
        scores = self.network(*_padded(sequences, device)).float()
        if self.task.kind in ("classes", "tokens"):
            scores = scores.softmax(dim=-1)
        elif self.task.kind == "labels":
            scores = scores.sigmoid()
        array: Float32s = scores.cpu().numpy()
        return array * self.scale + self.mean if self.task.kind == "values" else array


def fit_cnn(
    train: LabelledData,
    valid: LabelledData,
    seed: int,
    *,
    device: str = "cpu",
    config: CnnConfig | None = None,
) -> CnnModel:
    """The network after the epoch that is best on the valid part.

    A function of data, seed and config on one device; the random state of the caller is kept.
    """
    config = config or CnnConfig()
    mean, scale = _scaling(train)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = DilatedCnn(train.task.kind, train.task.outputs, config).to(device)
        best = _train(network, train, valid, mean, scale, seed, config)
    return CnnModel(network, train.task, mean, scale, f"epoch {best}")


def _train(
    network: DilatedCnn,
    train: LabelledData,
    valid: LabelledData,
    mean: Float32s,
    scale: Float32s,
    seed: int,
    config: CnnConfig,
) -> int:
    """Trains the network in place; the epoch (from 1) whose weights it has in the end."""
    config = replace(config, batch_size=min(config.batch_size, max(16, len(train) // 50)))
    rng = np.random.default_rng(seed)
    steps = sum(1 for _ in _batches(train, np.random.default_rng(seed), config))
    epochs = max(1, min(config.epochs, config.max_steps // steps))
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    answers = flat_targets(valid)
    best, best_epoch = (-math.inf, -math.inf), 0
    best_weights = copy.deepcopy(network.state_dict())
    model = CnnModel(network, train.task, mean, scale, "")
    for epoch in range(1, epochs + 1):
        network.train()
        batches = list(_batches(train, rng, config))  # their number may differ between epochs
        for step, index in enumerate(batches):
            loss, count = _loss(network, train, index, mean, scale)
            if not count:
                continue
            done = (epoch - 1 + step / len(batches)) / epochs
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * _rate(done)
            optimizer.zero_grad()
            (loss / count).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
        outputs = model.predict(valid.sequences)
        score = valid_score(valid.task.kind, answers, outputs, where=valid.name)
        if score > best:
            best, best_epoch = score, epoch
            best_weights = copy.deepcopy(network.state_dict())
        if epoch - best_epoch >= config.patience:
            break
    network.load_state_dict(best_weights)
    return best_epoch


def _rate(done: float) -> float:
    """Learning rate over its peak when a share `done` of training is over: warm-up, then cosine."""
    return (
        (done + 0.01) / 0.11 if done < 0.1 else 0.5 * (1 + math.cos(math.pi * (done - 0.1) / 0.9))
    )


def _loss(
    network: DilatedCnn, data: LabelledData, index: Int64s, mean: Float32s, scale: Float32s
) -> tuple[Tensor, int]:
    """Summed loss over the known targets of some rows, and their number."""
    device = next(network.parameters()).device
    sequences = [data.sequences[i] for i in index]
    scores = network(*_padded(sequences, device))
    if data.task.kind in ("classes", "tokens"):
        if data.task.kind == "tokens":
            targets = np.full(scores.shape[:2], IGNORED, dtype=np.int64)
            for row, i in enumerate(index):
                targets[row, : len(data.targets[i])] = data.targets[i]
        else:
            targets = data.targets[index]
        target = torch.from_numpy(targets).to(device).reshape(-1)
        scores = scores.reshape(-1, scores.shape[-1])
        loss = F.cross_entropy(scores, target, ignore_index=IGNORED, reduction="sum")
        return loss, int((target != IGNORED).sum())
    target = torch.from_numpy((data.targets[index] - mean) / scale).to(device)
    known = ~target.isnan()
    target = target.nan_to_num()
    if data.task.kind == "labels":
        each = F.binary_cross_entropy_with_logits(scores, target, reduction="none")
    else:
        each = (scores - target) ** 2
    return (each * known).sum(), int(known.sum())


def _scaling(train: LabelledData) -> tuple[Float32s, Float32s]:
    """Mean and standard deviation of each value of the train part; 0 and 1 for other kinds."""
    zero, one = np.zeros(train.task.outputs), np.ones(train.task.outputs)
    if train.task.kind == "values":
        known = ~np.isnan(train.targets)
        counts = np.maximum(known.sum(axis=0), 1)
        zero = np.where(known, train.targets, 0).sum(axis=0) / counts
        square = (np.where(known, train.targets - zero, 0) ** 2).sum(axis=0) / counts
        one = np.where(square > 0, np.sqrt(square), 1)
    return zero.astype(np.float32), one.astype(np.float32)


def _padded(sequences: Sequence[Ids], device: torch.device) -> tuple[Tensor, Tensor]:
    lengths = np.array([len(sequence) for sequence in sequences])
    tokens = np.full((len(sequences), int(lengths.max())), PAD, dtype=np.int64)
    for row, sequence in enumerate(sequences):
        tokens[row, : len(sequence)] = sequence
    return torch.from_numpy(tokens).to(device), torch.from_numpy(lengths).to(device)


def _batches(data: LabelledData, rng: np.random.Generator, config: CnnConfig) -> Iterator[Int64s]:
    """Row numbers of the batches of one epoch, in random order, alike lengths together."""
    order = rng.permutation(len(data))
    span = _BUCKET * config.batch_size
    batches = []
    for start in range(0, len(order), span):
        stretch = order[start : start + span]
        by_length = stretch[np.argsort(data.lengths[stretch], kind="stable")]
        batches += list(_cut(by_length, data.lengths, config.batch_size, config.batch_tokens))
    for at in rng.permutation(len(batches)):
        yield batches[at]


def _cut(order: Int64s, lengths: Int64s, rows: int, tokens: int) -> Iterator[Int64s]:
    """The order in stretches of at most so many rows, and tokens with padding."""
    first, longest = 0, 0
    for at, row in enumerate(order):
        longest_now = max(longest, int(lengths[row]))
        if at > first and (at - first == rows or longest_now * (at - first + 1) > tokens):
            yield order[first:at]
            first, longest_now = at, int(lengths[row])
        longest = longest_now
    if len(order) > first:
        yield order[first:]
