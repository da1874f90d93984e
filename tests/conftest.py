"""Fixtures of all tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

# Machines are shared and noisy: time is no property of the code under test.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

# Without a GPU Triton's kernels run in its interpreter, which must be known before anything imports
# Triton. (A container may have the driver's devices and not its tools.)
if shutil.which("nvidia-smi") is None and not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference outputs and real genomes beside the checkout; skips without it."""
    if not SHARED.is_dir():
        pytest.skip(f"no reference data at {SHARED}")
    return SHARED
