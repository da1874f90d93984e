"""Many sequences that begin alike, read at the cost of their different ends.

A causal model computes the same numbers for what sequences have in common at their front, so that
is read once and kept as a state; each end is then read behind it. `read_whole` is the slow twin:
every sequence by itself, from its first token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from hyenadna.alphabet import PAD, Ids
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.decoding.decoder import Decoder
from hyenadna.model.decoding.state import DecodingState

ROW_TOKENS: Final = 1 << 14
"""Tokens of ends that are read in one pass."""


class EndReading(NamedTuple):
    """What a model makes of the end of a sequence, given all before it."""

    nats: Tensor
    """(n,): minus the log-probability of each token, all V classes competing."""
    hidden: Tensor
    """(n, D): hidden states after the final norm."""


def read_ends(
    decoder: Decoder, behind: DecodingState, ends: Sequence[Ids], *, row_tokens: int = ROW_TOKENS
) -> list[EndReading]:
    """Each end read behind a state of one sequence, in the order given.

    ends: token ids (n,) of any lengths >= 1, none longer than the room of the state. The state
    stays where it is; it is settled. row_tokens: tokens of a pass, at most (or one end). Results do
    not depend on it, or on the other ends, beyond rounding.

    Raises InputError without room, and for ids out of range.
    """
    out: dict[int, EndReading] = {}
    first = behind.logits
    for chosen in _alike([len(end) for end in ends], row_tokens):
        longest = max(len(ends[i]) for i in chosen)
        # ids of a padded row; what follows an end cannot change it
        tokens = torch.full((len(chosen), longest), PAD, dtype=torch.int64)
        for row, i in zip(tokens, chosen, strict=True):
            row[: len(ends[i])] = torch.as_tensor(ends[i])
        hidden = decoder.read(behind, tokens)
        tokens = tokens.to(hidden.device)
        before = first.expand(len(chosen), -1)[:, None]
        with torch.no_grad():
            logits = torch.cat([before, decoder.model.logits(hidden[:, :-1])], dim=1)
            nats = _nats(logits, tokens)
        for row, i in enumerate(chosen):
            n = len(ends[i])
            out[i] = EndReading(nats[row, :n], hidden[row, :n])
    return [out[i] for i in range(len(ends))]


@torch.no_grad()
def read_whole(model: HyenaDNA, front: Ids, ends: Sequence[Ids]) -> list[EndReading]:
    """The slow twin of `read_ends`: each sequence, front and end, passes through the model alone.

    front: at least one token. Raises InputError as the model does.
    """
    out = []
    for end in ends:
        tokens = torch.cat([torch.as_tensor(front).long(), torch.as_tensor(end).long()])[None]
        hidden = model.embed(tokens)
        at = len(front)
        targets = tokens[:, at:].to(hidden.device)
        nats = _nats(model.logits(hidden[:, at - 1 : -1]), targets)
        out.append(EndReading(nats[0], hidden[0, at:]))
    return out


def _nats(logits: Tensor, targets: Tensor) -> Tensor:
    """(B, L): of targets (B, L) under logits (B, L, V)."""
    return nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")


def _alike(lengths: Sequence[int], row_tokens: int) -> Iterator[list[int]]:
    """Numbers of the ends that make a pass together: of similar lengths, so little is padding."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        full = (len(batch) + 1) * lengths[i] > row_tokens
        if batch and (full or 2 * lengths[batch[0]] < lengths[i]):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
