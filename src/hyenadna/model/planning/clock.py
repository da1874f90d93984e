"""Time of a step from its work and its traffic: a roofline with stated shares of the peak rates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from hyenadna.model.planning.devices import Device
from hyenadna.model.planning.setup import Setup
from hyenadna.model.planning.traffic import Traffic
from hyenadna.model.planning.work import Work

PRODUCTS_SHARE: Final = 0.5
"""Of a GPU's peak rate, that matrix products of a block reach."""
BANDWIDTH_SHARE: Final = 0.7
"""Of a GPU's bandwidth, that element-wise passes and FFTs reach."""
LINK_SHARE: Final = 0.8
"""Of a link's bandwidth, that exchanges and sums reach."""
LAUNCH: Final = 5e-6
"""Seconds between the starts of two kernels on a GPU."""
MEETING: Final = 30e-6
"""Seconds that a meeting of ranks takes beside its bytes."""


@dataclass(frozen=True)
class Time:
    """Seconds of a step, by what they are spent on."""

    products: float
    transforms: float
    passes: float
    """Element-wise passes and the optimiser."""
    exchanges: float
    """Between the ranks of a sequence; the ranks wait for them."""
    waiting: float
    """For gradients and parameters of other ranks, as far as they take longer than all else."""
    starts: float
    """Of kernels that are too small to hide them."""

    @property
    def total(self) -> float:
        """Seconds of a step."""
        return sum(vars(self).values())

    @property
    def bound(self) -> str:
        """What takes most of it."""
        names = {
            "products": "matrix products", "transforms": "FFTs", "passes": "element-wise passes",
            "exchanges": "exchanges within a sequence", "starts": "starts of small kernels",
            "waiting": "sums of gradients and gathering of parameters",
        }  # fmt: skip
        return names[max(vars(self), key=lambda part: getattr(self, part))]


@dataclass(frozen=True)
class Shares:
    """What of the device's rates a step reaches. slower: measured on a CPU, by length."""

    products: float = PRODUCTS_SHARE
    bandwidth: float = BANDWIDTH_SHARE
    link: float = LINK_SHARE
    slower: Callable[[Setup], float] = field(default=lambda setup: 1.0)


ASSUMED: Final = Shares()
"""For GPUs; nothing of it is measured here."""


def step_time(
    setup: Setup, device: Device, work: Work, traffic: Traffic, shares: Shares = ASSUMED
) -> Time:
    """Seconds of a step of a rank, and so of all."""
    slower = shares.slower(setup)
    bandwidth = device.bandwidth * shares.bandwidth
    products = work.products / (device.products[setup.precision] * shares.products)
    transforms = (
        work.transform_bytes / bandwidth
        if device.transforms is None
        else work.transforms / device.transforms
    )
    passes = work.traffic / bandwidth
    starts = (
        max(0.0, work.launches * LAUNCH - products - transforms - passes) if device.is_gpu else 0.0
    )
    exchanges = _exchange_time(setup, device, traffic, shares.link)
    busy = slower * (products + transforms + passes)
    sums = _sum_time(setup, device, traffic, shares.link)
    return Time(
        products=slower * products,
        transforms=slower * transforms,
        passes=slower * passes,
        exchanges=exchanges,
        waiting=max(0.0, sums - busy),
        starts=starts,
    )


def _exchange_time(setup: Setup, device: Device, traffic: Traffic, share: float) -> float:
    """All to all: what goes to other machines takes the rank's own card, beside the rest."""
    if setup.context == 1 or not device.inside:
        return 0.0
    ranks, inside = setup.context, min(setup.context, device.together)
    sent = traffic.exchanges + traffic.halos
    out = (ranks - inside) / max(ranks - 1, 1)
    slowest = max(sent * (1 - out) / device.inside, sent * out / device.across) / share
    return slowest + traffic.meetings * MEETING


def _sum_time(setup: Setup, device: Device, traffic: Traffic, share: float) -> float:
    """Rings over all ranks: between machines all cards of one work together."""
    if setup.ranks == 1 or not device.inside:
        return 0.0
    rate = device.inside
    if setup.ranks > device.together:
        rate = min(rate, device.across * device.together)
    return (traffic.gradients + traffic.parameters) / (rate * share)
