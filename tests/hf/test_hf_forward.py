"""Forward pass: padding, losses, heads, other ways in, activation checkpointing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers")

from hf_examples import bases, loud, small_config, small_model

from hyenadna.errors import InputError
from hyenadna.transformers import (
    HyenaDNAConfig,
    HyenaDNAForCausalLM,
    HyenaDNAForSequenceClassification,
)

PAD = 4


def language_model(**changes):
    config = HyenaDNAConfig.from_model_config(small_config(**changes))
    return loud(HyenaDNAForCausalLM(config))


def classifier(*, num_labels=3, pooling="last_token", **changes):
    config = HyenaDNAConfig.from_model_config(
        small_config(**changes), num_labels=num_labels, pooling=pooling
    )
    return loud(HyenaDNAForSequenceClassification(config))


MODEL = language_model(max_seq_len=20)
CLASSIFIER = classifier(max_seq_len=20)


def batch(rows, mask_rows):
    """Rows spread over the ones of their mask rows; padding elsewhere."""
    mask = torch.tensor(mask_rows)
    ids = torch.full(mask.shape, PAD)
    for row, line, at in zip(rows, ids, mask, strict=True):
        line[at.bool()] = row
    return ids, mask


@st.composite
def padded_batches(draw):
    """Any rows, with padding left, right or anywhere, wider than the model is long."""
    width = draw(st.integers(1, 26))
    masks, rows = [], []
    for _ in range(draw(st.integers(1, 4))):
        real = draw(st.lists(st.integers(0, width - 1), min_size=1, max_size=20, unique=True))
        masks.append([int(i in real) for i in range(width)])
        rows.append(bases(len(real), seed=draw(st.integers(0, 9))))
    return rows, masks


@torch.no_grad()
@settings(max_examples=60, deadline=None)
@given(padded_batches())
def test_a_row_is_the_same_alone_in_any_batch_with_any_padding(case):
    rows, masks = case
    ids, mask = batch(rows, masks)
    out = MODEL(ids, attention_mask=mask, output_hidden_states=True)
    scores = CLASSIFIER(ids, attention_mask=mask).logits
    for i, row in enumerate(rows):
        at = mask[i].bool()
        alone = MODEL(row[None], output_hidden_states=True)
        torch.testing.assert_close(out.logits[i, at], alone.logits[0], atol=2e-5, rtol=0)
        assert (out.logits[i, ~at] == 0).all()
        for state, wanted in zip(out.hidden_states, alone.hidden_states, strict=True):
            torch.testing.assert_close(state[i, at], wanted[0], atol=2e-5, rtol=0)
        wanted = CLASSIFIER(row[None]).logits[0]
        torch.testing.assert_close(scores[i], wanted, atol=2e-5, rtol=0)


def test_left_padding_without_a_mask_changes_everything():
    """What the mask is for: the test above would be empty if pads did nothing."""
    row = bases(6)
    left, _ = batch([row], [[0, 0, 0, 0] + [1] * 6])
    with torch.no_grad():
        assert not torch.allclose(MODEL(left).logits[0, 4:], MODEL(row[None]).logits[0], atol=0.05)


def test_all_ones_mask_changes_nothing():
    ids = bases(2, 12)
    with torch.no_grad():
        assert torch.equal(
            MODEL(ids, attention_mask=torch.ones_like(ids)).logits, MODEL(ids).logits
        )


def test_loss_and_gradients_with_any_padding():
    rows = [bases(9, seed=1), bases(5, seed=2), bases(7, seed=3)]
    layouts = {
        "right": [[1] * n + [0] * (11 - n) for n in (9, 5, 7)],
        "left": [[0] * (11 - n) + [1] * n for n in (9, 5, 7)],
        "holes": [[1, 0, *[1] * 8, 0], [0, 1] * 5 + [0], [0, 0, *[1] * 4, 0, 0, *[1] * 3]],
    }
    sums, count = 0.0, 0
    model = language_model()
    for row in rows:
        logits = model(row[None]).logits[0, :-1]
        sums = sums + torch.nn.functional.cross_entropy(logits, row[1:], reduction="sum")
        count += len(row) - 1
    wanted = sums / count
    wanted.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
    for masks in layouts.values():
        ids, mask = batch(rows, masks)
        model.zero_grad()
        loss = model(ids, attention_mask=mask, labels=ids).loss
        torch.testing.assert_close(loss, wanted, atol=1e-6, rtol=1e-6)
        loss.backward()
        for name, parameter in model.named_parameters():
            scale = gradients[name].abs().max().item()
            torch.testing.assert_close(
                parameter.grad, gradients[name], atol=1e-4 * scale + 1e-7, rtol=0
            )


@torch.no_grad()
def test_loss_ignores_and_divides():
    ids = bases(2, 10)
    labels = ids.clone()
    labels[0, 4:] = -100
    out = MODEL(ids, labels=labels)
    nats = torch.nn.functional.cross_entropy(
        out.logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none"
    )
    assert (nats > 0).sum() == 3 + 9
    torch.testing.assert_close(out.loss, nats.sum() / 12)
    torch.testing.assert_close(MODEL(ids, labels=labels, num_items_in_batch=5).loss, nats.sum() / 5)


@torch.no_grad()
def test_ways_in_and_out():
    ids = bases(2, 10)
    logits = MODEL(ids).logits
    embeds = MODEL.get_input_embeddings()(ids)
    assert torch.equal(MODEL(inputs_embeds=embeds).logits, logits)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    assert torch.equal(
        MODEL(inputs_embeds=embeds, attention_mask=mask).logits,
        MODEL(ids, attention_mask=mask).logits,
    )
    loss, as_tuple, states = MODEL(ids, labels=ids, output_hidden_states=True, return_dict=False)
    assert torch.equal(as_tuple, logits) and len(states) == 4 and loss.ndim == 0
    assert torch.equal(MODEL(ids, logits_to_keep=2).logits, logits[:, -2:])
    assert logits.dtype == torch.float32 and logits.shape == (2, 10, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert MODEL(ids).logits.dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MODEL(), "give either input_ids or inputs_embeds"),
        (lambda: MODEL(bases(1, 21)), r"sequence of 21 tokens, but this model reads 1 to 20"),
        (lambda: MODEL(bases(1, 0)), "sequence of 0 tokens"),
        (
            lambda: MODEL(bases(1, 5), attention_mask=torch.ones(1, 4)),
            r"attention_mask has shape \(1, 4\), but the input is \(1, 5\)",
        ),
        (
            lambda: MODEL(bases(2, 2), attention_mask=torch.tensor([[1, 1], [0, 0]])),
            "row 1 has no real token",
        ),
        (lambda: MODEL(bases(1, 5), output_attentions=True), "no attention weights"),
        (
            lambda: MODEL(bases(1, 5), labels=bases(1, 5), logits_to_keep=1),
            "labels have 5 positions, the logits 1",
        ),
        (
            lambda: CLASSIFIER(bases(2, 5), labels=bases(2, 3)),
            r"integer labels of shape \(2, 3\)",
        ),
    ],
)
def test_errors_say_what_and_how(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_unknown_arguments_are_not_swallowed():
    with pytest.raises(TypeError, match="attention_maks"):
        MODEL(bases(1, 5), attention_maks=torch.ones(1, 5))


# -- activation checkpointing ----------------------------------------------------------------------


def test_gradient_checkpointing_switches_the_blocks_and_changes_nothing():
    model = language_model(embed_dropout=0.2).train()
    ids = bases(2, 10)

    def gradients():
        torch.manual_seed(3)
        model.zero_grad()
        model(ids, labels=ids).loss.backward()
        return [p.grad.clone() for p in model.parameters()]

    def flags():
        return [b.checkpoint_mixer and b.checkpoint_mlp for b in model.hyena.backbone.layers]

    plain = gradients()
    assert not model.is_gradient_checkpointing and flags() == [False, False]
    model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing and flags() == [True, True]
    for one, two in zip(plain, gradients(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-5)
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing and flags() == [False, False]


def test_hidden_states_in_training_have_the_same_dropout_as_the_output():
    model = language_model(embed_dropout=0.5).train()
    ids = bases(2, 10)
    torch.manual_seed(0)
    plain = model.hyena(ids).last_hidden_state
    torch.manual_seed(0)
    states = model.hyena(ids, output_hidden_states=True)
    assert torch.equal(states.last_hidden_state, plain)
    assert not torch.equal(plain, model.eval().hyena(ids).last_hidden_state)


# -- classification --------------------------------------------------------------------------------


@torch.no_grad()
def test_pooling_positions():
    hidden = CLASSIFIER.hyena
    published = classifier(max_seq_len=20, pooling="published")
    rows = torch.tensor(
        [
            [7, 8, 9, 10, 7, 8],
            [7, 8, 9, PAD, PAD, PAD],
            [PAD, PAD, 7, 8, 9, 1],
            [7, 8, PAD, 9, 1, PAD],
        ]
    )
    states = hidden(rows).last_hidden_state
    for model, positions in ((CLASSIFIER, [5, 2, 5, 4]), (published, [5, 2, 5, 1])):
        wanted = torch.stack([model.score(states[i, at]) for i, at in enumerate(positions)])
        torch.testing.assert_close(model(rows).logits, wanted)
    embedded = CLASSIFIER.get_input_embeddings()(rows)
    wanted = CLASSIFIER.score(states[:, -1])
    torch.testing.assert_close(CLASSIFIER(inputs_embeds=embedded).logits, wanted)


def test_classifier_losses_and_inferred_problems():
    ids = bases(4, 10)
    model = classifier(num_labels=1)
    labels = torch.tensor([0.5, -1.0, 2.0, 0.0])
    out = model(ids, labels=labels)
    torch.testing.assert_close(out.loss, ((out.logits[:, 0] - labels) ** 2).mean())
    assert model.config.problem_type == "regression"
    torch.testing.assert_close(model(ids, labels=labels[:, None]).loss, out.loss)

    model = classifier(num_labels=3)
    labels = torch.tensor([0, 2, 1, 1])
    out = model(ids, labels=labels)
    torch.testing.assert_close(out.loss, torch.nn.functional.cross_entropy(out.logits, labels))
    assert model.config.problem_type == "single_label_classification"

    model = classifier(num_labels=3)
    labels = torch.tensor([[0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1]]).float()
    out = model(ids, labels=labels)
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(out.logits, labels)
    torch.testing.assert_close(out.loss, wanted)
    assert model.config.problem_type == "multi_label_classification"

    model.config.problem_type = "regression"
    out = model(ids, labels=labels)
    torch.testing.assert_close(out.loss, ((out.logits - labels) ** 2).mean())


@torch.no_grad()
def test_same_function_as_our_own_model():
    ours = small_model(tie_word_embeddings=False)
    there = language_model(tie_word_embeddings=False)
    state = {(f"hyena.{n}" if n.startswith("backbone") else n): v for n, v in
             ours.state_dict().items()}  # fmt: skip
    there.load_state_dict(state, strict=True)
    assert torch.equal(there(bases(2, 34)).logits, ours(bases(2, 34)))
