"""What this device does at most, measured: copies, matrix products, transforms, launches."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any, Final

import torch
from benchmarks.gpu.timing import Clock
from benchmarks.long_context.limits import fft_flops

from hyenadna.train.loop import PRECISIONS

_PRODUCT: Final = 8_192
_COPY_BYTES: Final = 4 << 30
_FFT_SAMPLES: Final = 1 << 28
_FFT_LENGTHS: Final = (1 << 11, 1 << 16, 1 << 21)


@torch.inference_mode()
def rates(clock: Clock, *, scale: int = 1) -> dict[str, Any]:
    """Rates in operations or bytes a second, medians of five after a warm-up.

    `products`: square matrix products of random numbers by type. `copy`: bytes read and written.
    `fft`: real transforms by length. `launch`: seconds between the starts of kernels that do
    nothing much. scale: divides the sizes.
    """
    device = clock.device
    products = {}
    n = max(16, _PRODUCT // scale)
    for name, dtype in PRECISIONS.items():
        a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
        products[name] = 2 * n**3 / median(clock, lambda a=a, b=b: a @ b)  # type: ignore[misc]
    copied = _copy_rate(clock, _COPY_BYTES // 4 // scale**2)
    transforms = {}
    for whole in _FFT_LENGTHS:
        length = max(16, whole // scale)
        x = torch.randn(max(1, _FFT_SAMPLES // scale**2 // length), length, device=device)
        seconds = median(clock, lambda x=x: torch.fft.rfft(x))  # type: ignore[misc]
        transforms[str(length)] = len(x) * fft_flops(length) / seconds
    small = torch.zeros(1, device=device)
    launch = median(clock, lambda: small.add_(1), repeats=200)
    return {"products": products, "copy": copied, "fft": transforms, "launch": launch}


def _copy_rate(clock: Clock, numbers: int) -> float:
    source = torch.randn(numbers, device=clock.device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / median(clock, lambda: target.copy_(source))


def median(clock: Clock, call: Callable[[], object], repeats: int = 3) -> float:
    """Seconds of a call: the median of five samples after a warm-up."""
    clock.seconds(call, 2)
    return statistics.median(clock.seconds(call, repeats) for _ in range(5))
