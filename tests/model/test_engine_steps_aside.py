"""Where something was changed that the engine does not know, the modules run as they are."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.engine import pages
from hyenadna.model.likelihood import target_nats

CONFIG = ModelConfig(d_model=32, n_layer=2, max_seq_len=100, filter_order=16, embed_dropout=0.0)
TOKENS = torch.arange(60).remainder(4)[None] + 7


def make(**changes) -> HyenaDNA:
    torch.manual_seed(0)
    return HyenaDNA(CONFIG.replace(**changes))


def same_as_plain(model: HyenaDNA) -> None:
    ours = target_nats(model, TOKENS, TOKENS)
    model.set_engine("plain")
    torch.testing.assert_close(ours, target_nats(model, TOKENS, TOKENS), atol=1e-5, rtol=0)


def test_a_pruned_layer():
    model = make()
    mlp = model.backbone.layers[0].mlp
    mlp.fc1, mlp.fc2 = nn.Linear(32, 100), nn.Linear(100, 32)
    assert model.backbone.engine_pass(model.head_weight, 1, 60) is None
    same_as_plain(model)


def test_a_layer_without_bias():
    model = make()
    model.backbone.layers[1].mixer.out_proj = nn.Linear(32, 32, bias=False)
    same_as_plain(model)


def test_a_narrower_head_and_table():
    model = make(tie_word_embeddings=False)
    model.lm_head = nn.Linear(32, 12, bias=False)
    same_as_plain(model)
    model = make(tie_word_embeddings=False)
    model.backbone.embeddings.word_embeddings = nn.Embedding(12, 32)
    same_as_plain(model)
    with pytest.raises(IndexError):
        model.embed(torch.full((1, 5), 15))


def test_weights_that_lie_otherwise_in_memory_get_their_gradients():
    model, plain = make(), make()
    plain.set_engine("plain")
    for each in (model, plain):
        short = each.backbone.layers[0].mixer.short_filter
        short.weight = nn.Parameter(
            short.weight.detach().permute(2, 1, 0).contiguous().permute(2, 1, 0)
        )
        target_nats(each, TOKENS, TOKENS).sum().backward()
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-4)


def test_longer_than_the_model():
    with pytest.raises((InputError, RuntimeError)):
        make().backbone(torch.randn(1, 500, 32))


def test_hooks_are_called():
    model = make()
    seen: list[str] = []
    model.backbone.register_forward_hook(lambda *_: seen.append("backbone"))
    model.register_forward_hook(lambda *_: seen.append("model"))
    model.embed(TOKENS)
    target_nats(model, TOKENS, TOKENS)
    assert seen == ["backbone", "backbone", "model"]
    model = make()
    handle = nn.modules.module.register_module_forward_hook(
        lambda m, *_: seen.append(type(m).__name__)
    )
    try:
        model.embed(TOKENS)
    finally:
        handle.remove()
    assert seen.count("HyenaOperator") == 2


def test_forward_mode_derivatives_go_through_the_modules():
    from torch.autograd import forward_ad

    model = make().requires_grad_(False)
    h = torch.randn(1, 20, 32)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(h, torch.ones_like(h))
        try:
            tangent = forward_ad.unpack_dual(model.backbone(dual)).tangent
        except (RuntimeError, NotImplementedError):
            return  # a part of the modules has none and says so
        assert tangent is not None and tangent.abs().max() > 0


def test_one_model_in_several_threads():
    model = make().eval()
    with torch.no_grad():
        wanted = {n: model.embed(TOKENS[:, :n]) for n in range(20, 60)}
    failures: list[object] = []

    def work() -> None:
        try:
            with torch.no_grad():
                for n, embedded in wanted.items():
                    if not torch.equal(model.embed(TOKENS[:, :n]), embedded):
                        failures.append(n)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_too_little_memory_is_a_memory_error():
    with pytest.raises(MemoryError, match="bytes of memory cannot be had"):
        pages.empty((1 << 46,), torch.float32, torch.device("cpu"))


def test_targets_are_two_dimensional():
    with pytest.raises(InputError, match=r"give both as \(B, L\)"):
        target_nats(make(), TOKENS[0], TOKENS[0])
