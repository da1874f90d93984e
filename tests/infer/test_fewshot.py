"""Answers behind demonstrations: one pass over the prefix is worth one for each query."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hyenadna.alphabet import SEP, A, encode
from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.infer.fewshot import (
    answers,
    answers_one_by_one,
    answers_together,
    class_prior,
    class_probabilities,
)
from hyenadna.label_words import LabelWords, label_words
from hyenadna.model.backbone import HyenaDNA, rescale_filters
from hyenadna.model.decoding.decoder import Decoder

SHAPES = {
    "order 2": {},
    "order 3": {"hyena_order": 3},
    "attention": {"mixer": "attention", "num_heads": 2},
}
TWO = label_words(["a", "b"])
SIX = label_words(list("abcdef"))


def model_of(shape: dict, scale: float = 8.0) -> HyenaDNA:
    """A random model that is sure of something: its table is scaled up."""
    torch.manual_seed(1)
    model = HyenaDNA(ModelConfig(d_model=16, n_layer=2, max_seq_len=130, filter_order=16, **shape))
    rescale_filters(model)
    with torch.no_grad():
        model.head_weight.mul_(scale)
    return model.eval()


def texts(count: int, seed: int = 0) -> list[np.ndarray]:
    """Queries of unequal lengths, each with its [SEP]."""
    rng = np.random.default_rng(seed)
    return [np.append(rng.integers(7, 11, rng.integers(1, 20)), SEP).astype(np.uint8)
            for _ in range(count)]  # fmt: skip


PREFIX = np.concatenate([np.append(q, [A, SEP]) for q in texts(5, seed=1)]).astype(np.uint8)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("words", [TWO, SIX], ids=["letters", "words"])
@pytest.mark.parametrize("prefix", [PREFIX, PREFIX[:0]], ids=["prefix", "bare"])
def test_shared_and_one_by_one_agree(shape, words, prefix):
    model, queries = model_of(shape), texts(9)
    slow = answers_one_by_one(model, prefix, queries, words)
    fast = answers(Decoder(model), prefix, queries, words, batch_tokens=64)
    assert abs(fast.log_probabilities - slow.log_probabilities).max() < 1e-5
    assert (fast.spelled == slow.spelled).all()
    for most in (1, 300, 10**6):  # one row, some, all at a time
        whole = answers_together(model, prefix, queries, words, batch_tokens=most)
        assert abs(whole.log_probabilities - slow.log_probabilities).max() < 1e-5
        assert (whole.spelled == slow.spelled).all()
    assert fast.log_probabilities.shape == (9, len(words.names))
    assert np.exp(fast.log_probabilities).sum(1).max() < 1
    if len(prefix):  # it has an effect
        bare = answers_one_by_one(model, prefix[:0], queries, words)
        assert abs(bare.log_probabilities - slow.log_probabilities).max() > 1e-3


def test_answers_depend_neither_on_the_batch_nor_on_the_order():
    model, queries = model_of({}), texts(12)
    decoder = Decoder(model)
    whole = answers(decoder, PREFIX, queries, TWO)
    small = answers(decoder, PREFIX, queries, TWO, batch_tokens=1)
    turned = answers(decoder, PREFIX, queries[::-1], TWO, batch_tokens=50)
    np.testing.assert_allclose(small.log_probabilities, whole.log_probabilities, atol=1e-5)
    np.testing.assert_allclose(turned.log_probabilities[::-1], whole.log_probabilities, atol=1e-5)


def test_a_word_is_the_product_of_its_letters():
    model, words = model_of({}), LabelWords(("a", "b"), ("AC", "GT"))
    query = np.append(encode("ACGT"), SEP).astype(np.uint8)
    found = answers(Decoder(model), PREFIX, [query], words)
    for number, word in enumerate(words.ids):
        row = torch.from_numpy(np.concatenate([PREFIX, query, word]).astype(np.int64))
        with torch.no_grad():
            nats = model(row[None, :-1])[0].double().log_softmax(-1)
        wanted = nats[-2, word[0]] + nats[-1, word[1]]
        assert found.log_probabilities[0, number] == pytest.approx(float(wanted), abs=1e-5)


def test_spelled_is_what_the_most_probable_letters_say():
    model, queries = model_of({}), texts(200, seed=3)
    found = answers(Decoder(model), PREFIX, queries, TWO)
    top = []
    for query in queries:
        row = torch.from_numpy(np.concatenate([PREFIX, query]).astype(np.int64))
        with torch.no_grad():
            top.append(int(model(row[None])[0, -1].argmax()))
    wanted = [{int(i): n for n, i in enumerate(TWO.ids[:, 0])}.get(token, -1) for token in top]
    assert found.spelled.tolist() == wanted


def test_progress_and_errors():
    model = model_of({})
    told = []
    answers(Decoder(model), PREFIX, texts(6), TWO, batch_tokens=30,
            progress=lambda done, total: told.append((done, total)))  # fmt: skip
    assert told[-1] == (6, 6) and told == sorted(told)
    with pytest.raises(InputError, match="no queries"):
        answers(Decoder(model), PREFIX, [], TWO)
    with pytest.raises(InputError, match="max_seq_len"):
        answers(Decoder(model), np.tile(PREFIX, 3), texts(2), TWO)


def test_calibration_takes_off_what_is_said_of_everything():
    rng = np.random.default_rng(0)
    signal = rng.normal(scale=0.2, size=(500, 2))
    biased = signal + np.array([0.5, -0.5])
    raw = class_probabilities(biased)
    assert (raw.argmax(1) == 0).mean() > 0.95
    calibrated = class_probabilities(biased, class_prior(biased))
    assert abs((calibrated.argmax(1) == 0).mean() - 0.5) < 0.1
    assert ((calibrated.argmax(1) == 0) == (signal.argmax(1) == 0)).mean() > 0.9
    np.testing.assert_allclose(calibrated.sum(1), 1)
    assert np.exp(class_prior(biased)).sum() == pytest.approx(1)
    # how likely any label is makes no difference
    shifted = class_prior(biased - rng.uniform(0, 300, (500, 1)))
    np.testing.assert_allclose(shifted, class_prior(biased), atol=1e-9)
