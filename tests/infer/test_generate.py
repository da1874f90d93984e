"""New bases are those of the whole model, whatever runs beside them."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model.recompute import RecomputeDecoder, random_bases, random_model

from hyenadna.alphabet import encode
from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.infer.design import Design
from hyenadna.infer.generate import (
    Batch,
    GenerationPlan,
    generate,
    plan_generation,
    stream,
)
from hyenadna.infer.sampling import Sampling
from hyenadna.model.decoding import Decoder
from hyenadna.model.likelihood import target_nats

CONFIG = ModelConfig(d_model=8, n_layer=2, max_seq_len=66, filter_order=8)
PROMPTS = ["ACGT", "G", "GATTACANNA", "ttagc"]


@pytest.fixture(scope="module")
def model():
    return random_model(CONFIG)


@pytest.fixture(scope="module", params=[Decoder, RecomputeDecoder], ids=["decoder", "recompute"])
def decoder(model, request):
    return request.param(model)


def letters(rows):
    return [(row.prompt, row.sample, row.sequence) for row in rows]


def test_rows_come_in_order(decoder):
    rows = list(generate(decoder, PROMPTS, 9, count=3))
    assert [(r.prompt, r.sample) for r in rows] == [(i, j) for i in range(4) for j in range(3)]
    assert all(r.tokens.dtype == np.uint8 and r.tokens.shape == (9,) for r in rows)
    assert all(set(r.sequence) <= set("ACGT") for r in rows)
    assert len({r.sequence for r in rows}) > 8


def test_temperature_0_is_the_argmax_of_full_forwards(model, decoder):
    rows = generate(decoder, PROMPTS, 20, sampling=Sampling(temperature=0))
    for row, prompt in zip(rows, PROMPTS, strict=True):
        ids = encode(prompt).tolist()
        for _ in range(20):
            with torch.no_grad():
                logits = model(torch.tensor([ids]))[0, -1]
            ids.append(7 + int(logits[7:11].argmax()))
        assert row.tokens.tolist() == ids[-20:]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.4, top_k=3)])
def test_log_likelihood_is_that_of_the_whole_model(model, decoder, sampling):
    for row in generate(decoder, PROMPTS, 30, count=2, sampling=sampling):
        prompt = encode(PROMPTS[row.prompt])
        whole = torch.tensor([*prompt.tolist(), *row.tokens.tolist()])[None]
        with torch.no_grad():
            nats = target_nats(model, whole[:, :-1], whole[:, 1:])[0, len(prompt) - 1 :]
        assert row.log_likelihood == pytest.approx(-float(nats.sum()), abs=2e-3)
        assert row.bits_per_base == pytest.approx(float(nats.mean()) / np.log(2), rel=1e-4)


def test_long_sequences_are_summed_whole():
    """More bases than are added up at once."""
    model = random_model(CONFIG.replace(max_seq_len=400, n_layer=1))
    (row,) = generate(Decoder(model), ["ACG"], 380)
    whole = torch.tensor([7, 8, 9, *row.tokens.tolist()])[None]
    with torch.no_grad():
        nats = target_nats(model, whole[:, :-1], whole[:, 1:])[0, 2:]
    assert row.log_likelihood == pytest.approx(-float(nats.sum()), rel=1e-4)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 7, 100])
def test_a_sample_does_not_depend_on_its_batch(decoder, batch_size):
    whole = list(generate(decoder, PROMPTS, 8, count=3))
    rows = list(generate(decoder, PROMPTS, 8, count=3, batch_size=batch_size))
    assert letters(rows) == letters(whole)
    likelihoods = [row.log_likelihood for row in rows]
    assert likelihoods == pytest.approx([row.log_likelihood for row in whole], abs=1e-4)
    fewer = list(generate(decoder, PROMPTS[:2], 8, count=2, batch_size=batch_size))
    assert letters(fewer) == [row for row in letters(whole) if row[0] < 2 and row[1] < 2]


def test_seeds_differ_and_repeat(decoder):
    first, again, other = (
        letters(generate(decoder, ["ACGT"], 20, sampling=Sampling(seed=seed))) for seed in (0, 0, 1)
    )
    assert first == again and first != other


def test_skipping_leaves_the_rest_as_it_was(decoder):
    plan = plan_generation(decoder, PROMPTS, 4, count=3, batch_size=2)
    whole = letters(plan.run())
    for skip in range(len(whole) + 1):
        assert letters(plan.run(skip=skip)) == whole[skip:]


@pytest.mark.parametrize("batch_size", [1, 2, 4, 6, 50])
def test_each_prompt_is_read_once(model, batch_size):
    decoder = RecomputeDecoder(model)
    assert len(list(generate(decoder, PROMPTS, 2, count=3, batch_size=batch_size))) == 12
    assert decoder.prefilled == len(PROMPTS)
    assert max(decoder.batches) == max(b for b in (1, 2, 3, 6, 12) if b <= batch_size)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=9), st.integers(1, 9), st.integers(1, 20))
@settings(max_examples=60)
def test_batches_hold_every_row_once_and_in_order(lengths, count, batch_size):
    prompts = tuple(random_bases(length) for length in lengths)
    plan = GenerationPlan(None, prompts, 5, count, batch_size, Sampling(), (7, 8, 9, 10), None)
    batches = list(plan.batches())
    rows = [row for batch in batches for row in batch.rows]
    assert rows == [(i, j) for i in range(len(prompts)) for j in range(count)]
    assert all(len(batch.rows) <= batch_size for batch in batches)
    # parts of one prompt, or whole prompts: never a prompt again after another
    assert all(len(b.prompts) == 1 or b.samples == range(count) for b in batches)


def test_long_prompts_are_not_read_together(monkeypatch):
    monkeypatch.setattr("hyenadna.infer.generate.BATCH_TOKENS", 100)
    prompts = tuple(random_bases(length) for length in (40, 50, 10, 10, 200, 3))
    plan = GenerationPlan(None, prompts, 5, 1, 64, Sampling(), (7, 8, 9, 10), None)
    together = [(batch.prompts.start, batch.prompts.stop) for batch in plan.batches()]
    assert together == [(0, 2), (2, 4), (4, 5), (5, 6)]
    assert next(plan.batches()) == Batch(range(2), range(1))


def test_memory_says_how_many_run_together(decoder):
    one = decoder.bytes_for(1, 9, 1)
    plan = plan_generation(decoder, ["A"], 10, count=40, state_bytes=12 * one)
    assert 1 < plan.batch_size < 40 and plan.batch_size * one <= 12 * one
    assert plan_generation(decoder, ["A"], 10, count=40, state_bytes=0).batch_size == 1
    assert plan_generation(decoder, ["A"], 10, count=3).batch_size == 3
    assert plan_generation(decoder, ["A"], 10, count=900).batch_size == 64
    assert plan.state_bytes >= decoder.bytes_for(plan.batch_size, 9, 1)


def test_a_stream_is_the_first_sequence(decoder):
    options = {"sampling": Sampling(temperature=0.7, seed=3), "design": Design(forbidden=("GC",))}
    (whole,) = generate(decoder, ["ACGT"], 25, **options)
    bases = list(stream(decoder, "ACGT", 25, **options))
    assert "".join(base.letter for base in bases) == whole.sequence
    assert sum(base.log_likelihood for base in bases) == pytest.approx(whole.log_likelihood)
    first = next(stream(decoder, "ACGT", 25, **options))
    assert first == bases[0]


def test_n_comes_only_when_asked_for(decoder):
    with_n = "".join(row.sequence for row in generate(decoder, ["A"] * 5, 30, with_n=True))
    without = "".join(row.sequence for row in generate(decoder, ["A"] * 5, 30))
    assert set(with_n) == set("ACGTN") and set(without) == set("ACGT")


def test_a_design_is_kept(decoder):
    design = Design(fixed={3: "TATA"}, forbidden=("GAC",), gc=(0.4, 0.6), max_homopolymer=2)
    rows = list(generate(decoder, ["ACGA", "TTGG"], 20, count=4, design=design))
    assert len({row.sequence for row in rows}) == 8
    for row in rows:
        assert row.sequence[3:7] == "TATA"
        assert 8 <= sum(row.sequence.count(base) for base in "GC") <= 12
        whole = ["ACGA", "TTGG"][row.prompt] + row.sequence  # matches may begin in the prompt
        assert not re.search("GAC|GTC|AAA|CCC|GGG|TTT", whole)
    free = letters(generate(decoder, ["ACGA"], 20, design=Design()))
    assert free == letters(generate(decoder, ["ACGA"], 20))


def test_the_last_base_may_lie_one_beyond_what_is_read(model, decoder):
    prompt = random_bases(60)
    (row,) = generate(decoder, [prompt], 7)
    assert len(row.tokens) == 7
    with pytest.raises(InputError, match=r"60 bases and 8 new ones .*66\); 7 new bases would fit"):
        generate(decoder, [prompt], 8)
    (row,) = generate(decoder, [random_bases(66)], 1)
    whole = torch.from_numpy(random_bases(66).astype(np.int64))[None]
    with torch.no_grad():
        nats = -torch.log_softmax(model(whole)[0, -1], -1)[int(row.tokens[0])]
    assert row.log_likelihood == pytest.approx(-float(nats), abs=1e-4)


def test_progress_ends_at_all(decoder):
    told: list[tuple[int, int]] = []
    rows = generate(
        decoder, PROMPTS, 5, batch_size=2, progress=lambda done, total: told.append((done, total))
    )
    assert len(list(rows)) == 4
    assert told[-1] == (20, 20) and told == sorted(told)


def test_a_model_does_as_well_as_its_decoder(model):
    assert letters(generate(model, PROMPTS, 6)) == letters(generate(Decoder(model), PROMPTS, 6))
    ids = [encode(prompt) for prompt in PROMPTS]
    assert letters(generate(model, ids, 6)) == letters(generate(model, PROMPTS, 6))


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([], {}, "there is no prompt"),
        (["ACGT", ""], {}, "prompt 2: has no base"),
        (["ACXT"], {}, "prompt 1: letter 'X' at position 3"),
        ([[7, 99]], {}, "prompt 1: token id 99 is outside 0..11"),
        ([[7, -1]], {}, "prompt 1: token id -1 is outside"),
        ([[[7]]], {}, "prompt 1: is int64 of shape (1, 1)"),
        ([[7.5]], {}, "prompt 1: is float64"),
        ("ACGT", {}, "give a list of prompts"),
        (["A" * 60], {"length": 20}, "7 new bases would fit"),
        (["A" * 70], {}, "give a shorter prompt"),
        (["A"], {"length": 0}, "length is 0; it must be a whole number, at least 1"),
        (["A"], {"count": 0}, "count is 0; it must be a whole number, at least 1"),
        (["A"], {"batch_size": 0}, "batch_size is 0; it must be a whole number, at least 1"),
        (["A"], {"length": 5.0}, "length is 5.0; it must be a whole number"),
        (["A"], {"count": True}, "count is True; it must be a whole number"),
        (["A"], {"batch_size": 1.5}, "batch_size is 1.5; it must be a whole number"),
        (["A"], {"count": 3, "sampling": Sampling(temperature=0)}, "all the same; give count 1"),
        (["A"], {"design": Design(template="ACG")}, "template"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_computed(model, prompts, options, message):
    decoder = RecomputeDecoder(model)
    with pytest.raises(InputError) as error:
        generate(decoder, prompts, **{"length": 5, **options})
    assert message in str(error.value) and "\n" not in str(error.value)
    assert decoder.prefilled == 0


def test_weights_that_overflow_are_told(model):
    broken = random_model(CONFIG)
    torch.nn.init.constant_(broken.backbone.ln_f.weight, float("nan"))
    with pytest.raises(InputError, match="not finite numbers"):
        list(generate(RecomputeDecoder(broken), ["ACGT"], 3))


def test_gc_is_kept_all_along(model):
    """A model that likes another content does not make up for it at the very end."""
    design = Design(gc=(0.7, 0.75))
    rows = list(generate(model, ["ACGT"], 60, count=16, design=design))
    for row in rows:
        share = [letter in "GC" for letter in row.sequence]
        assert 0.7 * 60 <= sum(share) <= 0.75 * 60
        for t in range(1, 61):
            assert 0.7 * t - 26 <= sum(share[:t]) <= 0.75 * t + 26


def test_prompts_may_come_from_an_iterator(model):
    assert [row.prompt for row in generate(model, iter(["ACG", "TT"]), 3)] == [0, 1]
    assert len({*generate(model, ["ACG"], 3, count=2)}) == 2


SOFT = torch.randn(12, 8, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def model_that_looks_back():
    """Its weights are so large that what stands twelve tokens back changes what comes."""
    model = random_model(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    return model


def prompted_nats(model, prompt, tokens):
    """Nats of new tokens behind vectors and prompt: the whole in one pass."""
    ids = torch.tensor([*encode(prompt).tolist(), *tokens.tolist()])
    with torch.no_grad():
        whole = torch.cat([SOFT, model.backbone.embeddings(ids)])[None]
        scores = model.logits(model.backbone(whole)).log_softmax(-1)[0]
    at = torch.arange(len(ids) - len(tokens), len(ids))
    return -scores[len(SOFT) + at - 1, ids[at]]


@pytest.mark.parametrize("prompts", [PROMPTS, PROMPTS[2:3]], ids=["several", "one"])
@pytest.mark.parametrize("batch_size", [None, 2])
def test_log_likelihood_behind_a_soft_prompt_is_that_of_the_whole(
    model_that_looks_back, prompts, batch_size
):
    model = model_that_looks_back
    rows = list(generate(model, prompts, 30, count=3, soft_prompt=SOFT, batch_size=batch_size))
    for row in rows:
        nats = prompted_nats(model, prompts[row.prompt], row.tokens)
        assert row.log_likelihood == pytest.approx(-float(nats.sum()), abs=2e-3)
        bare = torch.tensor([*encode(prompts[row.prompt]).tolist(), *row.tokens.tolist()])[None]
        with torch.no_grad():
            without = target_nats(model, bare[:, :-1], bare[:, 1:])[0, -30:]
        assert (nats - without).abs().max() > 0.1  # the vectors matter


def test_one_soft_prompt_before_all_is_one_before_each(model_that_looks_back):
    """Read once and gone on from, or put in front of every prompt: the same sequences."""
    model = model_that_looks_back
    slow = RecomputeDecoder(model)
    decoder = Decoder(model)
    read = []
    prefill = decoder.prefill
    decoder.prefill = lambda prompts, **options: (
        read.append([len(prompt) for prompt in prompts]) or prefill(prompts, **options)
    )
    options = {"count": 3, "batch_size": 3, "soft_prompt": SOFT}
    shared, each = (list(generate(one, PROMPTS, 20, **options)) for one in (decoder, slow))
    assert letters(shared) == letters(each)
    assert [r.log_likelihood for r in shared] == pytest.approx(
        [r.log_likelihood for r in each], abs=1e-3
    )
    assert read == [[12], [4], [1], [10], [5]]  # the vectors once
    alone = list(generate(model, PROMPTS[:1], 20, count=3, soft_prompt=SOFT))
    assert letters(alone) == letters(shared)[:3]
    first = next(iter(shared))
    bases = list(stream(model, PROMPTS[0], 20, soft_prompt=SOFT))
    assert "".join(base.letter for base in bases) == first.sequence


def test_the_transformer_baseline_goes_on_from_soft_prompts_too():
    model = random_model(CONFIG.replace(mixer="attention", num_heads=2))
    for row in generate(model, PROMPTS, 9, soft_prompt=SOFT):
        nats = prompted_nats(model, PROMPTS[row.prompt], row.tokens)
        assert row.log_likelihood == pytest.approx(-float(nats.sum()), abs=2e-3)


def test_soft_prompts_take_room(model):
    long = "ACGTT" * 4
    assert len(next(generate(model, [long], 35, soft_prompt=SOFT)).tokens) == 35
    with pytest.raises(
        InputError, match=r"20 bases and 36 new ones behind 12 soft tokens .* 35 ne"
    ):
        generate(model, [long], 36, soft_prompt=SOFT)
    plan, plain = (plan_generation(model, PROMPTS, 10, soft_prompt=soft) for soft in (SOFT, None))
    one = plan.decoder.bytes_for(1, 10 + 9, 12)
    assert plan.state_bytes == plain.state_bytes + one
    for wrong in (SOFT[0], SOFT[:, :7], SOFT.long()):
        with pytest.raises(InputError, match=r"soft_prompt is .*; give vectors of shape \(P, 8\)"):
            generate(model, PROMPTS, 10, soft_prompt=wrong)
    empty = list(generate(model, PROMPTS, 10, soft_prompt=SOFT[:0]))
    assert letters(empty) == letters(generate(model, PROMPTS, 10))
