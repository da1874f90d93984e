"""Native kernels: threads, forks, long transforms, and what happens without a compiler."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from hyenadna.config import ModelConfig
from hyenadna.model.backbone import HyenaDNA, rescale_filters
from hyenadna.model.decoding import Decoder
from hyenadna.model.engine import choose
from hyenadna.model.engine.native_kernels import NativeKernels, available
from hyenadna.model.engine.sizes import native_transform
from hyenadna.model.engine.weights import BlockWeights
from hyenadna.model.likelihood import target_nats
from hyenadna.native import build, library, why_not

CONFIG = ModelConfig(d_model=32, n_layer=2, max_seq_len=5000, filter_order=16, embed_dropout=0.0)
needs_native = pytest.mark.skipif(
    not available(CONFIG, torch.float32), reason=f"no native kernels: {why_not()}"
)


def make(config: ModelConfig, dtype: torch.dtype = torch.float32) -> HyenaDNA:
    torch.manual_seed(0)
    model = HyenaDNA(config).to(dtype)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def random_tokens(batch: int, length: int) -> torch.Tensor:
    return torch.randint(7, 12, (batch, length), generator=torch.Generator().manual_seed(1))


def step(model: HyenaDNA, tokens: torch.Tensor) -> list[torch.Tensor]:
    """Losses and gradients of all parameters."""
    model.zero_grad()
    nats = target_nats(model, tokens, tokens.roll(-1, 1))
    nats.sum().backward()
    return [nats.detach(), *(p.grad.clone() for p in model.parameters())]


def use_threads(monkeypatch, threads: int) -> None:
    def chosen(config, dtype, gemm):
        return NativeKernels(gemm, threads)

    monkeypatch.setattr(choose, "native_kernels", chosen)


@needs_native
@pytest.mark.parametrize(("batch", "length"), [(1, 100), (3, 700), (1, 4999)])
def test_the_number_of_threads_changes_no_bit(batch, length, monkeypatch):
    model, tokens = make(CONFIG), random_tokens(batch, length)
    use_threads(monkeypatch, 1)
    alone = step(model, tokens)
    for threads in (2, 5):
        use_threads(monkeypatch, threads)
        for one, other in zip(step(model, tokens), alone, strict=True):
            assert torch.equal(one, other)


@needs_native
def test_transforms_that_all_threads_share(monkeypatch):
    """From 2^17 cells on; 131,073 is transformed at 2^14 x 9, so with radix 3 as well."""
    config = CONFIG.replace(d_model=16, n_layer=1, d_inner=16, max_seq_len=131_073)
    model, tokens = make(config, torch.float64), random_tokens(1, 131_073)
    use_threads(monkeypatch, 1)
    alone = step(model, tokens)
    use_threads(monkeypatch, 3)
    ours = step(model, tokens)
    model.set_engine("plain")
    for one, same, other in zip(ours, alone, step(model, tokens), strict=True):
        assert torch.equal(one, same)
        scale = max(other.abs().max().item(), 1e-3)
        torch.testing.assert_close(one, other, atol=1e-9 * scale, rtol=0)


@needs_native
@pytest.mark.parametrize("length", [5, 9, 15, 30, 45, 90, 96, 144, 1440, 2305])
def test_every_radix(length):
    model, tokens = make(CONFIG.replace(n_layer=1), torch.float64), random_tokens(2, length)
    ours = step(model, tokens)
    model.set_engine("plain")
    for one, other in zip(ours, step(model, tokens), strict=True):
        scale = max(other.abs().max().item(), 1e-3)
        torch.testing.assert_close(one, other, atol=1e-9 * scale, rtol=0)


@needs_native
def test_lengths_of_transforms_are_good():
    found = library()
    assert found is not None
    for minimum in [*range(1, 300), 1025, 32_770, 131_073, 449_999, 999_999, 1_000_000]:
        n = found.fft_length(minimum)
        assert native_transform(minimum) == n
        assert minimum <= n <= max(minimum + 2, 1.15 * minimum)
        for prime in (2, 3, 5):
            while n % prime == 0:
                n //= prime
        assert n == 1


@needs_native
def test_several_python_threads_at_once():
    models = [make(CONFIG) for _ in range(4)]
    tokens = random_tokens(2, 900)
    wanted = step(models[0], tokens)
    results: dict[int, list[torch.Tensor]] = {}

    def work(i: int) -> None:
        results[i] = step(models[i], tokens)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        for one, other in zip(results[i], wanted, strict=True):
            assert torch.equal(one, other)


@needs_native
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_has_threads_of_its_own():
    code = """
import os, sys, torch
from hyenadna.config import ModelConfig
from hyenadna.model.backbone import HyenaDNA, rescale_filters
from hyenadna.model.decoding import Decoder
from hyenadna.model.engine import choose
from hyenadna.model.engine.native_kernels import NativeKernels
torch.set_num_threads(1)
choose.native_kernels = lambda config, dtype, gemm: NativeKernels(gemm, 2)
torch.manual_seed(0)
model = HyenaDNA(ModelConfig(d_model=32, n_layer=2, max_seq_len=5000)).eval()
tokens = torch.randint(7, 11, (2, 4000))
with torch.no_grad():
    wanted = model.embed(tokens)
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(model.embed(tokens), wanted) else 3)
    _, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@needs_native
def test_wild_values_stay_wild():
    """Not a number in, not a number out, at its own and later positions only."""
    model = make(CONFIG).eval()
    model.backbone.embeddings.word_embeddings.weight.data[9] = float("nan")
    tokens = torch.full((1, 300), 7)
    tokens[0, 200] = 9
    with torch.no_grad():
        nats = target_nats(model, tokens, tokens)
    assert nats[0, 200:].isnan().all()
    # The transform of a sequence mixes all of its positions, here as in the plain modules.
    model.set_engine("plain")
    with torch.no_grad():
        plain = target_nats(model, tokens, tokens)
    assert torch.equal(plain.isnan(), nats.isnan())


def run_without(tmp_path: Path, **environment: str) -> str:
    code = (
        "import torch\n"
        "from hyenadna.config import ModelConfig\n"
        "from hyenadna.model.backbone import HyenaDNA\n"
        "from hyenadna.native import library, why_not\n"
        "model = HyenaDNA(ModelConfig(d_model=32, n_layer=1, max_seq_len=50)).eval()\n"
        "print(model(torch.full((1, 9), 7)).shape, library(), why_not())\n"
        "model.set_engine('native')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"HYENADNA_CACHE": str(tmp_path)} | environment,
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr


def test_switched_off(tmp_path):
    said = run_without(tmp_path, HYENADNA_NATIVE="0")
    assert "torch.Size([1, 9, 16]) None HYENADNA_NATIVE=0" in said
    assert "engine: no native kernels: HYENADNA_NATIVE=0; take kernels='auto' or 'torch'" in said


def test_without_a_working_compiler(tmp_path):
    said = run_without(tmp_path, CXX="false")
    assert "torch.Size([1, 9, 16]) None" in said
    assert "engine: no native kernels:" in said
    assert not list(tmp_path.rglob("*.so")) and not list(tmp_path.rglob("*.tmp"))


@needs_native
def test_the_name_follows_sources_and_processor(monkeypatch):
    compiler = build._compiler()
    assert compiler is not None
    before = build._key(compiler)
    assert before == build._key(compiler)
    monkeypatch.setattr(build, "_processor", lambda: "another")
    assert build._key(compiler) != before


@needs_native
@pytest.mark.parametrize(("count", "room"), [(5000, 100), (90, 4000), (3000, 3000), (40000, 35000)])
def test_settling_in_pieces(count, room):
    """The effect of a prompt on what follows, pieces and threads included, as torch computes it."""
    torch.manual_seed(0)
    config = ModelConfig(d_model=16, n_layer=1, max_seq_len=75_000, filter_order=16)
    model = HyenaDNA(config).double().eval()
    rescale_filters(model)
    prompts = torch.randint(7, 11, (2, count))
    found = []
    for kernels in ("native", "torch"):
        model.set_engine(kernels)
        state = Decoder(model).prefill(prompts, room=room)
        found.append(state.layers[0].convolutions[0].settled)
    scale = found[1].abs().max()
    torch.testing.assert_close(found[0] / scale, found[1] / scale, atol=1e-12, rtol=0)


@pytest.mark.skipif(
    not available(CONFIG, torch.float32, torch.bfloat16), reason="no native products of bf16"
)
@pytest.mark.parametrize("rows", [1, 100])
def test_products_in_bf16_are_those_of_rounded_factors(rows):
    """Forward and gradients of a linear layer: the output projection, all others set to zero."""
    torch.manual_seed(0)
    d, inner = 32, 64
    sizes = ((d,), (d,), (3 * d, d), (3 * d,), (3 * d, 3), (3 * d,), (d, 16), (d,), (d, d), (d,))
    w = BlockWeights(
        *(torch.randn(size) for size in sizes),
        torch.ones(d), torch.zeros(d), torch.zeros(inner, d), torch.zeros(inner),
        torch.zeros(d, inner), torch.zeros(d),
    )  # fmt: skip
    h, y, grad = torch.randn(3, 1, rows, d).unbind()
    kernels = NativeKernels(torch.bfloat16, threads=1)
    out, sums = torch.empty_like(h), w.zeros()
    kernels.finish(h, y, w, 1e-5, out)
    near_y, near_w, near_grad = (t.bfloat16().double() for t in (y, w.out_weight, grad))
    wanted = h.double() + near_y @ near_w.T + w.out_bias.double()
    torch.testing.assert_close(out.double(), wanted, atol=1e-4, rtol=1e-6)

    kernels.finish_backward(h, y, w, 1e-5, grad.clone(), sums)
    torch.testing.assert_close(y.double(), near_grad @ near_w, atol=1e-4, rtol=1e-6)
    outer = near_grad[0].T @ near_y[0]
    torch.testing.assert_close(sums.out_weight.double(), outer, atol=1e-4, rtol=1e-6)


@needs_native
def test_steps_do_not_depend_on_threads():
    torch.manual_seed(0)
    model = HyenaDNA(ModelConfig(d_model=256, n_layer=2, max_seq_len=200)).eval()
    tokens = torch.randint(7, 11, (3, 130))
    found = []
    before = torch.get_num_threads()
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        decoder = Decoder(model)
        state = decoder.prefill(tokens[:, :30], room=100)
        found.append(torch.stack([decoder.step(state, tokens[:, t]) for t in range(30, 130)]))
    torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
