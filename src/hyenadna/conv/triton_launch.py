"""How Triton kernels are started, and whether they can be here at all."""

from __future__ import annotations

import importlib.util
import os
from functools import lru_cache
from typing import Any, Final

import torch
from torch import Tensor

PARTIALS: Final = 1024
"""Programs at most that sum over positions, each into a row of its own that is added up after."""
_TILE: Final = 4096  # numbers of each array that four warps hold


def why_no_triton(device: torch.device | None = None) -> str | None:
    """What keeps Triton kernels from tensors of this device; None where nothing does.

    device: any when left out.
    """
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed (it comes with CUDA builds of torch on Linux)"
    reason = _why_no_import()
    if reason is not None:
        return reason
    if device is None or os.environ.get("TRITON_INTERPRET") == "1":  # slow, anywhere, for tests
        return None
    if device.type != "cuda":
        return f"they need an NVIDIA GPU, not {device.type}"
    if torch.version.hip is not None:
        return "they are for NVIDIA GPUs, this one is AMD's"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "they need an NVIDIA GPU of compute capability 8.0 or later"
    return None


@lru_cache(maxsize=1)  # an import that fails begins anew at every pass
def _why_no_import() -> str | None:
    try:
        importlib.import_module("triton.language")
    except Exception as error:  # whatever a broken installation raises
        return f"triton cannot be imported ({type(error).__name__}: {error})"
    return None


def launch(kernel: Any, grid: tuple[int, ...], like: Tensor, *args: Any, **meta: Any) -> None:
    """Starts a kernel on the device of `like`, whichever torch thinks is the current one."""
    if like.is_cuda and like.device.index != torch.cuda.current_device():
        with torch.cuda.device(like.device):
            kernel[grid](*args, **meta)
    else:
        kernel[grid](*args, **meta)


def at_least(n: int, least: int = 1) -> int:
    """The smallest power of two that is neither below n nor below `least`."""
    return max(least, 1 << max(n - 1, 0).bit_length())


def tile(width: int, numbers: int = _TILE // 2) -> dict[str, int]:
    """Rows, columns and warps of a program that holds whole rows, about so many numbers in all."""
    block = at_least(width)
    rows = max(1, numbers // block)
    return {"R": rows, "BLOCK": block, "num_warps": 4 if rows * block <= _TILE else 8}


def programs_and_steps(tiles: int, most: int = PARTIALS) -> tuple[int, int]:
    """How many programs go through so many tiles, and how many each takes at most.

    The steps are a power of two: kernels are compiled for each number of them. (Triton 3.6's
    interpreter has no loops to a bound that is not known to the compiler with numpy 2.4.)
    """
    steps = at_least(-(-tiles // most))
    return -(-tiles // steps), steps
