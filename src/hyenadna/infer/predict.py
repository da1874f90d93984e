"""What a fine-tuned model says of sequences: probabilities, or values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from hyenadna.alphabet import PAD, Ids
from hyenadna.data.batches import BATCH_TOKENS
from hyenadna.data.labelled_batches import padded
from hyenadna.errors import InputError
from hyenadna.model.heads import TaskModel
from hyenadna.model.probabilities import probabilities

_READ_AHEAD_BATCHES: Final = 16
_READ_AHEAD_ROWS: Final = 4096

Floats = npt.NDArray[np.float32]


def predict(
    task_model: TaskModel,
    sequences: Sequence[Ids],
    *,
    batch_tokens: int = BATCH_TOKENS,
    precision: torch.dtype | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Floats]:
    """Probabilities or values of each sequence, in order: float32 (T,), for tokens (L, T).

    classes and tokens: probabilities of the classes, which sum to 1; labels: of each label; values:
    as they are. They are the same for a sequence alone and among others, up to rounding.

    sequences: token ids (L,) each, read as they are needed, a stretch ahead. batch_tokens: short
    sequences go together up to so many tokens with their padding, similar lengths in a batch; a
    longer one goes alone. precision: type of the matrix products. progress: told how many
    sequences are done, and of how many. The model is in evaluation mode while results come, and as
    before at the end.

    Raises InputError for an empty sequence or one that is longer than the model reads, by its
    number, and for `batch_tokens` below 1.
    """
    if batch_tokens < 1:
        raise InputError(f"batch_tokens is {batch_tokens}; it must be at least 1")
    longest = task_model.max_length
    was_training = task_model.training
    task_model.eval()
    done = 0
    try:
        for stretch in _stretches(sequences, batch_tokens, longest):
            results: list[Floats | None] = [None] * len(stretch)
            for rows in batches([len(ids) for ids in stretch], batch_tokens):
                for row, result in zip(
                    rows, _run(task_model, [stretch[i] for i in rows], precision), strict=True
                ):
                    results[row] = result
                done += len(rows)
                if progress:
                    progress(done, len(sequences))
            for row_result in results:
                assert row_result is not None
                yield row_result
    finally:
        task_model.train(was_training)


def batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Rows that make one forward pass together, longest first.

    At most `batch_tokens` tokens with the padding (or one longer row), and none less than half as
    long as the longest: padding costs time.
    """
    made: list[list[int]] = []
    longest = 0
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        full = made and (len(made[-1]) + 1) * longest > batch_tokens
        if not made or full or 2 * lengths[row] < longest:
            made.append([])
            longest = lengths[row]
        made[-1].append(row)
    return made


def _stretches(sequences: Sequence[Ids], batch_tokens: int, longest: int) -> Iterator[list[Ids]]:
    """The sequences in stretches of several batches, so that similar lengths can meet."""
    stretch: list[Ids] = []
    tokens = 0
    for number in range(len(sequences)):
        ids = sequences[number]
        if not 1 <= len(ids) <= longest:
            raise InputError(
                f"sequence {number + 1}: has {len(ids):,} tokens; this model reads 1 to "
                f"{longest:,}, so leave it out or cut it"
            )
        stretch.append(ids)
        tokens += len(ids)
        if tokens >= _READ_AHEAD_BATCHES * batch_tokens or len(stretch) >= _READ_AHEAD_ROWS:
            yield stretch
            stretch, tokens = [], 0
    if stretch:
        yield stretch


@torch.inference_mode()
def _run(
    task_model: TaskModel, sequences: Sequence[Ids], precision: torch.dtype | None
) -> list[Floats]:
    lengths = [len(ids) for ids in sequences]
    tokens = padded(sequences, PAD)
    device = task_model.device
    with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
        outputs = task_model(tokens.to(device), torch.tensor(lengths))
    said = probabilities(task_model.task.kind, outputs).float().cpu().numpy()
    if task_model.task.kind == "tokens":
        return [row[:length].copy() for row, length in zip(said, lengths, strict=True)]
    return list(said)
