"""Running one measurement in a process of its own, and the memory of a process."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
PATIENCE: Final = 8.0
"""A job may take so many times as long as guessed, and two minutes more."""


def run_worker(
    module: str,
    job: dict[str, Any],
    threads: int,
    guessed: float,
    *,
    python: str | Path = sys.executable,
    waiting: str = "default",
) -> dict[str, Any]:
    """The result of a job, or `{"error": one line}` where it fails or takes too long.

    module: run as `python -m module JOB THREADS`; its last line of output is `RESULT` and JSON.
    guessed: seconds that it should take. waiting: OpenMP's policy, if not its default.
    """
    command = [str(python), "-m", module, json.dumps(job), str(threads)]
    patience = 120 + PATIENCE * guessed
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment(threads, waiting), capture_output=True, text=True,
            timeout=patience, check=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"error": f"stopped after {patience:.0f} s"}
    except subprocess.CalledProcessError as error:
        if error.returncode < 0:
            return {"error": f"killed by {signal_name(-error.returncode)}"}
        return {"error": last_line(error)}
    line = done.stdout.splitlines()[-1]
    result: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    return result


def environment(threads: int, waiting: str = "default") -> dict[str, str]:
    """The environment of a worker: our source first, and only these settings of OpenMP."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "MKL_", "KMP_"))}
    kept |= {"PYTHONPATH": f"{ROOT / 'src'}", "OMP_NUM_THREADS": str(threads)}
    if waiting != "default":
        kept["OMP_WAIT_POLICY"] = waiting
    return kept


def python_path() -> str:
    """Our source first, then what is on the path already."""
    before = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join([str(ROOT / "src"), *([before] if before else [])])


def signal_name(number: int) -> str:
    """The signal that ended a process, with a guess at the reason."""
    guess = " (out of memory?)" if number == signal.SIGKILL else ""
    return f"{signal.Signals(number).name}{guess}"


def last_line(error: Exception) -> str:
    """What a failed command said last."""
    text = getattr(error, "stderr", None) or str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def resident_bytes(field: str) -> int:
    """Resident memory of this process in bytes: `VmRSS` now, `VmHWM` at its peak.

    The peak is what `getrusage` calls ru_maxrss, but of this program alone: that one begins with
    what the parent had when it started us.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(fields[field].split()[0]) * 1024
