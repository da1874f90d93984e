"""Whether kernels are right on the GPU at hand: tried once, on a case of the kind that is to come.

Kernels are compiled on the machine of the user, by the Triton that came with torch, for a GPU that
may be newer than both. A compiler that fails or is wrong must not cost a run: torch takes the place
of what does not come out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from hyenadna.conv.cuda_graphs import capturing
from hyenadna.conv.matrix_fft import shape_for

_log = logging.getLogger(__name__)
WORST: Final = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.05}
"""Largest error of a tensor relative to its largest number, by the type of signals or products: far
above rounding (on paper 1e-6, 5e-3 and 1e-2), far below a wrong index."""
LONG: Final = 1 << 20
"""From here on a trial has one channel of one sequence, for the sake of memory; else two of two."""


@dataclass(frozen=True)
class Kind:
    """Lengths alike in this run the same compiled kernels of the matrix convolution."""

    tiles: tuple[int, ...]
    aligned: bool
    dtype: torch.dtype
    device: torch.device
    length: int = field(compare=False)
    """The one that is tried."""

    @classmethod
    def of(cls, length: int, dtype: torch.dtype, device: torch.device) -> Kind:
        """Raises InputError for a length that is too large."""
        shape = shape_for(length, dtype, device)
        tiles = (shape.na, shape.nb, int(shape.outer), shape.outer_tile if shape.outer else 0)
        return cls(tiles, length % 16 == 0, dtype, device, length)

    @property
    def sizes(self) -> tuple[int, int]:
        """Channels and sequences of a trial."""
        return (1, 1) if self.length >= LONG else (2, 2)


def verdict(
    trial: Callable[[], float], limit: float, device: torch.device, what: str
) -> str | None:
    """What is wrong with kernels on this device, of which it warns; None where nothing is.

    trial: gives the largest error. Raises torch.OutOfMemoryError where it finds no room, its error
    where that leaves the GPU unusable, and RuntimeError where a CUDA graph is being captured, which
    may wait for nothing.
    """
    if capturing(device):
        raise RuntimeError("run the model once before a CUDA graph captures it")
    try:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(device.type, enabled=False),
        ):
            worst = trial()
    except torch.OutOfMemoryError:  # says nothing about the kernels
        raise
    except Exception as error:  # whatever a compiler, a driver or a launch raises
        if device.type == "cuda":
            _require_working(device, error)
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0] if lines else ''}"
    else:
        if worst <= limit:
            return None
        reason = f"a trial came out wrong, by {worst:.1g} of the largest number"
    _log.warning("%s are left out on %s, torch takes their place: %s", what, device, reason)
    return reason


def is_right(
    error: Callable[[Kind], float], length: int, dtype: torch.dtype, device: torch.device
) -> bool:
    """Whether the matrix convolution is, at such a length and type of signals: tried once a kind.

    error: largest one of a trial at `Kind.length`, beside cuFFT. Where it finds no room, all is
    taken to be right. Raises as `verdict`, and InputError for a length that is too large.
    """
    try:
        return _why_wrong(error, Kind.of(length, dtype, device)) is None
    except torch.OutOfMemoryError:
        return True


@lru_cache(maxsize=256)
def _why_wrong(error: Callable[[Kind], float], kind: Kind) -> str | None:
    what = "Triton's long convolutions"
    return verdict(lambda: error(kind), WORST[kind.dtype], kind.device, what)


def _require_working(device: torch.device, error: Exception) -> None:
    """Raises the error of a trial after which torch could not take anyone's place either."""
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        raise error from None


def largest_error(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Largest difference relative to the largest number of a tensor; infinite where not finite."""
    return max(_error(a, b) for a, b in zip(found, wanted, strict=True))


def _error(found: Tensor, wanted: Tensor) -> float:
    if not bool(found.isfinite().all()):
        return float("inf")
    return float((found.float() - wanted).abs().max() / wanted.abs().max().clamp_min(1e-6))


def drawn(device: torch.device, seed: int = 0) -> Callable[..., Tensor]:
    """Draws float32 numbers of a shape and scale on a device, the same on every one."""
    generator = torch.Generator("cpu").manual_seed(seed)

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        # types and devices are spelled out: torch may have been given other defaults
        numbers = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
        return (numbers * scale).to(device)

    return draw


def decaying_filters(draw: Callable[..., Tensor], channels: int, length: int) -> Tensor:
    """Filters (c, L) that fall as those of a model do."""
    k = draw(channels, length, scale=length**-0.5)
    t = torch.linspace(0, 1, length, dtype=torch.float32, device=k.device)
    return k * torch.exp(-5 * t)
