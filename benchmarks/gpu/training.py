"""Training steps and passes without gradients, of one shape at one length, in turns."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import torch
from benchmarks.gpu.accuracy import (
    Truth,
    check_attention,
    errors,
    in_float64,
    require_right,
    truth,
)
from benchmarks.gpu.contestants import Competitor, build, config_of, tokens_on
from benchmarks.gpu.jobs import Job, precision_of
from benchmarks.gpu.race import TOO_LONG, Contestant, Row, Tell, race
from benchmarks.gpu.roofline import model_work
from benchmarks.gpu.timing import Clock
from torch import Tensor

from hyenadna.errors import InputError

GROWTH: Final = 4
"""A Transformer is tried at a length this much shorter first, to foresee its time."""


def measure_steps(job: Job, clock: Clock, tell: Tell, seconds: float) -> dict[str, Any]:
    """Rows of a forward and backward pass; with the optimiser for the part `large`.

    seconds: that the job may take; a Transformer that would take longer is left out and says so.
    """
    config = config_of(job.shape)
    inputs, targets = tokens_on(clock.device, job.batch, job.length)
    tell("the reference in float64")
    exact = None
    if any(not name.startswith("attention") for name in job.contestants):
        exact = truth(config, clock, inputs, targets)

    def contestant(name: str) -> Contestant:
        one = build(name, config, clock, job.batch, job.length)
        if name.startswith("attention"):
            one.notes |= _foresee(one, clock, job.length, seconds)
            check = partial(check_attention, one, clock, name, job.length)
        else:
            assert exact is not None
            check = partial(_right, one, exact, inputs, targets, name)
        call = _trained(one, inputs, targets) if job.part == "large" else None
        return Contestant(call or partial(one.step, inputs, targets), check, one.notes)

    rows = race({name: partial(contestant, name) for name in job.contestants}, clock, tell)
    return {"contestants": rows, "work": vars(model_work(config, job.batch, job.length))}


def _right(one: Competitor, exact: Truth, inputs: Tensor, targets: Tensor, name: str) -> Row:
    return require_right(errors(one, exact, inputs, targets), precision_of(name))


def _trained(one: Competitor, inputs: Tensor, targets: Tensor) -> Any:
    optimizer = torch.optim.AdamW(one.model.parameters(), lr=1e-5, weight_decay=0.0, fused=True)

    def call() -> Tensor:
        loss = one.step(inputs, targets)
        optimizer.step()
        return loss

    return call


def _foresee(one: Competitor, clock: Clock, length: int, seconds: float) -> Row:
    """Seconds that a step should take, from a shorter one. Raises InputError where too many."""
    shorter = tokens_on(clock.device, 1, max(1, length // GROWTH))
    clock.seconds(partial(one.step, *shorter))
    expected = clock.seconds(partial(one.step, *shorter)) * GROWTH**2
    calls = 1 if expected > TOO_LONG else 6  # for memory, warm-up and samples: see `race`
    if expected * calls > seconds:
        raise InputError(
            f"left out: a step would take about {expected:.0f} s, too long for this run"
        )
    return {"foreseen": expected}


def measure_inference(job: Job, clock: Clock, tell: Tell) -> dict[str, Any]:
    """Rows of the mean loss of one sequence without gradients, spectra of the filters kept."""
    config = config_of(job.shape)
    inputs, targets = tokens_on(clock.device, job.batch, job.length)
    tell("the reference in float64")
    exact = in_float64(
        lambda one, _: float(_loss(one, inputs, targets)), config, clock, *inputs.shape
    )

    def contestant(name: str) -> Contestant:
        one = build(name, config, clock, job.batch, job.length)
        one.model.eval()
        call = partial(_loss, one, inputs, targets)
        return Contestant(call, partial(_right_loss, call, exact, precision_of(name)), one.notes)

    rows = race({name: partial(contestant, name) for name in job.contestants}, clock, tell)
    work = model_work(config, job.batch, job.length, training=False)
    return {"contestants": rows, "work": vars(work)}


@torch.inference_mode()
def _loss(one: Competitor, inputs: Tensor, targets: Tensor) -> Tensor:
    return one.loss(inputs, targets)


def _right_loss(call: Any, exact: float, precision: str) -> Row:
    loss = float(call())
    row = {"loss": loss, "loss_error": abs(loss - exact) / abs(exact), "gradient_error": 0.0}
    require_right(row, precision)
    return {"loss": loss, "loss_error": row["loss_error"]}
