"""What is held at one moment, and constants of the convolution: no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BLOCK_SAMPLES: Final = 1 << 20
"""Samples that a convolution transforms together on a CPU, as `hyenadna.conv.fft` has it."""
DEVICE_BLOCK_SAMPLES: Final = 1 << 28
"""The same on a GPU."""


@dataclass(frozen=True)
class Held:
    """Bytes at one moment, by part; beside weights, their gradients and their moments."""

    kept: float
    """Activations that wait for the backward pass; without one, the residual stream."""
    work: float
    """Temporaries."""
    loss: float = 0.0
    """Logits and what the loss makes of them."""

    @property
    def total(self) -> float:
        """All of it."""
        return self.kept + self.work + self.loss
