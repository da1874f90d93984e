"""Time and work of each native kernel in one training step."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from benchmarks.long_context.competitors import Competitor, random_tokens
from benchmarks.long_context.jobs import Job

from hyenadna.config import ModelConfig
from hyenadna.model.engine.native_call import Call
from hyenadna.native import library


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Seconds by kernel while the block runs."""
    seconds: dict[str, float] = defaultdict(float)
    call: Callable[..., None] = Call.__call__

    def measured(self: Any, name: str, *arguments: Any) -> None:
        start = time.perf_counter()
        call(self, name, *arguments)
        seconds[name] += time.perf_counter() - start

    Call.__call__ = measured  # type: ignore[method-assign]
    try:
        yield seconds
    finally:
        Call.__call__ = call  # type: ignore[method-assign]


def kernel_times(job: Job, competitor: Competitor, config: ModelConfig) -> dict[str, Any]:
    """By kernel, in a warm training step (without the optimiser): seconds, operations of matrix
    products, operations of FFTs."""
    tokens = random_tokens(job.batch, job.length)

    def step() -> None:
        with competitor.precision():
            loss = competitor.nats(tokens, tokens)
        loss.backward()
        competitor.module.zero_grad(set_to_none=True)

    competitor.module.train()
    torch.set_grad_enabled(True)
    step()
    with torch.no_grad():  # so that no spectrum of the first step serves again
        for parameter in competitor.module.parameters():
            parameter.mul_(1.0001)
    with timed() as seconds:
        step()
    work = kernel_work(config, job.batch, job.length)
    return {
        name: {"seconds": spent, "products": work[name][0], "transforms": work[name][1]}
        for name, spent in seconds.items()
        if name in work
    }


def kernel_work(config: ModelConfig, batch: int, length: int) -> dict[str, tuple[float, float]]:
    """Operations of matrix products and of FFTs that each kernel does in a training step.

    A multiplication and an addition count as two; a complex FFT as 5 n log2 n. `finish_backward`
    and `mix_backward` compute the forward products again. Filters are transformed once, but their
    network runs twice.
    """
    found = library()
    assert found is not None, "no native kernels"
    n = found.fft_length(length)
    d, inner, f, layers = config.d_model, config.inner_width, config.filter_order, config.n_layer
    tokens = batch * length
    fft = 5.0 * n * math.log2(max(n, 2)) * d
    network = config.emb_dim * f + config.num_inner_mlps * f * f
    each = {
        "sine_network": (4.0 * length * network, 0.0),
        "spectrum": (2.0 * length * f * d, fft),
        "mix": (2.0 * tokens * 3 * d * d, 2 * batch * fft),
        "finish": (2.0 * tokens * (d * d + 2 * d * inner), 0.0),
        "finish_backward": (2.0 * tokens * (3 * d * d + 5 * d * inner), 0.0),
        "mix_backward": (2.0 * tokens * 9 * d * d, (4 * batch + 1) * fft),
        "filter_backward": (4.0 * length * f * d, 0.0),
        "sine_network_backward": (6.0 * length * network, 0.0),
        "norm_backward": (0.0, 0.0),
    }
    ends = {
        "embed": (0.0, 0.0),
        "embed_backward": (0.0, 0.0),
        "nats": (2.0 * tokens * d * config.padded_vocab_size, 0.0),
        "nats_backward": (6.0 * tokens * d * config.padded_vocab_size, 0.0),
    }
    return {k: (layers * p, layers * t) for k, (p, t) in each.items()} | ends
