"""Triton's cache, filled by many processes at once before anything is measured.

    python -m benchmarks.gpu.warm DEVICE JSON    # JSON: a list of jobs, of one contestant each

The kernels of the plan are some hundreds, of a few seconds each on one core; the measuring process
would compile them one after the other. What goes wrong here is passed over: it will be seen, and
said, where it is measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu.jobs import Job, engine_of, precision_of
from benchmarks.processes import ROOT, python_path

PROCESSES: Final = 12
"""At once; a context of CUDA each, and one core each while they compile."""
OURS: Final = ("triton", "auto", "matrix")
"""Engines and methods that run on Triton kernels."""
ONCE: Final = 2
"""Steps of a job that makes many."""


def cases(jobs: Sequence[Job]) -> list[Job]:
    """What there is to compile: each job and contestant of ours, without those that run the same.

    From the longest, which have the most kernels.
    """
    found: dict[str, Job] = {}
    for job in jobs:
        for name in job.contestants:
            if engine_of(name) in OURS and job.part != "profile":
                name = name.removesuffix("+graph")
                one = replace(job, contestants=(name,), steps=min(job.steps, ONCE))
                found.setdefault(_kernels_of(one), one)
    return sorted(found.values(), key=lambda job: -job.length)


def _kernels_of(job: Job) -> str:
    """Jobs alike in this compile the same kernels: a check of a model is a step of it."""
    same = (job.shape, job.batch, job.length, job.channels, job.contestants)
    apart = job.part if job.part in ("convolution", "generation", "stability") else ""
    return repr((*same, apart, job.task == "infer"))


def fill(jobs: Sequence[Job], device: str, log: Path, seconds: float) -> str:
    """Runs all cases, within so many seconds; says how it went, in a line."""
    todo, begin = cases(jobs), time.monotonic()
    if not todo:
        return "nothing to compile"
    shares = [todo[first::PROCESSES] for first in range(min(PROCESSES, len(todo)))]
    with log.open("a") as file:
        running = [subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu.warm", device,
             json.dumps([job.to_dict() for job in share])],
            cwd=ROOT, env=_environment(), stdin=subprocess.DEVNULL, stdout=file, stderr=file,
        ) for share in shares]  # fmt: skip
        stopped = sum(_stopped(process, begin + seconds) for process in running)
    took = time.monotonic() - begin
    cut = f", {stopped} of {len(running)} processes stopped" if stopped else ""
    return f"compiled for {len(todo)} cases in {took:.0f} s{cut}"


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": python_path(), "OMP_NUM_THREADS": "1"}


def _stopped(process: subprocess.Popen[bytes], end: float) -> bool:
    try:
        process.wait(timeout=max(0.1, end - time.monotonic()))
        return False
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=20)
        return True


def main(words: Sequence[str]) -> None:
    """Run some cases, one after the other."""
    import torch
    from benchmarks.gpu.timing import Clock

    clock = Clock(torch.device(words[0]), hurry=True)
    for fields in json.loads(words[1]):
        job = Job.from_dict(fields)
        try:
            run(job, clock)
        except Exception as error:
            print(f"warm: {job.title()}: {type(error).__name__}: {error}", flush=True)
        clock.clean()


def run(job: Job, clock: Any) -> None:
    """All that the contestant of a job runs, once."""
    import torch
    from benchmarks.gpu import convolution, generation, stability
    from benchmarks.gpu.contestants import TYPES, build, config_of, tokens_on

    (name,) = job.contestants
    if job.part == "stability":
        stability.train(job, name, clock, seconds=60)
    elif job.part == "generation":
        generation.measure_generation(job, clock, lambda name: None)
    elif job.task == "convolution":
        dtype = TYPES[precision_of(name)] or torch.float32
        sizes = (job.batch, job.channels, job.length)
        given = convolution.Input.random(clock.device, *sizes, dtype)
        convolution.forward_and_backward(convolution.ways()[engine_of(name)], given)
    elif job.part == "convolution":
        convolution.measure_forward(job, clock, lambda name: None)
    else:
        one = build(name, config_of(job.shape), clock, job.batch, job.length)
        inputs, targets = tokens_on(clock.device, job.batch, job.length)
        if job.task == "infer":
            one.model.eval()
            with torch.inference_mode():
                one.loss(inputs, targets)
        else:
            one.step(inputs, targets)


if __name__ == "__main__":
    main(sys.argv[1:])
