"""Fast convolutions equal the direct sums, values and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenadna.conv import fft, long_convolution, short_convolution
from hyenadna.conv.reference import direct_long_convolution, direct_short_convolution
from hyenadna.errors import InputError

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 70))


def values_and_gradients(function, *inputs):
    leaves = [x.clone().requires_grad_() for x in inputs]
    out = function(*leaves)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(9)).to(out.dtype)
    return out.detach(), torch.autograd.grad((out * weight).sum(), leaves)


def assert_same(fast, slow, atol):
    torch.testing.assert_close(fast[0], slow[0], atol=atol, rtol=0)
    for ours, theirs in zip(fast[1], slow[1], strict=True):
        torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


@given(shape=SHAPES, seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_long_convolution_equals_the_direct_sum(shape, seed):
    batch, channels, length = shape
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(batch, channels, length, dtype=torch.float64, generator=generator)
    k = torch.randn(channels, length, dtype=torch.float64, generator=generator)
    skip = torch.randn(channels, dtype=torch.float64, generator=generator)
    fast = values_and_gradients(lambda *a: long_convolution(*a, method="fft"), u, k, skip)
    slow = values_and_gradients(lambda *a: long_convolution(*a, method="direct"), u, k, skip)
    assert_same(fast, slow, 1e-9)


def test_channel_blocks_change_nothing(monkeypatch):
    u, k = torch.randn(2, 11, 50, dtype=torch.float64), torch.randn(11, 50, dtype=torch.float64)
    whole = values_and_gradients(fft.fft_long_convolution, u, k)
    monkeypatch.setattr(fft, "BLOCK_SAMPLES", 500)
    assert_same(values_and_gradients(fft.fft_long_convolution, u, k), whole, 1e-12)


def test_only_the_gradients_asked_for():
    u, k = torch.randn(1, 2, 8, requires_grad=True), torch.randn(2, 8)
    long_convolution(u, k).sum().backward()
    assert u.grad is not None
    k.requires_grad_()
    long_convolution(u.detach(), k).sum().backward()
    assert k.grad is not None


def test_half_precision_input_is_convolved_in_the_precision_of_the_filter():
    u, k = torch.randn(2, 4, 200).bfloat16(), torch.randn(4, 200)
    exact = direct_long_convolution(u.double(), k.double())
    ours = long_convolution(u, k)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.double(), exact, atol=0.05, rtol=2**-8)


@given(minimum=st.integers(1, 3_000_000))
def test_fft_lengths_are_even_smooth_and_tight(minimum):
    n = fft.fft_length(minimum)
    rest = n
    for prime in (2, 3, 5):
        while rest % prime == 0:
            rest //= prime
    assert n >= minimum and n % 2 == 0 and rest == 1
    assert n <= 1 << max(minimum - 1, 1).bit_length()


def test_the_lengths_of_the_published_models_avoid_large_primes():
    assert fft.fft_length(2 * 1_000_002 - 1) == 2_025_000  # not 2^2 * 3 * 166,667


@pytest.mark.parametrize("taps", [1, 3, 5, 7])
@pytest.mark.parametrize("length", [1, 2, 3, 6, 33])
def test_short_convolution_equals_conv1d(taps, length):
    p = torch.randn(2, 6, length, dtype=torch.float64)
    weight = torch.randn(6, taps, dtype=torch.float64)
    bias = torch.randn(6, dtype=torch.float64)
    fast = values_and_gradients(short_convolution, p, weight, bias)
    slow = values_and_gradients(direct_short_convolution, p, weight, bias)
    assert_same(fast, slow, 1e-12)


def test_short_convolution_gradients_by_finite_differences():
    p = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(short_convolution, (p, weight, bias))


def test_unknown_method():
    with pytest.raises(InputError, match="no method 'fourier'; there are fft, direct"):
        long_convolution(torch.zeros(1, 1, 2), torch.zeros(1, 2), method="fourier")


def test_a_filter_of_another_length_is_refused():
    with pytest.raises(InputError, match=r"filter has shape \(2, 9\).*needs \(2, 8\)"):
        long_convolution(torch.zeros(1, 2, 8), torch.zeros(2, 9))
