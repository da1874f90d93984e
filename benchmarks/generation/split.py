"""What one step spends its time on, by differences."""

from __future__ import annotations

import statistics
import time
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import torch
from benchmarks.generation.jobs import ROUNDS, Job
from benchmarks.generation.ways import job_tokens, step_seconds
from benchmarks.long_context.competitors import random_model
from benchmarks.long_context.limits import fastest
from torch import Tensor

from hyenadna.infer.generate import plan_generation
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.decoding import Decoder
from hyenadna.model.decoding.state import HyenaState

SKELETON_WIDTH: Final = 16
Seconds = npt.NDArray[np.float64]


def measure_split(job: Job) -> dict[str, Any]:
    """Seconds of a step of all rows and of its parts.

    `step`: mean. `sample`: of one more sample in the sum, of `sample_bytes`; `samples`: the mean
    number in a sum. `folds`: what steps that begin or end a block cost more, spread over all.
    `python`: a step of a model of the same depth and width 16. `weights`: bytes that a step
    streams; `read`: bytes a second that one thread reads of as many. `sampling`: what choosing and
    counting a base costs besides.
    """
    model = random_model(job.config()).eval()
    decoder = Decoder(model)
    prompt, new = job_tokens(job)
    steps, block = steady_steps(decoder, prompt, new)
    mean, inside = float(steps.mean()), inside_block(steps, block)
    unfolded, _ = steady_steps(Decoder(model, block=2 * job.new), prompt, new)
    config, weights = job.config(), streamed_bytes(model)
    return {
        "block": block,
        "step": mean,
        "sample": sample_seconds(unfolded),
        "samples": (block + 1) / 2,
        "sample_bytes": 2 * 4 * config.d_model * config.n_layer * job.batch,
        "folds": mean - inside,
        "python": skeleton_step(job),
        "weights": weights,
        "read": read_rate(weights),
        "sampling": sampling_seconds(decoder, prompt, job),
    }


def steady_steps(decoder: Decoder, prompt: Tensor, new: Tensor) -> tuple[Seconds, int]:
    """Seconds (n,) of each step with tokens (n, B), and the block.

    Medians over some rounds, after one that is not counted.
    """
    rows = decoder.prefill([prompt], room=2 * len(new)).select([0] * new.shape[1])
    hyena = cast(HyenaState, rows.layers[0])
    step_seconds(decoder, rows.clone(), new)
    rounds = [step_seconds(decoder, rows.clone(), new) for _ in range(ROUNDS)]
    return np.median(np.array(rounds), axis=0), hyena.convolutions[0].filter.block


def inside_block(steps: Seconds, block: int) -> float:
    """Seconds of a step that neither begins nor ends a block: the median over the blocks, mean over
    the places in them. steps: seconds (n,), n a multiple of block."""
    by_place = np.median(steps.reshape(-1, block), axis=0)
    return float(by_place[1:-1].mean())


def sample_seconds(steps: Seconds, pieces: int = 16) -> float:
    """Slope of the seconds (n,) of steps of which each adds a sample more; nothing is folded.

    By least squares through the medians of some pieces. Never below 0.
    """
    middles = np.median(steps.reshape(pieces, -1), axis=1)
    added = np.arange(pieces) * (len(steps) / pieces)
    return max(0.0, float(np.polyfit(added, middles, 1)[0]))


def skeleton_step(job: Job) -> float:
    """Seconds of a step of as many layers and rows of width 16: Python and calls, hardly more."""
    config = job.config().replace(d_model=SKELETON_WIDTH, d_inner=None)
    decoder = Decoder(random_model(config).eval())
    prompt, new = job_tokens(job)
    steps, _ = steady_steps(decoder, prompt[:64], new)
    return float(np.median(steps))


def streamed_bytes(model: HyenaDNA) -> int:
    """Bytes of the weights that every step reads: all but the filter networks."""
    return sum(p.nbytes for name, p in model.named_parameters() if ".filter_fn." not in name)


def read_rate(size: int) -> float:
    """Bytes a second that one thread reads, over and over, of so many bytes.

    The better of a sum and of a product of a matrix with a vector.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        matrix = torch.randn(max(size // 4 // 256, 1), 256)
        vector = torch.randn(256)
        best = min(fastest(matrix.sum, 0.2), fastest(lambda: torch.mv(matrix, vector), 0.2))
    finally:
        torch.set_num_threads(threads)
    return matrix.nbytes / best


def sampling_seconds(decoder: Decoder, prompt: Tensor, job: Job) -> float:
    """What `generate` spends on a base of all rows besides the steps, of which it takes n - 1."""
    _, new = job_tokens(job)
    rows = decoder.prefill([prompt], room=job.new - 1).select([0] * job.batch)
    plan = plan_generation(
        decoder, [prompt.numpy()], job.new, count=job.batch, batch_size=job.batch
    )
    besides = []
    for _ in range(ROUNDS):
        told: list[float] = []
        list(plan.run(progress=lambda *_, told=told: told.append(time.perf_counter())))
        steps = sum(step_seconds(decoder, rows.clone(), new[:-1]))
        besides.append((told[-1] - told[0] - steps) / job.new)
    return statistics.median(besides)
