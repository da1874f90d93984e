"""A command as one of the ranks that torchrun has started, at its door."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hyenadna.cli.process import choose_device
from hyenadna.errors import InputError

if TYPE_CHECKING:
    import torch

    from hyenadna.model.parallel.ranks import Ranks

_PR_SET_PDEATHSIG: Final = 1
_LOST: Final = ("by peer", "Broken pipe", "NCCL", "Socket Timeout", "Timed out waiting")


def join_ranks(name: str, context: int = 1) -> tuple[torch.device, Ranks]:
    """The device of this process, and its place among those that torchrun has started, joined.

    name: as for `choose_device`; of GPUs each rank gets its own. context: ranks that one sequence
    lies over. Raises InputError as `choose_device` and `Ranks.join` do.
    """
    import torch

    from hyenadna.model.parallel.ranks import Ranks, started_by_torchrun

    if not started_by_torchrun():
        device = choose_device(name)
        return device, Ranks.join(device, context)
    _end_with_parent()
    if name.startswith("cuda") or (name == "auto" and torch.cuda.is_available()):
        local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= there:
            raise InputError(
                f"torchrun: a rank for GPU {local}, but there are {there} here; give "
                f"--nproc-per-node {there}, or --device cpu"
            )
        torch.cuda.set_device(local)  # before anything lies on another
        name = f"cuda:{local}"
    device = choose_device(name)
    return device, Ranks.join(device, context)


def _end_with_parent() -> bool:
    """Ask the system for SIGTERM when the process that started this one is gone; whether it will.

    torchrun starts ranks in sessions of their own. Killed itself, it would leave them training.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def torchrun_job() -> str | None:
    """A name for this start of torchrun that its restarts share; None without torchrun."""
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    return f"{platform.node()} {os.getppid()}" if name == "none" else name


def goes_on(name: str, context: int, decide: Callable[[], bool]) -> bool:
    """Whether torchrun has started the ranks anew, to go on with what they did before.

    name, context: as for `join_ranks`. decide: whether there is something of this start of torchrun
    to go on with; the first rank is asked, for all: the ranks of a new node are not started anew,
    and may see other files.
    """
    if torchrun_job() is None:
        return False
    device, ranks = join_ranks(name, context)
    again = ranks.any(int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0, device)
    return ranks.from_first(again and ranks.first and decide())


def text_of(path: Path) -> str | None:
    """The text of a small file; None where there is none that can be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def several(ranks: Ranks | None) -> str:
    """For a sentence: ` on N ranks`, or nothing for a process alone."""
    return f" on {ranks.count} ranks" if ranks and ranks.together else ""


def require_one_process(command: str, others: Sequence[str]) -> None:
    """Refuses several ranks for a command that each of them would do by itself.

    others: commands that they do together.
    """
    count = int(os.environ.get("WORLD_SIZE", "1")) if torchrun_job() else 1
    if count > 1:
        raise InputError(
            f"{command}: runs in one process, torchrun has started {count}; "
            f"torchrun is for {', '.join(others)}"
        )


def of_other_rank(error: RuntimeError) -> bool:
    """Whether a rank failed because it can no longer reach the others."""
    return torchrun_job() is not None and any(each in str(error) for each in _LOST)


def rank_text() -> str:
    """Which rank speaks, for a line on standard error; nothing for the first, or one alone."""
    rank = os.environ.get("RANK", "0") if torchrun_job() else "0"
    return "" if rank == "0" else f" (rank {rank})"
