"""The cache: the same tokens and logits as whole sequences, at the cost of the new ones."""

from __future__ import annotations

import copy
import logging
from threading import Thread

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers")

import transformers
from hf_examples import bases, loud, small_config
from transformers import DynamicCache, TextIteratorStreamer

import hyenadna.transformers.cache as cache_module
from hyenadna.errors import InputError
from hyenadna.model.decoding import Decoder
from hyenadna.transformers import (
    HyenaDNACache,
    HyenaDNAConfig,
    HyenaDNAForCausalLM,
    HyenaDNAModel,
    HyenaDNATokenizer,
)

PAD = 4


def language_model(**changes):
    """Weights under which prompts differ in what follows them."""
    # beam search of transformers 4 takes vocab_size for the width of the logits
    usual = {"max_seq_len": 64, "tie_word_embeddings": False, "vocab_size": 16}
    shape = small_config(**(usual | changes))
    model = loud(HyenaDNAForCausalLM(HyenaDNAConfig.from_model_config(shape)), seed=23)
    with torch.no_grad():
        model.get_input_embeddings().weight *= 4
        for name, parameter in model.named_parameters():
            if name.endswith("filter_fn.bias"):
                parameter *= 0.5
    return model


KINDS = {
    "hyena": lambda: language_model(),
    "tied": lambda: language_model(tie_word_embeddings=True),
    "order3": lambda: language_model(hyena_order=3),
    "attention": lambda: language_model(mixer="attention", num_heads=2),
}


@pytest.fixture(scope="module")
def model():
    return KINDS["hyena"]()


def padded(rows):
    """Ids and mask, with padding in front."""
    width = max(map(len, rows))
    ids = torch.stack([torch.cat([row.new_full((width - len(row),), PAD), row]) for row in rows])
    mask = torch.stack([(torch.arange(width) >= width - len(row)).long() for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


def generated(model, seed=5, **how):
    torch.manual_seed(seed)
    return model.generate(
        **({"max_new_tokens": 14, "do_sample": False} | how),
        return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip


def check_generation(model, **how):
    """Cached and from whole sequences: the same tokens, and the same logits at every step."""
    cached, whole = generated(model, **how), generated(model, use_cache=False, **how)
    assert torch.equal(cached.sequences, whole.sequences)
    assert len(cached.logits) == len(whole.logits)
    for one, two in zip(cached.logits, whole.logits, strict=True):
        torch.testing.assert_close(one, two, atol=2e-4, rtol=0)
    assert isinstance(cached.past_key_values, HyenaDNACache)
    assert whole.past_key_values is None
    return cached


# -- generate --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_models(kind):
    out = check_generation(KINDS[kind](), input_ids=bases(3, 7))
    assert len({tuple(row) for row in out.sequences[:, 7:].tolist()}) > 1


@pytest.mark.parametrize(
    "how",
    [
        {"do_sample": True, "temperature": 0.7, "top_k": 3},
        {"do_sample": True, "num_return_sequences": 3},
        {"num_beams": 3},
        {"num_beams": 3, "do_sample": True},
        {"num_beams": 4, "num_return_sequences": 2},
        {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3},
        {"eos_token_id": 7},
    ],
)
@pytest.mark.parametrize("ragged", [False, True])
def test_ways_to_generate(model, how, ragged):
    rows = [bases(n, seed=n) for n in ((9, 4, 1) if ragged else (6, 6))]
    check_generation(model, **padded(rows), **how)


def test_prompt_of_embeddings_with_padding(model):
    """The library does not allow `use_cache=False` here."""
    batch = padded([bases(9), bases(5)])
    embeds = model.get_input_embeddings()(batch["input_ids"])
    mask = batch["attention_mask"]
    out = generated(model, inputs_embeds=embeds, attention_mask=mask)
    wanted = generated(model, use_cache=False, **batch)
    assert torch.equal(out.sequences, wanted.sequences[:, 9:])
    for one, two in zip(out.logits, wanted.logits, strict=True):
        torch.testing.assert_close(one, two, atol=2e-4, rtol=0)
    assert isinstance(out.past_key_values, HyenaDNACache)
    with pytest.raises(InputError, match=r"65 tokens in all .* reads 64 .* max_new_tokens=55 or"):
        model.generate(inputs_embeds=embeds, max_new_tokens=56)


@pytest.mark.parametrize("cached", [True, False])
def test_padding_behind_a_prompt_is_refused(model, cached):
    ids, mask = bases(2, 8), torch.ones(2, 8, dtype=torch.long)
    mask[1, 5:] = 0
    with pytest.raises(InputError, match=r"padding behind a prompt.* padding_side='left'"):
        model.generate(ids, attention_mask=mask, max_new_tokens=3, use_cache=cached)


def test_in_chunks(model):
    prompt = bases(2, 17)
    out = model.generate(prompt, max_new_tokens=8, do_sample=False, prefill_chunk_size=5)
    wanted = model.generate(prompt, max_new_tokens=8, do_sample=False, use_cache=False)
    assert torch.equal(out, wanted)


def test_each_token_is_read_once():
    """Through the modules (a hook on the table keeps native code from its place)."""
    model = language_model()
    lengths = []
    table = model.get_input_embeddings()
    table.register_forward_hook(lambda module, args, out: lengths.append(tuple(args[0].shape)))
    model.generate(bases(2, 7), max_new_tokens=5, do_sample=False)
    assert lengths == [(2, 7)] + [(2, 1)] * 4
    lengths.clear()
    model.generate(bases(2, 7), max_new_tokens=5, do_sample=False, use_cache=False)
    assert lengths == [(2, length) for length in range(7, 12)]
    lengths.clear()
    model.generate(bases(2, 9), max_new_tokens=3, do_sample=False, prefill_chunk_size=4)
    assert lengths == [(2, 4), (2, 4), (2, 1)] + [(2, 1)] * 2
    with torch.no_grad():
        cache = model(bases(2, 7), use_cache=True)[1]
    lengths.clear()
    more = torch.cat([bases(2, 7), bases(2, 4, seed=3)], dim=1)
    model.generate(more, past_key_values=cache, max_new_tokens=3, do_sample=False)
    assert lengths == [(2, 4)] + [(2, 1)] * 2


def test_no_pass_over_the_whole_sequence(model, monkeypatch):
    """Also where native code makes the steps; and beams of one prompt read it once."""
    seen = []
    prefill = Decoder.prefill

    def watched(self, prompts, *, room):
        seen.append(([len(prompt) for prompt in prompts], room))
        return prefill(self, prompts, room=room)

    def refuse(self, *args, **kwargs):
        raise AssertionError("a whole sequence was read")

    monkeypatch.setattr(Decoder, "prefill", watched)
    monkeypatch.setattr(HyenaDNAModel, "forward", refuse)
    prompt = torch.cat([bases(1, 7, seed=1), bases(1, 7, seed=2)])
    model.generate(prompt, max_new_tokens=5, do_sample=True, num_return_sequences=4)
    assert seen == [([7, 7], 4)]


@pytest.mark.parametrize("assistant", [False, True])
def test_assisted_decoding(model, monkeypatch, assistant):
    """Tokens are tried out and taken back, and read from the beginning where room runs out only."""
    back, whole = [], []
    crop, prefill = HyenaDNACache.crop, Decoder.prefill

    def watched(self, to):
        before = self.get_seq_length()
        crop(self, to)
        back.append(before - self.get_seq_length())

    monkeypatch.setattr(HyenaDNACache, "crop", watched)
    monkeypatch.setattr(
        Decoder, "prefill",
        lambda self, rows, *, room: whole.append(self) or prefill(self, rows, room=room),
    )  # fmt: skip
    prompt = bases(1, 8).repeat(1, 2)
    how = {"prompt_lookup_num_tokens": 3}
    if assistant:
        other = language_model(n_layer=1)
        other.generation_config.num_assistant_tokens = 4
        how = {"assistant_model": other}
    # transformers 4 cannot look prompts up without an end; [SEP] is suppressed
    usual = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": 1}
    out = model.generate(prompt, **usual, **how)
    assert len(whole) <= (5 if assistant else 3)
    assert torch.equal(out, model.generate(prompt, **usual, use_cache=False))
    assert max(back) > 0


def test_streamer(model):
    tokenizer = HyenaDNATokenizer()
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60)
    prompt = bases(1, 6)
    how = {"max_new_tokens": 8, "do_sample": False}
    thread = Thread(target=model.generate, args=(prompt,), kwargs={"streamer": streamer} | how)
    thread.start()
    text = "".join(streamer)
    thread.join()
    assert text == tokenizer.decode(model.generate(prompt, use_cache=False, **how)[0, 6:])


def test_new_weights_between_two_calls():
    model = language_model()
    before = check_generation(model, input_ids=bases(2, 6))
    loud(model, seed=9)
    after = check_generation(model, input_ids=bases(2, 6))
    assert not torch.allclose(before.logits[0], after.logits[0], atol=0.1)


def test_training_mode_has_no_dropout_with_a_cache():
    model = language_model(embed_dropout=0.5, resid_dropout=0.5)
    wanted = generated(model, input_ids=bases(2, 6))
    model.train()
    model.gradient_checkpointing_enable()
    out = generated(model, input_ids=bases(2, 6))
    assert model.training and model.hyena.backbone.layers[0].training
    assert torch.equal(out.sequences, wanted.sequences)
    for one, two in zip(out.logits, wanted.logits, strict=True):
        torch.testing.assert_close(one, two, atol=2e-4, rtol=0)


@torch.no_grad()
def test_half_precision():
    model = language_model().to(torch.bfloat16)
    ids = bases(2, 20)
    out = model(ids[:, :9], use_cache=True)
    logits = [out.logits]
    for at in range(9, 20):
        logits.append(model(ids[:, at : at + 1], past_key_values=out.past_key_values).logits)
    wanted = model(ids).logits
    scale = wanted.abs().max().item()
    torch.testing.assert_close(torch.cat(logits, 1), wanted, atol=0.03 * scale, rtol=0)
    assert out.past_key_values.state.layers[0].halo.dtype == torch.float32
    assert generated(model, input_ids=ids[:, :9]).sequences.shape == (2, 23)


def test_adapters():
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    targets = ["in_proj", "out_proj", "fc1", "word_embeddings"]
    adapted = peft.get_peft_model(
        language_model(tie_word_embeddings=False),
        peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=False),
    ).eval()
    out = check_generation(adapted, input_ids=bases(2, 6))
    with adapted.disable_adapter():
        bare = check_generation(adapted, input_ids=bases(2, 6))
    assert not torch.allclose(out.logits[0], bare.logits[0], atol=1e-2)


# -- where there is no cache -----------------------------------------------------------------------


@pytest.fixture
def warnings_of_generate(caplog):
    logging.Logger.warning_once.cache_clear()
    caplog.set_level(logging.WARNING)
    return lambda: [r.getMessage() for r in caplog.records if "whole sequence" in r.getMessage()]


def add_accelerate_hook(module):
    hooks = pytest.importorskip("accelerate.hooks")
    hooks.add_hook_to_module(module, hooks.ModelHook())


@pytest.mark.parametrize("place", ["hyena", "hyena.backbone", "hyena.backbone.layers.1"])
@pytest.mark.parametrize(
    "add", [lambda m: m.register_forward_hook(lambda *_: None), add_accelerate_hook]
)
def test_hooks_on_what_steps_pass_over(model, warnings_of_generate, add, place):
    prompt = bases(2, 6)
    wanted = model.generate(prompt, max_new_tokens=6, do_sample=False)
    hooked = language_model()
    add(hooked.get_submodule(place))
    for _ in range(2):
        out = generated(hooked, input_ids=prompt, max_new_tokens=6)
        assert torch.equal(out.sequences, wanted) and out.past_key_values is None
    (text,) = warnings_of_generate()
    assert "has a hook" in text
    with pytest.raises(InputError, match="has a hook"):
        HyenaDNACache(hooked)


def test_hidden_states_are_those_of_whole_sequences(model):
    out = generated(model, input_ids=bases(2, 6), max_new_tokens=3, output_hidden_states=True)
    assert [states[-1].shape for states in out.hidden_states] == [(2, n, 8) for n in (6, 7, 8)]
    with torch.no_grad():
        cache = model(bases(2, 6), use_cache=True).past_key_values
        assert model(bases(2, 6), use_cache=True, output_hidden_states=True).past_key_values is None
        with pytest.raises(InputError, match="a cache is given, but hidden states are asked for"):
            model(bases(2, 1), past_key_values=cache, output_hidden_states=True)


def test_gradients_pass_by_the_cache(model):
    out = model(bases(2, 6), use_cache=True)
    assert out.past_key_values is None and out.logits.requires_grad
    cache = HyenaDNACache(model)
    with pytest.raises(InputError, match="a cache is given, but gradients are wanted"):
        model(bases(2, 6), past_key_values=cache)
    assert cache.get_seq_length() == 0
    frozen = language_model().requires_grad_(False)
    assert frozen(bases(2, 6), use_cache=True).past_key_values.get_seq_length() == 6
    soft = torch.zeros(1, 3, 8, requires_grad=True)
    assert frozen(inputs_embeds=soft, use_cache=True).logits.requires_grad


# -- forward ---------------------------------------------------------------------------------------

DOUBLE = {kind: make().double() for kind, make in KINDS.items()}


@torch.no_grad()
@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(list(KINDS)),
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    parts=st.lists(st.integers(1, 9), max_size=5),
    keep=st.integers(0, 3),
    behind=st.booleans(),
    max_length=st.sampled_from([None, 1, 20, 1000]),
)
def test_any_steps_equal_the_whole(kind, lengths, parts, keep, behind, max_length):
    """Logits at every position, whatever the padding, the steps and the room."""
    model = DOUBLE[kind]
    batch = padded([bases(n, seed=n) for n in lengths])
    ids, mask = batch["input_ids"], batch["attention_mask"]
    if behind:
        ids, mask = ids.flip(1), mask.flip(1)
    cache = HyenaDNACache(model, max_length)
    out = model(ids, mask, past_key_values=cache, logits_to_keep=keep).logits
    torch.testing.assert_close(out, model(ids, mask).logits[:, -keep:], atol=1e-9, rtol=0)
    for i, count in enumerate(parts):
        more = bases(len(lengths), count, seed=i)
        ids = torch.cat([ids, more], dim=1)
        mask = torch.cat([mask, torch.ones_like(more)], dim=1)
        out = model(more, mask if i % 2 else None, past_key_values=cache).logits
        wanted = model(ids, mask).logits[:, -count:]
        torch.testing.assert_close(out, wanted, atol=1e-9, rtol=0)
        assert cache.get_seq_length() == ids.shape[1]


@torch.no_grad()
def test_growth_beyond_the_room(model, monkeypatch):
    """The default room is a beginning; tokens are read again a few times at most."""
    monkeypatch.setattr(cache_module, "ROOM", 3)
    reads = []
    prefill = Decoder.prefill
    monkeypatch.setattr(
        Decoder, "prefill",
        lambda self, rows, *, room: reads.append(len(rows[0])) or prefill(self, rows, room=room),
    )  # fmt: skip
    ids = bases(2, 64)
    cache = model(ids[:, :5], use_cache=True, logits_to_keep=1).past_key_values
    logits = [model(ids[:, i : i + 1], past_key_values=cache).logits for i in range(5, 64)]
    torch.testing.assert_close(torch.cat(logits, 1), model(ids).logits[:, 5:], atol=2e-4, rtol=0)
    assert reads == [5, 8, 16, 32]
    with pytest.raises(InputError, match="sequence of 65 tokens, but this model reads 1 to 64"):
        model(ids[:, :1], past_key_values=cache)
    assert cache.get_seq_length() == 64


@torch.no_grad()
def test_branches(model):
    prompt = bases(2, 6)
    cache = model(prompt, use_cache=True).past_key_values
    other = copy.deepcopy(cache)
    assert other.decoder is cache.decoder
    model(bases(2, 3, seed=2), past_key_values=cache)
    assert (cache.get_seq_length(), other.get_seq_length()) == (9, 6)
    other.batch_repeat_interleave(3)
    assert other.batch_size == 6
    more = bases(6, 2, seed=3)
    out = model(more, past_key_values=other).logits
    wanted = torch.cat([prompt.repeat_interleave(3, 0), more], dim=1)
    torch.testing.assert_close(out, model(wanted).logits[:, -2:], atol=2e-4, rtol=0)
    other.batch_select_indices(torch.tensor([4, 0]))
    out = model(more[:2], past_key_values=other).logits
    wanted = torch.cat([wanted[[4, 0]], more[:2]], dim=1)
    torch.testing.assert_close(out, model(wanted).logits[:, -2:], atol=2e-4, rtol=0)
    other.reset()
    assert (other.get_seq_length(), other.batch_size, other.is_initialized) == (0, -1, False)
    torch.testing.assert_close(model(wanted, past_key_values=other).logits, model(wanted).logits)


@torch.no_grad()
@pytest.mark.parametrize("recording", [False, True])
def test_going_back(model, monkeypatch, recording):
    batch = padded([bases(6), bases(3)])
    line, cache = batch["input_ids"], HyenaDNACache(model)
    model(**batch, past_key_values=cache, logits_to_keep=1)
    if recording:
        cache.activate_past_recording()
    again = []
    prefill = Decoder.prefill
    monkeypatch.setattr(
        Decoder, "prefill",
        lambda self, rows, *, room: again.append(1) or prefill(self, rows, room=room),
    )  # fmt: skip
    reads = []
    for tried, back in ((5, 9), (2, -1), (3, 0), (4, 8), (3, 6)):
        more = bases(2, tried, seed=tried)
        model(more, past_key_values=cache)
        line = torch.cat([line, more], dim=1)
        line = line[:, : back if back > 0 else line.shape[1] + back]
        cache.crop(back)
        reads.append(len(again))
        assert cache.get_seq_length() == line.shape[1]
        more, probe = bases(2, 1, seed=8), copy.deepcopy(cache)
        out = model(more, past_key_values=probe).logits[:, -1]
        ids = torch.cat([line, more], dim=1)
        mask = torch.cat([batch["attention_mask"], torch.ones(2, ids.shape[1] - 6)], dim=1)
        torch.testing.assert_close(out, model(ids, mask).logits[:, -1], atol=2e-4, rtol=0)
    assert reads == ([0, 0, 0, 1, 2] if recording else [1, 2, 2, 3, 4])  # the last two go far back
    with pytest.raises(InputError, match="cannot go back to 2 positions, within the 6"):
        cache.crop(2)


def test_generation_goes_on_from_a_cache(model):
    prompt = bases(2, 6)
    first = generated(model, input_ids=prompt, max_new_tokens=5)
    again = generated(
        model, input_ids=first.sequences, past_key_values=first.past_key_values, max_new_tokens=7
    )
    whole = model.generate(prompt, max_new_tokens=12, do_sample=False, use_cache=False)
    assert torch.equal(again.sequences, whole)
    with torch.no_grad():
        cache = model(prompt, use_cache=True).past_key_values
    held = generated(model, input_ids=prompt, past_key_values=cache, max_new_tokens=12)
    assert torch.equal(held.sequences, whole)


@torch.no_grad()
def test_both_names_of_the_cache(model, caplog):
    """In every release: `past_key_values`, and `cache`, as transformers 5.24 calls it."""
    new = tuple(int(part) for part in transformers.__version__.split(".")[:2]) >= (5, 24)
    assert ("cache" if new else "past_key_values") == cache_module.NAME
    ids = bases(2, 9)
    wanted = model(ids).logits[:, 6:]
    for name in ("past_key_values", "cache"):
        logging.Logger.warning_once.cache_clear()
        out = model(ids[:, :6], use_cache=True)
        cache = out[cache_module.NAME]
        assert cache is out[1] and cache is getattr(out, cache_module.NAME)
        assert cache is out.past_key_values
        logits = model(ids[:, 6:], **{name: copy.deepcopy(cache)}).logits
        torch.testing.assert_close(logits, wanted, atol=2e-4, rtol=0)
        again = generated(model, input_ids=ids, **{name: cache})
        assert cache.get_seq_length() == 22  # the last token is not read
        assert again[cache_module.NAME] is cache
        assert torch.equal(again.sequences, generated(model, input_ids=ids).sequences)
    one, two = HyenaDNACache(model), HyenaDNACache(model)
    assert model(ids, past_key_values=one, cache=one)[1] is one
    with pytest.raises(InputError, match="cache and past_key_values are two caches; give one"):
        model(ids, past_key_values=one, cache=two)
    assert two.get_seq_length() == 0
    logging.Logger.warning_once.cache_clear()
    caplog.clear()
    caplog.set_level(logging.WARNING)
    model.generate(ids, max_new_tokens=3)
    assert not [record for record in caplog.records if "deprecated" in record.getMessage()]


@torch.no_grad()
def test_loss_with_a_cache(model):
    batch = padded([bases(9), bases(5)])
    wanted = model(**batch, labels=batch["input_ids"])
    out = model(**batch, labels=batch["input_ids"], use_cache=True)
    torch.testing.assert_close(out.loss, wanted.loss)
    loss, logits, cache = model(
        **batch, labels=batch["input_ids"], use_cache=True, return_dict=False
    )
    assert cache.get_seq_length() == 9
    torch.testing.assert_close((loss, logits), (wanted.loss, wanted.logits))


def test_inference_mode_and_back(model):
    ids = bases(2, 12)
    with torch.inference_mode():
        cache = model(ids[:, :6], use_cache=True).past_key_values
        model(ids[:, 6:8], past_key_values=cache)
    with torch.no_grad():
        out = model(ids[:, 8:], past_key_values=cache).logits
        torch.testing.assert_close(out, model(ids).logits[:, 8:], atol=2e-4, rtol=0)


@torch.no_grad()
def test_errors_say_what_and_how(model):
    ids = bases(2, 6)
    cache = model(ids, use_cache=True).past_key_values
    for call, message in [
        (lambda: model(bases(3, 1), past_key_values=cache), r"\(3, 1\) after 2 sequences; give"),
        (
            lambda: model(inputs_embeds=torch.zeros(2, 1, 8), past_key_values=cache),
            r"float32 tokens of shape \(2, 1, 8\) after 2 sequences",
        ),
        (
            lambda: model(ids[:, :1], torch.ones(2, 9), past_key_values=cache),
            r"shape \(2, 9\), but 1 tokens follow 6; give \(2, 7\)",
        ),
        (
            lambda: model(ids[:, :1], torch.zeros(2, 1), past_key_values=cache),
            "padding after the beginning of a cache",
        ),
        (lambda: model(ids, past_key_values=DynamicCache()), "is a DynamicCache; give a Hyena"),
        (
            lambda: language_model()(ids, past_key_values=cache),
            "is a HyenaDNACache of another model",
        ),
        (lambda: model(past_key_values=cache), "give either input_ids or inputs_embeds"),
        (
            lambda: model.generate(ids, past_key_values=cache, use_cache=False),
            "a cache with use_cache=False",
        ),
        (lambda: cache.update(None, None, 0), "without keys and values"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert cache.get_seq_length() == 6
