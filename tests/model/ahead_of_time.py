"""Compiles every Triton kernel of the engine for an H200, without a GPU, and prints what it takes.

    python tests/model/ahead_of_time.py [short]

The kernels and their arguments are those of a training step of large-1m at a million tokens in
bf16 and in float32, an inference pass behind others, and a step at 1,024 tokens: the launches are
recorded on tensors without memory. One line of JSON each. `short` takes the bf16 step alone.
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

from hyenadna.config import ModelConfig, preset
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.engine import (
    triton_ends,
    triton_filters,
    triton_gates,
    triton_gates_backward,
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
TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int64: "*i64",
}


class Recorder:
    """Stands in for `launch`: every kernel once for each kind of arguments."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple] = {}

    def __call__(self, kernel, grid, like, *args, **meta) -> None:
        names, options = kernel.arg_names, {"num_warps": meta.pop("num_warps", 4)}
        values = dict(zip(names, args, strict=False)) | meta
        constants = {n: values[n] for n in names if kernel.params[names.index(n)].is_constexpr}
        signature, divisible = {}, {}
        for i, name in enumerate(names):
            value = values[name]
            if name in constants or (isinstance(value, int) and value == 1):
                constants[name] = value
                signature[name] = "constexpr"
                continue
            if isinstance(value, Tensor):
                signature[name] = TYPES[value.dtype]
            elif isinstance(value, float):
                signature[name] = "fp32"
            else:
                signature[name] = "i32" if -(1 << 31) <= value < 1 << 31 else "i64"
            if isinstance(value, Tensor) or (isinstance(value, int) and value % 16 == 0):
                divisible[(i,)] = [["tt.divisibility", 16]]
        key = repr((kernel.fn.__name__, signature, constants, options, sorted(divisible)))
        self.seen[key] = (kernel, signature, constants, divisible, options)


def record(config: ModelConfig, batch: int, length: int, products: torch.dtype | None) -> Recorder:
    """The launches of a training step and of a pass behind others, of one layer."""
    recorder = Recorder()
    for module in MODULES:
        module.launch = recorder
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
    return recorder


def compiled(recorder: Recorder) -> Iterator[dict]:
    """What each kernel takes once it is compiled for compute capability 9.0."""
    for kernel, signature, constants, divisible, options in recorder.seen.values():
        places = {(kernel.arg_names.index(n),): v for n, v in constants.items()}
        source = ASTSource(kernel, signature, constexprs=places, attrs=divisible)
        built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
        yield {
            "kernel": kernel.fn.__name__,
            "products": next((t for t in signature.values() if t in ("*bf16", "*fp16")), "*fp32")[
                1:
            ],
            "warps": options["num_warps"],
            "shared": built.metadata.shared,
            **assembled(built.asm["ptx"]),
            "constants": {n: v for n, v in constants.items() if n.isupper() or n == "steps"},
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
    large = preset("large-1m")
    cases = [(large, 1, 999_999, torch.bfloat16)]
    if sys.argv[1:] != ["short"]:
        cases += [
            (large, 1, 999_999, None),
            (preset("tiny-1k"), 16, 1024, torch.float16),
            (large.replace(d_model=1024, d_inner=4096, short_filter_order=5), 2, 4097, None),
        ]
    for case in cases:
        for line in compiled(record(*case)):
            print(json.dumps(line), flush=True)
