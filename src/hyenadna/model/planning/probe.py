"""How fast this machine is: rates of torch, and steps of a small twin by the code that runs."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.likelihood import target_nats
from hyenadna.model.planning.clock import Shares, step_time
from hyenadna.model.planning.devices import Device
from hyenadna.model.planning.setup import Setup
from hyenadna.model.planning.traffic import Traffic
from hyenadna.model.planning.work import fft_operations, work

_TOKENS: Final = 8192
"""Positions of a probed step, where its sequences are not longer."""
_LENGTHS: Final = (1024, 16384, 65536)
_LONG: Final = 65536
"""From here on a training step is timed once, and not made before."""
_REPEATS: Final = 2
_AUTOCAST: Final = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_NOTHING: Final = Traffic(0.0, 0.0, 0.0, 0.0, 0.0)


def probe(setup: Setup, memory: float) -> tuple[Device, Shares]:
    """This machine as a device, and by what factor a step is slower than its roofline.

    Takes some seconds: matrix products, FFTs and copies by torch, then steps of a model of one
    block of the setup's width at lengths up to its own. memory: bytes that there are for a run.
    """
    device = Device(
        name="cpu",
        memory=memory,
        products=dict.fromkeys(_AUTOCAST, _product_rate()),
        transforms=_transform_rate(),
        bandwidth=_copy_rate(),
        together=1,
    )
    return device, Shares(products=1.0, bandwidth=1.0, slower=_slower(setup, device))


@dataclass(frozen=True)
class _Slower:
    """The factor by length, straight between those probed over the logarithm of the length."""

    lengths: tuple[int, ...]
    factors: tuple[float, ...]

    def __call__(self, setup: Setup) -> float:
        at = math.log(min(max(setup.length, self.lengths[0]), self.lengths[-1]))
        for i in range(len(self.lengths) - 1):
            low, high = math.log(self.lengths[i]), math.log(self.lengths[i + 1])
            if at <= high:
                share = (at - low) / (high - low)
                return self.factors[i] * (1 - share) + self.factors[i + 1] * share
        return self.factors[-1]


def _slower(setup: Setup, device: Device) -> _Slower:
    ideal = Shares(products=1.0, bandwidth=1.0)
    lengths = _probed_lengths(setup.length)
    factors = []
    for length in lengths:
        rows = max(1, min(_TOKENS // length, setup.rows_at_once * setup.length // length))
        config = setup.config.replace(n_layer=1, max_seq_len=max(length, 2))
        one = setup.change(
            config=config, length=length, batch=rows, at_once=None, ranks=1, context=1, fsdp=False
        )
        wanted = step_time(one, device, work(one), _NOTHING, ideal).total
        once = setup.training and length >= _LONG
        factors.append(step_seconds(one, 0 if once else _REPEATS) / wanted)
    return _Slower(tuple(lengths), tuple(factors))


def _probed_lengths(length: int) -> Sequence[int]:
    """Shorter ones of `_LENGTHS`, and the length itself where it is not longer than the second."""
    shorter = [n for n in _LENGTHS if n <= length]
    return [*shorter, length] if length < _LENGTHS[1] and length not in shorter else shorter


def step_seconds(setup: Setup, repeats: int) -> float:
    """Seconds of a step or pass of the setup's model with fresh weights, on one rank.

    The median of so many after a first one; of the first one where there are none.

    Of processor time where torch has one thread, so that other work on the machine does not count.
    """
    model = HyenaDNA(setup.config).train(setup.training)
    if setup.plain:
        model.set_engine("plain")
    model.set_checkpointing(mixer=setup.checkpointing, mlp=setup.checkpointing)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, fused=True) if setup.training else None
    rows = torch.randint(7, 11, (setup.rows_at_once, setup.length))

    def step() -> None:
        with _autocast(setup):
            nats = target_nats(model, rows, rows)
        if optimizer is None:
            return
        nats.mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    with torch.inference_mode(not setup.training):
        return statistics.median(_timed(step, clock, repeats))


def _autocast(setup: Setup) -> AbstractContextManager[None]:
    dtype = _AUTOCAST[setup.precision]
    return torch.autocast("cpu", dtype=dtype, enabled=dtype is not None)


def _timed(call: Callable[[], object], clock: Callable[[], float], repeats: int) -> list[float]:
    seconds = []
    for _ in range(repeats + 1):
        begun = clock()
        call()
        seconds.append(clock() - begun)
    return seconds[1:] or seconds


def _rate(count: float, call: Callable[[], object]) -> float:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    with torch.inference_mode():
        return count / max(min(_timed(call, clock, 3)), 1e-9)


def _product_rate() -> float:
    rows, weight = torch.randn(1024, 512), torch.randn(1024, 512)
    return _rate(2.0 * 1024 * 512 * 1024, lambda: torch.nn.functional.linear(rows, weight))


def _transform_rate() -> float:
    signals = torch.randn(64, 1 << 15)
    return _rate(64 * fft_operations(1 << 15), lambda: torch.fft.rfft(signals))


def _copy_rate() -> float:
    source = torch.randn(1 << 25)
    target = torch.empty_like(source)

    def copy() -> Tensor:
        return target.copy_(source)

    return _rate(2.0 * 4 * len(source), copy)
