"""Running one job in a process of its own, beside a busy neighbour if it asks for one."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.long_context.jobs import Job, guessed_seconds

ROOT: Final = Path(__file__).resolve().parents[2]
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
MULTIMOLECULE: Final = CACHE / "hyenadna-benchmarks" / "multimolecule"
PATIENCE: Final = 8.0
"""A job may take so many times as long as guessed, and two minutes more."""


def run_job(job: Job, threads: int) -> dict[str, Any]:
    """The result of the job, or `{"error": one line}` where it fails or takes too long."""
    try:
        python = multimolecule_python() if "multimolecule" in job.competitors else sys.executable
    except (OSError, subprocess.SubprocessError) as error:
        return {"error": f"multimolecule cannot be installed: {_last_line(error)}"}
    command = [
        str(python), "-m", "benchmarks.long_context.worker", json.dumps(job.to_dict()),
        str(threads),
    ]  # fmt: skip
    patience = 120 + PATIENCE * guessed_seconds(job)
    try:
        with busy_neighbour() if job.neighbour else contextlib.nullcontext():
            done = subprocess.run(
                command, cwd=ROOT, env=environment(job, threads), capture_output=True, text=True,
                timeout=patience, check=True,
            )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"error": f"stopped after {patience:.0f} s"}
    except subprocess.CalledProcessError as error:
        if error.returncode < 0:
            return {"error": f"killed by {signal_name(-error.returncode)}"}
        return {"error": _last_line(error)}
    line = done.stdout.splitlines()[-1]
    result: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    return result


def signal_name(number: int) -> str:
    """The signal that ended a process, with a guess at the reason."""
    guess = " (out of memory?)" if number == signal.SIGKILL else ""
    return f"{signal.Signals(number).name}{guess}"


def environment(job: Job, threads: int) -> dict[str, str]:
    """The environment of the worker: our source first, and only the OpenMP settings of the job."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "MKL_", "KMP_"))}
    kept |= {"PYTHONPATH": f"{ROOT / 'src'}", "OMP_NUM_THREADS": str(threads)}
    if job.waiting != "default":
        kept["OMP_WAIT_POLICY"] = job.waiting
    return kept


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


def _last_line(error: Exception) -> str:
    text = getattr(error, "stderr", None) or str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
