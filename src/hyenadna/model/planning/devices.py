"""Devices that a plan can be made for: what they hold and how fast they are.

Public figures: NVIDIA's data sheets of the SXM modules (nvidia.com/en-us/data-center/h100, /h200
and /a100; peak rates without sparsity) and of the DGX systems, for links: eight GPUs a machine,
NVLink in one direction (half of the 900 or 600 GB/s that the sheets give for both), and one network
card for each GPU: 400 Gb/s InfiniBand (DGX H100, H200), 200 Gb/s (DGX A100).

Prices are not facts of a device: they are the middle of what specialised clouds asked for on demand
in May 2026 (mercatus-ai.com/blog/cloud-gpu-pricing, read in 2026: A100 1.10 to 1.50, H100 2.50 to
3.50, H200 3.50 to 4.50 dollars an hour). Large clouds ask more; give your own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hyenadna.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Device:
    """One device: memory in bytes, rates in operations or bytes a second.

    What of the peak rates a step reaches is an assumption for GPUs (`ASSUMED` of
    `hyenadna.model.planning.clock`), and measured for `cpu` (`hyenadna.model.planning.probe`).
    """

    name: str
    memory: float
    products: Mapping[str, float]
    """Matrix products by precision. float32: without TF32, as torch has it by default."""
    bandwidth: float
    """Of its memory."""
    transforms: float | None = None
    """FFTs; where left out, they are bound by the bandwidth."""
    inside: float = 0.0
    """What one device sends to others of its machine."""
    across: float = 0.0
    """What one device sends to other machines."""
    together: int = 8
    """Devices of a machine."""
    price: float | None = None
    """Dollars an hour of one device: an assumption, see the module."""

    @property
    def is_gpu(self) -> bool:
        """Whether it is a GPU."""
        return self.name != "cpu"


DEVICES: Final[Mapping[str, Device]] = {
    "h100": Device(
        name="h100", memory=80e9, bandwidth=3.35e12, inside=450e9, across=50e9, price=3.0,
        products={"bf16": 989e12, "fp16": 989e12, "float32": 67e12},
    ),
    "h200": Device(
        name="h200", memory=141e9, bandwidth=4.8e12, inside=450e9, across=50e9, price=4.0,
        products={"bf16": 989e12, "fp16": 989e12, "float32": 67e12},
    ),
    "a100": Device(
        name="a100", memory=80e9, bandwidth=2.039e12, inside=300e9, across=25e9, price=1.3,
        products={"bf16": 312e12, "fp16": 312e12, "float32": 19.5e12},
    ),
}  # fmt: skip


def device(name: str) -> Device:
    """The GPU of that name. Raises InputError for another, naming those that there are."""
    if name not in DEVICES:
        raise InputError(f"--device {name}: a plan knows cpu, {', '.join(DEVICES)}")
    return DEVICES[name]
