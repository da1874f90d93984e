"""The command line, run as a user runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def hyenadna(*words: object, folder: Path) -> str:
    """Run a command in a folder, on one thread; what it printed. Raises where it fails."""
    command = [sys.executable, "-m", "hyenadna", *map(str, words), "--threads", "1"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"hyenadna {' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout
