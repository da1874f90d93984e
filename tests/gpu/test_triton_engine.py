"""The engine's Triton kernels at real sizes, on an NVIDIA GPU: `make test-gpu`."""

from __future__ import annotations

import copy

import pytest
import torch

from hyenadna.alphabet import IGNORED
from hyenadna.config import ModelConfig, preset
from hyenadna.conv import matrix_tables
from hyenadna.model.backbone import HyenaDNA, rescale_filters
from hyenadna.model.decoding.trunk import TrunkReader
from hyenadna.model.engine.spectra import SpectrumCache
from hyenadna.model.likelihood import target_nats

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]

CASES = {
    "tiny-1k": (preset("tiny-1k"), 16, 1024),
    "odd length": (preset("tiny-1k"), 3, 1001),
    "small-32k": (preset("small-32k").replace(n_layer=2), 2, 32_768),
    "large-1m, narrow": (preset("large-1m").replace(n_layer=1), 1, 262_144),
    "five taps, any width": (
        ModelConfig(d_model=100, n_layer=2, max_seq_len=4100, short_filter_order=5), 2, 4099,
    ),
}  # fmt: skip


def make(config: ModelConfig) -> HyenaDNA:
    torch.manual_seed(0)
    model = HyenaDNA(config.replace(embed_dropout=0.0)).cuda()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "ln_f" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def random_tokens(batch: int, length: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(7, 12, (batch, length), generator=generator).cuda()


def outputs(model: HyenaDNA, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """Losses, embeddings and gradients, in float64."""
    targets = random_tokens(*tokens.shape, seed=2)
    targets[0, 0] = IGNORED
    model.zero_grad()
    nats = target_nats(model, tokens, targets)
    nats.mean().backward()
    with torch.no_grad():
        found = {"nats": nats, "embeddings": model.embed(tokens)}
    found |= {name: p.grad for name, p in model.named_parameters()}
    return {name: t.detach().double().clone() for name, t in found.items()}


def errors(found: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> dict[str, float]:
    """Root mean square error of each, as a part of its own root mean square."""
    return {
        name: ((found[name] - value).square().mean() / value.square().mean()).sqrt().item()
        for name, value in exact.items()
    }


def exact_outputs(model: HyenaDNA, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    twin = copy.deepcopy(model).double()
    twin.set_engine("torch")  # in float64, equal to the plain modules: tests/model/test_engine.py
    return outputs(twin, tokens)


@pytest.mark.parametrize("case", CASES)
def test_float32_is_as_near_to_float64_as_in_torch(case):
    config, batch, length = CASES[case]
    model, tokens = make(config), random_tokens(batch, length)
    run = model.backbone.engine_pass(model.head_weight, batch, length)
    assert run is not None and run.kernels.name == "triton"  # what `auto` takes
    ours = outputs(model, tokens)
    again = outputs(model, tokens)
    exact = exact_outputs(model, tokens)
    model.set_engine("torch")
    theirs = errors(outputs(model, tokens), exact)
    for name, error in errors(ours, exact).items():
        assert error < 4 * theirs[name] + 1e-5, name
        torch.testing.assert_close(again[name], ours[name], atol=0, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", ["tiny-1k", "small-32k"])
def test_half_precision_rounds_no_more_than_plain_autocast(case, dtype):
    config, batch, length = CASES[case]
    model, tokens = make(config), random_tokens(batch, length)
    exact, found = exact_outputs(model, tokens), {}
    scale = 2.0**12 if dtype == torch.float16 else 1.0
    for name in ("triton", "plain"):
        model.set_engine(name)
        with torch.autocast("cuda", dtype=dtype):
            nats = target_nats(model, tokens, tokens)
        model.zero_grad()
        (nats.mean() * scale).backward()
        with torch.no_grad(), torch.autocast("cuda", dtype=dtype):
            found[name] = {"embeddings": model.embed(tokens).double()}
        grads = {n: p.grad.double() / scale for n, p in model.named_parameters()}
        found[name] |= grads
    twin = copy.deepcopy(model).double()
    twin.set_engine("torch")
    twin.zero_grad()
    target_nats(twin, tokens, tokens).mean().backward()
    exact = {"embeddings": exact["embeddings"]}
    exact |= {n: p.grad for n, p in twin.named_parameters()}
    ours, plain = errors(found["triton"], exact), errors(found["plain"], exact)
    for name, error in ours.items():
        assert error < 1.5 * plain[name] + torch.finfo(dtype).eps, name


def test_a_row_does_not_depend_on_its_batch():
    model, tokens = make(preset("tiny-1k")).eval(), random_tokens(8, 1000)
    with torch.no_grad():
        together = model.embed(tokens)
        alone = model.embed(tokens[3:4])
    torch.testing.assert_close(alone[0], together[3], atol=1e-5, rtol=0)


def test_branches_of_a_trunk():
    model, tokens = make(preset("tiny-1k")).eval(), random_tokens(1, 900)[0]
    at, ends = torch.tensor([30, 500, 870]).cuda(), random_tokens(3, 30, seed=4)
    found = []
    for name in ("triton", "plain"):
        model.set_engine(name)
        trunk = (reader := TrunkReader(model)).read(tokens)
        read = reader.ends(trunk, at, ends)
        found.append([trunk.hidden, read.hidden, read.nats])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_changed_filter_is_seen():
    model, tokens = make(preset("tiny-1k")).eval(), random_tokens(1, 700)
    with torch.no_grad():
        before = model.embed(tokens)
        assert torch.equal(model.embed(tokens), before)
        model.backbone.layers[1].mixer.filter_fn.bias.data.mul_(2)
        after = model.embed(tokens)
        model.set_engine("plain")
        torch.testing.assert_close(after, model.embed(tokens), atol=1e-4, rtol=1e-4)
    assert (after - before).abs().max() > 1e-3


@pytest.mark.parametrize(("shape", "length"), [("tiny-1k", 1000), ("small-32k", 20_000)])
@torch.no_grad()
def test_a_cuda_graph_still_finds_its_spectra_and_tables_after_other_lengths(shape, length):
    from hyenadna.model.engine import triton_kernels

    model, tokens = make(preset(shape)).eval(), random_tokens(2, length)
    expected = model.embed(tokens)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = model.embed(tokens)
    for other in (length // 2, length // 10 * 7, length // 10 * 9):
        model.embed(random_tokens(2, other))
    matrix_tables._outer_tables.cache_clear()
    triton_kernels.convolution.cache_clear()
    overwritten = [torch.full((1 << 18,), 3.0, device="cuda") for _ in range(200)]
    graph.replay()
    del overwritten
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_spectrum_of_another_stream_is_waited_for():
    cache, other = SpectrumCache(), torch.cuda.Stream()
    with torch.cuda.stream(other):
        torch.cuda._sleep(200_000_000)  # cycles: about a tenth of a second
        cache.put((0, "a spectrum"), torch.ones(1 << 20, device="cuda"), 1 << 30)
    spectrum = cache.get((0, "a spectrum"))
    assert spectrum is not None and bool((spectrum == 1).all())


@torch.no_grad()
def test_more_rows_than_a_grid_has_along_its_second_axis():
    model, tokens = make(preset("tiny-1k")).eval(), random_tokens(70_000, 17)
    torch.testing.assert_close(
        model.embed(tokens)[-3:], model.embed(tokens[-3:]), atol=1e-5, rtol=0
    )


@torch.no_grad()
def test_filters_have_no_tf32():
    model = make(preset("medium-160k").replace(n_layer=1))
    rescale_filters(model)
    filter_fn = model.backbone.layers[0].mixer.filter_fn
    exact = copy.deepcopy(filter_fn).double()(100_000)
    torch.set_float32_matmul_precision("high")
    try:
        found = filter_fn(100_000)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert (found - exact).abs().max() < 1e-4 * exact.abs().max()


def test_a_training_step_never_waits_for_the_gpu():
    model, tokens = make(preset("tiny-1k")), random_tokens(4, 1024)
    half = torch.autocast("cuda", dtype=torch.bfloat16)
    for _ in range(2):  # the first pass of a type tries the kernels, which waits
        with half:
            loss = target_nats(model, tokens, tokens).mean()
        loss.backward()
    with half:
        run = model.backbone.engine_pass(model.head_weight, *tokens.shape)
    assert run is not None and run.kernels.name == "triton"
    torch.cuda.set_sync_debug_mode("error")
    try:
        with half:
            loss = target_nats(model, tokens, tokens).mean()
        loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert loss.isfinite()
