"""The tests that need a GPU, as `pytest -m gpu` runs them, and those of kernels."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from benchmarks.processes import ROOT, python_path

WANTED: Final[Mapping[str, tuple[str, str]]] = {
    "pytest": ("pytest.mark.gpu", "gpu"),
    "kernels": ("import tests.conv.interpreter", "not slow and not gpu"),
}
"""By task: text of the files with such tests, and pytest's expression of markers. Tests of kernels
run in Triton's interpreter where there is no GPU, so they have no marker."""
PROCESSES: Final = 14
"""Most processes that run tests: most of their time is compiling."""


def files_with(task: str, root: Path = ROOT) -> list[Path]:
    """The files of tests for a task; the others need not be imported."""
    text = WANTED[task][0]
    return sorted(p for p in (root / "tests").rglob("test_*.py") if text in p.read_text())


def run_suite(
    task: str, seconds: float, *, root: Path = ROOT, only_collect: bool = False
) -> dict[str, Any]:
    """How many tests passed, failed, …, the lines of those that failed, and the last line.

    only_collect: look for the tests and run none.
    """
    files = files_with(task, root)
    if not files:
        return {"error": "there are no such tests"}
    command = [
        sys.executable, "-m", "pytest", "-m", WANTED[task][1], "-v", "-p", "no:cacheprovider",
        "--tb=line", "--continue-on-collection-errors", *map(str, files),
    ]  # fmt: skip
    if only_collect:
        command.append("--collect-only")
    elif find_spec("xdist"):
        command += ["-n", str(min(PROCESSES, os.cpu_count() or 1))]
    environment = os.environ | {
        "PYTHONPATH": python_path(), "MPLBACKEND": "Agg",
        "PYTHONUNBUFFERED": "1",  # what a pytest that is killed has said is not lost
    }  # fmt: skip
    running = subprocess.Popen(
        command, cwd=root, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        output, errors = running.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)  # with all processes that run tests for it
        output, _ = running.communicate()
        return cut_short(output, seconds)
    return summary(output, errors)


def cut_short(output: str, seconds: float) -> dict[str, Any]:
    """What is known of a pytest that was stopped: lines of tests that failed, and the last ones."""
    lines = output.splitlines()
    bad = [line for line in lines if "FAILED" in line or "ERROR" in line]
    passed = sum("PASSED" in line for line in lines)
    return {
        "error": f"stopped after {seconds:.0f} s: {passed} passed, {len(bad)} did not",
        "lines": [*bad[:20], *lines[-20:]],
    }


def summary(output: str, errors: str = "") -> dict[str, Any]:
    """Counts by outcome, and the lines that name what failed, of pytest's output."""
    lines = output.splitlines()
    last = next((line for line in reversed(lines) if re.search(r"\d+ \w+.* in [\d.]+s", line)), "")
    counts = {word: int(n) for n, word in re.findall(r"(\d+) ([a-z]+)", last.partition(" in ")[0])}
    if not counts:
        text = (lines + errors.splitlines())[-1:] or ["no output"]
        return {"error": f"pytest said: {text[0]}"}
    named = [line for line in lines if line.startswith(("FAILED", "ERROR", "SKIPPED"))]
    return {"counts": counts, "lines": named[:40], "last": last.strip("= ")}
