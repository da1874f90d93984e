"""Compiles the kernels of the gated convolution for an H200, without a GPU.

    python tests/conv/ahead_of_time.py [short]

Arguments are those of real calls, recorded on tensors without memory. One line of JSON for each
kernel: registers of a thread, bytes that spill, shared memory. `short`: the quick ones alone.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
import triton
from torch import Tensor
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from hyenadna.conv import matrix_fft, triton_fft, triton_long_fft, triton_short
from hyenadna.conv.matrix_tables import shape_of

TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
launches: dict[str, tuple] = {}


class Recorder:
    """Stands in for a kernel: keeps what it would be compiled for."""

    def __init__(self, kernel: JITFunction) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]):
        return self.record

    def record(self, *args, num_warps: int, num_stages: int = 3, maxnreg=None, **constants) -> None:
        names = self.kernel.arg_names
        values = dict(zip(names, args, strict=False)) | constants
        signature, fixed, divisible = {}, {}, {}
        for i, name in enumerate(names):
            value = values[name]
            one = isinstance(value, int) and value == 1
            if self.kernel.params[i].is_constexpr or one:
                signature[name], fixed[name] = "constexpr", value
            elif isinstance(value, Tensor):
                signature[name] = TYPES[value.dtype]
            elif isinstance(value, float):
                signature[name] = "fp32"
            else:
                signature[name] = "i32" if -(1 << 31) <= value < 1 << 31 else "i64"
            if isinstance(value, Tensor) or (isinstance(value, int) and value % 16 == 0):
                divisible[(i,)] = [["tt.divisibility", 16]]
        options = {"num_warps": num_warps, "num_stages": num_stages, "maxnreg": maxnreg}
        divisible = {k: v for k, v in divisible.items() if names[k[0]] not in fixed}
        key = repr((self.kernel.__name__, signature, fixed, sorted(divisible), options))
        launches[key] = (self.kernel, signature, fixed, divisible, options)


def run(length: int, batch: int, dtype: torch.dtype, taps: int, inner: int | None = None) -> None:
    """Spectrum, convolution and gradients as the engine calls them, on nothing."""
    largest = 4096 if dtype == torch.float32 else 8192
    shape = shape_of(length, inner, largest)
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


def compiled() -> Iterator[dict]:
    """What each kernel takes once it is compiled for compute capability 9.0."""
    for kernel, signature, fixed, divisible, options in launches.values():
        source = ASTSource(kernel, signature, constexprs=fixed, attrs=divisible)
        built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
        yield {
            "kernel": kernel.__name__,
            "type": "float32" if fixed.get("SPLIT") else "16 bit",
            "tile": [fixed[n] for n in ("N1", "N2", "NA", "NB", "BM", "BN") if n in fixed],
            "taps": max(v for n, v in (fixed | {"TAPS": 0, **fixed}).items() if "TAPS" in n),
            "warps": options["num_warps"],
            "shared": built.metadata.shared,
            **assembled(built.asm["ptx"]),
        }


def assembled(ptx: str) -> dict[str, int]:
    """Registers of a thread and bytes that spill, as the assembler says."""
    ptxas = Path(nvidia.__file__).parent / "bin" / "ptxas"
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        command = [str(ptxas), "-v", "--gpu-name=sm_90a", file.name, "-o", "/dev/null"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers = re.search(r"Used (\d+) registers", said)
    spilled = re.search(r"(\d+) bytes spill stores", said)
    assert registers and spilled, said
    return {"registers": int(registers[1]), "spilled": int(spilled[1])}


if __name__ == "__main__":
    for module in (triton_fft, triton_long_fft, triton_short):
        for name, value in list(vars(module).items()):
            if name.endswith("_kernel"):
                setattr(module, name, Recorder(value))
    run(200, 1, torch.bfloat16, 3)
    run(3000, 1, torch.bfloat16, 0, inner=256)
    if sys.argv[1:] != ["short"]:
        for length in (512, 1024, 2048, 4096, 8192, 32_000, 1 << 20):
            run(length, 64, torch.bfloat16, 0)
            run(length, 1, torch.bfloat16, 3)
            if length in (512, 1024, 4096, 1 << 20):
                run(length, 64, torch.float32, 0)
    for line in compiled():
        print(json.dumps(line), flush=True)
