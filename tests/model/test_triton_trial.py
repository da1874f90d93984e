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
    triton_trial._tried.cache_clear()
    yield
    triton_trial._tried.cache_clear()


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
    assert triton_trial._limit(None) == triton_trial.WORST[None]
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
