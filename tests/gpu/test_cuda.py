"""What needs an NVIDIA GPU: `make test-gpu`."""

from __future__ import annotations

import copy
import itertools
import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hyenadna.alphabet import decode
from hyenadna.cli import pretrain
from hyenadna.cli.app import run
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


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path, monkeypatch, precision):
    fasta = tmp_path / "toy.fa"
    rng = np.random.default_rng(0)
    fasta.write_text(f">a\n{decode(rng.integers(7, 11, 20_000))}\n")
    words = ["--d-model", "32", "--n-layer", "1", "--max-seq-len", "130", "--steps", "12"]
    arguments = ["pretrain", str(fasta), *words, "--device", "cuda", "--precision", precision]
    assert run([*arguments, "--out", str(tmp_path / "whole")]) == 0
    broken = tmp_path / "broken"
    with monkeypatch.context() as patch:

        @contextmanager
        def after_five():
            calls = itertools.count(1)
            yield lambda: 2 if next(calls) >= 5 else None

        patch.setattr(pretrain, "stop_on_signals", after_five)
        run([*arguments, "--out", str(broken)])
    assert json.loads((broken / "last" / "trainer.json").read_text())["step"] == 5
    assert run(["pretrain", "--out", str(broken), "--resume"]) == 0
    one, other = (load_file(p / "last" / "model.safetensors") for p in (tmp_path / "whole", broken))
    # Sums on a GPU may run in another order from launch to launch: nearly equal, not bit for bit.
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=1e-4, rtol=1e-3)
