"""What a language model says when it is asked for a label word behind demonstrations.

All queries of one prefix share one pass over it: its state is kept, and batches of queries are read
behind it (`hyenadna.model.decoding.decoder.Decoder.read`). `answers_one_by_one` is the slow twin
that passes prefix and query together for each row, and `answers_together` does so in batches: what
is saved by sharing the prefix, and not by batching, is the difference to that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hyenadna.alphabet import PAD, Ids
from hyenadna.data.batches import BATCH_TOKENS
from hyenadna.data.labelled_batches import padded
from hyenadna.errors import InputError
from hyenadna.infer.predict import batches
from hyenadna.label_words import LabelWords
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.decoding.decoder import Decoder

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
NOTHING = -1


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model says of some queries behind one prefix."""

    log_probabilities: Floats
    """Nats of the word of each class among all that the vocabulary can spell, (n, T)."""
    spelled: Int64s
    """The class whose word has the most probable letter of all V at each of its places, (n,);
    NOTHING where no class has: the stricter answer that the paper counts."""


def answers(
    decoder: Decoder,
    prefix: Ids,
    queries: Sequence[Ids],
    words: LabelWords,
    *,
    batch_tokens: int = BATCH_TOKENS,
    progress: Callable[[int, int], None] | None = None,
) -> Answers:
    """The answers to queries behind a prefix, in their order, whatever they are batched with.

    prefix: ids (P,), may be empty. queries: ids (L,) of any lengths, each with its [SEP] at the
    end. batch_tokens: of a pass, padding included; a longer query goes alone. progress: told how
    many queries are done, and of how many.

    Raises InputError where prefix, query and word are more than the model reads, and for no or
    empty queries.
    """
    model = decoder.model
    assert isinstance(model, HyenaDNA)
    rows = _rows(queries, words)
    state = None
    if len(prefix):
        state = decoder.prefill([prefix], room=max(map(len, rows)))

    def read(tokens: Tensor) -> Tensor:
        if state is not None:
            return decoder.read(state, tokens)
        with torch.inference_mode():
            return model.embed(tokens)

    return _in_batches(model, rows, len(queries), words, read, batch_tokens, progress)


def answers_together(
    model: HyenaDNA,
    prefix: Ids,
    queries: Sequence[Ids],
    words: LabelWords,
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> Answers:
    """The same in batches of prefix and query, each row with a prefix of its own: to time it.

    batch_tokens: of a pass, prefixes and padding included; a longer row goes alone.
    """
    rows = [np.concatenate([prefix, row]) for row in _rows(queries, words)]

    def read(tokens: Tensor) -> Tensor:
        with torch.inference_mode():
            return model.embed(tokens)

    return _in_batches(model, rows, len(queries), words, read, batch_tokens, None)


def _in_batches(
    model: HyenaDNA,
    rows: Sequence[Ids],
    n: int,
    words: LabelWords,
    read: Callable[[Tensor], Tensor],
    batch_tokens: int,
    progress: Callable[[int, int], None] | None,
) -> Answers:
    """Answers to n queries, from the hidden states that `read` gives of batches of their rows."""
    places: list[int] = []
    found: list[Tensor] = []
    done = 0
    for batch in batches([len(row) for row in rows], batch_tokens):
        tokens = padded([rows[i] for i in batch], PAD)
        hidden = read(tokens)
        # the places behind which a letter of the word comes
        first = torch.tensor([len(rows[i]) - words.length for i in batch])
        asked = first[:, None] + torch.arange(words.length)
        each = torch.arange(len(batch))[:, None]
        found.append(_log_softmax(model, hidden[each, asked]))
        places += batch
        done += len(batch)
        if progress:
            progress(done * n // len(rows), n)
    letters = torch.empty(len(rows), words.length, model.vocab_rows, dtype=torch.float64)
    letters[places] = torch.cat(found)
    return _collected(letters, words, n)


def answers_one_by_one(
    model: HyenaDNA, prefix: Ids, queries: Sequence[Ids], words: LabelWords
) -> Answers:
    """The same with a pass over prefix and query for each row: the plain way, to compare with."""
    rows = _rows(queries, words)
    found = []
    with torch.inference_mode():
        for row in rows:
            hidden = model.embed(np.concatenate([prefix, row]).astype(np.int64))[0]
            found.append(_log_softmax(model, hidden[len(hidden) - words.length :]))
    return _collected(torch.stack(found), words, len(queries))


def _rows(queries: Sequence[Ids], words: LabelWords) -> list[Ids]:
    """Each query with each beginning of a word behind it, those of a query side by side."""
    if not queries or not all(map(len, queries)):
        raise InputError("few-shot: no queries, or an empty one; give at least a [SEP] each")
    return [np.concatenate([query, begun]) for query in queries for begun in words.beginnings]


def _log_softmax(model: HyenaDNA, hidden: Tensor) -> Tensor:
    """Nats (..., V) of the next letter after each of some hidden states, (..., D)."""
    with torch.no_grad():
        return model.logits(hidden).double().log_softmax(-1).cpu()


def _collected(letters: Tensor, words: LabelWords, n: int) -> Answers:
    """Words out of letters: nats (rows, W, V) of the rows of `_rows`, of n queries."""
    by_query = letters.numpy().reshape(n, len(words.beginnings), *letters.shape[1:])
    after = by_query[:, words.beginning_of]  # (n, T, W, V)
    ids = words.ids.astype(np.int64)
    said = np.take_along_axis(after, ids[None, :, :, None], axis=3)[..., 0]  # (n, T, W)
    is_top = (after.argmax(3) == ids).all(2)  # (n, T), true for one class at most
    spelled = np.where(is_top.any(1), is_top.argmax(1), NOTHING).astype(np.int64)
    return Answers(said.sum(2), spelled)


def class_probabilities(log_probabilities: Floats, prior: Floats | None = None) -> Floats:
    """Probabilities of the classes alone, (n, T), from nats of their words, (n, T).

    prior: log of what the model says on average, (T,), which is taken off first: label priors that
    demonstrations and spelling bring along then cancel (batch calibration, Zhou et al. 2023,
    arXiv:2309.17249; with the answers to a query without content it is the contextual calibration
    of Zhao et al. 2021, arXiv:2102.09690).
    """
    nats = log_probabilities if prior is None else log_probabilities - prior
    odds = np.exp(nats - nats.max(1, keepdims=True))
    total: Floats = odds / odds.sum(1, keepdims=True)
    return total


def class_prior(log_probabilities: Floats) -> Floats:
    """Log of the mean probability of each class over some queries, (T,), for calibration.

    Among the classes: a query at which the model hardly thinks of any label counts like another.
    """
    tiny = np.finfo(np.float64).tiny
    prior: Floats = np.log(np.maximum(class_probabilities(log_probabilities).mean(0), tiny))
    return prior
