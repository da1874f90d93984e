"""Prefill and steps of generation on a device."""

from __future__ import annotations

from typing import Any, Final

import torch
from benchmarks.gpu.contestants import build, config_of
from benchmarks.gpu.jobs import Job
from benchmarks.gpu.race import Contestant, Row, Tell, race
from benchmarks.gpu.timing import Clock
from benchmarks.long_context.competitors import random_tokens
from torch import Tensor

from hyenadna.errors import InputError
from hyenadna.model.decoding import Decoder

LIMIT: Final = 1e-3
"""Largest difference of logits from the full pass, as a share of the largest."""


def measure_generation(job: Job, clock: Clock, tell: Tell) -> dict[str, Any]:
    """A row with `seconds` of all steps, `prefill` seconds and `value_error`.

    All rows begin with prompts of their own. Tokens are given, not drawn: a step is that of the
    model.
    """
    (name,) = job.contestants
    tokens = random_tokens(job.batch, job.length + job.steps).to(clock.device)
    prompt, columns = tokens[:, : job.length], tokens[:, job.length :].t().contiguous()

    def contestant() -> Contestant:
        one = build(name, config_of(job.shape), clock, job.batch, job.length)
        model = one.model.eval()
        decoder = Decoder(model)
        state = decoder.prefill(prompt, room=job.steps)

        def call() -> Tensor:
            branch = state.clone()
            for column in columns:
                logits = decoder.step(branch, column)
            return logits

        def check() -> Row:
            found = call()[:2]
            with torch.inference_mode():
                wanted = model(tokens[:2])[:, -1]
            off = float((found - wanted).abs().max() / wanted.abs().max())
            if not off <= LIMIT:
                raise InputError(f"wrong: logits after all steps are off by {off:.1e}")
            return {"value_error": off}

        prefill = min(
            clock.seconds(lambda: decoder.prefill(prompt, room=job.steps)) for _ in range(3)
        )
        return Contestant(call, check, one.notes | {"prefill": prefill})

    return {"contestants": race({name: contestant}, clock, tell)}
