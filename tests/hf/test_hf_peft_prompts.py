"""Soft prompts of ours in the package `peft`, and its own in ours."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.hf.hf_examples import bases, small_model
from torch import Tensor

import hyenadna
from hyenadna.alphabet import SEP
from hyenadna.checkpoint.prompt_file import load_prompt, save_prompt
from hyenadna.checkpoint.prompt_peft import export_peft, import_peft
from hyenadna.data.labelled_data import Task
from hyenadna.label_words import LabelWords, label_words
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.prompting.prompted import PromptedModel
from hyenadna.transformers import HyenaDNAForCausalLM, HyenaDNAForSequenceClassification

peft = pytest.importorskip("peft")

TASK = Task("classes", ("no", "yes"))
ROWS = bases(3, 14)


def prompted(model: HyenaDNA) -> PromptedModel:
    found = PromptedModel(model, TASK, tokens=5, words=label_words(TASK.names))
    torch.nn.init.normal_(found.prompt, generator=torch.Generator().manual_seed(2))
    return found.eval()


def asked(rows: Tensor) -> Tensor:
    """The sequences, and what the answer follows."""
    return torch.cat([rows, torch.full((len(rows), 1), SEP)], dim=1)


def said(model: Any, words: LabelWords, ids: Tensor, **options: Any) -> Tensor:
    """Log-probabilities of the words (of one letter) by the library's model, (B, T)."""
    logits = model(input_ids=ids, **options).logits[:, -1]
    found: Tensor = logits.log_softmax(-1)[:, torch.from_numpy(words.ids[:, 0]).long()]
    return found


@pytest.fixture
def exported(tmp_path) -> tuple[PromptedModel, Path]:
    """A prompt for a small model, and the folder with `model` and `peft`."""
    model = small_model()
    tuned = prompted(model)
    hyenadna.save(model, tmp_path / "model")
    save_prompt(tuned, tmp_path / "p.safetensors", base=str(tmp_path / "model"))
    export_peft(tmp_path / "p.safetensors", tmp_path / "peft")
    return tuned, tmp_path


def with_peft(folder: Path) -> Any:
    base = HyenaDNAForCausalLM.from_pretrained(folder / "model")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Unexpected keyword")  # peft knows every field
        return peft.PeftModel.from_pretrained(base, str(folder / "peft")).eval()


@torch.no_grad()
def test_a_prompt_of_ours_says_the_same_in_peft(exported):
    tuned, folder = exported
    model = with_peft(folder)
    want = tuned(ROWS)
    assert (want[0] - want[1]).abs().max() > 1e-3
    for options in ({}, {"attention_mask": torch.ones(3, 15)}):
        got = said(model, tuned.words, asked(ROWS), **options)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-5)
    plain = said(model.base_model, tuned.words, asked(ROWS))
    assert (plain - want).abs().max() > 1e-3  # the vectors matter


@torch.no_grad()
def test_padding_in_front_changes_nothing_behind_a_prompt(exported):
    tuned, folder = exported
    short = ROWS[:, :6]
    padded = torch.full((3, 15), 4)
    padded[:, 8:] = asked(short)
    got = said(with_peft(folder), tuned.words, padded, attention_mask=(padded != 4).long())
    torch.testing.assert_close(got, tuned(short), rtol=0, atol=1e-5)


def test_bases_after_a_prompt_in_peft_are_those_of_generate(exported):
    tuned, folder = exported
    got = with_peft(folder).generate(
        input_ids=ROWS[:1], attention_mask=torch.ones(1, 14), max_new_tokens=10, do_sample=False
    )
    likeliest = hyenadna.Sampling(temperature=0)
    prompt = ROWS[0].numpy()
    (want,) = hyenadna.generate(
        tuned.model, [prompt], 10, sampling=likeliest, soft_prompt=tuned.prompt
    )
    assert got[0, 14:].tolist() == want.tokens.tolist()


def test_a_prompt_that_peft_has_trained_becomes_ours(tmp_path):
    model = small_model()
    hyenadna.save(model, tmp_path / "model")
    base = HyenaDNAForCausalLM.from_pretrained(tmp_path / "model")
    settings = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    trained = peft.get_peft_model(base, settings)
    words = label_words(TASK.names)
    letters = torch.from_numpy(words.ids[:, 0]).long()
    ids = torch.cat([asked(ROWS), letters[[0, 1, 1]][:, None]], dim=1)
    labels = ids.clone()
    labels[:, :-1] = -100
    optimiser = torch.optim.AdamW(trained.prompt_encoder.parameters(), lr=0.1)
    losses = []
    for _ in range(5):
        loss = trained(input_ids=ids, labels=labels).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    trained.save_pretrained(tmp_path / "theirs")
    import_peft(tmp_path / "theirs", tmp_path / "ours.safetensors", model, words=words)
    ours = load_prompt(tmp_path / "ours.safetensors", hyenadna.load(tmp_path / "model"))
    with torch.no_grad():
        want = said(trained.eval(), words, asked(ROWS))
        torch.testing.assert_close(ours(ROWS), want, rtol=0, atol=1e-5)


def test_the_classifier_takes_soft_prompts_of_peft_too(tmp_path):
    hyenadna.save(small_model(), tmp_path / "model")
    base = HyenaDNAForSequenceClassification.from_pretrained(tmp_path / "model", num_labels=2)
    settings = peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4)
    out = peft.get_peft_model(base, settings)(input_ids=ROWS, attention_mask=torch.ones(3, 14))
    assert out.logits.shape == (3, 2)
