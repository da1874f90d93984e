"""The whole cost of many new bases after a short prompt, by the function that users call."""

from __future__ import annotations

import time
from typing import Any, Final

import numpy as np
import torch
from benchmarks.generation.jobs import Job
from benchmarks.long_context.competitors import random_model, random_tokens
from benchmarks.processes import resident_bytes
from torch import Tensor

from hyenadna.errors import InputError
from hyenadna.infer.generate import generate
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.likelihood import target_nats

MARKS: Final = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000)
NATS_TOLERANCE: Final = 1e-4
"""Largest difference of the mean nats a base from those of the full forward pass."""


def measure_whole(job: Job) -> dict[str, Any]:
    """Seconds from the call until so many new bases are there, drawn at temperature 1.

    `seconds`: by number of new bases, read off the progress (ten times a second), between them by
    straight lines. `ready`: when the first base is to be drawn: decoder made, prompt read. `total`:
    when all is done. `difference`: of the mean nats a base from the full pass over the result.
    Raises InputError where that is more than `NATS_TOLERANCE`.
    """
    imports = resident_bytes("VmRSS")
    model = random_model(job.config()).eval()
    prompt = random_tokens(1, job.context)[0]
    told: list[tuple[int, float]] = []
    warm(model, prompt)
    begin = time.perf_counter()

    def progress(done: int, _: int) -> None:
        told.append((done, time.perf_counter() - begin))

    (found,) = generate(model, [prompt.numpy()], job.new, progress=progress)
    total, peak = time.perf_counter() - begin, resident_bytes("VmHWM")
    done, spent = np.array(told).T
    marks = [mark for mark in MARKS if mark <= job.new]
    return {
        "imports": imports,
        "peak": peak,
        "ready": told[0][1],
        "seconds": {str(mark): float(np.interp(mark, done, spent)) for mark in marks},
        "total": total,
        "difference": check(model, prompt, torch.tensor(found.tokens), found.log_likelihood),
    }


def warm(model: HyenaDNA, prompt: Tensor) -> None:
    """Loads libraries and native code."""
    list(generate(model, [prompt[:64].numpy()], 8))


@torch.inference_mode()
def check(model: HyenaDNA, prompt: Tensor, new: Tensor, log_likelihood: float) -> float:
    """Difference of the mean nats a new base from those of one pass over the whole sequence."""
    tokens = torch.cat([prompt, new.to(prompt.dtype)])[None]
    nats = target_nats(model, tokens[:, :-1], tokens[:, 1:])[0, -len(new) :]
    difference = abs(float(nats.double().mean()) + log_likelihood / len(new))
    if not difference <= NATS_TOLERANCE:
        raise InputError(
            f"generated bases have {difference:.1e} nats a base more or less than in the full pass"
        )
    return difference
