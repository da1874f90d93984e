"""Memory of a command: a bound on what the process may take, and what it took."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

from hyenadna.cli.units import size
from hyenadna.errors import InputError

if TYPE_CHECKING:
    import torch

    from hyenadna.model.backbone import HyenaDNA


def limit_memory(model: HyenaDNA, max_memory: str | None) -> None:
    """Let the model choose its blocks to fit `max_memory` (such as `4GiB`); None: no bound.

    Raises InputError for a text that is no size.
    """
    if max_memory is None:
        return
    from hyenadna.model.engine.plan import parse_memory

    model.set_engine(max_memory=parse_memory(max_memory))


def fit_batch(
    model: HyenaDNA,
    length: int,
    batch_tokens: int,
    *,
    precision: torch.dtype | None,
    most: int | None = None,
    pass_memory: Callable[[int, int], int | None] | None = None,
) -> tuple[int, int | None]:
    """Tokens of a pass that fit the model's `max_memory`, and the estimated bytes of the process.

    length: of the longest window. batch_tokens: windows are put together up to so many tokens; they
    are halved until a pass fits, down to one window (unchanged without a bound). precision: type
    of the matrix products, which the kernels depend on. most: tokens that there are in all.
    pass_memory: the bytes of a pass over (B, L) tokens where it is more than the model's own, such
    as behind a soft prompt.

    The bytes are None where the pass runs plain modules, which do not heed the bound. Raises
    InputError where one window does not fit.
    """
    import torch

    count = pass_memory or model.pass_memory
    device = model.head_weight.device.type
    while True:
        tokens = max(length, batch_tokens if most is None else min(batch_tokens, most))
        # shorter windows may fill a pass better: count all its tokens
        rows = max(tokens // length, -(-tokens // model.config.max_seq_len))
        try:
            with torch.autocast(device, dtype=precision, enabled=precision is not None):
                return batch_tokens, count(rows, -(-tokens // rows))
        except InputError:
            if tokens == length:
                raise
            batch_tokens = max(length, tokens // 2)


def note_no_effect(console: Console, max_memory: str | None, *, engine: bool) -> None:
    """Say so where a bound was given that the passes do not heed: they run plain modules."""
    if max_memory is not None and not engine:
        console.print(
            "note: --max-memory has no effect here; it works on a CPU, in float32 or bf16, for "
            "hyena models of order 2 without dropout inside the blocks"
        )


def peak_memory() -> int | None:
    """Most bytes that this process has held so far, where the system tells."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_text() -> str:
    """The same for people, to go behind other figures; empty where the system does not tell."""
    peak = peak_memory()
    return "" if peak is None else f", at most {size(peak)} of memory"


@contextmanager
def explain_memory(way_out: str) -> Iterator[None]:
    """Turns the ways of saying that memory ran out into one line with the way out."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if _out_of_memory(error):
            raise InputError(f"not enough memory; {way_out}") from error
        raise


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text
