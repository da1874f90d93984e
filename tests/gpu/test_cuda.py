"""What needs an NVIDIA GPU: `make test-gpu`."""

from __future__ import annotations

import copy

import pytest
import torch

from hyenadna.config import ModelConfig, preset
from hyenadna.model.backbone import HyenaDNA

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]


def test_gpu_and_cpu_agree():
    torch.manual_seed(0)
    model = HyenaDNA(preset("tiny-1k")).double().eval()
    tokens = torch.randint(7, 11, (2, 1000))
    on_gpu = copy.deepcopy(model).cuda()
    torch.testing.assert_close(on_gpu(tokens).cpu(), model(tokens), atol=1e-9, rtol=0)
    model(tokens).square().mean().backward()
    on_gpu(tokens).square().mean().backward()
    for one, other in zip(model.parameters(), on_gpu.parameters(), strict=True):
        torch.testing.assert_close(other.grad.cpu(), one.grad, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("mixer", ["hyena", "attention"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision(mixer, dtype):
    torch.manual_seed(0)
    config = ModelConfig(d_model=64, n_layer=2, max_seq_len=1026, mixer=mixer)
    model = HyenaDNA(config).cuda().eval()
    tokens = torch.randint(7, 11, (2, 1000))
    exact = model(tokens)
    with torch.autocast("cuda", dtype=dtype):
        rounded = model(tokens)
    assert (rounded - exact).abs().max() < 0.05 * exact.abs().max()
