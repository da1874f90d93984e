"""The gated convolution by matrix products on an NVIDIA GPU, at real sizes."""

from __future__ import annotations

import pytest
import torch
from tests.conv.gated import (
    LEAST,
    assert_alike_in_any_batch,
    assert_within,
    errors,
    inputs,
    values_and_gradients,
)

from hyenadna.conv import gated_long_convolution

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]

LENGTHS = (
    1, 256, 257, 1024, 1026, 4096, 4097, 8192, 8193, 32_768, 160_002, 450_002, 1_000_002, 1 << 22,
)  # fmt: skip
LIMITS = {torch.float32: 2e-6} | LEAST


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("length", LENGTHS)
def test_values_and_gradients(length, dtype):
    channels = 8 if length < 100_000 else 2
    arguments = inputs(2, channels, length, dtype)
    exact = values_and_gradients("fft", arguments, exact=True)
    assert_within(values_and_gradients("matrix", arguments), exact, LIMITS[dtype])


@pytest.mark.parametrize("dtype", LIMITS)
def test_eight_million_samples(dtype):
    arguments = inputs(1, 1, 1 << 23, dtype)
    exact = values_and_gradients("fft", arguments, exact=True)
    ours = errors(values_and_gradients("matrix", arguments), exact)
    assert max(ours[:3] + ours[4:]) < LIMITS[dtype]


@pytest.mark.parametrize("length", [700, 5000, 100_000])
def test_a_row_does_not_depend_on_its_batch_and_runs_are_equal(length):
    arguments = inputs(5, 768, length, torch.bfloat16)
    if length == 100_000:
        arguments = [x[:, :16] if x.dim() == 3 else x[:16] for x in arguments]
    assert_alike_in_any_batch(arguments, row=3)


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
