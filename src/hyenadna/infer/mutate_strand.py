"""The substitutions of a stretch of one strand, read in its own direction, and the slow twin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hyenadna.alphabet import BASES, A, Ids, T
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.decoding.decoder import Decoder
from hyenadna.model.decoding.state import DecodingState

Floats = npt.NDArray[np.float64]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode while the block runs, for the model and all in it; then as before."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def read_strand(
    decoder: Decoder,
    ids: Ids,
    first: int,
    last: int,
    after: int,
    block: int,
    row_tokens: int,
    progress: Callable[[int], None] | None,
) -> tuple[Floats, Floats]:
    """Score and allele (last - first, 4) of positions first .. last - 1 of the tokens read."""
    tokens = torch.from_numpy(ids[: last + after].astype(np.int64))
    text = tokens.to(_model(decoder).head_weight.device)
    state = decoder.prefill([text[:first]], room=len(text) - first) if first else None
    reference = _read_reference(decoder, state, text, first)
    count = last - first
    follow = torch.zeros(count, len(BASES), dtype=torch.float64, device=text.device)
    if progress:
        progress(len(text))
    for start in range(first, last, block):
        stop = min(start + block, last)
        if start > first:
            state = _moved(decoder, state, text, start - block, start)
        mutants = _mutants(text, start, stop)
        width = _width(start, stop, len(text), after)
        for rows in mutants.split(max(1, row_tokens // max(1, width))):
            changes = _changes(decoder, state, text, reference, start, width, after, rows)
            follow[rows[:, 0] - first, rows[:, 1]] = changes
        if progress:
            progress(block_tokens(start, stop, len(text), after))
    other = _others(text[first:last])
    change = reference.predicted[:count] - reference.nats[:count, None]
    allele = torch.where(other, change, torch.nan)
    score = torch.where(other, change.nan_to_num(0.0) + follow, torch.nan)
    if not first and min(after, len(text) - 1) < 1:
        score[0] = torch.nan  # neither a prediction of it, nor anything behind it
    return score.cpu().numpy(), allele.cpu().numpy()


class _Reference(NamedTuple):
    """Log-probabilities, float64, of the positions that are read behind the front."""

    predicted: Tensor
    """(n, 4) of A C G T at each position; NaN where there is nothing before it."""
    nats: Tensor
    """(n,) of the base that stands there, N included."""


def _read_reference(
    decoder: Decoder, state: DecodingState | None, text: Tensor, first: int
) -> _Reference:
    """The reference from position `first` on, behind the state of what is before."""
    behind = text[first:]
    logits = decoder.model.logits(_read(decoder, state, behind[None, :-1]))[0]
    nothing = logits.new_full(logits.shape[1:], torch.nan)
    before = nothing if state is None else state.logits[0].to(logits)
    logp = torch.cat([before[None], logits]).double().log_softmax(-1)
    return _Reference(logp[:, list(BASES)], logp.gather(1, behind[:, None])[:, 0])


def _read(decoder: Decoder, state: DecodingState | None, rows: Tensor) -> Tensor:
    """Final hidden states (B, n, D) of tokens (B, n) behind a state, or at the very beginning."""
    model = _model(decoder)
    if not rows.shape[1]:
        return model.head_weight.new_zeros(len(rows), 0, model.config.d_model)
    return model.embed(rows) if state is None else decoder.read(state, rows)


def _model(decoder: Decoder) -> HyenaDNA:
    assert isinstance(decoder.model, HyenaDNA)
    return decoder.model


def _moved(
    decoder: Decoder, state: DecodingState | None, text: Tensor, start: int, stop: int
) -> DecodingState:
    """The state after the bases start .. stop - 1 as well."""
    if state is None:
        return decoder.prefill([text[start:stop]], room=len(text) - stop)
    decoder.extend(state, text[None, start:stop])
    return state


def _others(text: Tensor) -> Tensor:
    """(n, 4): whether A C G T is another base than that which stands there."""
    bases = torch.tensor(BASES, device=text.device)
    return _known(text)[:, None] & (text[:, None] != bases)


def _known(text: Tensor) -> Tensor:
    """(n,): whether it is A, C, G or T."""
    return (text >= A) & (text <= T)


def _mutants(text: Tensor, start: int, stop: int) -> Tensor:
    """(R, 2): position and column of each substitution in start .. stop - 1."""
    found = _others(text[start:stop]).nonzero()
    found[:, 0] += start
    return found


def _width(start: int, stop: int, length: int, after: int) -> int:
    """Tokens of a row of a block: up to what predicts the last base that counts."""
    return max(0, min(stop - 1 + after, length - 1) - start) if after else 0


def block_tokens(start: int, stop: int, length: int, after: int) -> int:
    return len(BASES[1:]) * (stop - start) * _width(start, stop, length, after)


def _changes(
    decoder: Decoder,
    state: DecodingState | None,
    text: Tensor,
    reference: _Reference,
    start: int,
    width: int,
    after: int,
    mutants: Tensor,
) -> Tensor:
    """(R,): how much likelier each substitution makes what follows it, in nats."""
    if not width or not len(mutants):
        return torch.zeros(len(mutants), dtype=torch.float64, device=text.device)
    at, column = mutants.T
    rows = text[start : start + width].repeat(len(mutants), 1)
    # the last positions of a text have nothing behind them, so their rows are not changed
    inside = at < start + width
    rows[inside.nonzero()[:, 0], at[inside] - start] = column[inside] + A
    logits = decoder.model.logits(_read(decoder, state, rows))
    target = text[start + 1 : start + 1 + width]
    logp = logits.double().log_softmax(-1)
    nats = logp.gather(2, target[None, :, None].expand(len(rows), -1, 1))[..., 0]
    offset = len(reference.nats) - len(text)
    before = reference.nats[start + 1 + offset : start + 1 + width + offset]
    position = torch.arange(start + 1, start + 1 + width, device=text.device)
    counted = (position > at[:, None]) & (position <= at[:, None] + after) & _known(target)
    return torch.where(counted, nats - before, 0.0).sum(1)


def read_strand_whole(model: HyenaDNA, ids: Ids, after: int) -> tuple[Floats, Floats]:
    score = np.full((len(ids), len(BASES)), np.nan)
    allele = score.copy()
    reference = _nats_alone(model, ids)
    known = (ids >= A) & (ids <= T)
    for p in np.flatnonzero(known):
        for column, base in enumerate(BASES):
            if base == ids[p]:
                continue
            mutant = ids.copy()
            mutant[p] = base
            change = _nats_alone(model, mutant) - reference
            tail = change[p + 1 : p + 1 + after]
            terms = [tail[known[p + 1 : p + 1 + after]].sum()] if len(tail) else []
            if p:
                allele[p, column] = change[p]
                terms.append(change[p])
            if terms:
                score[p, column] = sum(terms)
    return score, allele


def _nats_alone(model: HyenaDNA, ids: Ids) -> Floats:
    """(L,): log-probability of each token given all before it; of the first it is NaN."""
    tokens = torch.from_numpy(ids.astype(np.int64))[None].to(model.head_weight.device)
    logp = model(tokens)[0, :-1].double().log_softmax(-1)
    found = logp.gather(1, tokens[0, 1:, None])[:, 0].cpu().numpy()
    return np.concatenate([[np.nan], found])
