"""What `hyenadna benchmark --download` does: fetches, and says what came and how it was checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from hyenadna.cli.benchmark_data import BenchmarkDataOptions, named_tasks
from hyenadna.errors import InputError

if TYPE_CHECKING:
    from hyenadna.data.benchmarks.download import Fetched
    from hyenadna.data.benchmarks.suite import Suite

_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def download_suite(
    name: str | None, folder: Path | None, options: BenchmarkDataOptions, console: Console
) -> None:
    """Fetch the files of a suite into `folder`; say what came, and the steps for what did not.

    Raises InputError where no suite or no folder is named, for tasks that there are not, and where
    a file cannot be fetched or is not what it should be.
    """
    from hyenadna.data.benchmarks.download import RECORD, fetch
    from hyenadna.data.benchmarks.remote import of_tasks
    from hyenadna.data.benchmarks.suites import suite

    if name is None or folder is None:
        raise InputError("--download: name a suite, and by --data the folder to fetch it into")
    chosen = suite(name)
    tasks = _tasks(chosen, options)
    files = of_tasks(chosen.remote_files(), tasks)
    counts: Counter[str] = Counter()
    for number, done in enumerate(fetch(files, folder, progress=console.is_terminal), start=1):
        counts["new" if done.new else "kept"] += 1
        counts[done.checked] += done.new
        console.print(f"{number} of {len(files)}: {_line(done)}")
    if files:
        console.print(
            f"{folder}: {counts['new']} file{'s' * (counts['new'] != 1)} fetched, "
            f"{counts['kept']} there already"
        )
    if counts["first"]:
        console.print(
            f"note: no checksum is published for {counts['first']} of them: what came is trusted, "
            f"and its sha256 kept in {folder / RECORD}, which later downloads are checked against"
        )
    served = {task for file in files for task in file.tasks or tasks}
    missing = [task for task in tasks if task not in served]
    partly = [task for task in tasks if task in served and task in chosen.partly]
    if missing:
        console.print(f"no stable public address: {', '.join(missing)}")
    if partly:
        console.print(f"not everything has a stable public address: {', '.join(partly)}")
    if missing or partly:
        console.print(f"The steps for the rest: {chosen.where_from()}")


def _tasks(suite: Suite, options: BenchmarkDataOptions) -> Sequence[str]:
    """The tasks that are named; all of them where none is, or a length that is none of theirs."""
    every = [task.name for task in suite.list_tasks()]
    named = named_tasks(suite, options)
    return named if named and set(named) <= set(every) else every


def _line(done: Fetched) -> str:
    names = ", ".join(done.file.targets)
    if not done.new:
        return f"{names} ({_size(done.size)}): there, and right"
    how = {
        "published": "right by its published checksum",
        "commit": "right by the checksum of its commit",
        "recorded": "the same as at the first download",
        "first": "checksum recorded",
    }[done.checked]
    return f"{names} ({_size(done.size)}): fetched, {how}"


def _size(count: int) -> str:
    for unit, scale in _UNITS:
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} bytes"
