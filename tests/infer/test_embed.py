"""Embeddings are the means they say they are, of any layer, whatever batch, order and chunks."""

from __future__ import annotations

import dataclasses
from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch

from hyenadna.config import ModelConfig
from hyenadna.data.labelled_data import Task
from hyenadna.data.records import Record
from hyenadna.errors import InputError
from hyenadna.infer import embed as embed_module
from hyenadna.infer.embed import bin_means, embed
from hyenadna.infer.reading import Reading, make_reading
from hyenadna.label_words import label_words
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.prompting.prompted import PromptedModel
from hyenadna.model.prompting.shared_prefix import joint_states

CONFIG = ModelConfig(d_model=8, n_layer=2, max_seq_len=66, filter_order=8)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def record(ids, id="s") -> Record:
    return Record(id, (), len(ids), lambda start, stop: ids[start:stop])


@pytest.fixture(scope="module")
def sequences():
    rng = np.random.default_rng(3)
    lengths = [150, 33, 64, 1, 65, 20, 20, 129]
    return [record(rng.integers(7, 12, n).astype(np.uint8), f"s{i}") for i, n in enumerate(lengths)]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = HyenaDNA(CONFIG)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def all_rows(model, sequences, reading, **options):
    return np.concatenate([s.embeddings for s in embed(model, sequences, reading, **options)])


def by_hand(model, ids, reading: Reading, layer: int):
    """States of each base from a pass over each chunk alone, pooled by numpy: the slow twin."""
    model.eval()
    states = np.zeros((len(ids), CONFIG.d_model))
    reached, start = 0, 0
    while reached < len(ids):
        stop = min(start + reading.length, len(ids))
        if reading.overlap and stop == len(ids):
            start = max(0, stop - reading.length)
        with torch.no_grad():
            number = CONFIG.n_layer + 1 if layer == -1 else layer
            found = model.hidden_states(ids[start:stop])[number][0].numpy()
        for base in range(reached, stop):  # each base once, where most is before it
            states[base] = found[base - start]
        reached, start = stop, stop - reading.overlap
    if reading.pool == "last":
        with torch.no_grad():
            number = CONFIG.n_layer + 1 if layer == -1 else layer
            return model.hidden_states(ids[-reading.length :])[number][0].numpy()[-1:]
    bin = reading.bin or len(ids)
    return np.array([states[i : i + bin].mean(0) for i in range(0, len(ids), bin)])


READINGS = {
    "sequences": {},
    "sequences without overlap": {"overlap": 0},
    "sequences in short windows": {"length": 20, "overlap": 15},
    "last": {"pool": "last"},
    "bases": {"per": "base"},
    "bases without overlap": {"per": "base", "length": 25, "overlap": 0},
    "bins": {"per": "bin", "bin": 16},
    "bins of odd size": {"per": "bin", "bin": 7, "length": 60},
    "bins that overlap": {"per": "bin", "bin": 7, "length": 60, "overlap": 30},
    "windows": {"per": "bin"},
}


@pytest.mark.parametrize("layer", [-1, 0, 1, 2])
@pytest.mark.parametrize("options", READINGS.values(), ids=READINGS)
def test_rows_are_pooled_hidden_states(model, sequences, options, layer):
    reading = make_reading(CONFIG, **options)
    rows = all_rows(model, sequences, reading, layer=layer)
    if layer in (1, -1):
        model.set_engine("plain")
        plain = all_rows(model, sequences, reading, layer=layer)
        model.set_engine("auto")
        np.testing.assert_allclose(rows, plain, **CLOSE)
    ids = [each.tokens(0, each.length) for each in sequences]
    want = np.concatenate([by_hand(model, each, reading, layer) for each in ids])
    assert rows.dtype == np.float32
    assert len(rows) == sum(reading.rows(each.length) for each in sequences)
    np.testing.assert_allclose(rows, want, **CLOSE)


def test_no_layer_is_computed_that_is_not_asked_for(sequences, monkeypatch):
    model = HyenaDNA(CONFIG.replace(n_layer=3)).eval()
    model.set_engine("plain")
    called = []
    for number, block in enumerate(model.backbone.layers):
        block.register_forward_hook(lambda *_, number=number: called.append(number))
    monkeypatch.setattr(HyenaDNA, "hidden_states", None)
    for layer, blocks in ((0, []), (1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (-1, [0, 1, 2])):
        called.clear()
        all_rows(model, sequences[1:2], make_reading(CONFIG), layer=layer)
        assert called == blocks


@pytest.mark.parametrize("options", READINGS.values(), ids=READINGS)
def test_batches_and_order_change_nothing(model, sequences, options, monkeypatch):
    reading = make_reading(CONFIG, **options)
    whole = all_rows(model, sequences, reading, batch_tokens=4000)
    np.testing.assert_allclose(all_rows(model, sequences, reading, batch_tokens=1), whole, **CLOSE)
    monkeypatch.setattr(embed_module, "_AHEAD_UNITS", 3)
    np.testing.assert_allclose(all_rows(model, sequences, reading), whole, **CLOSE)
    ends = np.cumsum([0, *(reading.rows(each.length) for each in sequences)])
    mixed = np.random.default_rng(0).permutation(len(sequences))
    rows = all_rows(model, [sequences[i] for i in mixed], reading)
    want = np.concatenate([whole[ends[i] : ends[i + 1]] for i in mixed])
    np.testing.assert_allclose(rows, want, **CLOSE)


def test_threads_change_nothing(model, sequences):
    reading, before = make_reading(CONFIG), torch.get_num_threads()
    rows = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        rows.append(all_rows(model, sequences, reading))
    torch.set_num_threads(before)
    np.testing.assert_allclose(*rows, **CLOSE)


def test_a_sequence_is_the_mean_of_its_bases(model, sequences):
    bases = all_rows(model, sequences, make_reading(CONFIG, per="base"))
    ends = np.cumsum([each.length for each in sequences])[:-1]
    want = [part.mean(0) for part in np.split(bases.astype(np.float64), ends)]
    np.testing.assert_allclose(all_rows(model, sequences, make_reading(CONFIG)), want, **CLOSE)
    last = all_rows(model, sequences, make_reading(CONFIG, pool="last"))
    np.testing.assert_allclose(last, [part[-1] for part in np.split(bases, ends)], **CLOSE)


@pytest.mark.parametrize("options", READINGS.values(), ids=READINGS)
@pytest.mark.parametrize("ahead", [1, 3])
def test_what_goes_on_after_any_stretch_is_the_same_bit_for_bit(
    model, sequences, options, ahead, monkeypatch
):
    monkeypatch.setattr(embed_module, "_AHEAD_UNITS", ahead)
    reading = make_reading(CONFIG, **options)
    run = partial(embed, model, reading=reading, batch_tokens=128)
    whole = list(run(sequences))
    done = 0
    for number, stretch in enumerate(whole[:4], start=1):
        done += len(stretch.ended)
        rest = list(run(islice(sequences, done, None), within=stretch.within))
        assert len(rest) == len(whole) - number
        for one, other in zip(whole[number:], rest, strict=True):
            np.testing.assert_array_equal(one.embeddings, other.embeddings)


def test_rows_of_a_long_sequence_are_not_held(model, monkeypatch):
    monkeypatch.setattr(embed_module, "_AHEAD_BYTES", 3000)
    long = record(np.full(2000, 7, np.uint8))
    parts = list(embed(model, [long], make_reading(CONFIG, per="base"), batch_tokens=128))
    assert max(len(part.embeddings) for part in parts) <= 3000 // 32 + 64
    assert sum(len(part.embeddings) for part in parts) == 2000
    assert [part.within > 0 for part in parts] == [True] * (len(parts) - 1) + [False]


def test_an_empty_contig_has_no_bins(model):
    sequences = [record(np.zeros(0, np.uint8)), record(np.full(9, 7, np.uint8))]
    reading = make_reading(CONFIG, per="bin", bin=4)
    (stretch,) = embed(model, sequences, reading)
    assert len(stretch.ended) == 2 and len(stretch.embeddings) == 3


def test_the_model_is_as_it_was(model, sequences):
    model.train()
    all_rows(model, sequences[:1], make_reading(CONFIG))
    assert model.training
    model.eval()


@pytest.mark.parametrize(("length", "bin"), [(20_000, 7), (20_000, 9000), (9_001, 20_000), (9, 1)])
def test_means_of_long_bins_are_exact(length, bin):
    states = torch.randn(length, 3, generator=torch.Generator().manual_seed(0)) + 100
    wanted = [piece.double().mean(0) for piece in states.split(bin)]
    torch.testing.assert_close(bin_means(states, bin), torch.stack(wanted).float())


def test_means_need_no_second_tensor_of_that_size(monkeypatch):
    largest, total = 0, embed_module._sum

    def watched(groups):
        nonlocal largest
        largest = max(largest, groups[:, : embed_module._SUMMED_AT_ONCE].numel())
        return total(groups)

    monkeypatch.setattr(embed_module, "_sum", watched)
    monkeypatch.setattr(embed_module, "_SUMMED_AT_ONCE", 64)
    for bin in (1, 10, 64, 1000, 5000):
        bin_means(torch.ones(5000, 2), bin)
    assert 0 < largest <= 64 * 2


@pytest.mark.parametrize("layer", [-2, 3])
def test_a_layer_that_is_not_there(model, sequences, layer):
    with pytest.raises(InputError, match=r"this model has 0 \(embedded tokens\), 1 to 2"):
        all_rows(model, sequences, make_reading(CONFIG), layer=layer)


@pytest.mark.parametrize("mixer", ["hyena", "attention"])
@pytest.mark.parametrize("batch_tokens", [1, 4000])
def test_chunks_behind_a_soft_prompt_are_those_of_one_whole_pass(sequences, mixer, batch_tokens):
    torch.manual_seed(1)
    model = HyenaDNA(CONFIG.replace(mixer=mixer, num_heads=2))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    task = Task("classes", ("no", "yes"))
    prompted = PromptedModel(model, task, tokens=7, words=label_words(task.names), dropout=0.5)
    torch.nn.init.normal_(prompted.prompt)
    prompted.train()
    for options in ({"per": "bin", "bin": 9}, {}, {"per": "base"}):
        reading = make_reading(CONFIG, **options, soft_tokens=7)
        assert reading.length == 54 + 3 * (not options.get("bin"))  # of 66 - 7 - 2
        rows = all_rows(prompted, sequences, reading, batch_tokens=batch_tokens)
        expected = []
        for each in sequences:
            states = []
            for chunk in reading.chunks(each.length):
                ids = torch.from_numpy(each.tokens(chunk.start, chunk.stop)).long()
                with torch.no_grad():
                    embedded = model.backbone.embeddings(ids[None])
                    found = joint_states(model.backbone, prompted.prompt, embedded)[0].numpy()
                states.append(found[chunk.fresh - chunk.start :])
            joined = np.concatenate(states)
            bin = reading.bin or len(joined)
            expected += [joined[i : i + bin].mean(0) for i in range(0, len(joined), bin)]
        np.testing.assert_allclose(rows, np.array(expected), rtol=1e-4, atol=1e-4)
    assert prompted.training
    with pytest.raises(InputError, match="behind a soft prompt the states are those after"):
        all_rows(prompted, sequences, dataclasses.replace(reading), layer=1)
