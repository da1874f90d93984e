"""Contestants in turns in one process, each checked before its time counts.

What goes wrong with one is its result, and the others go on: no room, no such kernels, a wrong
value. Only after an error that leaves the GPU unusable nothing can go on in this process.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from benchmarks.gpu.timing import Clock

from hyenadna.errors import InputError

SAMPLE_SECONDS: Final = 0.01
"""A sample lasts at least about this long: shorter calls are repeated inside it."""
RACE_SECONDS: Final = 2.0
"""Of samples for each contestant, as far as five of them allow."""
LONG, TOO_LONG = 1.0, 5.0
"""Seconds of a call from which on three samples do, and from which on the first one does."""

MOST_TOGETHER: Final = 0.6
"""Share of the memory that all contestants together may take for their turns to alternate."""

Row = dict[str, Any]
Tell = Callable[[str], None]


class Broken(Exception):
    """The GPU cannot be used any more in this process."""


@dataclass
class Contestant:
    """One way to do the job."""

    call: Callable[[], object]
    """What is timed."""
    check: Callable[[], Row]
    """Figures that say how right it is. Raises InputError where it is wrong."""
    notes: Row = field(default_factory=dict)
    """What else belongs in its row."""


def race(
    builders: Mapping[str, Callable[[], Contestant]], clock: Clock, tell: Tell
) -> dict[str, Row]:
    """A row for each: `seconds` of the samples, `peak` bytes, figures of the check; or `error`.

    `alone`: where memory is too small for turns, so that one came after the other.

    tell: is told the name of the contestant that runs, before it does: if the process dies, that
    one did it. Raises Broken.
    """
    rows: dict[str, Row] = {}
    running: dict[str, Contestant] = {}
    clock.clean()
    for name, build in builders.items():
        rows[name] = {}
        tell(name)
        before = clock.allocated()
        one: Contestant | None = None
        with caught(rows[name], clock):
            one = build()
            rows[name] |= one.notes | one.check()
            peak, seconds = clock.peak(one.call)
            rows[name]["peak"] = None if peak is None else peak - before
            if seconds > TOO_LONG:
                rows[name]["seconds"] = [seconds]
            else:
                running[name] = one
        del one
        clock.clean()
    peaks = [rows[name]["peak"] or 0 for name in running]
    if sum(peaks) <= MOST_TOGETHER * clock.memory:
        _take_turns(running, rows, clock, tell)
        return rows
    # Together they would make the allocator give back and ask for memory while the clock runs.
    for name, one in running.items():
        clock.clean()
        rows[name]["alone"] = True
        _take_turns({name: one}, rows, clock, tell)
    return rows


def _take_turns(
    running: dict[str, Contestant], rows: dict[str, Row], clock: Clock, tell: Tell
) -> None:
    counts: dict[str, tuple[int, int]] = {}
    for name, one in running.items():
        tell(name)
        with caught(rows[name], clock):
            warm = clock.seconds(one.call)
            counts[name] = (2, 1) if clock.hurry else samples(warm)
            rows[name]["seconds"] = []
    turns = max((count for count, _ in counts.values()), default=0)
    for turn in range(turns):
        for name, (count, repeats) in counts.items():
            if turn < count and "error" not in rows[name]:
                tell(name)
                with caught(rows[name], clock):
                    rows[name]["seconds"].append(clock.seconds(running[name].call, repeats))


def samples(seconds: float) -> tuple[int, int]:
    """How many samples of how many calls to take of a call that lasts so long."""
    if seconds > LONG:
        return 3, 1
    repeats = max(1, round(SAMPLE_SECONDS / max(seconds, 1e-6)))
    return min(25, max(5, int(RACE_SECONDS / (seconds * repeats)))), repeats


@contextmanager
def caught(row: Row, clock: Clock) -> Iterator[None]:
    """An exception of the block becomes `row["error"]`, one line. Raises Broken."""
    try:
        yield
        return
    except Broken:
        raise
    except Exception as error:
        message = one_line(error)
        traceback.clear_frames(error.__traceback__)  # they hold tensors
    row.pop("seconds", None)
    row["error"] = message
    try:
        clock.clean()  # a GPU that is full is not one that is broken
    except RuntimeError:
        raise Broken(message) from None
    if not still_works(clock):
        raise Broken(message)


def one_line(error: BaseException) -> str:
    """What went wrong, in a line for the page."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    if isinstance(error, InputError):
        return text
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text:
        return "does not fit"
    return f"{type(error).__name__}: {text}"[:300]


def still_works(clock: Clock) -> bool:
    """Whether the GPU can be used: not after an access outside of its memory, say."""
    try:
        return torch.zeros(1, device=clock.device).add_(1).item() == 1
    except RuntimeError:
        return False
