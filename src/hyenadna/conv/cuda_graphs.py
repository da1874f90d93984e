"""What a CUDA graph reads must stay where it was when the graph was captured."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

_READ: Final[list[Tensor]] = []


def capturing(device: torch.device) -> bool:
    """Whether work on this device is being captured in a CUDA graph."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def keep_for_graphs(*tables: Tensor) -> None:
    """Keeps tables of a cache for good where a CUDA graph is being captured that will read them.

    A cache may drop them for those of other lengths, and torch would give their memory to the next
    tensor that comes.
    """
    if capturing(tables[0].device):
        _READ.extend(t for t in tables if not any(t is other for other in _READ))
