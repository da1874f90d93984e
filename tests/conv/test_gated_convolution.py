"""The matrix form of the gated convolution equals the direct sum, values and gradients.

Without a GPU the kernels run in Triton's interpreter, which computes products of float16 numbers as
a GPU does, with sums in float32.
"""

from __future__ import annotations

import importlib.util
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

if importlib.util.find_spec("triton") is None:
    pytest.skip("no Triton", allow_module_level=True)

import tests.conv.interpreter  # noqa: F401 - before the kernels are imported
from tests.ahead_of_time import GPUS, lines_of
from tests.conv.gated import (
    DEVICE,
    LEAST,
    NAMES,
    assert_alike_in_any_batch,
    assert_within,
    errors,
    inputs,
    values_and_gradients,
)

from hyenadna.conv import (
    cuda_graphs,
    gated_long_convolution,
    long_convolution,
    matrix_fft,
    short_convolution,
)
from hyenadna.conv.matrix_tables import Shape, inner_tables, outer_tables, shape_of
from hyenadna.errors import InputError


@pytest.fixture
def inner(monkeypatch):
    """Signals of all lengths through three kernels, with 256 points in one program."""
    monkeypatch.setattr(
        matrix_fft, "shape_for", lambda length, dtype, device: shape_of(length, inner=256)
    )


@pytest.mark.parametrize(
    ("batch", "channels", "length"),
    [(1, 1, 1), (2, 1, 2), (1, 3, 15), (1, 2, 16), (3, 1, 17), (2, 2, 100), (1, 1, 255),
     (1, 1, 256), (2, 1, 257), (1, 1, 1000), (1, 1, 1024), (1, 1, 1025)],
)  # fmt: skip
def test_float32_is_that_of_a_float32_fft(batch, channels, length):
    arguments = inputs(batch, channels, length, torch.float32)
    exact = values_and_gradients("direct", arguments, exact=True)
    assert_within(values_and_gradients("matrix", arguments), exact, 1e-6)


@pytest.mark.parametrize(("batch", "channels", "length"), [(1, 1, 1), (1, 2, 257), (2, 1, 300)])
def test_float32_by_outer_products(inner, batch, channels, length):
    arguments = inputs(batch, channels, length, torch.float32)
    exact = values_and_gradients("direct", arguments, exact=True)
    assert_within(values_and_gradients("matrix", arguments), exact, 1e-6)


def test_more_outer_points_than_a_tile_has(inner, monkeypatch):
    monkeypatch.setattr(Shape, "outer_tile", property(lambda shape: 16))
    arguments = inputs(1, 1, 17 * 256 + 5, torch.float32)
    shape = matrix_fft.shape_for(arguments[0].shape[2], None, None)
    assert shape.side == 32 and shape.outer_steps == 32
    v, k, *_ = arguments
    y = gated_long_convolution(v, k, method="matrix")
    exact = gated_long_convolution(v.double(), k.double(), method="fft")
    assert errors([y], [exact])[0] < 1e-6


FACTORS = {torch.float16: 5.0, torch.bfloat16: 1.3}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("length", [100, 600])
def test_16_bit_errors_beside_those_of_the_fft(dtype, length):
    arguments = inputs(2, 2, length, dtype)
    exact = values_and_gradients("direct", arguments, exact=True)
    ours = errors(values_and_gradients("matrix", arguments), exact)
    fft = errors(values_and_gradients("fft", arguments), exact)
    assert ours[2] < 1e-3  # of k, in float32, which the FFT has to seven digits
    for i in (0, 1, 4, 5):  # y and the gradients in 16 bits
        assert ours[i] < FACTORS[dtype] * fft[i], NAMES[i]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_by_outer_products(inner, dtype):
    arguments = inputs(1, 1, 600, dtype)
    exact = values_and_gradients("direct", arguments, exact=True)
    assert_within(values_and_gradients("matrix", arguments), exact, LEAST[dtype])


@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 40)),
    present=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    outer=st.booleans(),
)
@settings(max_examples=4)
def test_any_of_the_arguments_may_be_missing(shape, present, outer):
    arguments = inputs(*shape, torch.float32)
    arguments[2:] = [x if there else None for x, there in zip(arguments[2:], present, strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        if outer:
            patch.setattr(matrix_fft, "shape_for", lambda n, *_: shape_of(n, inner=256))
        ours = values_and_gradients("matrix", arguments)
    exact = values_and_gradients("direct", arguments, exact=True)
    assert max(errors(ours, exact)) < 2e-6


@pytest.mark.parametrize(("scale", "outer"), [(1e-12, False), (1e12, True)])
def test_any_scale(scale, outer, monkeypatch):
    if outer:
        monkeypatch.setattr(matrix_fft, "shape_for", lambda n, *_: shape_of(n, inner=256))
    v, k, _, _, _ = inputs(1, 1, 300, torch.float32)
    exact = values_and_gradients("direct", [v * scale, k / scale, None, None, None], exact=True)
    ours = values_and_gradients("matrix", [v * scale, k / scale, None, None, None])
    assert max(errors(ours, exact)) < 1e-6


def test_the_worst_signals_stay_in_range():
    """A constant signal and filter: everything adds up at one frequency."""
    ones = torch.ones(1, 1, 1024, dtype=torch.float16, device=DEVICE)
    k = torch.ones(1, 1024, device=DEVICE)
    y = gated_long_convolution(ones, k, method="matrix")
    expected = torch.arange(1, 1025, device=DEVICE)
    torch.testing.assert_close(y[0, 0].float(), expected.float(), atol=1.0, rtol=0)


def test_nothing_is_nothing():
    zero = torch.zeros(1, 2, 20, device=DEVICE, requires_grad=True)
    k = torch.zeros(2, 20, device=DEVICE, requires_grad=True)
    y = gated_long_convolution(zero, k, before=zero, after=zero, method="matrix")
    found = torch.autograd.grad(y.sum(), [zero, k])
    assert not any(x.any() for x in (y, *found))


def test_tables_that_a_cuda_graph_reads_stay(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "_READ", [])
    kept, dropped = torch.zeros(2), torch.zeros(2)
    watched = [weakref.ref(kept), weakref.ref(dropped)]
    cuda_graphs.keep_for_graphs(dropped)  # nothing is captured
    monkeypatch.setattr(cuda_graphs, "capturing", lambda device: True)
    for _ in range(2):
        cuda_graphs.keep_for_graphs(kept)
    assert len(cuda_graphs._READ) == 1
    del kept, dropped
    assert watched[0]() is not None and watched[1]() is None
    shape, cpu = shape_of(300, inner=256), torch.device("cpu")
    assert all(any(t is one for one in cuda_graphs._READ) for t in outer_tables(shape, cpu))


def test_rows_of_a_program_follow_from_shapes_alone():
    assert [matrix_fft._rows(32, batch) for batch in (1, 64, 65, 128, 1000)] == [1, 1, 2, 2, 16]
    assert [matrix_fft._rows(32, batch, warps=1) for batch in (64, 512, 513)] == [1, 1, 2]
    assert matrix_fft._rows(1 << 20, 3) == 3


@pytest.mark.parametrize("outer", [False, True])
def test_a_row_does_not_depend_on_its_batch_and_runs_are_equal(outer, monkeypatch):
    if outer:
        monkeypatch.setattr(matrix_fft, "shape_for", lambda n, *_: shape_of(n, inner=256))
    # several rows one after the other
    monkeypatch.setattr(matrix_fft, "_rows", lambda programs, batch, warps=8: batch)
    assert_alike_in_any_batch(inputs(2, 1, 280, torch.float32), row=1)


def test_blocks_of_channels_change_nothing(inner, monkeypatch):
    arguments = inputs(1, 2, 200, torch.float32)
    whole = values_and_gradients("matrix", arguments)
    monkeypatch.setattr(matrix_fft, "BLOCK_BYTES", 1)
    for one, other in zip(values_and_gradients("matrix", arguments), whole, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("outer", [False, True])
def test_with_a_short_filter_channel_last(outer):
    """As the engine calls it: raw projections (3, C, B, L) without their bias, y (B, L, C)."""
    batch, channels, length, taps = 2, 2 - outer, 270, 3
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(*shape, generator=generator).to(DEVICE)

    p = normal(3, channels, batch, length)
    weight, bias, shift = normal(3, channels, taps), normal(3, channels), normal(3, channels)
    k, grad = normal(channels, length), normal(batch, length, channels)
    shape = shape_of(length, inner=256) if outer else shape_of(length)
    short = matrix_fft.Short.of(weight, bias, shift)
    signals = matrix_fft.Signals(p[2], p[1], p[0], short)
    spectra = matrix_fft.spectrum(k, shape)
    y = torch.empty(batch, length, channels, device=DEVICE)
    matrix_fft.convolve(shape, spectra, signals, y.permute(2, 0, 1))
    into = torch.empty(3, channels, batch, length, device=DEVICE)
    grad_k = matrix_fft.gradients(
        shape, spectra, signals, grad.permute(2, 0, 1), [into[2], into[1], into[0]]
    )

    seen = (p + shift[..., None, None]).double()
    filtered = [
        short_convolution(x.transpose(0, 1), w, b).requires_grad_()
        for x, w, b in zip(seen, weight.double(), bias.double(), strict=True)
    ]
    after, before, v = filtered
    exact_k = k.double().requires_grad_()
    exact = gated_long_convolution(v, exact_k, before=before, after=after, method="direct")
    wanted = torch.autograd.grad(exact, [*filtered, exact_k], grad.permute(0, 2, 1).double())
    found = [y.transpose(1, 2), *into.transpose(1, 2), grad_k]
    assert max(errors(found, [exact.detach(), *wanted])) < 1e-6


@pytest.mark.parametrize(("batch", "length"), [(2, 1), (1, 5), (2, 300)])
def test_gradients_of_the_short_filter(batch, length):
    generator = torch.Generator().manual_seed(2)
    taps = 4

    def normal(*shape):
        return torch.randn(*shape, generator=generator).to(DEVICE)

    p, d = normal(3, 2, batch, length), normal(3, 2, batch, length)
    weight, bias, shift = normal(3, 2, taps), normal(3, 2), normal(3, 2)
    dp = torch.empty_like(d)
    sums = matrix_fft.short_gradients(p, d, matrix_fft.Short.of(weight, bias, shift), dp)

    leaves = [x.double().requires_grad_() for x in (p, weight, bias, shift)]
    seen = (leaves[0] + leaves[3][..., None, None]).transpose(1, 2)
    out = torch.stack(
        [short_convolution(x, w, b) for x, w, b in zip(seen, *leaves[1:3], strict=True)]
    )
    out = out.transpose(1, 2)
    wanted = torch.autograd.grad(out, leaves, d.double())
    found = [dp, sums[..., :taps], sums[..., taps], sums[..., taps + 1]]
    assert max(errors(found, wanted)) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("inner", [None, 256])
def test_kernels_meet_no_float64_whatever_torch_takes_by_default(inner, dtype, monkeypatch):
    """The compiler refuses to add it to float32; the interpreter does not."""
    v, k, _, before, after = (x if x.dim() < 3 else x.transpose(0, 1)
                              for x in inputs(1, 2, 600, dtype))  # fmt: skip
    seen: set[torch.dtype] = set()
    monkeypatch.setattr(
        matrix_fft, "launch",
        lambda *given, **_: seen.update(x.dtype for x in given if isinstance(x, torch.Tensor)),
    )  # fmt: skip
    torch.set_default_dtype(torch.float64)
    try:
        shape, signals = shape_of(600, inner), matrix_fft.Signals(v, before, after)
        spectra = matrix_fft.spectrum(k, shape)
        matrix_fft.convolve(shape, spectra, signals, torch.empty_like(v))
        matrix_fft.gradients(
            shape, spectra, signals, v, torch.empty_like(v[None].repeat(3, 1, 1, 1))
        )
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.float32 in seen and torch.float64 not in seen


def test_only_the_gradients_asked_for():
    v, k, *_ = inputs(1, 1, 20, torch.float32)
    v.requires_grad_()
    gated_long_convolution(v, k, method="matrix").sum().backward()
    assert v.grad is not None and k.grad is None


def test_an_empty_batch():
    v = torch.empty(0, 2, 10, device=DEVICE, requires_grad=True)
    k = torch.randn(2, 10, device=DEVICE, requires_grad=True)
    y = gated_long_convolution(v, k, method="matrix")
    y.sum().backward()
    assert y.shape == v.shape and not k.grad.any()


def test_fft_and_auto_are_the_long_convolution_between_gates():
    v, k, skip, before, after = inputs(2, 3, 40, torch.float64)
    k = k.double()
    exact = after * long_convolution(v * before, k, skip, method="direct")
    for method in ("fft", "direct", "auto"):
        y = gated_long_convolution(v, k, skip, before=before, after=after, method=method)
        torch.testing.assert_close(y, exact, atol=1e-12, rtol=0)


def test_what_cannot_be_is_refused_in_a_line():
    v, k, skip, before, _ = inputs(1, 2, 8, torch.float32)
    with pytest.raises(InputError, match="no method 'fourier'; there are auto, matrix, fft"):
        gated_long_convolution(v, k, method="fourier")
    with pytest.raises(InputError, match=r"must be \(B, C, L\) and \(C, L\)"):
        gated_long_convolution(v, k[:1])
    with pytest.raises(InputError, match=r"skip has shape \(1,\); 2 channels need \(2,\)"):
        gated_long_convolution(v, k, skip[:1])
    with pytest.raises(InputError, match=r"before is torch.float16 of shape .*v is torch.float32"):
        gated_long_convolution(v, k, before=before.half())
    with pytest.raises(InputError, match=r"need filters in float32, not torch.float64.*'fft'"):
        gated_long_convolution(v, k.double(), method="matrix")
    with pytest.raises(InputError, match=r"not torch.float64; take method='fft'"):
        gated_long_convolution(v.double(), k, method="matrix")
    with pytest.raises(InputError, match=r"16,777,217 samples; 1 to 16,777,216 are possible"):
        matrix_fft.shape_for((1 << 24) + 1, torch.float32, torch.device("cpu"))


def test_without_triton_or_gpu_matrix_is_refused(monkeypatch):
    v, k, *_ = inputs(1, 2, 8, torch.float32)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(InputError, match="'matrix': they need an NVIDIA GPU, not cpu; take"):
        gated_long_convolution(v.cpu(), k.cpu(), method="matrix")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"'matrix': triton is not installed \(it .*; take"):
        gated_long_convolution(v, k, method="matrix")


@given(length=st.integers(1, 1 << 24))
@settings(max_examples=200)
def test_shapes_waste_little(length):
    shape = shape_of(length)
    assert shape.m >= length
    assert shape.m < 2 * length + 256 if not shape.outer else shape.m < length + shape.inner
    assert shape.side >= shape.outer_steps >= shape.n1 or not shape.outer


def test_tables_are_made_once_for_all_lengths_that_share_them():
    cpu = torch.device("cpu")
    shapes = [shape_of(1 << 17, inner=256), shape_of((1 << 17) - 100, inner=256)]
    assert outer_tables(shapes[0], cpu)[0] is outer_tables(shapes[1], cpu)[0]
    for one, other in ((shapes[0], shape_of(300, inner=256)), (shape_of(900), shape_of(1000))):
        assert inner_tables(one, cpu)[0] is inner_tables(other, cpu)[0]
    assert inner_tables(shape_of(256), cpu)[0] is not inner_tables(shapes[0], cpu)[0]


def test_the_compiler_takes_the_kernels():
    kernels = lines_of("tests.conv.ahead_of_time", "--short")
    assert {x["kernel"] for x in kernels} == {
        f"{name}_kernel"
        for name in (
            "spectrum", "filter", "convolve", "gradients", "outer", "outer_back",
            "inner_spectrum", "inner_filter", "inner_convolve", "inner_gradients",
            "short_gradients",
        )
    }  # fmt: skip
    assert not any(x["spilled"] for x in kernels)


@pytest.mark.slow
@pytest.mark.parametrize("gpu", sorted(GPUS.keys() - {"h200"}))
def test_the_compiler_takes_the_kernels_for_other_gpus(gpu):
    kernels = lines_of("tests.conv.ahead_of_time", "--short", "--gpu", gpu)
    assert len({x["kernel"] for x in kernels}) == 11
    for x in kernels:
        assert x["shared"] <= GPUS[gpu].shared and x["spilled"] <= 64, x


@pytest.mark.slow
def test_real_sizes_fit_into_an_h200():
    for x in lines_of("tests.conv.ahead_of_time"):
        assert x["shared"] <= 227 << 10, x
        large = x["tile"][:2] in ([128, 32], [128, 64]) or x["type"] == "float32" or x["taps"]
        assert x["spilled"] <= (1500 if large else 160), x
