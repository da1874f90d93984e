"""The slow twin of the decoder: it keeps the tokens and runs the whole model over them each time.

It is the reference of every test of generation, so it is written to be right at a glance: each row
goes through `model(ids)` alone, from its first token to its last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA


@dataclass
class RecomputeState:
    """All tokens of each row, and the logits after the last of them."""

    rows: list[list[int]]
    room: int
    logits: Tensor
    soft: Tensor | None = None
    """Vectors (P, D) before the tokens of every row."""

    @property
    def batch(self) -> int:
        """Number of rows, B."""
        return len(self.rows)

    @property
    def lengths(self) -> Tensor:
        """Tokens read so far by each row, (B,)."""
        return torch.tensor([len(row) for row in self.rows])

    @property
    def nbytes(self) -> int:
        """Bytes of the tokens and the logits."""
        return 8 * int(self.lengths.sum()) + self.logits.nbytes

    def select(self, rows: Any) -> RecomputeState:
        """A new state of those rows; repeats allowed."""
        chosen = [int(row) for row in rows]
        kept = [list(self.rows[row]) for row in chosen]
        return RecomputeState(kept, self.room, self.logits[chosen].clone(), self.soft)

    def clone(self) -> RecomputeState:
        """A copy that goes its own way."""
        return self.select(range(self.batch))


class RecomputeDecoder:
    """`Decoder` without any memory of the past; counts the rows that it was asked to prefill."""

    def __init__(self, model: HyenaDNA) -> None:
        self.model, self.backbone = model.eval(), model.backbone
        self.config = model.config
        self.prefilled = 0
        self.batches: list[int] = []
        """Rows of every step so far."""

    @torch.no_grad()
    def _all_logits(self, row: Sequence[int], soft: Tensor | None = None) -> Tensor:
        """Logits (L, V) after each token of a row."""
        if soft is None:
            return self.model(torch.tensor([list(row)]))[0]
        tokens = self.backbone.embeddings(torch.tensor(list(row)))
        hidden = self.backbone(torch.cat([soft, tokens])[None])
        return self.model.logits(hidden)[0, len(soft) :]

    def _last_logits(self, rows: Sequence[Sequence[int]], soft: Tensor | None = None) -> Tensor:
        return torch.stack([self._all_logits(row, soft)[-1] for row in rows])

    def prefill(
        self, prompts: Any, *, room: int, behind: RecomputeState | None = None
    ) -> RecomputeState:
        """A state that has read the prompts: ids, or all of them embedded (then of vectors)."""
        if isinstance(prompts[0], Tensor) and prompts[0].is_floating_point():
            (soft,) = prompts
            return RecomputeState([[]], room, torch.zeros(1, 0), soft)
        soft = None if behind is None else behind.soft
        rows = [[int(token) for token in prompt] for prompt in prompts]
        longest = max(len(row) for row in rows) + room + (0 if soft is None else len(soft))
        if longest > self.model.config.max_seq_len:
            raise InputError(f"decoder: {longest} tokens are more than the model reads")
        self.prefilled += len(rows)
        return RecomputeState(rows, room, self._last_logits(rows, soft), soft)

    def step(self, state: RecomputeState, tokens: Any) -> Tensor:
        """One more token for each row; the logits (B, V) after it."""
        return self.extend(state, [[int(token)] for token in tokens])[:, 0]

    def extend(self, state: RecomputeState, tokens: Any) -> Tensor:
        """n more tokens for each row; the logits (B, n, V) after each of them."""
        new = [[int(token) for token in row] for row in tokens]
        assert len(new) == state.batch and len(new[0]) <= state.room
        self.batches.append(state.batch)
        for row, more in zip(state.rows, new, strict=True):
            row.extend(more)
        state.room -= len(new[0])
        logits = torch.stack(
            [self._all_logits(row, state.soft)[-len(new[0]) :] for row in state.rows]
        )
        state.logits = logits[:, -1]
        return logits

    def score(self, state: RecomputeState, continuations: Sequence[Any]) -> list[Tensor]:
        """Nats of each token of each continuation, given all before it."""
        rows = state.rows * len(continuations) if state.batch == 1 else state.rows
        found = []
        for row, continuation in zip(rows, continuations, strict=True):
            more = [int(token) for token in continuation]
            # the logits after token t are about token t + 1
            logits = self._all_logits(row + more[:-1])[len(row) - 1 :]
            nats = -torch.log_softmax(logits.double(), -1)
            found.append(nats[torch.arange(len(more)), more])
        return found

    def bytes_for(self, batch: int, room: int, prompt: int = 0) -> int:
        """Bytes of the tokens and the logits of B rows with that much room."""
        return batch * (8 * (prompt + room) + 4 * self.config.padded_vocab_size)


def random_model(config: Any, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> HyenaDNA:
    """A model whose weights are large enough that its predictions are far from uniform."""
    torch.manual_seed(seed)
    model = HyenaDNA(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.to(dtype).eval()


def random_bases(length: int, *, seed: int = 0) -> np.ndarray:
    """Token ids of A C G T, shape (L,)."""
    return np.random.default_rng(seed).integers(7, 11, length).astype(np.uint8)
