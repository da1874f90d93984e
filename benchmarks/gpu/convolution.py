"""The gated long convolution: methods of ours and the plain way in torch, in turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from benchmarks.gpu.contestants import TYPES
from benchmarks.gpu.jobs import Job, precision_of
from benchmarks.gpu.race import Contestant, Row, Tell, race
from benchmarks.gpu.roofline import convolution_work, matrix_convolution_work
from benchmarks.gpu.timing import Clock
from torch import Tensor

from hyenadna.conv import gated_long_convolution
from hyenadna.conv.gated import GATED_METHODS
from hyenadna.errors import InputError

LIMIT: Final = {"float32": 1e-4, "bf16": 2e-2, "fp16": 3e-3}
"""Largest error of values, and of each gradient, as a share of their norm."""
CHECKED: Final = 2
"""Sequences and channels of a large case that are compared with float64."""
GATED: Final = ("v", "k", "skip", "before", "after")


@dataclass
class Input:
    """`after * (k conv (before * v) + skip before v)`."""

    v: Tensor  # (B, C, L)
    k: Tensor  # (C, L), float32
    skip: Tensor  # (C,)
    before: Tensor  # (B, C, L)
    after: Tensor  # (B, C, L)

    @classmethod
    def random(
        cls, device: torch.device, batch: int, channels: int, length: int, dtype: torch.dtype
    ) -> Input:
        """Signals of variance 1, and filters that fall as those of a model do."""
        torch.manual_seed(0)

        def signal() -> Tensor:
            return torch.randn(batch, channels, length, device=device, dtype=dtype)

        time = torch.arange(length, device=device) / length
        k = torch.randn(channels, length, device=device) * torch.exp(-5 * time) / length**0.5
        return cls(signal(), k, torch.randn(channels, device=device), signal(), signal())

    def part(self, rows: int, dtype: torch.dtype) -> Input:
        """The first sequences and channels in another type."""
        v, before, after = (t[:rows, :rows].to(dtype) for t in (self.v, self.before, self.after))
        return Input(v, self.k[:rows].to(dtype), self.skip[:rows].to(dtype), before, after)

    def tensors(self) -> list[Tensor]:
        """All five."""
        return [getattr(self, name) for name in GATED]


def ways() -> dict[str, Callable[..., Tensor]]:
    """Functions of the tensors of `Input` by the name of a contestant."""

    def by(method: str) -> Callable[..., Tensor]:
        return lambda v, k, skip, before, after: gated_long_convolution(
            v, k, skip, before=before, after=after, method=method
        )

    return {"plain": plain} | {method: by(method) for method in GATED_METHODS}


def plain(v: Tensor, k: Tensor, skip: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """The plain way in torch: transforms of 2 L in float32 or float64, everything at once."""
    length = v.shape[-1]
    u = (v * before).to(k.dtype)
    spectrum = torch.fft.rfft(u, n=2 * length) * torch.fft.rfft(k, n=2 * length)
    y = torch.fft.irfft(spectrum, n=2 * length)[..., :length]
    return (y + u * skip[:, None]).to(v.dtype) * after


def exact(given: Input) -> Tensor:
    """The values of the first sequences and channels, by the plain way in float64."""
    return plain(*given.part(CHECKED, torch.float64).tensors())


def relative(found: Tensor, wanted: Tensor) -> float:
    """Norm of the difference as a share of that of what is wanted."""
    return float((found.double() - wanted).norm() / wanted.norm())


def measure_forward(job: Job, clock: Clock, tell: Tell) -> dict[str, Any]:
    """Rows of the forward pass of (B, C, L) signals in bf16, without gradients.

    `work` is that of the transforms; a contestant that has none has its own in its row.
    """
    given = Input.random(clock.device, job.batch, job.channels, job.length, torch.bfloat16)
    wanted = exact(given)
    rows = race(
        {name: partial(_forward, name, given, wanted) for name in job.contestants}, clock, tell
    )
    work = convolution_work(job.batch, job.channels, job.length)
    return {"contestants": rows, "work": vars(work)}


def _forward(name: str, given: Input, wanted: Tensor) -> Contestant:
    way = ways()[name]

    @torch.inference_mode()
    def call() -> Tensor:
        return way(*given.tensors())

    def check() -> Row:
        off = relative(call()[:CHECKED, :CHECKED], wanted)
        if not off <= LIMIT["bf16"]:
            raise InputError(f"wrong: values are off by {off:.1e} of their norm")
        return {"value_error": off}

    return Contestant(call, check, _work(name, given))


def _work(method: str, given: Input, *, backward: bool = False) -> Row:
    """What belongs in the row of a method that has its own count."""
    if method != "matrix":
        return {}
    return {"work": vars(matrix_convolution_work(given.v, backward=backward))}


def check_convolution(job: Job, clock: Clock, tell: Tell) -> dict[str, Any]:
    """Rows of forward and backward passes by method and type, with errors beside float64."""
    exact_input = Input.random(clock.device, job.batch, job.channels, job.length, torch.float32)

    def contestant(name: str) -> Contestant:
        method, _, precision = name.partition("+")
        given = _typed(exact_input, TYPES[precision] or torch.float32)
        wanted = forward_and_backward(plain, _typed(given, torch.float64, filters=torch.float64))
        call = partial(forward_and_backward, ways()[method], given)
        notes = _work(method, given, backward=True)
        return Contestant(call, lambda: _errors(call(), wanted, precision_of(name)), notes)

    rows = race({name: partial(contestant, name) for name in job.contestants}, clock, tell)
    return {"contestants": rows}


def _typed(given: Input, dtype: torch.dtype, filters: torch.dtype = torch.float32) -> Input:
    return Input(
        given.v.to(dtype), given.k.to(filters), given.skip.to(filters), given.before.to(dtype),
        given.after.to(dtype),
    )  # fmt: skip


def forward_and_backward(way: Callable[..., Tensor], given: Input) -> list[Tensor]:
    """Values, and the gradients of half the sum of their squares by all five inputs."""
    leaves = [t.detach().requires_grad_() for t in given.tensors()]
    out = way(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, out.detach())]


def _errors(found: list[Tensor], wanted: list[Tensor], precision: str) -> Row:
    off = [relative(one, other) for one, other in zip(found, wanted, strict=True)]
    row: Row = {"value_error": off[0], "gradient_errors": dict(zip(GATED, off[1:], strict=True))}
    if not max(off) <= LIMIT[precision]:
        worst = ["values", *(f"gradient of {name}" for name in GATED)][off.index(max(off))]
        raise InputError(f"wrong: {worst} off by {max(off):.1e} of its norm")
    return row
