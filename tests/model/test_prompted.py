"""Soft prompts: equal to the vectors in front of every row; the model stays as it is."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from hyenadna.config import ModelConfig
from hyenadna.data.labelled_data import Task
from hyenadna.errors import InputError
from hyenadna.label_words import label_words
from hyenadna.model.backbone import HyenaDNA, rescale_filters
from hyenadna.model.prompting.prompted import PromptedModel

SMALL = ModelConfig(d_model=12, n_layer=2, max_seq_len=96)
TWO = Task("classes", ("no", "yes"))
SEVEN = Task("classes", tuple("abcdefg"))


def base(config: ModelConfig = SMALL) -> HyenaDNA:
    torch.manual_seed(1)
    model = HyenaDNA(config)
    rescale_filters(model)
    return model.double()


def prompted(task: Task = TWO, config: ModelConfig = SMALL, **options: Any) -> PromptedModel:
    words = label_words(task.names) if options.pop("spell", True) else None
    options.setdefault("tokens", 9)
    model = PromptedModel(base(config), task, words=words, **options)
    torch.nn.init.normal_(model.prompt, std=0.5)
    return model.double().eval()


ROWS = torch.randint(7, 11, (4, 20), generator=torch.Generator().manual_seed(3))
LENGTHS = torch.tensor([20, 7, 1, 15])


def spelled(model: PromptedModel, row: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of all words of one row, by one whole pass for each word."""
    assert model.words is not None
    plain = copy.deepcopy(model.model)
    plain.set_engine("plain")
    found = []
    for word in torch.from_numpy(model.words.ids).long():
        ids = torch.cat([row, torch.tensor([1]), word])
        h = plain.backbone.embeddings(ids[None])
        h = plain.backbone(torch.cat([model.prompt[None], h], dim=1))
        letters = plain.logits(h)[0].log_softmax(-1)
        found.append(letters[-len(word) - 1 : -1].gather(1, word[:, None]).sum())
    return torch.stack(found)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("task", [TWO, SEVEN], ids=["two", "seven"])
def test_words_are_read_behind_prompt_and_sequence(task, order):
    model = prompted(task, SMALL.replace(hyena_order=order))
    with torch.no_grad():
        said = model(ROWS, LENGTHS)
        for row, length, mine in zip(ROWS, LENGTHS.tolist(), said, strict=True):
            torch.testing.assert_close(mine, spelled(model, row[:length]), rtol=0, atol=1e-10)
            alone = model(row[:length])[0]
            torch.testing.assert_close(mine, alone, rtol=0, atol=1e-10)


def test_the_transformer_baseline_has_prompts_too():
    model = prompted(TWO, SMALL.replace(mixer="attention", num_heads=2))
    with torch.no_grad():
        said = model(ROWS, LENGTHS)
        torch.testing.assert_close(said[1], spelled(model, ROWS[1, :7]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("tokens", [0, 9])
@pytest.mark.parametrize("strands", ["forward", "average", "concatenate"])
def test_heads_read_states_behind_the_prompt(tokens, strands):
    model = prompted(TWO, spell=False, tokens=tokens, strands=strands, pooling="mean")
    with torch.no_grad():
        whole = model(ROWS, LENGTHS)
        for i, length in enumerate(LENGTHS.tolist()):
            torch.testing.assert_close(whole[i], model(ROWS[i, :length])[0], rtol=0, atol=1e-10)
        model.prompt.mul_(2)
        changed = model(ROWS, LENGTHS)
    assert torch.equal(changed, whole) == (tokens == 0)


def test_a_step_computes_the_prompt_once_and_its_gradient_is_that_of_all_passes(monkeypatch):
    model = prompted().train()
    model.prompt_dropout.p = 0.0
    calls = []
    fresh = PromptedModel._fresh_effects
    monkeypatch.setattr(
        PromptedModel, "_fresh_effects", lambda self, room: calls.append(room) or fresh(self, room)
    )
    weights = torch.randn(4, 2, dtype=torch.float64)

    def loss(rows: slice) -> torch.Tensor:
        return (model(ROWS[rows], LENGTHS[rows]) * weights[rows]).sum()

    with model.shared_step(20):
        loss(slice(0, 2)).backward()
        loss(slice(2, 4)).backward()
    shared, model.prompt.grad = model.prompt.grad, None
    assert calls == [21]
    loss(slice(0, 4)).backward()
    assert len(calls) == 2 and shared is not None and shared.abs().sum() > 0
    torch.testing.assert_close(shared, model.prompt.grad, rtol=0, atol=1e-10)
    assert all(p.grad is None for p in model.model.parameters())


def test_a_shared_step_in_bf16_has_the_gradient_of_one_pass():
    model = prompted().float().train()
    model.prompt_dropout.p = 0.0

    def bf16():
        return torch.autocast("cpu", dtype=torch.bfloat16)

    def gradient():
        with bf16():
            loss = model(ROWS, LENGTHS).diff(dim=1).sum()
        loss.backward()

    with model.shared_step(20, bf16):
        gradient()
    shared, model.prompt.grad = model.prompt.grad, None
    gradient()
    plain = model.prompt.grad
    assert (shared - plain).norm() < 0.02 * plain.norm()


def test_what_is_kept_follows_the_prompt_and_the_weights():
    model = prompted()
    with torch.inference_mode():
        first = model(ROWS)
    for change in (lambda: model.prompt.data.add_(0.3), lambda: model.prompt.data.mul_(1.5)):
        with torch.no_grad():
            model.prompt.add_(0.1)
        change()
        with torch.no_grad():
            again = model(ROWS)
        assert not torch.equal(again, first)
        torch.testing.assert_close(again[0], spelled(model, ROWS[0]).detach(), rtol=0, atol=1e-10)
        first = again
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.mul_(1.1)
        torch.testing.assert_close(model(ROWS)[0], spelled(model, ROWS[0]), rtol=0, atol=1e-10)
    model.zero_grad()
    model(ROWS).sum().backward()  # what was kept in inference mode does not stand in the way
    assert model.prompt.grad is not None


def test_a_model_made_in_inference_mode_reads():
    with torch.inference_mode():
        model = prompted()
        torch.testing.assert_close(model(ROWS)[0], spelled(model, ROWS[0]), rtol=0, atol=1e-10)


def test_dropout_falls_on_the_vectors_in_training_only():
    model = prompted(dropout=0.5)
    assert torch.equal(model(ROWS), model(ROWS))
    model.train()
    assert not torch.equal(model(ROWS), model(ROWS))
    assert not model.model.training


def test_over_the_vocabulary_the_loss_is_that_of_the_letter():
    model = prompted(over_vocabulary=True)
    outputs, targets = model(ROWS).detach(), torch.tensor([0, 1, -100, 1])
    total, count = model.loss_parts(outputs, targets)
    wanted = -(outputs[0, 0] + outputs[1, 1] + outputs[3, 1])
    torch.testing.assert_close(total, wanted)
    assert float(count) == 3
    weighed, weight = model.loss_parts(outputs, targets, torch.tensor([2.0, 1.0]))
    torch.testing.assert_close(weighed, wanted - outputs[0, 0])
    assert float(weight) == 4


def test_calibrated_words_are_equally_likely_in_the_mean():
    model = prompted(SEVEN)
    before = model(ROWS, LENGTHS).detach()
    assert before.mean(0).std() > 0.01
    model.calibrate([(ROWS[:2], LENGTHS[:2]), (ROWS[2:], LENGTHS[2:])])
    after = model(ROWS, LENGTHS).detach()
    torch.testing.assert_close(after.mean(0), after.mean().expand(7))
    torch.testing.assert_close(after.diff(dim=0), before.diff(dim=0))
    model.over_vocabulary = True  # the loss is of probabilities, which have no prior taken off
    total, _ = model.loss_parts(after, torch.zeros(4, dtype=torch.long))
    torch.testing.assert_close(total, -before[:, 0].sum())


def test_room_and_options_are_checked():
    assert prompted(SEVEN, tokens=40).max_length == 96 - 40 - 2
    assert prompted(spell=False, tokens=40).max_length == 56
    words = label_words(TWO.names)
    with pytest.raises(InputError, match="0 to 95"):
        PromptedModel(base(), TWO, tokens=96)
    with pytest.raises(InputError, match="take a head"):
        PromptedModel(base(), Task("values", ("x",)), tokens=2, words=words)
    with pytest.raises(InputError, match="leave out strands"):
        PromptedModel(base(), TWO, tokens=2, words=words, strands="average")
    with pytest.raises(InputError, match="for label words"):
        PromptedModel(base(), TWO, tokens=2, over_vocabulary=True)
    with pytest.raises(InputError, match="dropout"):
        PromptedModel(base(), TWO, tokens=2, dropout=1.0)


def test_memory_of_a_pass_counts_the_prompt_and_heeds_the_bound():
    shape = SMALL.replace(d_model=64, max_seq_len=4096)
    few, many = (prompted(TWO, shape, tokens=n) for n in (8, 2048))
    short, long = few.pass_memory(1, 64), many.pass_memory(1, 64)
    assert short is not None and long is not None and long > short + 2048 * 64 * 4
    both = prompted(SEVEN, shape, tokens=8)
    assert both.words is not None and len(both.words.beginnings) == 2
    one, rows = few.pass_memory(64, 63), both.pass_memory(32, 62)
    assert one == pytest.approx(rows, abs=64 << 20)  # two questions for each row
    assert both.pass_memory(32, 62, answer=False) < rows
    many.model.set_engine(max_memory=short)
    with pytest.raises(
        InputError, match=r"max_memory is .* 1 x 65 tokens behind 2,048 soft tokens"
    ):
        many.pass_memory(1, 64)
    assert prompted(TWO, shape, tokens=0).pass_memory(1, 64) is not None
    attention = prompted(TWO, shape.replace(mixer="attention", num_heads=2))
    assert attention.pass_memory(1, 64) is None


def test_words_are_read_in_one_way():
    model = prompted()
    model.read_strands("forward")
    with pytest.raises(InputError, match="as it is given"):
        model.read_strands("average")
    prompted(spell=False).read_strands("average")
