"""A plan: memory, time and price of a setup on a device; what to change where it does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Final

from hyenadna.errors import InputError
from hyenadna.model.planning.clock import ASSUMED, Shares, Time, step_time
from hyenadna.model.planning.devices import Device
from hyenadna.model.planning.parts import Memory, memory
from hyenadna.model.planning.setup import Setup
from hyenadna.model.planning.traffic import Traffic, traffic
from hyenadna.model.planning.work import Work, work

HUMAN: Final = 3.1e9
"""Bases of a human genome (GRCh38), for one pass."""
PAPER: Final = 2e12
"""Bases that the paper's model of a million was trained on (arXiv 2306.15794, appendix A.1)."""


@dataclass(frozen=True)
class Forecast:
    """What a setup takes on a device."""

    setup: Setup
    device: Device
    memory: Memory
    work: Work
    traffic: Traffic
    time: Time

    @property
    def fits(self) -> bool:
        """Whether a rank's memory does; on a CPU, that of all ranks, which share it."""
        return self.needed <= self.device.memory

    @property
    def needed(self) -> float:
        """Bytes of a device: of one rank, on a CPU of all."""
        return self.memory.total * (1 if self.device.is_gpu else self.setup.ranks)

    @property
    def tokens_per_second(self) -> float:
        """Of all ranks together; rows that fill up a step do not count."""
        return self.setup.batch * self.setup.length / self.time.total

    def days(self, bases: float) -> float:
        """Days for so many bases."""
        return bases / self.tokens_per_second / 86400

    def price(self, bases: float, per_hour: float | None = None) -> float | None:
        """Dollars for so many bases. per_hour: of one device; that of the device when left out."""
        rate = self.device.price if per_hour is None else per_hour
        return None if rate is None else self.days(bases) * 24 * self.setup.ranks * rate

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        setup = {k: v for k, v in vars(self.setup).items() if k != "config"}
        return {
            "model": {
                **self.setup.config.to_dict(),
                "parameters": self.setup.config.num_parameters(),
            },
            "setup": setup,
            "device": {**vars(self.device), "products": dict(self.device.products)},
            "memory": {**asdict(self.memory), "total": self.memory.total},
            "fits": self.fits,
            "work": asdict(self.work),
            "sent": asdict(self.traffic),
            "seconds": {**asdict(self.time), "total": self.time.total},
            "bound_by": self.time.bound,
            "tokens_per_second": self.tokens_per_second,
        }


def forecast(setup: Setup, device: Device, shares: Shares = ASSUMED) -> Forecast:
    """What the setup takes on the device."""
    todo, told = work(setup), traffic(setup)
    held = memory(setup, device.memory)
    return Forecast(setup, device, held, todo, told, step_time(setup, device, todo, told, shares))


@dataclass(frozen=True)
class Change:
    """Flags that make a setup fit, and what it takes then."""

    flags: str
    outlook: Forecast


def smallest_change(found: Forecast, shares: Shares = ASSUMED) -> Change | None:
    """The least that makes a setup fit; None where nothing that is tried does.

    The fewest ranks; with as many, the fewest changes of at most three; and then in the order of
    what they cost: fewer sequences at once, FSDP, bf16, checkpointing, more context ranks.
    """
    single = list(_changes(found.setup))
    fitting = []
    for count in (1, 2, 3):
        for chosen in combinations(single, count):
            change = _changed(found, chosen, shares)
            if change is not None:
                fitting.append((change.outlook.setup.ranks, count, change))
    return min(fitting, key=lambda each: each[:2], default=(0, 0, None))[2]


def _changed(
    found: Forecast, chosen: Sequence[tuple[str, str, dict[str, Any]]], shares: Shares
) -> Change | None:
    """What becomes of some single changes together; None where that is not possible or no help."""
    if len({kind for kind, _, _ in chosen}) < len(chosen):
        return None
    fields = {key: value for _, _, change in chosen for key, value in change.items()}
    try:
        other = forecast(found.setup.change(**fields), found.device, shares)
    except InputError:
        return None
    return Change(" ".join(flag for _, flag, _ in chosen), other) if other.fits else None


def _changes(setup: Setup) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Single changes: their kind, their flag and the fields that they change."""
    rows = setup.rows_at_once
    while rows > 1:
        rows //= 2
        yield "rows", f"--at-once {rows}", {"at_once": rows}
    if setup.rows_at_once == 1 < setup.batch and setup.at_once is None:  # for fewer groups
        yield "rows", "--at-once 1", {"at_once": 1}
    if setup.ranks > 1 and not setup.fsdp:
        yield "fsdp", "--fsdp", {"fsdp": True}
    if not setup.half and (setup.gpu or not setup.engine):
        yield "precision", "--precision bf16", {"precision": "bf16"}
    if setup.training and not setup.recomputes:
        yield "checkpointing", "--gradient-checkpointing", {"checkpointing": True}
    for context in range(setup.context + 1, setup.ranks + 1):
        if setup.ranks % context == 0:
            yield "context", f"--context-ranks {context}", {"context": context}
    for times in (2, 4, 8, 16, 32, 64, 128):
        if setup.gpu and setup.config.mixer == "hyena":
            ranks = times * setup.ranks
            yield (
                "context",
                f"--ranks {ranks} --context-ranks {ranks}",
                {"ranks": ranks, "context": ranks},
            )
