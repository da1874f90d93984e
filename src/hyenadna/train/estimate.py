"""What a run will take, measured on a few of its own steps before it starts."""

from __future__ import annotations

import copy
import math
import time

import torch

from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.engine.sizes import resident_bytes
from hyenadna.model.likelihood import target_nats
from hyenadna.model.planning.parts import memory
from hyenadna.model.planning.setup import Setup
from hyenadna.train.loop import Trainer

_PROBE_TOKENS = 16384


def rows_at_once(trainer: Trainer) -> dict[int, int]:
    """Sequences of one forward and backward pass, by their length."""
    config = trainer.config
    return {
        stage.length: max(
            1, min(trainer.rows_of_rank(stage.length), config.micro_batch_tokens // stage.length)
        )
        for stage in trainer.stages
    }


def require_memory(trainer: Trainer) -> None:
    """Nothing, where the passes of all stages fit the model's `max_memory`.

    Raises InputError otherwise, with the length that would fit.
    """
    for length, rows in rows_at_once(trainer).items():
        engine_bytes(trainer, rows, length)


def runs_engine(trainer: Trainer) -> bool:
    """Whether the passes run through the engine: it heeds `max_memory`, and keeps inputs only."""
    (length, rows), *_ = rows_at_once(trainer).items()
    try:
        return engine_bytes(trainer, rows, length) is not None
    except InputError:  # the engine's budget
        return True


def engine_bytes(trainer: Trainer, rows: int, length: int) -> int | None:
    """Estimated bytes of the process in a step with passes over (rows, length) tokens.

    The engine's plan under the run's autocast, and the optimiser's moments; gradients are in the
    plan, and a moving average is in memory since the trainer was made. None where the plain modules
    run. Raises InputError where `max_memory` is too small.
    """
    with torch.autocast(
        trainer.device.type, dtype=trainer.precision, enabled=trainer.precision is not None
    ):
        # the moments take their part of the budget from the second step on
        moments = _moments_to_come(trainer)
        return trainer.model.pass_memory(rows, length, training=True, besides=moments)


def _moments_to_come(trainer: Trainer) -> int:
    """Bytes of AdamW's two moments of the parameters that have none yet."""
    parameters = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    return sum(
        2 * p.numel() * p.element_size() for p in parameters if not trainer.optimizer.state.get(p)
    )


def peak_bytes(trainer: Trainer) -> int:
    """Memory of a training step, by arithmetic: of the whole process on a CPU, else of the GPU."""
    needs = [_peak(trainer, rows, length) for length, rows in rows_at_once(trainer).items()]
    return max(needs)


def _peak(trainer: Trainer, rows: int, length: int) -> int:
    config, on_cpu = trainer.config, trainer.device.type == "cpu"
    need = engine_bytes(trainer, rows, length)
    if need is not None:
        return need
    setup = Setup(
        config=trainer.model.config,
        length=length,
        batch=trainer.batch_size(length),
        at_once=rows,
        ranks=trainer.ranks.count,
        context=trainer.ranks.context,
        fsdp=trainer.parallel.sharded,
        precision=config.precision,
        checkpointing=config.gradient_checkpointing,
        average=config.ema is not None,
        gpu=not on_cpu,
        plain=True,
    )
    found = memory(setup)
    return int(found.total - found.process) + (resident_bytes() if on_cpu else 0)


def estimate(trainer: Trainer) -> float:
    """Seconds for the steps that are left, from timing a copy of the model at each stage's shape.

    Leaves the trainer and the random state untouched. Sequences longer than 16,384 are timed on
    that many tokens and scaled linearly, which is too low for very long ones and for attention.
    What ranks tell each other is not counted. NaN where sequences or parameters lie over several
    ranks: there is no copy of such a model.
    """
    if trainer.parallel.changed:
        return math.nan
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
            batch_size = trainer.rows_of_rank(stage.length)
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
