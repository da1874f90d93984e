"""Where the time of a training step goes on a GPU, kernel by kernel, by torch's profiler."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import torch
from benchmarks.gpu.contestants import build, config_of, tokens_on
from benchmarks.gpu.jobs import Job
from benchmarks.gpu.race import Row, Tell, caught
from benchmarks.gpu.timing import Clock
from torch.profiler import ProfilerActivity, profile

SHOWN: Final = 20
"""Kernels of a step, the longest first; the others come together."""
LONGEST_NAME: Final = 80


def measure_kernels(job: Job, clock: Clock, tell: Tell) -> dict[str, Any]:
    """A row for each contestant: `seconds` of a step, and `kernels`: name, seconds, launches."""
    inputs, targets = tokens_on(clock.device, job.batch, job.length)
    rows: dict[str, Row] = {}
    for name in job.contestants:
        rows[name] = {}
        tell(name)
        with caught(rows[name], clock):
            one = build(name, config_of(job.shape), clock, job.batch, job.length)
            step = partial(one.step, inputs, targets)
            clock.seconds(step)
            rows[name] |= {"seconds": [clock.seconds(step)], "kernels": kernels(step, clock)}
        clock.clean()
    return {"contestants": rows}


def kernels(step: Callable[[], object], clock: Clock) -> list[tuple[str, float, int]]:
    """Name, seconds and launches of the longest kernels of a step; of operators on a CPU."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if clock.gpu else [])]
    with profile(activities=activities) as found:
        clock.seconds(step)
    spent: list[tuple[str, float, int]] = []
    for event in found.key_averages():
        if clock.gpu and event.device_type != torch.autograd.DeviceType.CUDA:
            continue  # of the operator that launched it: the same time once more
        micro = event.self_device_time_total if clock.gpu else event.self_cpu_time_total
        spent.append((event.key[:LONGEST_NAME], micro * 1e-6, event.count))
    spent.sort(key=lambda kernel: -kernel[1])
    rest = spent[SHOWN:]
    together = ("all others", sum(s for _, s, _ in rest), sum(n for _, _, n in rest))
    return [*spent[:SHOWN], *([together] if rest else [])]
