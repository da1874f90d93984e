"""Seconds and peak memory of calls on a device."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch


class Clock:
    """CUDA events on a GPU; the wall clock on a CPU. hurry: two samples do, for a trial."""

    def __init__(self, device: torch.device, *, hurry: bool = False) -> None:
        self.device, self.hurry = device, hurry
        self.gpu = device.type == "cuda"

    def seconds(self, call: Callable[[], object], repeats: int = 1) -> float:
        """Seconds of a call: the mean of so many, one after the other."""
        if not self.gpu:
            start = time.perf_counter()
            for _ in range(repeats):
                call()
            return (time.perf_counter() - start) / repeats
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        for _ in range(repeats):
            call()
        end.record()
        torch.cuda.synchronize()
        milliseconds: float = begin.elapsed_time(end)
        return milliseconds / 1e3 / repeats

    @property
    def memory(self) -> float:
        """Bytes of the GPU's memory; a CPU is never short of it here."""
        return torch.cuda.get_device_properties(self.device).total_memory if self.gpu else math.inf

    def allocated(self) -> int:
        """Bytes of tensors now; 0 on a CPU, which does not count them."""
        return torch.cuda.memory_allocated() if self.gpu else 0

    def peak(self, call: Callable[[], object]) -> tuple[int | None, float]:
        """Most bytes of tensors during a call, None on a CPU, and its seconds."""
        if not self.gpu:
            return None, self.seconds(call)
        torch.cuda.reset_peak_memory_stats()
        seconds = self.seconds(call)
        return torch.cuda.max_memory_allocated(), seconds

    def clean(self) -> None:
        """Gives back all memory of the GPU that no tensor holds."""
        if self.gpu:
            gc.collect()
            torch.cuda.empty_cache()


def host(device: torch.device) -> dict[str, Any]:
    """The accelerator that figures come from."""
    found: dict[str, Any] = {"device": "cpu", "triton": triton_version()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "device": properties.name,
            "memory": properties.total_memory,
            "processors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
            "driver": _driver(),
        }
    return found


def triton_version() -> str | None:
    """The version of triton, where it is installed."""
    try:
        return version("triton")
    except PackageNotFoundError:
        return None


def _driver() -> str | None:
    """As the driver tells it, from the kernel's files; None where there are none."""
    try:
        words = Path("/proc/driver/nvidia/version").read_text().split()
    except OSError:
        return None
    return next((w for w in words if w[:1].isdigit() and w.count(".") == 2), None)
