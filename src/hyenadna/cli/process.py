"""Process-wide settings for speed, made at the door of a command, before torch is loaded."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hyenadna.errors import InputError

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from hyenadna.config import ModelConfig

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8


def prepare_process(*, spare_memory: bool = False) -> None:
    """Make this process a good neighbour and a fast one; call before torch is imported.

    spare_memory: give freed memory back at once, which is slower, in place of keeping it.
    """
    yield_idle_threads()
    if spare_memory:
        return_freed_memory()
    else:
        reuse_freed_memory()


def yield_idle_threads() -> None:
    """Let OpenMP threads sleep while they wait, unless the user has said otherwise.

    By default they spin, and beside another busy process each barrier lasts until the scheduler
    takes the core away from a spinning thread; and they spin for the cores that native kernels
    work on. Figures and command: docs/decisions/process-settings.md.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def reuse_freed_memory() -> bool:
    """Tell glibc to keep freed memory instead of giving it back; returns whether it did.

    A training step allocates and frees the same large buffers again and again; by default glibc
    maps each of them anew. Native kernels, which reuse their own, gain 3 %; see
    docs/decisions/process-settings.md.
    """
    return _tell_allocator({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1})


def return_freed_memory() -> bool:
    """Tell glibc to give freed buffers back at once; returns whether it did.

    Left alone it keeps what lies between buffers of many sizes: a rank of four that read 262,144
    bases together held three times what its tensors need (benchmarks/context_parallel.py).
    """
    return _tell_allocator({_M_MMAP_THRESHOLD: 1 << 16, _M_ARENA_MAX: 1})


def _tell_allocator(options: dict[int, int]) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL(None)
        return all(libc.mallopt(option, value) for option, value in options.items())
    except (OSError, AttributeError):  # no glibc
        return False


def set_threads(threads: int | None, *, spare_memory: bool = False) -> None:
    """Let torch use so many CPU threads; None leaves it at all cores. Raises InputError below 1.

    spare_memory: as `prepare_process` was told.
    """
    if threads is None:
        return
    if threads < 1:
        raise InputError(f"--threads is {threads}; it must be at least 1")
    prepare_process(spare_memory=spare_memory)
    import torch

    torch.set_num_threads(threads)


def announce_native(console: Console, config: ModelConfig) -> None:
    """Say so when this command will be the first to compile the native kernels.

    config: of the model; there are none for some shapes.
    """
    from hyenadna.model.engine.sizes import native_fits
    from hyenadna.native import must_compile

    if native_fits(config) and must_compile():
        console.print("note: compiling the native kernels; once, some seconds")


def announce_slow_bf16(console: Console, precision: str, device: torch.device) -> None:
    """Say so when bf16 was asked for on a processor that has no products of it."""
    if precision != "bf16" or device.type != "cpu":
        return
    from hyenadna.model.engine.native_kernels import lacks_bf16

    if lacks_bf16():
        console.print("note: this processor has no bf16 products; --precision float32 is faster")


def choose_device(name: str) -> torch.device:
    """The torch device of that name; `auto` is a GPU where there is one. Raises InputError."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise InputError(f"--device {name}: only cpu and cuda are supported")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: {str(error).splitlines()[0]}") from error
    return device


def available_memory() -> int | None:
    """Bytes of memory that programs can still take, where the system tells."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in text.splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in fields else None


def most_loaded() -> int | None:
    """Bases of a genome that may be loaded: half of the memory there is, None if it is unknown."""
    free = available_memory()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # ranks of torchrun on this machine
    return None if free is None else free // 2 // here
