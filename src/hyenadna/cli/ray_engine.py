"""All shards of a run as tasks of a Ray cluster, and their merge.

Ray places the tasks, and starts one again whose worker or machine is lost. What a task does is what
`--shard i/n --resume` does in a process of its own: so a task that was started twice finds the
results of the first, complete or not, and a shard is there once or not at all.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hyenadna.cli.console import make_console
from hyenadna.cli.merge import merge_shards
from hyenadna.cli.progress import progress_bar
from hyenadna.cli.spread import SpreadOptions, call, changed, require_same
from hyenadna.cli.units import counted, duration
from hyenadna.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from hyenadna.infer.shards import FoundShard, Shard

_SHARDS_A_SLOT: Final = 4
_RETRIES: Final = 5
"""Times that Ray starts a task again whose worker was lost."""
_OBJECTS: Final = 128 << 20
"""Bytes of Ray's store of objects; results go to files, not there."""
_LOOK_EVERY: Final = 0.5
_WAIT: Final = 60
"""Seconds that a task waits for another process that holds its shard, before others have a turn."""
_TURNS: Final = 30
"""Times that a task comes back for a shard that is held, such as by one on a lost machine."""
_HELD: Final = "held"
"""What a task returns then."""


@dataclass(frozen=True)
class _Tasks:
    """What each task takes, and how many can run at a time."""

    cpus: int
    gpus: float
    slots: int


def run_on_ray(verb: str, arguments: Mapping[str, Any]) -> None:
    """Compute all shards of a run, and merge them.

    verb, arguments: as for `begin`. Raises InputError without ray or without the cluster, for an
    output that is there, as the verb does in a task, and where Ray has lost a task for good.
    """
    console, out = make_console(), arguments["out"]
    ray = _ray()
    if out.exists():
        raise InputError(f"{out}: exists; remove it, or give another --out")
    if not out.parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent}; make it first")
    count = _shards_before(out, verb, arguments)
    with _cluster(ray, arguments["spread"].ray_address, console):
        tasks = _tasks(ray, arguments)
        count = count or arguments["spread"].shards or _SHARDS_A_SLOT * tasks.slots
        left = _left(out, count)
        console.print(
            f"{counted(count, 'shard')}, {len(left):,} to compute, {tasks.slots:,} at a time on "
            f"{tasks.cpus} CPU{'s' * (tasks.cpus != 1)}"
            + (f" and {tasks.gpus:g} GPU" if tasks.gpus else "")
            + " each"
        )
        try:
            _compute(ray, verb, arguments, left, count, tasks, console)
        except KeyboardInterrupt:
            done = count - len(_left(out, count))
            console.print(f"stopped; {done:,} of {count:,} shards are done; go on with --resume")
            raise
    _, seconds = merge_shards(out)
    console.print(f"{counted(count, 'shard')} merged in {duration(seconds)}: {out}")


def run_shard(verb: str, arguments: Mapping[str, Any], place: Path, folder: Path) -> str:
    """Compute one shard in this process, a worker of Ray; returns what is wrong, in a line.

    `_HELD` where another process is at work on it. place: of the shard. folder: where names of
    files belong.
    """
    from hyenadna.cli.app import explain
    from hyenadna.infer.interrupted import is_held

    try:
        os.chdir(folder)
    except OSError:
        node = os.uname().nodename if hasattr(os, "uname") else "a machine"
        return f"{folder}: is not on {node}; run on a folder that all machines share"
    begun = time.monotonic()
    while is_held(place):
        if time.monotonic() - begun >= _WAIT:
            return _HELD
        time.sleep(_LOOK_EVERY)
    try:
        call(verb, arguments)
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        return line
    return ""


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise InputError("--engine ray needs `pip install 'hyenadna[ray]'`") from error
    return ray


@contextmanager
def _cluster(ray: Any, address: str | None, console: Console) -> Iterator[None]:
    """Connected to a cluster; that of this machine, or one that was there before, stays."""
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    _require_open(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        options |= {"include_dashboard": False, "object_store_memory": _OBJECTS}
    try:
        with console.status("starting Ray …" if address == "local" else f"joining {address} …"):
            ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise _no_cluster(address, error) from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_open(address: str) -> None:
    """Refuse host and port where nothing listens at once: Ray tries for a minute, with warnings."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())
    return InputError(
        f"--ray-address {address}: no Ray cluster ({reason[:200]}); start one with `ray start "
        "--head`, or leave it out for one on this machine"
    )


def _tasks(ray: Any, arguments: Mapping[str, Any]) -> _Tasks:
    spread, on = arguments["spread"], arguments.get("on")
    threads = arguments["threads"] if on is None else on.threads
    device = arguments["device"] if on is None else on.device
    there = ray.cluster_resources()
    cpus = spread.task_cpus or threads or 1
    gpus = spread.task_gpus
    if gpus is None:
        gpus = 1.0 if there.get("GPU") and device != "cpu" else 0.0
    slots = int(there.get("CPU", 0) // cpus)
    if gpus:
        slots = min(slots, int(there.get("GPU", 0) / gpus))
    if cpus < 1 or gpus < 0 or slots < 1:
        raise InputError(
            f"--task-cpus {cpus} and --task-gpus {gpus:g}: the cluster has "
            f"{there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs"
        )
    return _Tasks(cpus, gpus, slots)


def _shards_before(out: Path, verb: str, arguments: Mapping[str, Any]) -> int | None:
    """Number of shards of an interrupted run; None without one.

    Raises InputError where a complete one was made with other arguments.
    """
    from hyenadna.infer.shards import find_shards

    asked = arguments["spread"].shards
    if asked is not None and asked < 1:
        raise InputError(f"--shards is {asked}; it must be at least 1")
    found = find_shards(out)
    if not found:
        return None
    first = found[0]
    if not arguments["resume"]:
        raise InputError(
            f"{first.folder}: is of an interrupted run; go on with --resume, or remove it"
        )
    counts = {each.shard.count for each in found} | ({asked} if asked else set())
    if len(counts) > 1:
        raise InputError(
            f"{first.folder}: is of a run of {first.shard.count} shards; resume with as many "
            "(--shards), and remove those of other runs"
        )
    for each in found:
        if each.complete:
            require_same(each.folder, verb, arguments)
    return first.shard.count


def _left(out: Path, count: int) -> list[Shard]:
    """The shards that are not complete."""
    from hyenadna.infer.shards import Shard, find_shards

    found: Sequence[FoundShard] = find_shards(out)
    done = {each.shard for each in found if each.complete}
    return [shard for i in range(1, count + 1) if (shard := Shard(count, i)) not in done]


def _compute(
    ray: Any,
    verb: str,
    arguments: Mapping[str, Any],
    left: Sequence[Shard],
    count: int,
    tasks: _Tasks,
    console: Console,
) -> None:
    """Run the tasks of these shards. Raises InputError as `run_on_ray` does."""
    remote = ray.remote(run_shard)
    running: dict[Any, Shard] = {}
    begun = time.monotonic()
    out, folder = arguments["out"], Path.cwd()
    turns = Counter[Any]()

    def submit(shard: Shard) -> None:
        own = changed(arguments, resume=True, threads=tasks.cpus)
        own["spread"] = SpreadOptions(shard=str(shard))
        task = remote.options(
            name=f"{verb} {shard} {out.name}",
            num_cpus=tasks.cpus,
            num_gpus=tasks.gpus,
            max_retries=_RETRIES,
        )
        running[task.remote(verb, own, shard.place(out), folder)] = shard
        turns[shard] += 1

    try:
        for shard in left:
            submit(shard)
        with progress_bar(console, verb) as show:
            show(count - len(left), count)
            while running:
                ready, _ = ray.wait(list(running), num_returns=1, timeout=_LOOK_EVERY)
                for each in ready:
                    shard = running.pop(each)
                    if not _is_done(ray, each, shard, last=turns[shard] > _TURNS):
                        submit(shard)
                        continue
                    done = len(left) - len(running)
                    seconds = (time.monotonic() - begun) / done * len(running)
                    show(count - len(running), count)
                    console.print(
                        f"shard {shard} done, {count - len(running):,} of {count:,}"
                        + (f"; about {duration(seconds)} left" if running else "")
                    )
    finally:
        for each in running:
            ray.cancel(each, force=True)


def _is_done(ray: Any, task: Any, shard: Shard, *, last: bool) -> bool:
    """Whether a task has gone well, not found its shard held. Raises InputError as `run_on_ray`.

    last: that it may not be held any more.
    """
    try:
        wrong = ray.get(task)
    except ray.exceptions.RayTaskError as error:  # a defect of ours
        raise (error.cause or error) from None
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"shard {shard}: Ray has lost its task ({reason}); is the cluster there, with enough "
            "memory (fewer tasks at a time: --task-cpus)? Go on with --resume"
        ) from error
    if wrong == _HELD and not last:
        return False
    if wrong == _HELD:
        raise InputError(
            f"shard {shard}: another process is at work on it; wait for it, or stop it and go on "
            "with --resume"
        )
    if wrong:
        raise InputError(wrong)
    return True
