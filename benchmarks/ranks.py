"""Ranks of one job, each a process of this machine with one thread, joined by gloo."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def on_ranks(ranks: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `work(rank, ranks, meeting, *arguments)` returns on each rank, through JSON.

    work: a function of a module; meeting: the path that `joined` asks for.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mp.spawn(_tell, (ranks, work, folder, arguments), ranks)
        return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]


def _tell(
    rank: int, ranks: int, work: Callable[..., Any], folder: Path, arguments: tuple[Any, ...]
) -> None:
    result = work(rank, ranks, folder / "meeting", *arguments)
    (folder / f"{rank}.json").write_text(json.dumps(result))


@contextmanager
def joined(rank: int, ranks: int, meeting: Path) -> Iterator[None]:
    """Within the block this process is one rank of the group that meets at that file."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=ranks)
    try:
        yield
    finally:
        dist.destroy_process_group()
