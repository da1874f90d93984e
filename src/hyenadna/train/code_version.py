"""A short name for the code that figures depend on: equal where it would give the same figures."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Final

_ROOMS: Final = (
    "alphabet.py", "config.py", "task_kinds.py", "training_config.py", "genome", "native", "conv",
    "model", "data", "checkpoint", "train", "infer",
)  # fmt: skip
"""Not report and cli, which carry figures and do not make them."""
_SUFFIXES: Final = (".py", ".cpp", ".h")


@cache
def code_digest() -> str:
    """Twelve hexadecimal digits of the source of the rooms that compute.

    Unlike a commit it does not change with documents, tests and ledger entries.
    """
    root = Path(__file__).resolve().parents[1]
    total = hashlib.sha256()
    for room in _ROOMS:
        place = root / room
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.suffix in _SUFFIXES and path.is_file():
                total.update(path.relative_to(root).as_posix().encode() + b"\0")
                total.update(path.read_bytes())
    return total.hexdigest()[:12]
