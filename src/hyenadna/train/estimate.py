"""What a run will take, measured on a few of its own steps before it starts."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass

import torch

from hyenadna.model.likelihood import target_nats
from hyenadna.model.memory import training_bytes
from hyenadna.train.loop import Trainer

_PROBE_TOKENS = 16384


@dataclass(frozen=True)
class Estimate:
    """Expected cost of the steps that are left."""

    seconds: float
    peak_bytes: int
    """Memory of weights, optimiser and activations, without the interpreter (about 0.4 GB)."""


def estimate(trainer: Trainer) -> Estimate:
    """Time forward and backward of a copy of the model at each stage's shape.

    Leaves the trainer and the random state untouched. Sequences longer than 16,384 are timed on
    that many tokens and scaled linearly, which is slightly too low for very long ones.
    """
    config = trainer.config
    devices = [trainer.device] if trainer.device.type == "cuda" else []
    done, seconds, peak = trainer.steps_done, 0.0, 0
    with torch.random.fork_rng(devices=devices):
        twin = copy.deepcopy(trainer.model).train()
        warm = False
        for stage in trainer.stages:
            left = stage.steps - min(done, stage.steps)
            done -= stage.steps - left
            batch_size = trainer.batch_size(stage.length)
            rows = max(1, min(batch_size, config.micro_batch_tokens // stage.length))
            training = training_bytes(
                twin.config,
                tokens=rows * stage.length,
                checkpointing=config.gradient_checkpointing,
                precision=config.precision,
                average=config.ema is not None,
            )
            peak = max(peak, training)
            if left == 0:
                continue
            length = min(stage.length, _PROBE_TOKENS)
            probe_rows = max(1, min(rows, _PROBE_TOKENS // length))
            tokens = torch.full((probe_rows, length), 7, device=trainer.device)
            if not warm:
                _timed_step(twin, tokens, trainer.precision)
                warm = True
            once = _timed_step(twin, tokens, trainer.precision)
            seconds += left * once * batch_size * stage.length / (probe_rows * length)
    return Estimate(seconds, peak)


def _timed_step(model: torch.nn.Module, tokens: torch.Tensor, dtype: torch.dtype | None) -> float:
    def finish() -> None:
        if tokens.is_cuda:
            torch.cuda.synchronize()

    finish()
    start = time.perf_counter()
    with torch.autocast(tokens.device.type, dtype=dtype, enabled=dtype is not None):
        loss = target_nats(model, tokens, tokens).mean()  # type: ignore[arg-type]
    loss.backward()
    model.zero_grad(set_to_none=True)
    finish()
    return time.perf_counter() - start
