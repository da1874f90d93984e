"""Importing without, or with too old a, transformers says what to install."""

from __future__ import annotations

import subprocess
import sys

import pytest


def message_of(prelude: str) -> str:
    code = f"{prelude}\nimport hyenadna.transformers"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("prelude", "words"),
    [
        ("import sys; sys.modules['transformers'] = None", "needs the transformers library"),
        (
            "import sys, types; old = types.ModuleType('transformers'); "
            "old.__version__ = '4.55.1'; sys.modules['transformers'] = old",
            "needs transformers >= 4.56, but 4.55.1 is installed",
        ),
    ],
)
def test_one_line_says_what_to_install(prelude, words):
    line = message_of(prelude)
    assert line.startswith("ImportError: hyenadna.transformers " + words)
    assert "pip install" in line and "'hyenadna[transformers]'" in line
