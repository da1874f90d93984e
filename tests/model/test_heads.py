"""Pooling, strands, heads, losses, freezing, adapters: laws, known answers, errors."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from hyenadna.alphabet import CLS, MASK, PAD, SEP, UNK, encode, reverse_complement
from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.model.adapters import add_lora, has_adapters, merge_lora, merged
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.freezing import freeze, layer_groups, train_all, train_last_blocks
from hyenadna.model.heads import STRANDS, TaskModel
from hyenadna.model.losses import loss_parts, task_loss
from hyenadna.model.pooling import POOLINGS, AttentionPooling, pool
from hyenadna.model.strands import other_strand

CONFIG = ModelConfig(d_model=16, n_layer=2, max_seq_len=60, filter_order=8)
KIND_OF = dict.fromkeys(POOLINGS, "classes") | {"token": "tokens"}
WAYS = [*product(POOLINGS, STRANDS)]


@dataclass(frozen=True)
class Task:
    kind: str = "classes"
    names: tuple[str, ...] = ("a", "b", "c")

    @property
    def outputs(self) -> int:
        return len(self.names)


def backbone(dtype: torch.dtype = torch.float64, **changes) -> HyenaDNA:
    torch.manual_seed(0)
    model = HyenaDNA(CONFIG.replace(**changes)).to(dtype).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def task_model(pooling="mean", strands="forward", **options) -> TaskModel:
    model = options.pop("model", None) or backbone(options.pop("dtype", torch.float64))
    task = options.pop("task", Task(KIND_OF[pooling]))
    made = TaskModel(model, task, pooling=pooling, strands=strands, **options).eval()
    torch.nn.init.normal_(made.head.weight, std=0.5)
    if made.attention is not None:
        torch.nn.init.normal_(made.attention.query)
    return made


def batch(lengths: list[int], width: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Random bases padded on the right, and their lengths."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(7, 12, (len(lengths), width), generator=generator)
    real = torch.tensor(lengths)
    return tokens.masked_fill(torch.arange(width) >= real[:, None], PAD), real


# -- laws ------------------------------------------------------------------------------------------

MODELS = {name: task_model(*name) for name in WAYS}


@given(
    way=st.sampled_from(WAYS),
    kernels=st.sampled_from(["auto", "torch", "plain"]),
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    padding=st.integers(0, 20),
    seed=st.integers(0, 100),
)
@settings(max_examples=60)
@torch.no_grad()
def test_output_does_not_depend_on_batch_and_padding(way, kernels, lengths, padding, seed):
    made = MODELS[way]
    made.model.set_engine(kernels)
    tokens, real = batch(lengths, max(lengths) + padding, seed)
    together = made(tokens, real)
    assert together.dtype == torch.float64
    for row, length in enumerate(lengths):
        alone = made(tokens[row, :length])[0]
        mine = together[row, :length] if way[0] == "token" else together[row]
        torch.testing.assert_close(mine, alone, atol=1e-9, rtol=0)


@pytest.mark.parametrize("way", WAYS, ids=str)
@torch.no_grad()
def test_what_stands_in_the_padding_does_not_matter(way):
    tokens, real = batch([17, 30], 35)
    other = torch.where(tokens == PAD, 8, tokens)
    one, two = MODELS[way](tokens, real), MODELS[way](other, real)
    if way[0] == "token":
        one, two = one[0, :17], two[0, :17]
    torch.testing.assert_close(one, two, atol=1e-9, rtol=0)


def test_classes_with_a_strand_are_never_averaged():
    task = Task("tokens", ("+1", "-1", "none"))
    made = TaskModel(HyenaDNA(CONFIG), task)
    with pytest.raises(InputError, match="cannot tell"):
        made.read_strands("average")
    with pytest.raises(InputError, match="reads no other way"):
        made.read_strands("concatenate")
    assert made.strands == "forward"


@pytest.mark.parametrize("pooling", POOLINGS)
@torch.no_grad()
def test_averaged_strands_do_not_know_the_strand(pooling):
    made = MODELS[pooling, "average"]
    tokens, real = batch([23, 40], 45)
    other, order = other_strand(tokens, real)
    one, two = made(tokens, real), made(other, real)
    if pooling == "token":
        two = two.gather(1, order[..., None].expand_as(two))
        one, two = one[0, :23], two[0, :23]
    torch.testing.assert_close(one, two, atol=1e-9, rtol=0)
    assert (MODELS[pooling, "forward"](tokens, real) != made(tokens, real)).any()


@pytest.mark.parametrize("pooling", POOLINGS)
@torch.no_grad()
def test_average_is_the_mean_of_the_logits_of_both_strands(pooling):
    forward, average = MODELS[pooling, "forward"], MODELS[pooling, "average"]
    tokens, real = batch([40, 40], 40)
    other, order = other_strand(tokens, real)
    head = forward.head.state_dict()
    average.head.load_state_dict(head)
    if forward.attention is not None:
        average.attention.load_state_dict(forward.attention.state_dict())
    reverse = forward(other, real)
    if pooling == "token":
        reverse = reverse.flip(1)
        assert torch.equal(order, torch.arange(39, -1, -1).expand(2, 40))
    wanted = (forward(tokens, real) + reverse) / 2
    torch.testing.assert_close(average(tokens, real), wanted, atol=1e-12, rtol=0)


@torch.no_grad()
def test_concatenated_tokens_see_both_sides():
    tokens, _ = batch([40], 40)
    changed = tokens.clone()
    changed[0, 25] = 7 + (changed[0, 25] - 6) % 4
    for strands, before in (("forward", False), ("concatenate", True)):
        made = MODELS["token", strands]
        moved = (made(tokens) - made(changed)).abs().amax(-1)[0]
        assert moved[26:].min() > 1e-9
        assert (moved[:25].min() > 1e-9) if before else (moved[:25].max() < 1e-9)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_gradients_flow_to_everything_that_counts(way):
    made = task_model(*way, dtype=torch.float32)
    made.train()
    made.model.set_embed_dropout(0.0)
    tokens, real = batch([20, 33], 40)
    out = made(tokens, real)
    (out[0, :20].square().mean() + out[1].square().mean()).backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("way", [("mean", "concatenate"), ("token", "average")], ids=str)
def test_gradients_equal_those_of_the_plain_modules(way):
    grads = []
    for kernels in ("auto", "plain"):
        made = task_model(*way)
        made.model.set_engine(kernels)
        made(*batch([20, 33], 33)).square().mean().backward()
        grads.append([p.grad for p in made.parameters()])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_autocast_and_a_memory_budget(pooling):
    exact = task_model(pooling, dtype=torch.float32)
    tokens, real = batch([20, 40], 40)
    wanted = exact(tokens, real)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        near = exact(tokens, real)
        near.sum().backward()
    assert near.dtype == wanted.dtype == torch.float32
    assert (near - wanted).abs().max() < 0.1 * wanted.abs().max()
    exact.model.set_engine(max_memory="8GiB")
    torch.testing.assert_close(exact(tokens, real), wanted, atol=1e-4, rtol=1e-4)
    exact.model.set_engine(max_memory="1MiB")
    with pytest.raises(InputError, match="max_memory is 1 MiB"):
        exact(tokens, real)


# -- strands ---------------------------------------------------------------------------------------


def test_the_other_strand_of_a_pair_with_specials():
    x, y = "ACCGTN", "GGAT"
    pair = [CLS, *encode(x), SEP, *encode(y), SEP, PAD, PAD]
    wanted = [CLS, *encode(reverse_complement(x)), SEP, *encode(reverse_complement(y)), SEP]
    tokens, order = other_strand(torch.tensor([pair]), torch.tensor([len(pair) - 2]))
    assert tokens[0].tolist() == [*wanted, PAD, PAD]
    assert order[0].tolist() == [0, 6, 5, 4, 3, 2, 1, 7, 11, 10, 9, 8, 12, 13, 14]


def test_masked_and_unknown_bases_move_with_the_others():
    tokens = torch.tensor([[7, MASK, UNK, 8, 10]], dtype=torch.uint8)
    other, _ = other_strand(tokens, torch.tensor([5]))
    assert other.tolist() == [[7, 9, UNK, MASK, 10]] and other.dtype == torch.uint8


@given(st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=20), min_size=1, max_size=4))
def test_the_other_strand_twice_is_the_sequence(rows):
    width = max(map(len, rows)) + 2
    tokens = torch.full((len(rows), width), PAD)
    for row, ids in enumerate(rows):
        tokens[row, : len(ids)] = torch.tensor(ids)
    real = torch.tensor([len(ids) for ids in rows])
    other, order = other_strand(tokens, real)
    back, again = other_strand(other, real)
    assert torch.equal(back, tokens) and torch.equal(order, again)
    assert torch.equal(order.gather(1, order), torch.arange(width).expand_as(order))


# -- known answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_pooling_against_loops(dtype):
    states = torch.randn(3, 11, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    lengths = torch.tensor([11, 1, 6])
    exact = torch.promote_types(dtype, torch.float32)
    rows = [s[:n].to(exact) for s, n in zip(states, lengths, strict=True)]
    wanted = {
        "mean": [r.mean(0) for r in rows],
        "sum": [r.sum(0) for r in rows],
        "first": [r[0] for r in rows],
        "last": [r[-1] for r in rows],
    }
    for pooling, vectors in wanted.items():
        pooled = pool(states, lengths, pooling)
        torch.testing.assert_close(pooled, torch.stack(vectors), atol=2e-6, rtol=0)
    with pytest.raises(InputError, match="no pooling 'attention'"):
        pool(states, lengths, "attention")


def test_attention_pooling_starts_as_the_mean_and_weighs_by_its_query():
    states = torch.randn(2, 7, 4, dtype=torch.float64)
    lengths = torch.tensor([7, 3])
    attention = AttentionPooling(4).double()
    mean = pool(states, lengths, "mean")
    torch.testing.assert_close(attention(states, lengths), mean)
    torch.nn.init.normal_(attention.query)
    row = states[1, :3]
    weights = (row @ attention.query / 2).softmax(0)
    torch.testing.assert_close(attention(states, lengths)[1], weights @ row)


def test_golden_decoders(shared: Path):
    """The original's decoders, one position each (l_output 0 or 1) or all of them."""
    golden = load_file(shared / "golden" / "extra_decoders" / "decoders.safetensors")
    x, lengths = golden["x"], golden["lengths"].long()
    whole = torch.full_like(lengths, x.shape[1])
    names = {"last": "last", "first": "first", "mean": "pool", "sum": "sum"}
    for pooling, name in names.items():
        for cut, real in ((False, whole), (True, lengths)):
            out = functional.linear(pool(x, real, pooling), golden["weight"], golden["bias"])
            zero = golden[f"{name}.l_output=0.use_lengths={cut}"]
            torch.testing.assert_close(out, zero, atol=2e-6, rtol=1e-6)
            if pooling != "sum" or not cut:
                one = golden[f"{name}.l_output=1.use_lengths={cut}"]
                torch.testing.assert_close(out[:, None], one, atol=2e-6, rtol=1e-6)
    mean = functional.linear(pool(x, lengths, "mean"), golden["weight"], golden["bias"])
    torch.testing.assert_close(mean, golden["pool.l_output=0.mask"], atol=2e-6, rtol=1e-6)
    full = pool(x, whole, "mean")
    nd = functional.linear(full, golden["weight"], golden["bias"])
    torch.testing.assert_close(nd, golden["nd_pool"], atol=2e-6, rtol=1e-6)


def test_golden_token_decoder(shared: Path):
    golden = load_file(shared / "golden" / "extra_decoders" / "decoders.safetensors")
    made = TaskModel(
        HyenaDNA(CONFIG.replace(d_model=6)), Task("tokens", ("a", "b", "c", "d"))
    ).eval()
    made.head.load_state_dict({"weight": golden["weight"], "bias": golden["bias"]})
    for name in ("token", "nd_full", "last.l_output=None.use_lengths=False"):
        torch.testing.assert_close(made.logits(golden["x"]), golden[name], atol=2e-6, rtol=1e-6)


def test_the_fresh_head():
    torch.manual_seed(3)
    made = TaskModel(backbone(d_model=128), Task(names=tuple(map(str, range(40)))))
    assert (made.head.bias == 0).all()
    assert made.head.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert made.head.weight.dtype == torch.float64 and made.pooling == "mean"
    assert TaskModel(backbone(), Task("tokens")).pooling == "token"


def test_dropout_on_the_features_in_training_only():
    made = task_model(dropout=0.5)
    features = torch.ones(3, 16, dtype=torch.float64)
    assert torch.equal(made.logits(features), made.logits(features))
    made.train()
    assert not torch.equal(made.logits(features), made.logits(features))


def test_rescale_gives_values_in_their_own_unit():
    made = task_model(task=Task("values"))
    tokens, real = batch([20, 30], 30)
    mean, scale = torch.tensor([3.0, -1, 0]), torch.tensor([2.0, 0.5, 10])
    wanted = made(tokens, real) * scale + mean
    made.rescale(mean, scale)
    torch.testing.assert_close(made(tokens, real), wanted)
    with pytest.raises(InputError, match=r"rescale: mean has shape \(2,\); give one .* 3 outputs"):
        made.rescale(mean[:2], scale)


# -- errors ----------------------------------------------------------------------------------------


def test_errors_of_the_head():
    model = backbone()
    wrong = {
        "pooling is 'max'; it is one of mean, last": {"pooling": "max"},
        "strands is 'both'; it is one of forward, average": {"strands": "both"},
        r"dropout is 1.0; it must be in \[0, 1\)": {"dropout": 1.0},
        r"pooling is 'token'; it is for a class at each base \(tokens\) only": {"pooling": "token"},
    }
    for message, options in wrong.items():
        with pytest.raises(InputError, match=message):
            TaskModel(model, Task(), **options)
    with pytest.raises(InputError, match="pooling is 'mean'; for a class at each base"):
        TaskModel(model, Task("tokens"), pooling="mean")
    with pytest.raises(InputError, match="kind is 'ranks'; it is one of classes"):
        TaskModel(model, Task("ranks"))
    with pytest.raises(InputError, match="outputs is 0"):
        TaskModel(model, Task(names=()))


def test_errors_of_a_pass():
    made = MODELS["mean", "average"]
    tokens, _ = batch([9, 9], 9)
    with pytest.raises(InputError, match=r"length 0 of a row of 9 tokens.* leave empty"):
        made(tokens, torch.tensor([9, 0]))
    with pytest.raises(InputError, match="length 10 of a row of 9 tokens"):
        made(tokens, torch.tensor([10, 9]))
    with pytest.raises(InputError, match=r"lengths are torch.int64 of shape \(3,\).* 2 rows"):
        made(tokens, torch.tensor([9, 9, 9]))
    with pytest.raises(InputError, match=r"lengths are torch.float32 of shape \(2,\)"):
        made(tokens, torch.tensor([9.0, 9.0]))
    with pytest.raises(InputError, match=r"shape \(1, 2, 9\); give integer ids"):
        made(tokens[None])
    with pytest.raises(InputError, match="sequence of 61 tokens"):
        made(torch.full((1, 61), 7))
    with pytest.raises(InputError, match="token ids 7 to 400"):
        made(torch.tensor([[7, 400]]))


# -- losses ----------------------------------------------------------------------------------------


def test_class_loss_leaves_missing_targets_out():
    outputs = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([2, -100, 0, 0])
    p = outputs.softmax(1)
    wanted = -(p[0, 2].log() + p[2, 0].log() + p[3, 0].log()) / 3
    torch.testing.assert_close(task_loss("classes", outputs, targets), wanted)
    weights = torch.tensor([2.0, 5.0, 1.0])
    wanted = -(p[0, 2].log() + 2 * p[2, 0].log() + 2 * p[3, 0].log()) / 5
    torch.testing.assert_close(task_loss("classes", outputs, targets, weights), wanted)
    task_loss("classes", outputs, targets, weights).backward()
    assert (outputs.grad[1] == 0).all() and (outputs.grad[[0, 2, 3]] != 0).all()


def test_token_loss_is_the_class_loss_of_its_positions():
    outputs, targets = torch.randn(2, 5, 3), torch.tensor([[0, 1, 2, -100, -100], [1] * 5])
    flat = task_loss("classes", outputs.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(task_loss("tokens", outputs, targets), flat)


def test_label_loss():
    outputs = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[1, 0, math.nan], [math.nan, 1, 0]])
    p = outputs.sigmoid()
    terms = [p[0, 0].log(), (1 - p[0, 1]).log(), p[1, 1].log(), (1 - p[1, 2]).log()]
    torch.testing.assert_close(task_loss("labels", outputs, targets), -sum(terms) / 4)
    weights = torch.tensor([3.0, 7.0, 9.0])
    wanted = -(3 * terms[0] + terms[1] + 7 * terms[2] + terms[3]) / 4
    loss = task_loss("labels", outputs, targets, weights)
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    assert outputs.grad.isfinite().all() and outputs.grad[0, 2] == 0 == outputs.grad[1, 0]


def test_value_losses():
    outputs = torch.tensor([[1.0, 5.0], [2.0, 9.0]], requires_grad=True)
    targets = torch.tensor([[0.5, math.nan], [2.0, 5.0]])
    loss = task_loss("values", outputs, targets)
    assert loss.item() == pytest.approx((0.25 + 0 + 16) / 3)
    huber = task_loss("values", outputs, targets, huber_delta=1.0)
    assert huber.item() == pytest.approx((0.125 + 0 + 3.5) / 3)
    loss.backward()
    assert outputs.grad.isfinite().all() and outputs.grad[0, 1] == 0


@pytest.mark.parametrize("kind", ["classes", "tokens", "labels", "values"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_batch_without_targets_costs_nothing(kind, weighted):
    shape = (2, 4, 3) if kind == "tokens" else (2, 3)
    outputs = torch.randn(shape, requires_grad=True)
    if kind in ("classes", "tokens"):
        targets = torch.full(shape[:-1], -100)
    else:
        targets = torch.full(shape, math.nan)
    weights = torch.ones(3) if weighted and kind != "values" else None
    loss = task_loss(kind, outputs, targets, weights)
    loss.backward()
    assert loss.item() == 0 and (outputs.grad == 0).all()


@given(st.integers(1, 9), st.integers(0, 50))
@settings(max_examples=20)
def test_parts_of_batches_add_up(cut, seed):
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(10, 3, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 3, (10,), generator=generator)
    targets[::4] = -100
    weights = torch.tensor([1.0, 2.0, 0.5])
    parts = [
        torch.stack(loss_parts("classes", outputs[rows], targets[rows], weights))
        for rows in (slice(cut), slice(cut, None))
    ]
    total, weight = sum(parts)
    torch.testing.assert_close(total / weight, task_loss("classes", outputs, targets, weights))


def test_the_loss_is_float32_under_half_precision():
    outputs = torch.randn(4, 3, dtype=torch.bfloat16)
    assert task_loss("classes", outputs, torch.zeros(4, dtype=torch.long)).dtype == torch.float32


def test_errors_of_the_loss():
    outputs = torch.randn(2, 3)
    nan = math.nan
    cases = [
        (r"targets have shape \(3,\), .* \(2, 3\); give .* \(2,\)", "classes", [0, 1, 2], {}),
        ("target 3, but there are 3 classes", "classes", [0, 3], {}),
        ("target -1, but there are 3 classes", "classes", [-1, 0], {}),
        ("classes targets are torch.float32", "classes", [0.0, 1.0], {}),
        ("labels targets are torch.int64; give floats", "labels", [[0, 1, 1]] * 2, {}),
        ("target 2.0; labels are in 0 .. 1", "labels", [[0.0, 2, nan]] * 2, {}),
        ("target inf; values are finite", "values", [[0.0, math.inf, nan]] * 2, {}),
        (
            r"class weights of shape \(2,\); give one for each of the 3",
            "classes", [0, 1], {"class_weights": torch.ones(2)},
        ),
        ("class weights with values", "values", [[nan] * 3] * 2, {"class_weights": torch.ones(3)}),
        ("huber_delta is 1.0 for classes", "classes", [0, 1], {"huber_delta": 1.0}),
        ("huber_delta is -1.0 for values", "values", [[nan] * 3] * 2, {"huber_delta": -1.0}),
        ("no kind of task 'ranks'; there are classes", "ranks", [0, 1], {}),
    ]  # fmt: skip
    for message, kind, targets, options in cases:
        with pytest.raises(InputError, match=message):
            task_loss(kind, outputs, torch.tensor(targets), **options)


# -- freezing --------------------------------------------------------------------------------------


def trained(model: torch.nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_a_frozen_backbone_gives_fixed_features():
    model = HyenaDNA(CONFIG.replace(embed_dropout=0.5))
    made = TaskModel(model, Task())
    assert not made.fixed_features
    freeze(model)
    made.train()
    assert made.fixed_features and trained(made) == {"head.weight", "head.bias"}
    tokens, real = batch([20, 30], 30)
    features = made.features(tokens, real)
    assert not features.requires_grad and torch.equal(features, made.features(tokens, real))
    torch.testing.assert_close(made.logits(features), made(tokens, real))
    made(tokens, real).sum().backward()
    assert made.head.weight.grad is not None and model.head_weight.grad is None
    assert not task_model("attention", model=model).fixed_features
    train_all(model)
    assert made.train().model.training and not made.fixed_features


def test_the_last_blocks():
    made = task_model(dtype=torch.float32)
    train_last_blocks(made.model, 1)
    names = trained(made.model)
    assert names == {
        f"backbone.{n}"
        for n, _ in made.model.backbone.named_parameters()
        if n.startswith(("layers.1.", "ln_f."))
    }
    made(*batch([20, 30], 30)).sum().backward()
    for name, parameter in made.model.named_parameters():
        assert (parameter.grad is not None) == (name in names), name
    for count in (0, 3):
        with pytest.raises(InputError, match=f"{count} last blocks; this model has 2"):
            train_last_blocks(made.model, count)


def test_layer_groups_cover_what_is_trained_once():
    made = task_model("attention", model=backbone(tie_word_embeddings=False))
    groups = layer_groups(made, decay=0.5)
    named = [name for group in groups for name in group.names]
    assert len(named) == len(set(named))
    assert set(named) == trained(made) - {"model.lm_head.weight"}
    scale = {name: group.lr_scale for group in groups for name in group.names}
    kind = {name: group.kind for group in groups for name in group.names}
    layer = "model.backbone.layers"
    expected = {
        "head.weight": (1, "matrix"),
        "head.bias": (1, "plain"),
        "attention.query": (1, "plain"),
        "model.backbone.ln_f.weight": (1, "plain"),
        f"{layer}.1.mlp.fc1.weight": (0.5, "matrix"),
        f"{layer}.0.mixer.in_proj.weight": (0.25, "matrix"),
        f"{layer}.0.mixer.short_filter.weight": (0.25, "plain"),
        f"{layer}.0.mixer.filter_fn.bias": (0.25, "plain"),
        f"{layer}.0.mixer.filter_fn.implicit_filter.1.freq": (0.25, "filter"),
        f"{layer}.0.mixer.filter_fn.implicit_filter.6.weight": (0.25, "filter"),
        "model.backbone.embeddings.word_embeddings.weight": (0.125, "matrix"),
    }
    assert {name: (scale[name], kind[name]) for name in expected} == expected
    scales = [group.lr_scale for group in groups]
    assert scales == sorted(scales, reverse=True)
    assert len(layer_groups(made)) == 3
    freeze(made.model)
    assert {n for g in layer_groups(made, decay=0.5) for n in g.names} == trained(made)
    with pytest.raises(InputError, match=r"decay is 0; it must be in \(0, 1\]"):
        layer_groups(made, decay=0)


# -- adapters --------------------------------------------------------------------------------------


@pytest.fixture
def peft():
    return pytest.importorskip("peft")


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_lora_changes_nothing_learns_and_merges_exactly(peft, dtype, atol):
    made = task_model(dtype=dtype)
    model = made.model
    tokens, real = batch([30, 45], 45)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        start = made(tokens, real)
    torch.manual_seed(1)
    add_lora(model, rank=2, alpha=4.0)
    assert has_adapters(model)
    names = trained(made)
    assert len(names) == 2 + 2 * 4 * 2 and {"head.weight", "head.bias"} <= names
    assert all(".lora_" in name for name in names - {"head.weight", "head.bias"})
    assert engine_runs(model) is False
    torch.testing.assert_close(made(tokens, real), start, atol=atol, rtol=0)

    targets = torch.tensor([2, 0])
    made.head.requires_grad_(False)  # the adapters alone shall learn it
    optimizer = torch.optim.Adam([p for p in made.parameters() if p.requires_grad], lr=0.03)
    losses = []
    for _ in range(80):
        optimizer.zero_grad()
        loss = task_loss("classes", made(tokens, real), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    made.eval()
    with torch.no_grad():
        learned = made(tokens, real)
        assert (learned - start).abs().max() > 1e-2
        copy = merged(model)
        assert copy is not model and has_adapters(model) and not has_adapters(copy)
        merge_lora(model)
        assert not has_adapters(model) and not hasattr(model.backbone, "peft_config")
        assert engine_runs(model) is True
        after = made(tokens, real)
        scale = max(1.0, learned.abs().max().item())
        torch.testing.assert_close(after, learned, atol=atol * scale, rtol=0)
        torch.testing.assert_close(copy.embed(tokens), model.embed(tokens), atol=atol, rtol=0)
        model.set_engine("plain")
        torch.testing.assert_close(made(tokens, real), learned, atol=atol * scale, rtol=0)
    assert {n: p.shape for n, p in model.named_parameters()} == {
        n: p.shape for n, p in before.items()
    }
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert len(moved) == 8 and all(
        n.endswith(("in_proj.weight", "out_proj.weight", "fc1.weight", "fc2.weight")) for n in moved
    )
    assert trained(model) == set(before)
    merge_lora(model)  # nothing left to merge
    assert merged(model) is model


@torch.no_grad()
def engine_runs(model: HyenaDNA) -> bool:
    return model.backbone.engine_pass(model.head_weight, 1, 30) is not None


def test_lora_on_some_maps_only(peft):
    model = backbone(torch.float32)
    add_lora(model, rank=1, targets=("fc2",))
    assert len(trained(model)) == 4 and all(".fc2." in name for name in trained(model))


def test_errors_of_lora(peft, monkeypatch):
    model = backbone(torch.float32)
    for message, options in {
        "rank is 0; it must be at least 1": {"rank": 0},
        "alpha is 0; it must be above 0": {"alpha": 0},
        r"dropout is 1; it must be in \[0, 1\)": {"dropout": 1},
        r"targets are \['norm1'\]; give some of in_proj, out_proj": {"targets": ["norm1"]},
        r"targets are \[\]; give some": {"targets": []},
    }.items():
        with pytest.raises(InputError, match=message):
            add_lora(model, **options)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "peft", None)
        with pytest.raises(InputError, match=r"LoRA needs the package peft .*pip install peft"):
            add_lora(model)
    assert trained(model) == {name for name, _ in model.named_parameters()}
    add_lora(model)
    with pytest.raises(InputError, match="has adapters already; merge them first"):
        add_lora(model)
