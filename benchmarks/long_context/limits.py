"""What this machine can do at most: matrix products, FFTs, copies; what a forward pass needs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch

from hyenadna.config import ModelConfig

# Rows, inputs and outputs of a product: those of the network, in chunks, and squares.
_PRODUCTS: Final = (
    (1024, 256, 1024), (2048, 256, 768), (4096, 1024, 256), (8192, 256, 1024),
    (1024, 1024, 1024), (2048, 2048, 2048), (4096, 4096, 4096),
)  # fmt: skip
_FFT_SIZES: Final = (1 << 11, 1 << 13, 1 << 16, 1 << 18, 1 << 21)
_FFT_SAMPLES: Final = 1 << 22
_COPY_BYTES: Final = 1 << 29


def machine_limits(*, seconds: float = 0.3, scale: int = 1) -> dict[str, Any]:
    """Peak rates that this process measures, in operations and bytes a second.

    `float32` and `bfloat16`: matrix products, the best of torch's and oneDNN's over several sizes,
    with the one that was best. `fft`: real transforms by size. `copy`: bytes read and written.
    seconds: time for each candidate; scale divides the sizes (for tests).
    """
    return {
        "float32": _best_product(torch.float32, seconds, scale),
        "bfloat16": _best_product(torch.bfloat16, seconds, scale),
        "fft": {str(n): _fft_rate(max(n // scale, 16), seconds, scale) for n in _FFT_SIZES},
        "copy": _copy_rate(seconds, scale),
    }


def _best_product(dtype: torch.dtype, seconds: float, scale: int) -> dict[str, Any]:
    best: dict[str, Any] = {"rate": 0.0}
    for sizes in _PRODUCTS:
        rows, inner, out = (max(n // scale, 16) for n in sizes)
        x, weight = torch.randn(rows, inner).to(dtype), torch.randn(out, inner).to(dtype)
        for name, call in _products(x, weight):
            rate = 2 * rows * inner * out / fastest(call, seconds)
            if rate > best["rate"]:
                best = {"rate": rate, "by": name, "size": [rows, inner, out]}
    return best


def _products(
    x: torch.Tensor, weight: torch.Tensor
) -> Iterator[tuple[str, Callable[[], torch.Tensor]]]:
    bias = torch.zeros(len(weight), dtype=x.dtype)
    yield "torch", lambda: torch.nn.functional.linear(x, weight, bias)
    if torch.backends.mkldnn.is_available():
        fused = torch.ops.mkldnn._linear_pointwise
        try:
            fused(x, weight, bias, "none", [], "")
        except RuntimeError:  # it has no bf16 for processors without such products
            return
        yield "oneDNN", lambda: fused(x, weight, bias, "none", [], "")


@torch.inference_mode()
def fastest(call: Callable[[], object], seconds: float) -> float:
    """Seconds of the fastest of the calls that fit into so many seconds, at least three."""
    call()
    best, end, calls = math.inf, time.perf_counter() + seconds, 0
    while calls < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best, calls = min(best, time.perf_counter() - start), calls + 1
    return best


def _fft_rate(n: int, seconds: float, scale: int) -> float:
    x = torch.randn(max(_FFT_SAMPLES // scale // n, 1), n)
    return len(x) * fft_flops(n) / fastest(lambda: torch.fft.rfft(x), seconds)


def _copy_rate(seconds: float, scale: int) -> float:
    source = torch.randn(_COPY_BYTES // 4 // scale)
    target = torch.empty_like(source)
    return 2 * 4 * len(source) / fastest(lambda: target.copy_(source), seconds)


def fft_flops(n: int) -> float:
    """Operations of one real transform of n samples: half of the usual 5 n log2 n."""
    return 2.5 * n * math.log2(n)


@dataclass(frozen=True)
class Work:
    """What one forward pass (embeddings) of one sequence has to do."""

    products: float
    """Operations of matrix products, a multiplication and an addition as two."""
    transforms: float
    """Operations of FFTs: of input, filter and output of each channel, 2L samples each."""
    traffic: float
    """Bytes of residual stream and gated signal that each block reads and writes at least."""


def forward_work(config: ModelConfig, length: int) -> Work:
    """The work of a Hyena or Transformer model by its formulas, float32, spectra not cached.

    The scores of attention count as matrix products, half of them (causal).
    """
    d, hidden, inner = config.d_model, config.filter_order, config.inner_width
    order = config.hyena_order
    per_token = d * (order + 1) * d + d * d + 2 * d * inner
    if config.mixer == "attention":
        per_token = 4 * d * d + 2 * d * inner + d * length
        transforms = 0.0
    else:
        per_token += hidden * (config.emb_dim + config.num_inner_mlps * hidden)
        per_token += hidden * config.filter_channels
        transforms = 3 * config.filter_channels * fft_flops(2 * length)
    return Work(
        products=2.0 * config.n_layer * length * per_token,
        transforms=config.n_layer * transforms,
        traffic=4.0 * config.n_layer * length * d * 5,
    )
