"""Commands on an NVIDIA GPU: `make test-gpu`."""

from __future__ import annotations

import itertools
import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hyenadna.alphabet import decode

# A machine that is lent for its GPU may have torch and little else.
pytest.importorskip("cyclopts")
pytest.importorskip("pysam")
from hyenadna.cli import pretrain
from hyenadna.cli.app import run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]


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
