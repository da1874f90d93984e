"""Compiles every Triton kernel of the engine for a GPU, without having one: prints what it takes.

    python -m tests.model.ahead_of_time [--gpu h200] [--short]

The kernels and their arguments are those of a training step of large-1m at a million tokens in
bf16 and in float32, an inference pass behind others, and a step at 1,024 tokens: the launches are
recorded. One line of JSON each. `--short` takes the bf16 step alone.
"""

from __future__ import annotations

import json
from unittest.mock import patch

import torch
from tests.ahead_of_time import Recorder, chosen

from hyenadna.config import ModelConfig, preset
from hyenadna.conv import matrix_fft
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.engine import (
    triton_ends,
    triton_filters,
    triton_gates,
    triton_gates_backward,
    triton_kernels,
    triton_norms,
    triton_products,
)
from hyenadna.model.engine.kernels import Past
from hyenadna.model.engine.run import layer_of
from hyenadna.model.engine.triton_kernels import TritonKernels

MODULES = (
    triton_ends, triton_filters, triton_gates, triton_gates_backward, triton_norms,
    triton_products,
)  # fmt: skip


def record(config: ModelConfig, batch: int, length: int, products: torch.dtype | None) -> Recorder:
    """The launches of a training step and of a pass behind others, of one layer.

    With the long convolution by cuFFT, and by matrix products.
    """
    recorder = Recorder()
    for module in MODULES:
        module.launch = recorder.launch
    for reason in ("no matrix products", None):
        triton_kernels.convolution.cache_clear()
        with patch.object(triton_kernels, "why_no_triton", lambda device, reason=reason: reason):
            _launch_all(config, batch, length, products)
    triton_kernels.convolution.cache_clear()
    return recorder


def _launch_all(config: ModelConfig, batch: int, length: int, products: torch.dtype | None) -> None:
    with torch.device("meta"):
        model = HyenaDNA(config.replace(n_layer=1))
        h = torch.empty(batch, length, config.d_model)
        ids = torch.empty(batch, length, dtype=torch.int64)
        grad = torch.empty(batch, length)
    table, norm = model.head_weight, model.backbone.ln_f
    layer = layer_of(0, model.backbone.layers[0], length)
    kernels, w, every = TritonKernels(products), layer.weights, slice(0, config.d_model)
    window, sums = layer.tables.window, w.zeros()
    z = layer.tables.z[0].to("meta")
    with torch.no_grad():
        hidden = kernels.hidden(layer.network, z, length)
        spectrum = kernels.spectrum(hidden, w, window, every)
        y = kernels.mixed_like(h)
        kernels.mix(h, w, 1e-5, spectrum, every, y)
        kernels.finish(h, y, w, 1e-5, h)
        kernels.nats(h, (norm.weight, norm.bias), 1e-5, table, ids)
        kernels.nats_backward(h, (norm.weight, norm.bias), 1e-5, table, ids, grad)
        of_a, of_y = kernels.finish_backward(h, y, w, 1e-5, h, sums)
        of_n = kernels.norm_gradient(h, 1)
        grad_k = kernels.mix_backward(h, w, 1e-5, spectrum, every, of_y, of_n, sums)
        kernels.filters_backward(grad_k, hidden, w, window, every, sums, hidden)
        kernels.hidden_backward(layer.network, z, hidden)
        kernels.norm_backward(h, 1e-5, of_n, of_a)
        kernels.embed_backward(len(table), ids, h)
        kernels.norm(h, norm.weight, norm.bias, 1e-5)
        halo = torch.empty(batch, config.short_filter_order - 1, 3 * config.d_model, device="meta")
        past = Past(halo, h, torch.empty_like(halo), lambda channels, samples: None)
        kernels.mix(h, w, 1e-5, spectrum, every, y, past)


if __name__ == "__main__":
    matrix_fft.launch = lambda *args, **meta: None  # see tests.conv.ahead_of_time
    large = preset("large-1m")
    cases = [(large, 1, 999_999, torch.bfloat16)]
    gpu, short = chosen()
    if not short:
        cases += [
            (large, 1, 999_999, None),
            (preset("tiny-1k"), 16, 1024, torch.float16),
            (large.replace(d_model=1024, d_inner=4096, short_filter_order=5), 2, 4097, None),
        ]
    for case in cases:
        for line in record(*case).compiled(gpu):
            print(json.dumps(line), flush=True)
