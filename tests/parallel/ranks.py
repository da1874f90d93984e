"""Functions run on several ranks: processes of this machine, joined by gloo."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def on_ranks(count: int, work: Callable[..., Any], folder: Path, *args: Any) -> list[Any]:
    """What `work(rank, count, *args)` returns on each of `count` ranks."""
    mp.spawn(_run, (count, work, folder, args), count)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(count)]


def _run(rank: int, count: int, work: Callable[..., Any], folder: Path, args: Any) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=count
    )
    try:
        torch.save(work(rank, count, *args), folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()
