"""One more base in three ways: ours, the whole sequence again, and the direct cached sum."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any, Final, cast

import torch
from benchmarks.generation.direct import prefill_unfolded, unfolded_block
from benchmarks.generation.jobs import REPEATED_CONTEXT, ROUNDS, Job
from benchmarks.long_context.competitors import random_model, random_tokens
from benchmarks.processes import resident_bytes
from torch import Tensor

from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.decoding import Decoder, DecodingState
from hyenadna.model.decoding.state import HyenaState

TOLERANCE: Final = 2e-4
"""Largest difference from the logits of the full forward pass, float32."""
RECOMPUTE_SECONDS: Final = 0.5
"""Calls of the full pass are repeated for so long, at least three times."""


def measure_way(job: Job) -> dict[str, Any]:
    """Seconds a step, memory, and the agreement with the full pass, for one way.

    `seconds`: of a step of all rows, several times: means over all steps (ours), or single ones.
    `prefill`: reading the prompt. `imports`, `peak`: resident bytes before there is a model, and at
    the most. `state`: bytes that belong to the sequences; `filters`: to the model.
    `difference`: largest deviation of the last row's last logits from the full pass, whose largest
    is `largest`. Raises InputError where that is more than `TOLERANCE`.
    """
    imports = resident_bytes("VmRSS")
    model = random_model(job.config()).eval()
    way = {"ours": ours, "recompute": recompute, "direct": direct}[job.task]
    return {"imports": imports, **way(model, job)}


def ours(model: HyenaDNA, job: Job) -> dict[str, Any]:
    """Of `Decoder.prefill` and `Decoder.step`."""
    decoder = Decoder(model)
    prompt, new = job_tokens(job)
    decoder.prefill([prompt[:64]], room=8)
    begin = time.perf_counter()
    # Room for the folds of the last steps, as if generation went on.
    first = decoder.prefill([prompt], room=2 * job.new)
    prefill = time.perf_counter() - begin
    rows = first.select([0] * job.batch)
    state = rows.clone()
    step_seconds(decoder, state, new)  # also makes the spectra of the folds
    memory = {
        "peak": resident_bytes("VmHWM"),
        "state": state.nbytes,
        "filters": filter_bytes(state, job.new),
    }
    rounds = []
    for _ in range(ROUNDS):
        state = rows.clone()
        rounds.append(step_seconds(decoder, state, new))
    return {
        "prefill": prefill,
        "seconds": [statistics.mean(seconds) for seconds in rounds],
        **memory,
        **agreement(model, torch.cat([prompt, new[:, -1]]), state.logits[-1]),
    }


def recompute(model: HyenaDNA, job: Job) -> dict[str, Any]:
    """Of the whole sequence through the model again, one base longer at each call."""
    tokens = random_tokens(1, job.context + 200)
    seconds: list[float] = []
    with torch.inference_mode():
        model(tokens[:, :64])
        while len(seconds) < 200 and (len(seconds) < 3 or sum(seconds) < RECOMPUTE_SECONDS):
            ids = tokens[:, : job.context + len(seconds)]
            begin = time.perf_counter()
            model(ids)
            seconds.append(time.perf_counter() - begin)
    return {"prefill": 0.0, "seconds": seconds, "peak": resident_bytes("VmHWM")}


def direct(model: HyenaDNA, job: Job) -> dict[str, Any]:
    """Of a sum over everything that came before, for each output."""
    # one round that does not count, so that the first steps of a process do not
    repeated = job.context <= REPEATED_CONTEXT
    steps = job.new if repeated else 2 * job.new
    decoder = Decoder(model, block=unfolded_block(job.context + steps))
    prompt, new = random_tokens(1, job.context + steps)[0].split([job.context, steps])
    begin = time.perf_counter()
    state = prefill_unfolded(decoder, prompt, room=steps)
    prefill = time.perf_counter() - begin
    rounds = []
    if repeated:
        first = state
        for _ in range(1 + ROUNDS):
            state = first.clone()
            rounds.append(step_seconds(decoder, state, new[:, None]))
    else:  # a copy of so long a state would count as memory of the method
        rounds = [step_seconds(decoder, state, part[:, None]) for part in new.split(job.new)]
    convolutions = [layer.convolutions[0] for layer in cast(list[HyenaState], state.layers)]
    unused = sum(c.settled.nbytes for c in convolutions)  # zeros, here
    return {
        "prefill": prefill,
        "seconds": [second for seconds in rounds[1:] for second in seconds],
        "peak": resident_bytes("VmHWM"),
        "state": state.nbytes - unused,
        "filters": filter_bytes(state, 0),
        **agreement(model, torch.cat([prompt, new]), state.logits[-1]),
    }


def job_tokens(job: Job) -> tuple[Tensor, Tensor]:
    """The prompt (P,) and new bases (n, B), always the same."""
    tokens = random_tokens(job.batch, job.context + job.new)
    return tokens[0, : job.context], tokens[:, job.context :].T.contiguous()


def step_seconds(decoder: Decoder, state: DecodingState, new: Tensor) -> list[float]:
    """Seconds of each of the steps with tokens (n, B); the state moves on."""
    seconds = []
    for tokens in new:
        begin = time.perf_counter()
        decoder.step(state, tokens)
        seconds.append(time.perf_counter() - begin)
    return seconds


def fold_sizes(block: int, steps: int) -> Sequence[int]:
    """Lengths of the folds that so many steps bring."""
    return [block << i for i in range(32) if block << i <= steps]


def filter_bytes(state: DecodingState, steps: int) -> int:
    """Bytes of the filters in the forms that so many steps read: taps and spectra of the folds."""
    filters = [c.filter for layer in cast(list[HyenaState], state.layers)
               for c in layer.convolutions]  # fmt: skip
    return sum(
        f.taps.nbytes
        + 2 * f.taps.element_size() * f.lags.channels * sum(fold_sizes(f.block, steps))
        for f in filters
    )


def agreement(model: HyenaDNA, tokens: Tensor, logits: Tensor) -> dict[str, float]:
    """How far the logits (V,) after tokens (L,) are from those of the full pass."""
    with torch.inference_mode():
        full = model(tokens[None])[0, -1]
    difference = float((full - logits).abs().max())
    if not difference <= TOLERANCE:
        raise InputError(
            f"logits after {len(tokens):,} tokens differ from the full pass by {difference:.1e}, "
            f"more than {TOLERANCE:g}"
        )
    return {"difference": difference, "largest": float(full.abs().max())}
