"""The tests that need a GPU, as `pytest -m gpu` runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT

MARK = "mark.gpu"


def gpu_tests(root: Path = ROOT) -> list[Path]:
    """The files of tests that have the marker; the others need not be imported."""
    return sorted(p for p in (root / "tests").rglob("test_*.py") if MARK in p.read_text())


def run_suite(seconds: float, paths: list[Path] | None = None, root: Path = ROOT) -> dict[str, Any]:
    """How many tests passed, failed, …, the lines of those that failed, and the last line."""
    files = gpu_tests(root) if paths is None else paths
    command = [
        sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", "--tb=line",
        "--continue-on-collection-errors", *map(str, files),
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": python_path(), "MPLBACKEND": "Agg"}
    try:
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        text = error.stdout or b""
        shown = text.decode(errors="replace") if isinstance(text, bytes) else text
        return {"error": f"stopped after {seconds:.0f} s", "lines": shown.splitlines()[-20:]}
    return summary(done.stdout, done.stderr)


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


def python_path() -> str:
    """Our source first, then what is on the path already."""
    before = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join([str(ROOT / "src"), *([before] if before else [])])
