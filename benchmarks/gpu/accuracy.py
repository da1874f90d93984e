"""How far losses and gradients are from those of float64, and how far they may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from benchmarks.gpu.contestants import Competitor, build, config_of, tokens_on
from benchmarks.gpu.jobs import Job, precision_of
from benchmarks.gpu.race import Contestant, Row, Tell, caught, race
from benchmarks.gpu.timing import Clock
from torch import Tensor

from hyenadna.config import ModelConfig
from hyenadna.errors import InputError

LOSS_LIMIT: Final = {"float32": 1e-4, "bf16": 1e-2, "fp16": 1e-2}
"""Largest relative error of a loss."""
GRADIENT_LIMIT: Final = {"float32": 1e-2, "bf16": 0.15, "fp16": 0.05}
"""Largest error of all gradients together, as a share of their norm: far above rounding (about
1e-5, 1e-2 and 1e-3 in plain torch), far below what a wrong kernel gives."""
CHECKED_ATTENTION: Final = 2_048
"""The Transformer twins are checked on so many tokens, beside attention in float64."""


T = TypeVar("T")


@dataclass
class Truth:
    """Loss and gradients in float64."""

    loss: float
    gradient: Tensor
    dtype: str = "float64"


def truth(config: ModelConfig, clock: Clock, inputs: Tensor, targets: Tensor) -> Truth:
    """Of the plain modules on (B, L) tokens; see `in_float64`, and it says the type."""
    return in_float64(
        lambda one, dtype: Truth(float(one.step(inputs, targets)), one.gradient(), dtype),
        config, clock, *inputs.shape,
    )  # fmt: skip


def in_float64(
    call: Callable[[Competitor, str], T], config: ModelConfig, clock: Clock, batch: int, length: int
) -> T:
    """What the call gives for the plain modules in float64; in float32 where that does not fit.

    call: of the competitor and its type. Raises InputError where neither works.
    """
    for dtype in ("float64", "float32"):
        row: Row = {}
        with caught(row, clock):
            return call(build(f"plain+{dtype}", config, clock, batch, length), dtype)
    raise InputError(f"no truth to check against: {row['error']}")


def errors(one: Competitor, exact: Truth, inputs: Tensor, targets: Tensor) -> Row:
    """`loss_error` and `gradient_error`, both relative, of one step, and against what."""
    loss = float(one.step(inputs, targets))
    off = one.gradient().sub_(exact.gradient)
    return {
        "loss": loss,
        "loss_error": abs(loss - exact.loss) / abs(exact.loss),
        "gradient_error": float(off.norm() / exact.gradient.norm()),
        "reference": exact.dtype,
    }


def require_right(row: Row, precision: str) -> Row:
    """The row, where its errors are within the limits. Raises InputError where they are not."""
    if not is_right(row, precision):
        raise InputError(
            f"wrong: loss {row['loss']:.4g} is off by {row['loss_error']:.1e} of itself, gradients "
            f"by {row['gradient_error']:.1e} of their norm"
        )
    return row


def is_right(row: Mapping[str, Any], precision: str) -> bool:
    """Whether both errors are within the limits: not where one is NaN."""
    right: bool = (
        row["loss_error"] <= LOSS_LIMIT[precision]
        and row["gradient_error"] <= GRADIENT_LIMIT[precision]
    )
    return right


def check_attention(one: Competitor, clock: Clock, name: str, length: int) -> Row:
    """The errors of a Transformer twin on the first tokens. Raises InputError where it is wrong."""
    short = min(length, CHECKED_ATTENTION)
    inputs, targets = tokens_on(clock.device, 1, short)
    exact = truth(one.model.config, clock, inputs, targets)
    row = errors(one, exact, inputs, targets)
    return require_right(row, precision_of(name)) | {"checked": short}


def check_models(job: Job, clock: Clock, tell: Tell) -> dict[str, Any]:
    """Rows with the errors of a step beside float64, and its seconds; wrong ones have them too."""
    config = config_of(job.shape)
    inputs, targets = tokens_on(clock.device, job.batch, job.length)
    exact = truth(config, clock, inputs, targets)

    def contestant(name: str) -> Contestant:
        one = build(name, config, clock, job.batch, job.length)
        return Contestant(
            lambda: one.step(inputs, targets),
            lambda: errors(one, exact, inputs, targets),
            one.notes,
        )

    rows = race({name: partial(contestant, name) for name in job.contestants}, clock, tell)
    return {"contestants": rows}
