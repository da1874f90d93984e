"""Running one job in a process of its own, beside a busy neighbour if it asks for one."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.long_context.jobs import Job, guessed_seconds
from benchmarks.processes import ROOT, last_line, run_worker

CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
MULTIMOLECULE: Final = CACHE / "hyenadna-benchmarks" / "multimolecule"


def run_job(job: Job, threads: int) -> dict[str, Any]:
    """The result of the job, or `{"error": one line}` where it fails or takes too long."""
    try:
        python = multimolecule_python() if "multimolecule" in job.competitors else sys.executable
    except (OSError, subprocess.SubprocessError) as error:
        return {"error": f"multimolecule cannot be installed: {last_line(error)}"}
    with busy_neighbour() if job.neighbour else contextlib.nullcontext():
        return run_worker(
            "benchmarks.long_context.worker", job.to_dict(), threads, guessed_seconds(job),
            python=python, waiting=job.waiting,
        )  # fmt: skip


@contextlib.contextmanager
def busy_neighbour() -> Iterator[subprocess.Popen[bytes]]:
    """Within the block, another process keeps one core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def multimolecule_python() -> Path:
    """The interpreter of an environment with `multimolecule` and torch of our version.

    Made at the first call (minutes); of the package only what it exports is used. Raises OSError or
    subprocess.SubprocessError where it cannot be made.
    """
    python = MULTIMOLECULE / "bin" / "python"
    ready = MULTIMOLECULE / ".ready"
    if ready.exists():
        return python
    if MULTIMOLECULE.exists():  # left half made
        shutil.rmtree(MULTIMOLECULE)
    print("making the environment of multimolecule (a few minutes)", flush=True)
    venv.create(MULTIMOLECULE, with_pip=True)
    constraints = ROOT / "constraints.txt"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "-c", str(constraints), "multimolecule"], check=True, capture_output=True, text=True
    )
    ready.touch()
    return python
