"""What Triton kernels take on a GPU, from their compiler and assembler, without that GPU.

Launches are recorded on tensors without memory, and each kernel is compiled once for every kind of
arguments. `tests/conv/ahead_of_time.py` and `tests/model/ahead_of_time.py` record theirs with this.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import torch
import triton
from torch import Tensor
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

_TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int64: "*i64",
}


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU (CUDA C++ Programming Guide, technical specifications by capability)."""

    capability: int
    assembled_for: str
    shared: int
    """Most bytes of shared memory that a block can have."""


GPUS: Final = {
    "h200": Gpu(90, "sm_90a", 227 << 10),
    "a100": Gpu(80, "sm_80", 163 << 10),
    "rtx3090": Gpu(86, "sm_86", 99 << 10),
    "rtx4090": Gpu(89, "sm_89", 99 << 10),
    "b200": Gpu(100, "sm_100a", 227 << 10),
    "rtx5090": Gpu(120, "sm_120a", 99 << 10),
}


def chosen() -> tuple[Gpu, bool]:
    """The GPU of the command line, and whether only the quick kernels are wanted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gpu", choices=list(GPUS), default="h200")
    parser.add_argument("--short", action="store_true")
    words = parser.parse_args()
    return GPUS[words.gpu], words.short


class Recorder:
    """Stands in for launches: keeps what kernels would be compiled for."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple] = {}

    def launch(self, kernel: JITFunction, grid: tuple, like: Tensor, *args, **meta) -> None:
        """Stands in for `hyenadna.conv.triton_launch.launch`."""
        self._add(kernel, args, **meta)

    def kernel(self, kernel: JITFunction) -> Any:
        """Stands in for a kernel that is launched by `kernel[grid](...)`."""

        class Launches:
            def __getitem__(_, grid):
                return lambda *args, **meta: self._add(kernel, args, **meta)

        return Launches()

    def _add(self, kernel, args, *, num_warps=4, num_stages=3, maxnreg=None, **constants) -> None:
        values = dict(zip(kernel.arg_names, args, strict=False)) | constants
        signature, fixed, divisible = {}, {}, {}
        for i, name in enumerate(kernel.arg_names):
            value = values[name]
            special = isinstance(value, int) and not kernel.params[i].do_not_specialize
            if kernel.params[i].is_constexpr or (special and value == 1):
                signature[name], fixed[name] = "constexpr", value
                continue
            if isinstance(value, Tensor):
                signature[name] = _TYPES[value.dtype]
            elif isinstance(value, float):
                signature[name] = "fp32"
            else:
                signature[name] = "i32" if -(1 << 31) <= value < 1 << 31 else "i64"
            if isinstance(value, Tensor) or (special and value % 16 == 0):
                divisible[(i,)] = [["tt.divisibility", 16]]
        options = {"num_warps": num_warps, "num_stages": num_stages, "maxnreg": maxnreg}
        key = repr((kernel.fn.__name__, signature, fixed, sorted(divisible), options))
        self.seen[key] = (kernel, signature, fixed, divisible, options)

    def compiled(self, gpu: Gpu) -> Iterator[dict[str, Any]]:
        """Of each kernel, compiled for a GPU: registers, bytes that spill, ..."""
        for kernel, signature, fixed, divisible, options in self.seen.values():
            source = ASTSource(kernel, signature, constexprs=fixed, attrs=divisible)
            target = GPUTarget("cuda", gpu.capability, 32)
            built = triton.compile(source, target=target, options=options)
            halves = [t[1:] for t in signature.values() if t in ("*bf16", "*fp16")]
            yield {
                "kernel": kernel.fn.__name__,
                "products": halves[0] if halves else "fp32",
                "warps": options["num_warps"],
                "shared": built.metadata.shared,
                **_assembled(built.asm["ptx"], gpu),
                "constants": {n: v for n, v in fixed.items() if n.isupper() or n == "steps"},
            }


def _assembled(ptx: str, gpu: Gpu) -> dict[str, int]:
    """Registers of a thread and bytes that spill, as the assembler says."""
    name = "ptxas-blackwell" if gpu.capability >= 100 else "ptxas"
    ptxas = Path(nvidia.__file__).parent / "bin" / name
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        command = [
            str(ptxas),
            "-v",
            f"--gpu-name={gpu.assembled_for}",
            file.name,
            "-o",
            "/dev/null",
        ]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers = re.search(r"Used (\d+) registers", said)
    spilled = re.search(r"(\d+) bytes spill stores", said)
    assert registers and spilled, said
    return {"registers": int(registers[1]), "spilled": int(spilled[1])}


def lines_of(script: str, *words: str) -> list[dict[str, Any]]:
    """The lines of JSON that a module of tests/ prints, in a process without the interpreter.

    Skips the test where Triton came without an assembler.
    """
    done = subprocess.run(
        [sys.executable, "-m", script, *words],
        cwd=Path(__file__).parents[1],
        env={k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"},
        capture_output=True,
        text=True,
        check=False,
    )
    if "ptxas" in done.stderr and "No such file" in done.stderr:
        pytest.skip("Triton came without an assembler")
    assert not done.returncode, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
