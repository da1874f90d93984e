"""What a run will take, measured on a few of its own steps before it starts."""

from __future__ import annotations

import copy
import time

import torch

from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.likelihood import target_nats
from hyenadna.model.memory import training_bytes
from hyenadna.train.loop import Trainer

_PROBE_TOKENS = 16384


def rows_at_once(trainer: Trainer) -> dict[int, int]:
    """Sequences of one forward and backward pass, by their length."""
    config = trainer.config
    return {
        stage.length: max(
            1, min(trainer.batch_size(stage.length), config.micro_batch_tokens // stage.length)
        )
        for stage in trainer.stages
    }


def require_memory(trainer: Trainer) -> None:
    """Nothing, where the passes of all stages fit the model's `max_memory`.

    Raises InputError otherwise, with the length that would fit.
    """
    for length, rows in rows_at_once(trainer).items():
        trainer.model.pass_memory(rows, length, training=True)


def peak_bytes(trainer: Trainer) -> int:
    """Memory of weights, optimiser and activations, by arithmetic; the interpreter takes about 0.4
    GB more."""
    config = trainer.config
    return max(
        training_bytes(
            trainer.model.config,
            tokens=count * length,
            checkpointing=config.gradient_checkpointing,
            precision=config.precision,
            average=config.ema is not None,
            engine=trainer.device.type == "cpu",
        )
        for length, count in rows_at_once(trainer).items()
    )


def estimate(trainer: Trainer) -> float:
    """Seconds for the steps that are left, from timing a copy of the model at each stage's shape.

    Leaves the trainer and the random state untouched. Sequences longer than 16,384 are timed on
    that many tokens and scaled linearly, which is too low for very long ones and for attention.
    """
    config = trainer.config
    devices = [trainer.device] if trainer.device.type == "cuda" else []
    done, seconds = trainer.steps_done, 0.0
    with torch.random.fork_rng(devices=devices):
        twin = copy.deepcopy(trainer.model).train()
        warm = False
        for stage in trainer.stages:
            left = stage.steps - min(done, stage.steps)
            done -= stage.steps - left
            if left == 0:
                continue
            batch_size = trainer.batch_size(stage.length)
            length = min(stage.length, _PROBE_TOKENS)
            most = min(config.micro_batch_tokens, _PROBE_TOKENS) // length
            rows = max(1, min(batch_size, most))
            tokens = torch.full((rows, length), 7, device=trainer.device)
            if not warm:
                _timed_step(twin, tokens, trainer.precision)
                warm = True
            once = _timed_step(twin, tokens, trainer.precision)
            seconds += left * once * batch_size * stage.length / (rows * length)
    return seconds


def _timed_step(model: HyenaDNA, tokens: torch.Tensor, dtype: torch.dtype | None) -> float:
    def finish() -> None:
        if tokens.is_cuda:
            torch.cuda.synchronize()

    finish()
    start = time.perf_counter()
    with torch.autocast(tokens.device.type, dtype=dtype, enabled=dtype is not None):
        loss = target_nats(model, tokens, tokens).mean()
    loss.backward()
    model.zero_grad(set_to_none=True)
    finish()
    return time.perf_counter() - start
