"""Filters keep all digits of float32 on a GPU that may round products to TF32."""

from __future__ import annotations

from contextlib import contextmanager

import torch

from hyenadna.config import ModelConfig
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.engine import block, spectra
from hyenadna.model.engine.torch_kernels import TorchKernels
from hyenadna.model.filter import no_tf32


def test_tf32_is_off_within_and_as_before_behind():
    matmul, gpu = torch.backends.cuda.matmul, torch.device("cuda")
    with no_tf32(gpu):
        assert matmul.fp32_precision != "tf32"
    torch.set_float32_matmul_precision("high")
    try:
        with no_tf32(gpu), no_tf32(gpu):
            assert matmul.fp32_precision == "ieee"
        assert matmul.fp32_precision == "tf32"
        assert torch.get_float32_matmul_precision() == "high"
        with no_tf32(torch.device("cpu")):
            assert matmul.fp32_precision == "tf32"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_the_engine_makes_its_filters_without(monkeypatch):
    depth, seen = [], {}

    @contextmanager
    def counted(device):
        depth.append(device)
        yield
        depth.pop()

    def watched(name):
        found = TorchKernels.__dict__[name]
        static = isinstance(found, staticmethod)
        function = found.__func__ if static else found

        def call(*args, **options):
            seen[name] = len(depth)
            return function(*args, **options)

        return staticmethod(call) if static else call

    for name in ("hidden", "spectrum", "filters_backward", "hidden_backward"):
        monkeypatch.setattr(TorchKernels, name, watched(name))
    for module in (block, spectra):
        monkeypatch.setattr(module, "no_tf32", counted)
    model = HyenaDNA(ModelConfig(d_model=8, n_layer=1, max_seq_len=34, filter_order=8))
    model.set_engine("torch")
    model(torch.randint(7, 11, (1, 20))).square().sum().backward()
    assert len(seen) == 4 and min(seen.values()) >= 1
