"""What the two process-wide settings of the command line are worth to a training step.

    python benchmarks/process_settings.py

Times a step of tiny-1k (16 x 1,024, float32, all cores), median of seven, each setting in a process
of its own: waiting OpenMP threads that sleep or spin, freed memory kept or given back, a quiet
machine or one with another busy process per core but one. Prints a table.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

STEPS = 7


def main() -> None:
    """Run all combinations; with an argument, measure one in this process."""
    if len(sys.argv) > 1:
        print(f"{measure(keep=sys.argv[1] == 'kept'):.0f}")
        return
    print("| waiting threads | freed memory | machine | ms a step |\n|---|---|---|---|")
    for machine in ("quiet", "busy"):
        for waiting in ("PASSIVE", "ACTIVE"):
            for memory in ("kept", "given back"):
                with neighbours() if machine == "busy" else contextlib.nullcontext():
                    done = subprocess.run(
                        [sys.executable, __file__, memory],
                        env=os.environ | {"OMP_WAIT_POLICY": waiting},
                        capture_output=True, text=True, check=True,
                    )  # fmt: skip
                print(f"| {waiting} | {memory} | {machine} | {done.stdout.strip()} |", flush=True)


@contextlib.contextmanager
def neighbours() -> Iterator[None]:
    """Processes that keep all cores but one busy."""
    count = max(1, (os.cpu_count() or 2) - 1)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def measure(*, keep: bool) -> float:
    """Median milliseconds of a forward and backward pass."""
    from hyenadna.cli.process import reuse_freed_memory

    if keep:
        reuse_freed_memory()
    import torch

    from hyenadna.config import preset
    from hyenadna.model.backbone import HyenaDNA
    from hyenadna.model.likelihood import target_nats

    model = HyenaDNA(preset("tiny-1k")).train()
    tokens = torch.randint(7, 11, (16, 1024))
    seconds = []
    for _ in range(STEPS + 1):
        start = time.perf_counter()
        target_nats(model, tokens, tokens).mean().backward()
        model.zero_grad()
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
