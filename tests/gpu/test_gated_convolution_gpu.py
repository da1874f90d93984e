"""The gated convolution by matrix products on an NVIDIA GPU, at real sizes."""

from __future__ import annotations

import pytest
import torch

from hyenadna.conv import gated_long_convolution

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]

LENGTHS = (
    1, 256, 257, 1024, 1026, 4096, 4097, 8192, 8193, 32_768, 160_002, 450_002, 1_000_002, 1 << 22,
)  # fmt: skip
# Root mean square errors, as parts of the root mean square. 16-bit types: their own rounding, and
# that of the factors of the products, 4e-4 (tests/conv/test_gated_convolution.py).
LEAST = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 2.5e-3}


def inputs(batch, channels, length, dtype):
    generator = torch.Generator("cuda").manual_seed(length)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, device="cuda")

    v, before, after = (normal(batch, channels, length).to(dtype) for _ in range(3))
    k = normal(channels, length) * torch.exp(-torch.arange(length, device="cuda") * 4 / length)
    return v, k, normal(channels), before, after


def values_and_gradients(method, arguments, exact=False):
    dtype = arguments[0].dtype
    leaves = [(x.double() if exact else x).clone().requires_grad_() for x in arguments]
    v, k, skip, before, after = leaves
    y = gated_long_convolution(v, k, skip, before=before, after=after, method=method)
    generator = torch.Generator("cuda").manual_seed(9)
    weight = torch.randn(y.shape, generator=generator, device="cuda").to(dtype)
    return [y.detach(), *torch.autograd.grad(y, leaves, weight.to(y))]


def errors(found, exact):
    return [((x.double() - e).norm() / e.norm()).item() for x, e in zip(found, exact, strict=True)]


@pytest.mark.parametrize("dtype", LEAST)
@pytest.mark.parametrize("length", LENGTHS)
def test_values_and_gradients(length, dtype):
    channels = 8 if length < 100_000 else 2
    arguments = inputs(2, channels, length, dtype)
    exact = values_and_gradients("fft", arguments, exact=True)
    ours = errors(values_and_gradients("matrix", arguments), exact)
    for name, error in zip(("y", "v", "k", "skip", "before", "after"), ours, strict=True):
        assert error < LEAST[dtype] * (5 if name == "skip" else 1), name


@pytest.mark.parametrize("dtype", LEAST)
def test_eight_million_samples(dtype):
    arguments = inputs(1, 1, 1 << 23, dtype)
    exact = values_and_gradients("fft", arguments, exact=True)
    ours = errors(values_and_gradients("matrix", arguments), exact)
    assert max(ours[:3] + ours[4:]) < LEAST[dtype]


@pytest.mark.parametrize("length", [700, 5000, 100_000])
def test_a_row_does_not_depend_on_its_batch_and_runs_are_equal(length):
    arguments = inputs(5, 768, length, torch.bfloat16)
    if length == 100_000:
        arguments = [x[:, :16] if x.dim() == 3 else x[:16] for x in arguments]
    whole, again = (values_and_gradients("matrix", arguments) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    v, k, skip, before, after = arguments
    alone = gated_long_convolution(
        v[3:4], k, skip, before=before[3:4], after=after[3:4], method="matrix"
    )
    assert torch.equal(alone, whole[0][3:4])


def test_auto_takes_the_matrix_form_and_keeps_only_its_arguments():
    v, k, skip, before, after = inputs(4, 64, 4096, torch.bfloat16)
    v.requires_grad_()
    torch.cuda.synchronize()
    held = torch.cuda.memory_allocated()
    y = gated_long_convolution(v, k, skip, before=before, after=after)
    assert type(y.grad_fn).__name__.startswith("_GatedConvolution")
    # and the tables, made at the first call
    assert torch.cuda.memory_allocated() - held <= y.numel() * 2 + (1 << 20)


def test_on_a_stream_graph():
    """Launches can be captured: no synchronisation, no allocation that depends on values."""
    arguments = inputs(2, 16, 1000, torch.bfloat16)
    v, k, skip, before, after = arguments

    def call():
        return gated_long_convolution(v, k, skip, before=before, after=after, method="matrix")

    expected = call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = call()
    graph.replay()
    assert torch.equal(y, expected)
