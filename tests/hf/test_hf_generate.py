"""`generate`: the same tokens as a plain loop, whatever stands in front."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers")

import transformers
from hf_examples import bases, loud, small_config
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, pipeline

from hyenadna.errors import InputError
from hyenadna.transformers import HyenaDNAConfig, HyenaDNAForCausalLM, HyenaDNATokenizer

PAD = 4


@pytest.fixture(scope="module")
def model():
    """Weights under which prompts differ in what follows them."""
    shape = small_config(max_seq_len=40, tie_word_embeddings=False)
    model = loud(HyenaDNAForCausalLM(HyenaDNAConfig.from_model_config(shape)), seed=23)
    model.get_input_embeddings().weight.data *= 4
    return model


@torch.no_grad()
def plain_loop(model, prompt, steps, *, allowed=(7, 8, 9, 10), sample=None):
    """Token by token, each from the whole sequence; greedy, or drawn as torch draws."""
    ids = prompt.clone()
    barred = [t for t in range(16) if t not in allowed]
    for _ in range(steps):
        logits = model(ids).logits[:, -1]
        logits[:, barred] = -torch.inf
        if sample is None:
            following = logits.argmax(-1, keepdim=True)
        else:
            following = torch.multinomial(logits.div(sample).softmax(-1), 1)
        ids = torch.cat([ids, following], dim=1)
    return ids


def test_greedy_equals_a_plain_loop(model):
    prompt = bases(3, 7)
    out = model.generate(prompt, max_new_tokens=12, do_sample=False)
    assert torch.equal(out, plain_loop(model, prompt, 12))
    assert len(set(out[:, 7:].flatten().tolist())) > 2
    assert len({tuple(row) for row in out[:, 7:].tolist()}) == 3


def test_sampling_equals_a_plain_loop(model):
    prompt = bases(3, 7)
    torch.manual_seed(11)
    out = model.generate(prompt, max_new_tokens=12, do_sample=True, top_k=0, temperature=0.7)
    torch.manual_seed(11)
    assert torch.equal(out, plain_loop(model, prompt, 12, sample=0.7))


def test_every_id_when_nothing_is_suppressed(model):
    prompt = bases(3, 7)
    out = model.generate(prompt, max_new_tokens=12, do_sample=False, suppress_tokens=[])
    assert torch.equal(out, plain_loop(model, prompt, 12, allowed=range(16)))
    assert not torch.equal(out, model.generate(prompt, max_new_tokens=12, do_sample=False))


@pytest.mark.parametrize(
    "how",
    [
        {"do_sample": False},
        pytest.param(
            {"num_beams": 3},
            marks=pytest.mark.skipif(
                transformers.__version__ < "5",
                reason="beam search of transformers 4 takes vocab_size for the width of the logits",
            ),
        ),
    ],
)
def test_batch_with_left_padding_equals_each_row_alone(model, how):
    rows = [bases(n, seed=n) for n in (9, 4, 1)]
    width = 9
    ids = torch.stack([torch.cat([torch.full((width - len(r),), PAD), r]) for r in rows])
    mask = torch.stack([(torch.arange(width) >= width - len(r)).long() for r in rows])
    out = model.generate(ids, attention_mask=mask, max_new_tokens=8, **how)
    for row, found in zip(rows, out, strict=True):
        alone = model.generate(row[None], max_new_tokens=8, **how)
        assert torch.equal(found[width:], alone[0, len(row) :])


def test_prompt_of_embeddings(model):
    prompt = bases(2, 6)
    embeds = model.get_input_embeddings()(prompt)
    mask = torch.ones_like(prompt)
    out = model.generate(
        inputs_embeds=embeds, attention_mask=mask, max_new_tokens=5, do_sample=False
    )
    assert torch.equal(out, plain_loop(model, prompt, 5)[:, 6:])


def test_scores_and_stopping(model):
    prompt = bases(1, 6)
    plain = plain_loop(model, prompt, 10)
    stop = int(plain[0, 9])
    out = model.generate(
        prompt, max_new_tokens=10, do_sample=False, eos_token_id=stop, output_logits=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    end = 7 + plain[0, 6:].tolist().index(stop)
    assert torch.equal(out.sequences, plain[:, :end])
    with torch.no_grad():
        logits = model(plain[:, :6]).logits[:, -1]
    torch.testing.assert_close(out.logits[0], logits)


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_cache_changes_nothing(model, use_cache):
    prompt = bases(2, 7)
    out = model.generate(prompt, max_new_tokens=9, do_sample=False, use_cache=use_cache)
    assert torch.equal(out, plain_loop(model, prompt, 9))


def test_no_further_than_the_model_reads(model):
    prompt = bases(1, 30)
    assert model.generate(prompt, max_new_tokens=10, do_sample=False).shape == (1, 40)
    with pytest.raises(InputError, match=r"41 tokens in all .* reads 40 .* max_new_tokens=10 or"):
        model.generate(prompt, max_new_tokens=11)


def test_misspelt_arguments_are_refused(model):
    with pytest.raises(ValueError, match="attention_maks"):
        model.generate(bases(1, 5), max_new_tokens=2, attention_maks=torch.ones(1, 5))


def test_defaults_survive_saving_and_can_be_changed(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    prompt = bases(2, 6)
    out = again.generate(prompt, max_new_tokens=6, do_sample=False)
    assert torch.equal(out, plain_loop(model, prompt, 6))
    mine = GenerationConfig(max_new_tokens=3, do_sample=False, suppress_tokens=[7, 8, 9])
    out = again.generate(prompt, generation_config=mine)
    allowed = [t for t in range(16) if t not in (7, 8, 9)]
    assert torch.equal(out, plain_loop(model, prompt, 3, allowed=allowed))
    (tmp_path / "generation_config.json").unlink()
    bare = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert bare.generation_config.suppress_tokens == model.generation_config.suppress_tokens
    assert bare.generation_config.use_cache is True


def test_text_pipeline(model, tmp_path):
    model.save_pretrained(tmp_path)
    HyenaDNATokenizer(add_sep=False, padding_side="left").save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    pipe = pipeline(
        "text-generation", model=AutoModelForCausalLM.from_pretrained(tmp_path),
        tokenizer=tokenizer, device="cpu",
    )  # fmt: skip
    texts = ["ACGTTG", "ac"]
    out = pipe(texts, max_new_tokens=6, do_sample=False, batch_size=2)
    for text, found in zip(texts, out, strict=True):
        ids = tokenizer(text, return_tensors="pt").input_ids
        wanted = tokenizer.decode(plain_loop(model, ids, 6)[0, ids.shape[1] :])
        assert found[0]["generated_text"] == text + wanted
