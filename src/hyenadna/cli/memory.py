"""Memory of a command: a bound on what the model may take, and what the process took."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hyenadna.errors import InputError

if TYPE_CHECKING:
    from hyenadna.model.backbone import HyenaDNA


def limit_memory(model: HyenaDNA, max_memory: str | None) -> None:
    """Let the model choose its blocks to fit `max_memory` (such as `4GiB`); None: no bound.

    Raises InputError for a text that is no size.
    """
    if max_memory is None:
        return
    from hyenadna.model.engine.plan import parse_memory

    model.set_engine(max_memory=parse_memory(max_memory))


def peak_memory() -> int | None:
    """Most bytes that this process has held so far, where the system tells."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def explain_memory(way_out: str) -> Iterator[None]:
    """Turns torch's ways of saying that memory ran out into one line with the way out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error).lower()
        if isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text:
            raise InputError(f"not enough memory; {way_out}") from error
        raise
