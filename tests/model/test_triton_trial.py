"""The trial of the Triton kernels: they pass, or torch takes their place."""

from __future__ import annotations

import importlib.util
import logging

import pytest
import torch

if importlib.util.find_spec("triton") is None:
    pytest.skip("no Triton", allow_module_level=True)

import tests.conv.interpreter  # noqa: F401 - before the kernels are imported

from hyenadna.config import ModelConfig
from hyenadna.conv import gated, matrix_fft, trial
from hyenadna.model.engine import triton_trial
from hyenadna.model.engine.triton_trial import why_wrong

if torch.cuda.is_available():
    DEVICE = torch.device("cuda")
else:
    DEVICE = torch.device("cpu")
SMALL = ModelConfig(d_model=16, n_layer=1, max_seq_len=34, filter_order=8)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(triton_trial, "LENGTH", 21)
    cached = (triton_trial._tried, trial._why_wrong)
    for each in cached:
        each.cache_clear()
    yield
    for each in cached:
        each.cache_clear()


@pytest.mark.parametrize("gemm", [None, torch.bfloat16, torch.float16])
def test_the_kernels_pass(gemm):
    with torch.inference_mode():  # wherever the first pass is
        assert why_wrong(SMALL, gemm, DEVICE) is None


def test_the_kernels_pass_whatever_torch_takes_by_default():
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            assert why_wrong(SMALL, None, DEVICE) is None
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_capture_without_a_pass_before_is_refused_and_not_remembered(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match="run the model once before a CUDA graph captures it"):
        why_wrong(SMALL, None, torch.device("cuda"))
    assert not triton_trial._tried.cache_info().currsize


def test_a_full_gpu_is_no_fault_of_the_kernels(monkeypatch):
    from hyenadna.model.engine.triton_kernels import TritonKernels

    def full(self, *_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(TritonKernels, "nats", full)
    with pytest.raises(torch.OutOfMemoryError):
        why_wrong(SMALL, None, DEVICE)
    assert not triton_trial._tried.cache_info().currsize  # the next pass tries again


def test_tf32_is_allowed_its_rounding():
    assert triton_trial._limit(None) == triton_trial.WORST[torch.float32]
    torch.set_float32_matmul_precision("high")
    try:
        assert triton_trial._limit(None) == triton_trial.WORST[torch.float16]
        assert triton_trial._limit(torch.bfloat16) == triton_trial.WORST[torch.bfloat16]
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_wrong_result_is_told_and_the_kernels_left_out(monkeypatch, caplog):
    from hyenadna.model.engine.triton_kernels import TritonKernels

    finish = TritonKernels.finish

    def wrong(self, h, y, w, eps, out):
        finish(self, h, y, w, eps, out)
        out[1, 3, ::2] += 1.0  # the norm behind would not see a shift of all

    monkeypatch.setattr(TritonKernels, "finish", wrong)
    with caplog.at_level(logging.WARNING):
        assert "came out wrong" in why_wrong(SMALL, None, DEVICE)
        why_wrong(SMALL, None, DEVICE)
    assert len(caplog.records) == 1
    assert "torch takes their place" in caplog.text


def test_a_compiler_that_fails_is_told(monkeypatch, caplog):
    from hyenadna.model.engine.triton_kernels import TritonKernels

    def broken(self, *_):
        raise RuntimeError("PTX was compiled with an unsupported toolchain\nand more")

    monkeypatch.setattr(TritonKernels, "nats", broken)
    reason = why_wrong(SMALL, None, DEVICE)
    assert reason == "RuntimeError: PTX was compiled with an unsupported toolchain"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_long_convolution_passes_by_itself(dtype):
    assert triton_trial.matrix_is_right(21, dtype, DEVICE)
    assert trial.is_right(gated._error, 21, dtype, DEVICE)
    assert trial._why_wrong.cache_info().currsize == 2
    # others of the kind are not tried again
    assert triton_trial.matrix_is_right(23, dtype, DEVICE)
    assert trial._why_wrong.cache_info().currsize == 2


def test_a_wrong_convolution_costs_no_more_than_itself(monkeypatch, caplog):
    convolve = matrix_fft.convolve

    def wrong(shape, spectra, signals, y):
        convolve(shape, spectra, signals, y)
        y[-1, -1, 3] += 1.0

    monkeypatch.setattr(matrix_fft, "convolve", wrong)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert not triton_trial.matrix_is_right(21, torch.float32, DEVICE)
            assert not trial.is_right(gated._error, 21, torch.float32, DEVICE)
    assert caplog.text.count("long convolutions are left out") == 2

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(matrix_fft, "convolve", full)
    assert triton_trial.matrix_is_right(32, torch.float32, DEVICE)  # says nothing about it


def test_kinds_of_lengths_are_those_of_compiled_kernels():
    def kind(length: int) -> trial.Kind:
        return trial.Kind.of(length, torch.bfloat16, torch.device("cpu"))

    assert kind(1000) == kind(999) and kind(1008) == kind(1024) != kind(1001)
    assert kind(1001) != kind(501) and kind(100_000) == kind(110_080) != kind(1 << 23)
    assert kind(1 << 22).sizes == (1, 1) and kind(1001).sizes == (2, 2)


def test_an_error_that_breaks_the_gpu_is_told_as_it_is(monkeypatch):
    def broken(device):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def trial_of_it() -> float:
        raise ValueError("what the launch said")

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "synchronize", broken)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: torch.no_grad())
    with pytest.raises(ValueError, match="what the launch said"):
        trial.verdict(trial_of_it, 1.0, torch.device("cuda"), "kernels")
