"""The benchmark of the GPU: `python -m benchmarks.gpu`.

It also runs where the package is not installed, from a clone: the source is put on the path.
"""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("hyenadna") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))
