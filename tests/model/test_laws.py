"""The laws of the model: causality, invariance, switches that change nothing."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenadna.alphabet import PAD
from hyenadna.config import PRESETS, ModelConfig, preset
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA

SMALL = ModelConfig(d_model=16, n_layer=2, max_seq_len=80, filter_order=16)
VARIANTS = {
    "hyena": SMALL,
    "order 3": SMALL.replace(hyena_order=3),
    "order 4, five taps": SMALL.replace(hyena_order=4, short_filter_order=5),
    "seven taps, untied": SMALL.replace(short_filter_order=7, tie_word_embeddings=False),
    "fixed frequency": SMALL.replace(train_freq=False, num_inner_mlps=0),
    "attention": SMALL.replace(mixer="attention", num_heads=2),
}


def make(config: ModelConfig, seed: int = 0) -> HyenaDNA:
    """A model in float64 with weights large enough that every part matters."""
    torch.manual_seed(seed)
    model = HyenaDNA(config).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture(scope="module", params=VARIANTS, ids=str)
def model(request) -> HyenaDNA:
    return make(VARIANTS[request.param])


def random_tokens(batch: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(7, 12, (batch, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_changing_a_base_changes_nothing_before_it(model):
    tokens = random_tokens(1, 40)
    base = model(tokens)
    for position in (0, 1, 17, 39):
        changed = tokens.clone()
        changed[0, position] = 7 + (changed[0, position] - 6) % 5
        other = model(changed)
        torch.testing.assert_close(other[:, :position], base[:, :position], atol=1e-9, rtol=0)
        assert (other[:, position:] - base[:, position:]).abs().amax() > 1e-4


@torch.no_grad()
def test_output_is_the_same_alone_in_a_batch_and_with_right_padding(model):
    tokens = random_tokens(3, 30)
    lengths = [30, 21, 1]
    padded = torch.full((3, 44), PAD)
    for row, length in enumerate(lengths):
        padded[row, :length] = tokens[row, :length]
    together = model.embed(padded)
    for row, length in enumerate(lengths):
        alone = model.embed(tokens[row : row + 1, :length])
        torch.testing.assert_close(together[row, :length], alone[0], atol=1e-9, rtol=0)


@torch.no_grad()
def test_a_prefix_gives_the_prefix_of_the_output(model):
    tokens = random_tokens(2, 80)
    whole = model(tokens)
    for length in (1, 2, 3, 31, 79):
        torch.testing.assert_close(model(tokens[:, :length]), whole[:, :length], atol=1e-9, rtol=0)


@given(length=st.integers(1, 80), batch=st.integers(1, 3), seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
@torch.no_grad()
def test_fft_and_direct_convolution_give_one_model(length, batch, seed):
    model = make(VARIANTS["order 3"], seed)
    tokens = random_tokens(batch, length, seed)
    fast = model(tokens)
    for layer in model.backbone.layers:
        layer.mixer.conv_method = "direct"
    torch.testing.assert_close(model(tokens), fast, atol=1e-9, rtol=0)


@pytest.mark.parametrize("mixer", [True, False])
@pytest.mark.parametrize("mlp", [True, False])
def test_gradient_checkpointing_changes_no_gradient(mixer, mlp):
    gradients = []
    for recompute in (False, True):
        model = make(SMALL.replace(embed_dropout=0.2, resid_dropout=0.2, hyena_dropout=0.2))
        model.train()
        if recompute:
            model.set_checkpointing(mixer=mixer, mlp=mlp)
        torch.manual_seed(3)
        model(random_tokens(2, 33)).square().mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


def test_every_parameter_gets_a_gradient(model):
    model(random_tokens(2, 33)).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    model.zero_grad()


def test_the_filter_stays_in_float32_under_autocast():
    model = HyenaDNA(preset("tiny-1k"))
    filter_fn = model.backbone.layers[0].mixer.filter_fn
    exact = filter_fn(1000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = filter_fn(1000)
        logits = model(random_tokens(1, 50))
    assert rounded.dtype == torch.float32 and torch.equal(exact, rounded)
    assert logits.dtype == torch.float32


def test_a_model_in_bfloat16_is_near_the_float32_one():
    torch.manual_seed(0)
    model = HyenaDNA(SMALL).eval()
    tokens = random_tokens(2, 60)
    exact = model(tokens)
    model.bfloat16()
    assert (model(tokens) - exact).abs().max() < 0.05 * exact.abs().max() + 0.01


@pytest.mark.parametrize("name", PRESETS)
def test_parameter_counts_of_the_shapes(name):
    tied = {
        "tiny-1k": 436_096, "tiny-1k-d256": 1_641_088, "tiny-16k-d128": 436_096,
        "small-32k": 3_277_568, "medium-160k": 6_550_528, "medium-450k": 6_550_528,
        "large-1m": 6_550_528, "xlarge-1m": 1_313_680_000,
    }  # fmt: skip
    config = preset(name)
    with torch.device("meta"):
        model = HyenaDNA(config)
    assert sum(p.numel() for p in model.parameters()) == tied[name] == config.num_parameters()
    untied = config.replace(tie_word_embeddings=False)
    assert untied.num_parameters() == tied[name] + 16 * config.d_model


@pytest.mark.parametrize("name", VARIANTS)
def test_the_parameter_formula_counts_every_variant(name):
    config = VARIANTS[name]
    assert sum(p.numel() for p in HyenaDNA(config).parameters()) == config.num_parameters()


def test_initial_weights_follow_the_paper():
    torch.manual_seed(0)
    config = preset("medium-160k").replace(max_seq_len=1026)
    model = HyenaDNA(config)
    block = model.backbone.layers[3]
    rescaled = 0.02 / math.sqrt(2 * config.n_layer)
    expected = {
        block.mixer.in_proj: 0.02,
        block.mixer.out_proj: rescaled,
        block.mlp.fc1: 0.02,
        block.mlp.fc2: rescaled,
        block.mixer.filter_fn.implicit_filter[6]: 0.02,
        model.backbone.embeddings.word_embeddings: 0.02,
    }
    for module, std in expected.items():
        assert module.weight.std().item() == pytest.approx(std, rel=0.05), module
    assert block.mixer.short_filter.weight.abs().max() <= 3**-0.5
    assert block.mixer.short_filter.weight.std().item() == pytest.approx(1 / 3, rel=0.05)
    assert block.mixer.filter_fn.bias.std().item() == pytest.approx(1, rel=0.2)
    assert (block.mixer.filter_fn.implicit_filter[1].freq == 10).all()
    assert (block.mixer.in_proj.bias == 0).all() and (block.norm1.weight == 1).all()
    frequencies = [m for m in block.mixer.filter_fn.implicit_filter if hasattr(m, "freq")]
    assert len(frequencies) == 3 and len({id(m) for m in frequencies}) == 1


def test_a_model_can_train_after_inference_mode():
    model = HyenaDNA(SMALL.replace(max_seq_len=77))  # a shape whose tables are not cached yet
    with torch.inference_mode():
        model(random_tokens(1, 9))
    model(random_tokens(1, 9)).sum().backward()


def test_tables_do_not_follow_the_default_type():
    torch.set_default_dtype(torch.bfloat16)
    try:
        tables = HyenaDNA(SMALL.replace(max_seq_len=78)).backbone.layers[0].mixer.filter_fn.tables()
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(table.dtype == torch.float32 for table in tables.values())


def test_dropout_where_the_paper_has_it():
    tokens = random_tokens(1, 40)
    for field in ("embed_dropout", "resid_dropout", "hyena_dropout"):
        model = make(SMALL.replace(**{"embed_dropout": 0.0, field: 0.5}))
        assert torch.equal(model(tokens), model(tokens)), field
        model.train()
        assert not torch.equal(model(tokens), model(tokens)), field
    still = make(SMALL.replace(embed_dropout=0.0)).train()
    assert torch.equal(still(tokens), still(tokens))


def test_errors_name_the_value_and_the_way_out():
    model = HyenaDNA(SMALL)
    with pytest.raises(InputError, match=r"81 tokens, but this model reads 1 to 80 .*longer model"):
        model(torch.full((1, 81), 7))
    with pytest.raises(InputError, match=r"shape \(0, 5\); give integer ids"):
        model(torch.zeros(0, 5, dtype=torch.long))
    with pytest.raises(InputError, match="0 tokens"):
        model(torch.zeros(1, 0, dtype=torch.long))
    with pytest.raises(InputError, match=r"float32 of shape \(1, 3\); give integer ids"):
        model(torch.zeros(1, 3))
    with pytest.raises(InputError, match=r"token ids 7 to 16; they must be in 0 \.\. 15"):
        model(torch.tensor([[7, 16]]))
    with pytest.raises(InputError, match="n_layer is '2'; it must be of type int"):
        ModelConfig.from_dict({"n_layer": "2"})
    with pytest.raises(InputError, match="emb_dim is 4; it must be odd"):
        ModelConfig(emb_dim=4)
    with pytest.raises(InputError, match="no preset 'huge'; there are tiny-1k"):
        preset("huge")


def test_one_sequence_without_a_batch_axis():
    model = HyenaDNA(SMALL).eval()
    tokens = random_tokens(1, 9)
    assert torch.equal(model(tokens[0]), model(tokens))
    assert torch.equal(model(tokens[0].numpy().astype("uint8")), model(tokens))


def test_hidden_states_end_in_the_embedding(model):
    tokens = random_tokens(2, 12)
    states = model.hidden_states(tokens)
    assert len(states) == model.config.n_layer + 2
    torch.testing.assert_close(states[-1], model.embed(tokens))
    torch.testing.assert_close(model.logits(states[-1]), model(tokens))
