"""Where the time of a forward pass goes, by torch's profiler."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import torch
from benchmarks.long_context.competitors import build, random_tokens
from benchmarks.long_context.jobs import Job
from benchmarks.long_context.kernel_times import kernel_times
from benchmarks.long_context.limits import forward_work

from hyenadna.config import preset

OUTSIDE: Final = "native code and Python"
_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "matrix products": ("addmm", "::mm", "bmm", "linear", "baddbmm"),
    "attention": ("scaled_dot_product", "flash_attention"),
    "FFT": ("_fft_",),
    "Conv1d": ("convolution", "conv1d"),
    "GELU": ("gelu",),
    "norms": ("layer_norm",),
    "copies": ("copy_", "::cat", "pad", "contiguous", "fill_", "zero_"),
}


def part_of(operator: str) -> str:
    """The part of the network that an operator of the profile belongs to."""
    if not operator.startswith(("aten::", "mkldnn::", "onednn::")):
        return OUTSIDE
    for part, marks in _PARTS.items():
        if any(mark in operator for mark in marks):
            return part
    return "element-wise"


def profile_parts(job: Job, name: str) -> dict[str, Any]:
    """Seconds of one warm forward pass, by part, and its work by the formulas.

    `seconds`: wall time, under the profiler. `parts`: those of torch's operators, by their own time
    in the thread that calls; what remains is code of ours, native or Python. `kernels`: see
    `kernel_times`, of a training step.
    """
    config = preset(job.shape)
    competitor = build(name, config)
    competitor.module.eval()
    tokens = random_tokens(job.batch, job.length)
    with torch.inference_mode(), competitor.precision():
        competitor.embed(tokens)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            start = time.perf_counter()
            competitor.embed(tokens)
            wall = time.perf_counter() - start
    parts: dict[str, float] = {}
    for event in profiler.key_averages():
        part = part_of(event.key)
        if part != OUTSIDE:
            parts[part] = parts.get(part, 0.0) + event.self_cpu_time_total * 1e-6
    parts[OUTSIDE] = max(0.0, wall - sum(parts.values()))
    twin = config.replace(mixer="attention") if name == "attention" else config
    work = forward_work(twin, job.length)
    kernels = kernel_times(job, competitor, config) if name.startswith("native") else {}
    return {
        "seconds": wall,
        "parts": parts,
        "work": {k: job.batch * v for k, v in vars(work).items()},
        "kernels": kernels,
    }
