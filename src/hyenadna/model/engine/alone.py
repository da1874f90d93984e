"""The state of torch around kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from hyenadna.model.engine.kernels import Kernels


@contextmanager
def alone(kernels: Kernels, device_type: str) -> Iterator[None]:
    """No autocast; and no threads of torch's own where kernels are native.

    The operations between native kernels are small. If torch divided them, its threads would spin
    at the end of each for a core that the kernels' threads need, and beside another busy process
    every such end costs a turn of the scheduler.
    """
    serial = kernels.name == "native"
    with torch.autocast(device_type, enabled=False), one_thread() if serial else nullcontext():
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes on this thread alone: right for many small operations on the CPU."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
