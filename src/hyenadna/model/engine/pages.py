"""Large arrays in memory of their own, which goes back to the system when they are dropped.

Through malloc they would not: glibc puts blocks below 32 MiB on its heap, and there torch's aligned
requests do not fit the holes that equal blocks have left (seen with glibc 2.36: 1.2 GiB of holes
after one training step of medium-160k at 30,000 tokens).
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import threading
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

SMALLEST: Final = 16 << 20
"""Bytes from which an array gets pages of its own; below, fresh pages cost more than holes."""
KEPT: Final = 256 << 20
"""Bytes of the largest work space that a thread keeps for its next call."""


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of any content (large ones on a CPU are zero). Raises MemoryError."""
    count = torch.Size(shape).numel()
    size = count * dtype.itemsize
    if device.type != "cpu" or size < SMALLEST or not hasattr(mmap, "MAP_PRIVATE"):
        return torch.empty(tuple(shape), dtype=dtype, device=device)
    try:
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"{size:,} bytes of memory cannot be had ({error.strerror})") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel built without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=dtype, count=count).view(tuple(shape))


def empty_like(like: Tensor, *shape: int) -> Tensor:
    """As `empty`, with the type and device of `like`, and its shape where none is given."""
    return empty(shape or like.shape, like.dtype, like.device)


def copy_of(like: Tensor) -> Tensor:
    """A contiguous copy."""
    return empty_like(like).copy_(like)


class _WorkSpaces(threading.local):
    def __init__(self) -> None:
        self.by_name: dict[str, Tensor] = {}


_work_spaces = _WorkSpaces()


def work_space(name: str, like: Tensor, *shape: int) -> Tensor:
    """An uninitialised tensor for the length of one call; the next of that name may be the same.

    Fresh pages for the projections alone cost a tenth of a training step (tiny-1k, 16 x 1,024), so
    up to `KEPT` bytes are kept.
    """
    count = torch.Size(shape).numel()
    if like.device.type != "cpu" or count * like.element_size() > KEPT:
        return empty_like(like, *shape)
    kept = _work_spaces.by_name
    key = f"{name} {like.dtype}"
    if key not in kept or kept[key].numel() < count:
        kept.pop(key, None)  # first, so that the two are never held together
        with torch.inference_mode(False):
            kept[key] = empty_like(like, count)
    return kept[key][:count].view(shape)


def give_back_heap() -> None:
    """Returns what the heap keeps of freed memory to the system, where it is glibc's.

    A process that keeps freed memory for speed would otherwise count it twice: these pages are not
    taken from the heap.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def release() -> None:
    """Lets go of this thread's larger work spaces, at the end of a pass."""
    kept = _work_spaces.by_name
    for key in [key for key, space in kept.items() if space.nbytes > SMALLEST]:
        del kept[key]


def kept_bytes() -> int:
    """Bytes of the work spaces that this thread keeps."""
    return sum(space.nbytes for space in _work_spaces.by_name.values())
