"""Sizes of blocks and what is kept, chosen from a memory budget (no torch)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from hyenadna.errors import InputError
from hyenadna.model.engine.sizes import RESERVE_BYTES, Workload

BLOCK_BYTES: Final = 256 << 20
"""Buffers of a block of channels without a budget."""
MOST_BLOCK_BYTES: Final = 1 << 30
"""The same with a budget: larger blocks gain nothing."""
CACHE_BYTES: Final = 288 << 20
"""Most that the filters' spectra of one model may take between passes (small-32k at its full
length takes 256 MiB)."""
KEEP_BYTES: Final = 1 << 30
"""Without a budget, mixed signals up to this are kept for the backward pass."""
_SMALLEST_GPU_BLOCK: Final = 256 << 20
GPU_SHARE: Final = 0.92
"""Of a GPU's memory that tensors may take: the rest is CUDA's and the allocator's."""
SMALL_PASS: Final = 16
"""A pass of less than one part in so many of a GPU's memory is not compared with what is free."""
_MARGIN: Final = 1.02  # what the allocator keeps beyond the buffers

_UNITS: Final = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip


def parse_memory(text: str | int) -> int:
    """Bytes of a size such as `4GiB`, `500 MB` or a number of bytes.

    Units: B, KB, MB, GB, TB (powers of 1000) and KiB, MiB, GiB, TiB (of 1024). Raises InputError
    for anything else, and for less than one byte.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", str(text))
    unit = _UNITS.get(match[2].lower()) if match else None
    count = int(float(match[1]) * unit) if match and unit else 0
    if isinstance(text, bool) or count < 1:
        raise InputError(f"max_memory is {text!r}; give bytes or a size such as 4GiB or 500MB")
    return count


@dataclass(frozen=True)
class Rooms:
    """Most bytes that a pass takes of a memory where no budget is given."""

    block: int
    """Buffers of a block of channels, with a budget as well."""
    cache: int
    """Spectra between passes."""
    keep: int
    """Mixed signals that are kept for the backward pass."""


def gpu_rooms(total: int) -> Rooms:
    """Rooms in a GPU's memory of so many bytes.

    There a block is not cut to fit a cache, and every further one reads the whole stream again: at
    a twelfth of an H200 the 256 channels of large-1m are one block at a million tokens.
    """
    return Rooms(max(_SMALLEST_GPU_BLOCK, total // 12), total // 6, total // 4)


@dataclass(frozen=True)
class Plan:
    """How one pass is cut into pieces."""

    channels: int
    """Channels of a block."""
    keep_mixed: bool
    """Training: keep the mixed signals y of all blocks, so that they are not computed again."""
    cache_bytes: int
    """Room for spectra between passes; 0 keeps none."""
    total_bytes: int
    """Estimated bytes of all buffers, without what the process holds already."""

    def blocks(self, d_model: int) -> Iterator[slice]:
        """Blocks of channels that cover all of them."""
        for start in range(0, d_model, self.channels):
            yield slice(start, min(start + self.channels, d_model))


def make_plan(
    work: Workload,
    *,
    step: int = 1,
    max_memory: int | None = None,
    resident: int = 0,
    rooms: Rooms | None = None,
) -> Plan:
    """The plan for a pass, within `max_memory` bytes for the whole process where it is given.

    step: blocks are multiples of so many channels. resident: bytes that the process holds before
    the pass, of nothing that the pass itself allocates. rooms: of a GPU; a CPU's when left out.
    Raises InputError where the budget is too small, with what would do.
    """
    most_block = MOST_BLOCK_BYTES if rooms is None else rooms.block
    rooms = rooms or Rooms(BLOCK_BYTES, CACHE_BYTES, KEEP_BYTES)
    fixed = int(_MARGIN * work.fixed())
    smallest = work.block(min(step, work.config.d_model))
    room = rooms.block if max_memory is None else max_memory - resident - RESERVE_BYTES - fixed
    if max_memory is not None and room < smallest:
        raise _too_little(work, step, max_memory, resident)
    channels = _even_blocks(work, step, min(room, most_block))
    used = work.block(channels)
    kept = work.config.n_layer * work.mixed if work.training and not work.offload else 0
    if max_memory is None:
        keep = 0 < kept <= rooms.keep
        cached = work.spectra <= rooms.cache
    else:
        keep = 0 < kept <= room - used
        used += kept if keep else 0
        cached = work.spectra <= min(rooms.cache, room - used)
    cache = work.spectra if cached else 0
    # the spectrum of a block in work is one of the cache's
    spectra = max(0, cache - work.spectrum(channels))
    total = fixed + work.block(channels) + (kept if keep else 0) + spectra
    return Plan(channels, keep, cache, total)


def gpu_plan(work: Workload, total: int, taken: int, *, step: int = 1) -> Plan:
    """The plan without a budget for a GPU of `total` bytes, of which others have `taken`.

    Where it does not fit, no spectra are kept between passes, then no mixed signals, then blocks
    are smaller, down to 256 MiB; that is the plan also where it does not fit either.
    """
    rooms, room = gpu_rooms(total), int(GPU_SHARE * total) - taken
    left = max(_SMALLEST_GPU_BLOCK, room - int(_MARGIN * work.fixed()))
    plan = make_plan(work, step=step, rooms=rooms)
    for smaller in (
        replace(rooms, cache=0),
        replace(rooms, cache=0, keep=0),
        Rooms(min(rooms.block, left), 0, 0),
    ):
        if plan.total_bytes <= room:
            break
        plan = make_plan(work, step=step, rooms=smaller)
    return plan


def _even_blocks(work: Workload, step: int, room: int) -> int:
    """Channels of a block: as few blocks as the room allows, all of about one size."""
    d_model = work.config.d_model
    most = min(d_model, max(step, room // work.block(1) // step * step))
    count = -(-d_model // most)
    return min(d_model, -(-d_model // (count * step)) * step)


def _too_little(work: Workload, step: int, max_memory: int, resident: int) -> InputError:
    def need(w: Workload) -> int:
        return (
            resident
            + RESERVE_BYTES
            + int(_MARGIN * w.fixed())
            + w.block(min(step, w.config.d_model))
        )

    low, high = 0, work.length * work.batch
    while low < high:
        middle = (low + high + 1) // 2
        fits = need(replace(work, batch=1, length=middle)) <= max_memory
        low, high = (middle, high) if fits else (low, middle - 1)
    what = "training on" if work.training else "reading"
    way = f"it is enough for 1 x {low:,}" if low else "it is too little for any length"
    return InputError(
        f"max_memory is {_size(max_memory)}, but {what} {work.batch:,} x {work.length:,} tokens "
        f"with this model takes at least {_size(need(work))}, {_size(resident)} of it the process "
        f"itself; {way}"
    )


def _size(count: float) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
