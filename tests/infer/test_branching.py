"""A client of branching states: best of n, and beam search, against all continuations there are."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from tests.model.recompute import RecomputeDecoder, random_bases, random_model

from hyenadna.alphabet import BASES
from hyenadna.config import ModelConfig
from hyenadna.infer.generate import Generated, generate
from hyenadna.infer.sampling import Sampling
from hyenadna.model.decoding import Decoder

CONFIG = ModelConfig(d_model=8, n_layer=2, max_seq_len=34, filter_order=8)
PROMPT = random_bases(11, seed=4)
LETTERS = torch.tensor(BASES)


@pytest.fixture(scope="module", params=[Decoder, RecomputeDecoder], ids=["decoder", "recompute"])
def decoder(request):
    return request.param(random_model(CONFIG, seed=1))


def best_of_n(decoder, prompt, length: int, n: int, sampling: Sampling) -> Generated:
    """The likeliest of n sampled continuations."""
    rows = generate(decoder, [prompt], length, count=n, sampling=sampling)
    return max(rows, key=lambda row: row.log_likelihood)


def beam_search(decoder, prompt, length: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest continuations that a beam finds, best first: ids (W, L), log-likelihoods (W,).

    At each base, all letters after each row of the beam compete, and the `width` likeliest stay:
    their rows of the state are selected, several of them for a row with several heirs.
    """
    state = decoder.prefill([prompt], room=length - 1)
    found = torch.empty(1, 0, dtype=torch.long)
    total = torch.zeros(1, dtype=torch.float64)
    for position in range(length):
        nats = torch.log_softmax(state.logits.double(), -1)[:, LETTERS]
        heirs = (total[:, None] + nats).flatten()
        total, chosen = heirs.topk(min(width, len(heirs)))
        rows, letters = chosen // len(BASES), LETTERS[chosen % len(BASES)]
        found = torch.cat([found[rows], letters[:, None]], 1)
        if position < length - 1:
            state = state.select(rows)
            decoder.step(state, letters)
    return found.numpy(), total.numpy()


def all_continuations(decoder, prompt, length: int) -> dict[tuple[int, ...], float]:
    """Log-likelihood of every continuation, each scored after one reading of the prompt."""
    every = list(product(BASES, repeat=length))
    state = decoder.prefill([prompt], room=length)
    scores = decoder.score(state, [np.array(each, dtype=np.uint8) for each in every])
    return {each: -float(nats.sum()) for each, nats in zip(every, scores, strict=True)}


def test_a_full_beam_finds_the_best_of_all(decoder):
    length = 4
    every = all_continuations(decoder, PROMPT, length)
    found, total = beam_search(decoder, PROMPT, length, width=4**length)
    assert tuple(found[0]) == max(every, key=every.__getitem__)
    assert len({tuple(row) for row in found}) == 4**length
    for row, likelihood in zip(found, total, strict=True):
        assert likelihood == pytest.approx(every[tuple(row)], abs=1e-3)


@pytest.mark.parametrize("width", [2, 5])
def test_a_beam_never_claims_more_than_there_is(decoder, width):
    every = all_continuations(decoder, PROMPT, 4)
    found, total = beam_search(decoder, PROMPT, 4, width)
    assert len(found) == width
    for row, likelihood in zip(found, total, strict=True):
        assert likelihood == pytest.approx(every[tuple(row)], abs=1e-3)
    ranks = sorted(every, key=every.__getitem__, reverse=True)
    # it keeps the best prefixes, so its best is among the good ones here
    assert ranks.index(tuple(found[0])) < len(ranks) // 4


def test_a_beam_of_one_is_greedy(decoder):
    found, total = beam_search(decoder, PROMPT, 12, width=1)
    (row,) = generate(decoder, [PROMPT], 12, sampling=Sampling(temperature=0))
    assert found[0].tolist() == row.tokens.tolist()
    assert total[0] == pytest.approx(row.log_likelihood, abs=1e-3)


def test_best_of_many_is_the_best_of_all(decoder):
    every = all_continuations(decoder, PROMPT, 2)
    best = best_of_n(decoder, PROMPT, 2, 150, Sampling(temperature=1.5, seed=2))
    assert tuple(best.tokens.tolist()) == max(every, key=every.__getitem__)
    assert best.log_likelihood == pytest.approx(max(every.values()), abs=1e-3)


def test_more_samples_are_never_worse(decoder):
    likelihoods = [
        best_of_n(decoder, PROMPT, 3, n, Sampling(seed=1)).log_likelihood for n in (1, 8, 48)
    ]
    assert likelihoods == sorted(likelihoods)
    assert likelihoods[0] < likelihoods[-1]


def test_branches_go_their_own_ways(decoder):
    root = decoder.prefill([PROMPT], room=6)
    branches = root.select([0, 0, 0])
    decoder.extend(branches, np.array([[7, 8], [9, 9], [10, 7]]))
    alone = decoder.prefill([[*PROMPT, 9, 9]], room=2)
    torch.testing.assert_close(branches.logits[1], alone.logits[0], atol=2e-4, rtol=0)
    again = branches.select([2, 1])
    decoder.step(again, torch.tensor([8, 8]))
    decoder.step(alone, torch.tensor([8]))
    torch.testing.assert_close(again.logits[1], alone.logits[0], atol=2e-4, rtol=0)
    assert root.lengths.tolist() == [11] and root.room == 6
    assert branches.lengths.tolist() == [13] * 3 and again.lengths.tolist() == [14] * 2
