"""The engine equals the plain modules, for any provider of kernels, block, chunk and budget."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from hyenadna.alphabet import IGNORED, PAD
from hyenadna.config import ModelConfig, preset
from hyenadna.conv.fft import smooth_length
from hyenadna.conv.right_angle import RightAngle
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.engine import choose, filter_passes, pages, plan, torch_kernels
from hyenadna.model.engine.ends import stream_nats
from hyenadna.model.engine.gemm import Gemm, fused_linear_works
from hyenadna.model.engine.native_kernels import available
from hyenadna.model.engine.plan import make_plan, parse_memory
from hyenadna.model.engine.sizes import Workload, resident_bytes
from hyenadna.model.engine.torch_kernels import TorchKernels
from hyenadna.model.likelihood import target_nats
from hyenadna.model.memory import inference_bytes, training_bytes
from hyenadna.native import why_not

# 48 channels are three blocks of the native kernels' 16
SMALL = ModelConfig(d_model=48, n_layer=2, max_seq_len=150, filter_order=16, embed_dropout=0.0)
VARIANTS = {
    "three taps": SMALL,
    "one tap": SMALL.replace(short_filter_order=1),
    "five taps, untied": SMALL.replace(short_filter_order=5, tie_word_embeddings=False),
    "fixed frequency, wide features": SMALL.replace(train_freq=False, emb_dim=9, num_inner_mlps=0),
    "narrow MLP, no shift": SMALL.replace(d_inner=16, window_shift=0.0),
}


@pytest.fixture(params=["torch", "native"])
def kernels(request) -> str:
    if request.param == "native" and not available(SMALL, torch.float64):
        pytest.skip(f"no native kernels: {why_not()}")
    return request.param


def make(config: ModelConfig, seed: int = 0) -> HyenaDNA:
    """A model in float64 with weights large enough that every part matters."""
    torch.manual_seed(seed)
    model = HyenaDNA(config).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def random_tokens(batch: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(7, 12, (batch, length), generator=torch.Generator().manual_seed(seed))


def outputs(model: HyenaDNA, tokens: torch.Tensor) -> list[torch.Tensor]:
    """Losses and embeddings without a graph, and the gradient of every parameter."""
    targets = random_tokens(*tokens.shape, seed=2)
    targets[0, 0] = IGNORED
    model.zero_grad()
    nats = target_nats(model, tokens, targets)
    (nats * torch.linspace(0.5, 2, nats.numel()).view_as(nats)).sum().backward()
    with torch.no_grad():
        still = [target_nats(model, tokens, targets), model.embed(tokens), model(tokens)]
    return [nats.detach(), *still, *(p.grad.clone() for p in model.parameters())]


def assert_same(ours, theirs, tolerance: float) -> None:
    for one, other in zip(ours, theirs, strict=True):
        scale = max(other.abs().max().item(), 1e-3)
        torch.testing.assert_close(one, other, atol=tolerance * scale, rtol=0)


def smallest_pieces(monkeypatch) -> None:
    """The fewest channels to a block, a few rows to a chunk, and pages for every array."""
    monkeypatch.setattr(plan, "BLOCK_BYTES", 1)
    monkeypatch.setattr(choose, "TorchKernels", partial(TorchKernels, rows=7))
    monkeypatch.setattr(filter_passes, "FILTER_ROWS", 5)
    monkeypatch.setattr(torch_kernels, "TRANSFORM_SAMPLES", 1)
    monkeypatch.setattr(pages, "SMALLEST", 1)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("length", [1, 2, 3, 37, 150])
def test_values_and_gradients_are_those_of_the_plain_modules(variant, length, kernels):
    model = make(VARIANTS[variant])
    tokens = random_tokens(2, length)
    model.set_engine("plain")
    plain = outputs(model, tokens)
    model.set_engine(kernels)
    assert_same(outputs(model, tokens), plain, 1e-9)


@pytest.mark.parametrize("length", [1, 2, 53])
@pytest.mark.parametrize("keep", [True, False])
def test_small_blocks_and_chunks_change_nothing(length, keep, kernels, monkeypatch):
    model = make(VARIANTS["five taps, untied"])
    tokens = random_tokens(2, length)
    model.set_engine("plain")
    plain = outputs(model, tokens)
    model.set_engine(kernels)
    smallest_pieces(monkeypatch)
    if not keep:
        monkeypatch.setattr(plan, "KEEP_BYTES", 0)
        monkeypatch.setattr(plan, "CACHE_BYTES", 0)
    used = model.backbone.engine_pass(model.head_weight, 2, length)
    assert used is not None and used.plan.channels <= 16
    assert used.plan.keep_mixed is keep and (used.plan.cache_bytes > 0) is keep
    assert_same(outputs(model, tokens), plain, 1e-9)


def test_float32_is_near_float64(kernels, monkeypatch):
    model = make(SMALL)
    tokens = random_tokens(2, 150)
    model.set_engine("plain")
    exact = outputs(model, tokens)
    model.float()
    model.set_engine(kernels)
    whole = outputs(model, tokens)
    smallest_pieces(monkeypatch)
    pieces = outputs(model, tokens)
    assert all(t.dtype == torch.float32 for t in whole)
    assert_same([t.double() for t in whole], exact, 1e-4)
    assert_same(pieces, whole, 1e-4)


def test_bf16_products_round_operands_only(kernels):
    torch.manual_seed(0)
    model = HyenaDNA(SMALL)
    tokens = random_tokens(2, 90)
    model.set_engine(kernels)
    exact = outputs(model, tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        used = model.backbone.engine_pass(model.head_weight, 2, 90)
        rounded = outputs(model, tokens)
    assert used is not None
    assert all(t.dtype == torch.float32 for t in rounded)
    assert not torch.equal(rounded[2], exact[2])
    assert_same(rounded, exact, 0.05)


def test_hidden_states(kernels):
    model = make(SMALL)
    tokens = random_tokens(2, 21)
    states = {}
    for name in ("plain", kernels):
        model.set_engine(name)
        with torch.no_grad():
            free = model.hidden_states(tokens)
        model.zero_grad()
        trained = model.hidden_states(tokens)
        sum(s.square().sum() for s in trained).backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        states[name] = [*free, *(t.detach() for t in trained), *gradients]
        torch.testing.assert_close(free[-1], model.embed(tokens).detach())
    assert_same(states[kernels], states["plain"], 1e-9)


def test_gradient_of_given_embeddings_and_frozen_weights(kernels):
    model = make(SMALL).requires_grad_(False)
    h = torch.randn(2, 19, 48, dtype=torch.float64)
    h = h.transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()  # not contiguous
    before, found = h.detach().clone(), []
    for name in ("plain", kernels):
        model.set_engine(name)
        (gradient,) = torch.autograd.grad(model.backbone(h).square().sum(), h)
        with torch.no_grad():
            model.backbone(h)
        found.append(gradient)
    assert torch.equal(h.detach(), before)  # inference works in place, but not on its input
    assert_same(found[1:], found[:1], 1e-9)
    only = model.backbone.layers[1].mixer.in_proj.weight.requires_grad_()
    model.backbone(before).sum().backward()
    assert [p is only for p in model.parameters() if p.grad is not None] == [True]


def test_a_second_backward_pass_gives_the_same_again(kernels):
    model = make(SMALL)
    model.set_engine(kernels)
    loss = target_nats(model, random_tokens(1, 20), random_tokens(1, 20, seed=3)).sum()
    loss.backward(retain_graph=True)
    once = [p.grad.clone() for p in model.parameters()]
    loss.backward()
    assert_same([p.grad / 2 for p in model.parameters()], once, 1e-12)


@torch.no_grad()
def test_output_is_the_same_alone_and_in_a_batch(kernels):
    model = make(SMALL).eval()
    model.set_engine(kernels)
    tokens = random_tokens(3, 70)
    padded = torch.cat([tokens, torch.full((3, 15), PAD)], dim=1)
    together = model.embed(padded)
    for row in range(3):
        alone = model.embed(tokens[row])
        torch.testing.assert_close(together[row, :70], alone[0], atol=1e-9, rtol=0)


@torch.no_grad()
def test_any_budget_gives_the_same_output(kernels):
    model = make(SMALL).eval()
    tokens = random_tokens(2, 140)
    model.set_engine(kernels)
    wanted = model.embed(tokens)
    for more in ("200MiB", "4GiB"):
        model.set_engine(kernels, resident_bytes() + parse_memory(more))
        torch.testing.assert_close(model.embed(tokens), wanted, atol=1e-9, rtol=0)


def filter_tensor(model: HyenaDNA, name: str) -> torch.Tensor:
    filter_fn = model.backbone.layers[0].mixer.filter_fn
    return dict(filter_fn.named_parameters())[name]


@pytest.mark.parametrize(
    "name",
    ["bias", "implicit_filter.0.weight", "implicit_filter.1.freq", "implicit_filter.6.weight"],
)
@pytest.mark.parametrize("how", ["in place", "through .data"])
@torch.no_grad()
def test_a_changed_filter_is_seen(name, how, kernels):
    model = make(SMALL).eval()
    model.set_engine(kernels)
    tokens = random_tokens(1, 60)
    before = model.embed(tokens)
    assert model.backbone._spectra.bytes > 0
    assert torch.equal(model.embed(tokens), before)
    weight = filter_tensor(model, name)
    (weight if how == "in place" else weight.data).mul_(1.25)
    after = model.embed(tokens)
    assert (after - before).abs().max() > 1e-4
    model.set_engine("plain")
    torch.testing.assert_close(after, model.embed(tokens), atol=1e-9, rtol=0)


@torch.no_grad()
def test_a_changed_table_is_seen(kernels):
    model = make(SMALL).eval()
    model.set_engine(kernels)
    tokens = random_tokens(1, 60)
    before = model.embed(tokens)
    filter_fn = model.backbone.layers[1].mixer.filter_fn
    for name in ("pos_emb.z", "pos_emb.t", "modulation.deltas"):
        filter_fn.keep_table(name, filter_fn.tables()[name] * 1.5)
        after = model.embed(tokens)
        assert (after - before).abs().max() > 1e-6, name
        before = after
    filter_fn.get_buffer("pos_emb.z").mul_(0.5)
    assert (model.embed(tokens) - before).abs().max() > 1e-6
    filter_fn.window_shift = 0.5
    after = model.embed(tokens)
    model.set_engine("plain")
    torch.testing.assert_close(after, model.embed(tokens), atol=1e-9, rtol=0)


@torch.no_grad()
def test_the_cache_is_bounded_and_not_copied(kernels, monkeypatch):
    model = make(SMALL).eval()
    model.set_engine(kernels)
    cache = model.backbone._spectra
    one = Workload(SMALL, 1, 60, itemsize=8).spectra
    monkeypatch.setattr(plan, "CACHE_BYTES", 2 * one)
    for length in (60, 45, 55, 52):
        model.embed(random_tokens(1, length))
        assert 0 < cache.bytes <= 2 * one
    assert copy.deepcopy(model).backbone._spectra.bytes == 0
    assert pickle.loads(pickle.dumps(model)).backbone._spectra.bytes == 0
    monkeypatch.setattr(plan, "CACHE_BYTES", 0)
    model.embed(random_tokens(1, 60))
    assert cache.bytes == 0


def test_training_after_inference_mode(kernels):
    model = make(SMALL.replace(max_seq_len=149))
    model.set_engine(kernels)
    tokens = random_tokens(1, 33)
    with torch.inference_mode():
        model(tokens)
    cached = outputs(model, tokens)
    model.set_engine(kernels)  # an empty cache
    assert_same(outputs(model, tokens), cached, 1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_offload_changes_no_bit_and_leaves_no_file(dtype, kernels, tmp_path):
    model = make(SMALL).to(dtype)
    tokens = random_tokens(2, 60)
    model.set_engine(kernels)
    wanted = outputs(model, tokens)
    model.set_engine(kernels, offload=tmp_path)
    nats = target_nats(model, tokens, tokens)
    assert len(list(tmp_path.iterdir())) == SMALL.n_layer
    del nats  # never used
    assert not list(tmp_path.iterdir())
    found = outputs(model, tokens)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert not list(tmp_path.iterdir())
    loss = target_nats(model, tokens, tokens).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(InputError, match=r"second backward pass .*set_engine\(offload=None\)"):
        loss.backward()


def uses_engine(model: HyenaDNA) -> bool:
    return model.backbone.engine_pass(model.head_weight, 1, 20) is not None


def test_where_the_engine_does_not_fit_the_modules_are_called():
    assert uses_engine(make(SMALL)) and uses_engine(make(SMALL).float())
    assert not uses_engine(make(SMALL).bfloat16())
    assert not uses_engine(make(SMALL.replace(hyena_order=3)))
    assert not uses_engine(make(SMALL.replace(mixer="attention")))
    for field in ("hyena_dropout", "resid_dropout"):
        model = make(SMALL.replace(**{field: 0.5}))
        assert not uses_engine(model) and uses_engine(model.eval())
    with torch.autocast("cpu", dtype=torch.float16):
        assert not uses_engine(make(SMALL).float())
    direct = make(SMALL)
    direct.backbone.layers[0].mixer.conv_method = "direct"
    assert not uses_engine(direct)


def test_a_hook_or_an_adapter_inside_a_block_has_its_effect():
    class Doubled(torch.nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    tokens = random_tokens(1, 20)
    model = make(SMALL)
    calls = []
    handle = model.backbone.layers[1].mlp.fc1.register_forward_hook(lambda *_: calls.append(1))
    model(tokens)
    assert calls == [1]
    handle.remove()
    before = model(tokens)
    adapted = Doubled(48, 48).double()
    adapted.load_state_dict(model.backbone.layers[0].mixer.out_proj.state_dict())
    model.backbone.layers[0].mixer.out_proj = adapted
    assert (model(tokens) - before).abs().max() > 1e-3


def test_embedding_dropout_is_that_of_the_plain_model(kernels):
    model = make(SMALL.replace(embed_dropout=0.4)).train()
    found = []
    for name in ("plain", kernels):
        model.set_engine(name)
        torch.manual_seed(5)
        found.append(outputs(model, random_tokens(2, 33)))
    assert_same(found[1], found[0], 1e-9)


def test_fused_products_are_right_for_views():
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(33, 20, generator=generator), torch.randn(17, 20, generator=generator)
    gemm, exact = Gemm(None), x.double() @ w.double().T
    turned = x.T.contiguous().T, w.T.contiguous().T
    for left, right in [(x, w), turned, (torch.cat([x, x], 1)[:, :20], w)]:
        assert_same([gemm.linear(left, right).double()], [exact], 1e-6)
    bias = w[:, 0].contiguous()
    wanted = torch.nn.functional.gelu(exact + bias, approximate="tanh")
    assert_same([gemm.linear_gelu(x, w, bias).double()], [wanted], 1e-6)
    assert not fused_linear_works("cpu", torch.float64)


def test_products_do_without_the_fused_operator(monkeypatch):
    tokens, model = random_tokens(2, 50), make(SMALL).float()
    model.set_engine("torch")
    fused = outputs(model, tokens)
    monkeypatch.setattr(
        "hyenadna.model.engine.gemm.fused_linear_works", lambda device, dtype: False
    )
    assert_same(outputs(model, tokens), fused, 1e-4)


@pytest.mark.parametrize("length", [1, 2, 7, 30, 31])
def test_right_angle_transforms_convolve_and_are_adjoint(length):
    generator = torch.Generator().manual_seed(length)
    u, k, g = torch.randn(3, 2, length, dtype=torch.float64, generator=generator)
    fft = RightAngle(length, torch.float64, torch.device("cpu"))
    y = fft.back(fft.forward(u) * fft.forward(k))
    lag = torch.arange(length)
    shift = lag[:, None] - lag
    toeplitz = torch.where(shift >= 0, k[:, shift.clamp(min=0)], 0.0)
    torch.testing.assert_close(y, torch.einsum("cts,cs->ct", toeplitz, u), atol=1e-11, rtol=0)
    adjoint = fft.back(fft.forward(g) * fft.forward(k).conj())
    torch.testing.assert_close((g * y).sum(), (adjoint * u).sum(), atol=1e-10, rtol=0)


def test_smooth_lengths():
    smooth = {2**a * 3**b * 5**c for a in range(12) for b in range(8) for c in range(6)}
    for length in range(1, 1500):
        assert smooth_length(length) == min(n for n in smooth if n >= length)
    assert smooth_length(999_999) == 1_000_000


def test_loss_of_the_stream_is_cross_entropy(kernels, monkeypatch):
    smallest_pieces(monkeypatch)
    model = make(SMALL)
    model.set_engine(kernels)
    run = model.backbone.engine_pass(model.head_weight, 2, 9)
    generator = torch.Generator().manual_seed(0)
    sizes = [(2, 9, 48), (48,), (48,), (16, 48)]
    h, weight, bias, head = leaves = [
        torch.randn(size, dtype=torch.float64, generator=generator).requires_grad_()
        for size in sizes
    ]
    targets = random_tokens(2, 9)
    targets[1, 3:6] = IGNORED
    normed = torch.nn.functional.layer_norm(h, (48,), weight, bias, 1e-5)
    wanted = torch.nn.functional.cross_entropy(
        (normed @ head.T).transpose(1, 2), targets, reduction="none"
    )
    found = stream_nats(run.kernels, h, (weight, bias), 1e-5, head, targets)
    weights = torch.linspace(-1, 2, 18, dtype=torch.float64).view(2, 9)
    gradients = [torch.autograd.grad((t * weights).sum(), leaves) for t in (found, wanted)]
    assert_same([found.detach(), *gradients[0]], [wanted.detach(), *gradients[1]], 1e-11)


def test_targets_are_checked():
    model, tokens = make(SMALL), random_tokens(2, 9)
    with pytest.raises(InputError, match=r"targets have shape \(2, 8\), but the inputs \(2, 9\)"):
        target_nats(model, tokens, tokens[:, 1:])
    with pytest.raises(InputError, match=r"target 16; targets are token ids in 0 \.\. 15, or -100"):
        target_nats(model, tokens, tokens.masked_fill(tokens == 8, 16))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_dropped_arrays_go_back_to_the_system():
    before = resident_bytes()
    held = [pages.empty((3, 5, 1 << 20), torch.float32, torch.device("cpu")) for _ in range(2)]
    for array in held:
        array.fill_(1.5)
    assert resident_bytes() - before > 100_000_000
    assert held[0][2, 4, -1] == 1.5 and held[0].is_contiguous()
    view = held[0][0]
    del held, array
    assert view.sum() == 1.5 * 5 * 2**20  # a view keeps its pages
    del view
    assert resident_bytes() - before < 10_000_000


def test_sizes_of_memory():
    assert parse_memory("4GiB") == 4 * 2**30 and parse_memory("1.5 gb") == 1_500_000_000
    assert parse_memory(" 300 MiB ") == 300 * 2**20 and parse_memory(12345) == 12345
    for wrong in ("", "4 G", "-1GB", "GiB", "0", "1e9", True, "4GiB of it"):
        with pytest.raises(InputError, match="give bytes or a size such as 4GiB"):
            parse_memory(wrong)


def test_settings_are_checked(tmp_path):
    model = make(SMALL)
    with pytest.raises(
        InputError, match=r"no kernels 'fast'; there are auto, native, triton, torch, plain"
    ):
        model.set_engine("fast")
    with pytest.raises(InputError, match=r"max_memory is 'much'; give bytes"):
        model.set_engine("torch", "much")
    with pytest.raises(InputError, match=r"offload='.*nowhere' is not a folder; make it first"):
        model.set_engine("torch", offload=tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no native kernels: .*; take kernels='auto' or 'torch'"):
        make(SMALL.replace(d_model=20)).set_engine("native")


def test_too_little_memory_says_what_would_do(kernels, monkeypatch):
    held = 2**30
    monkeypatch.setattr("hyenadna.model.engine.run.resident_bytes", lambda: held)
    model = make(preset("tiny-16k-d128").replace(n_layer=1)).eval()
    tokens = random_tokens(1, 16000)
    model.set_engine(kernels, held + 2**27)
    message = r"max_memory is .*, but training on 1 x 16,000 tokens .* at least .*for 1 x [\d,]+$"
    with pytest.raises(InputError, match=message) as caught:
        target_nats(model, tokens, tokens)
    fits = int(str(caught.value).rsplit(" ", 1)[1].replace(",", ""))
    assert 0 < fits < 16000
    with torch.no_grad(), pytest.raises(InputError, match="but reading 4 x 16,000 tokens"):
        model.embed(tokens.expand(4, -1))
    model.set_engine(kernels, 10_000_000)
    with pytest.raises(InputError, match="too little for any length"):
        model.embed(tokens[:, :9])


@pytest.mark.parametrize("training", [False, True])
def test_plans_stay_within_the_budget_and_use_it(training):
    work = Workload(preset("large-1m"), 1, 999_999, training=training)
    channels = []
    for budget in (2**34, 2**34 + 2**30, 2**35):
        found = make_plan(work, step=16, max_memory=budget, resident=2**28)
        assert found.total_bytes + 2**28 <= budget
        assert found.channels % 16 == 0
        blocks = list(found.blocks(256))
        assert blocks[0].start == 0 and blocks[-1].stop == 256
        assert all(a.stop == b.start for a, b in pairwise(blocks))
        channels.append(found.channels)
    assert channels == sorted(channels)
    kept = make_plan(work, max_memory=2**36, resident=2**28)
    assert kept.keep_mixed is training and not kept.cache_bytes  # 16 GB of spectra


def test_estimates_follow_the_engine():
    large = preset("large-1m")
    assert 2.3 < inference_bytes(large, tokens=999_999) / 2**30 < 3.0
    assert 12 < training_bytes(large, tokens=999_999) / 2**30 < 14.5
    assert training_bytes(large, tokens=999_999, engine=False, checkpointing=True) > 30 * 2**30
    third = large.replace(hyena_order=3)
    assert inference_bytes(third, tokens=999_999) == inference_bytes(
        third, tokens=999_999, engine=False
    )
