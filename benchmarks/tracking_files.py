"""Seconds, memory and size of one bigWig of random values: for `tracking.py`, in its own process.

    python benchmarks/tracking_files.py ours|pyBigWig BASES

No torch in it, whose memory would hide that of the files.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyBigWig

from hyenadna.genome.bigwig import BigWigWriter


def main(kind: str, count: int) -> None:
    """Write one contig; prints seconds, MiB above those before the first value, and MB."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.bw"
        rng, before, begun = np.random.default_rng(0), _peak(), time.perf_counter()
        pieces = (
            (start, (2 + 0.3 * rng.normal(size=min(1 << 16, count - start))).astype(np.float32))
            for start in range(0, count, 1 << 16)
        )
        if kind == "ours":
            with BigWigWriter(path, {"c": count}) as ours:
                for start, values in pieces:
                    ours.add("c", start, values)
        else:
            theirs = pyBigWig.open(str(path), "w")
            theirs.addHeader([("c", count)])
            for start, values in pieces:
                theirs.addEntries("c", start, values=values, span=1, step=1)
            theirs.close()
        seconds = time.perf_counter() - begun
        print(seconds, (_peak() - before) // 1024, path.stat().st_size / 1e6)


def _peak() -> int:
    """KiB. Not ru_maxrss, which a process has from the one that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
