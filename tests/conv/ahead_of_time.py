"""Compiles the kernels of the gated convolution for a GPU, without having one.

    python -m tests.conv.ahead_of_time [--gpu h200] [--short]

Arguments are those of real calls. One line of JSON for each kernel: registers of a thread, bytes
that spill, shared memory. `--short`: the quick ones alone.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from tests.ahead_of_time import Gpu, Recorder, chosen

from hyenadna.conv import matrix_fft, triton_fft, triton_long_fft, triton_short
from hyenadna.conv.matrix_tables import shape_of


def run(
    gpu: Gpu, length: int, batch: int, dtype: torch.dtype, taps: int, inner: int | None = None
) -> None:
    """Spectrum, convolution and gradients as the engine calls them, on nothing."""
    shape = shape_of(length, inner, matrix_fft.most_points(gpu.shared, dtype))
    channels = 32
    with torch.device("meta"):
        p, into = torch.empty(2, 3, channels, batch, length, dtype=dtype)
        y = torch.empty(batch, length, channels, dtype=dtype).permute(2, 0, 1)
        k = torch.empty(channels, length)
        short = None
        if taps:
            short = matrix_fft.Short.of(torch.empty(3, channels, taps), torch.empty(3, channels))
        signals = matrix_fft.Signals(p[2], p[1], p[0], short)
        spectra = matrix_fft.spectrum(k, shape)
        matrix_fft.convolve(shape, spectra, signals, y)
        matrix_fft.gradients(shape, spectra, signals, p[0], [into[2], into[1], into[0]])
        if short is not None:
            matrix_fft.short_gradients(p, into, short, torch.empty_like(into))


def summary(constants: dict[str, Any]) -> dict[str, Any]:
    """What a kernel of the convolution was compiled for."""
    return {
        "type": "float32" if constants.get("SPLIT") else "16 bit",
        "tile": [constants[n] for n in ("N1", "N2", "NA", "NB", "BM", "BN") if n in constants],
        "taps": max([v for n, v in constants.items() if "TAPS" in n], default=0),
    }


if __name__ == "__main__":
    recorder = Recorder()
    for module in (triton_fft, triton_long_fft, triton_short):
        for name, value in list(vars(module).items()):
            if name.endswith("_kernel"):
                setattr(module, name, recorder.kernel(value))
    gpu, short = chosen()
    run(gpu, 200, 1, torch.bfloat16, 3)
    run(gpu, 3000, 1, torch.bfloat16, 0, inner=256)
    if not short:
        for length in (512, 1024, 2048, 4096, 8192, 32_000, 1 << 20):
            run(gpu, length, 64, torch.bfloat16, 0)
            run(gpu, length, 1, torch.bfloat16, 3)
            if length in (512, 1024, 4096, 1 << 20):
                run(gpu, length, 64, torch.float32, 0)
        run(gpu, 1 << 21, 64, torch.bfloat16, 0)
    for line in recorder.compiled(gpu):
        print(json.dumps(line | summary(line.pop("constants"))), flush=True)
