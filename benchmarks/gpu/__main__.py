"""Every check and measurement on a GPU, the most valuable first, each kept as soon as it is made.

    python -m benchmarks.gpu OUT                        # within --budget, nine minutes
    python -m benchmarks.gpu OUT --plan                 # what, in which order, with seconds
    python -m benchmarks.gpu OUT --device cpu --toy     # all of it at toy sizes: a trial
    python -m benchmarks.gpu.page OUT docs/benchmarks/gpu.md

Run it from the root of a clone; the package need not be installed. OUT/gpu.jsonl gets a line for
each measurement: run the same command again to go on after a break, or after the --budget is spent.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu.jobs import FILE, PARTS, SAME, Job, full_plan, toy_plan
from benchmarks.gpu.measuring_process import PATIENCE, Lost, Worker
from benchmarks.gpu.warm import fill
from benchmarks.measurements import Record, append, finished, read, this_host

from hyenadna.errors import InputError

LOG: Final = "gpu.log"
BUDGET: Final = 540.0
WARM_SHARE: Final = 0.2
"""Of the budget, that filling the cache of compiled kernels may take."""


def main(words: Sequence[str] | None = None) -> int:
    """Measure what is left of the plan; the exit code is 0 also where something was left out."""
    options = parse(words)
    jobs = planned(options)
    if options.plan:
        show(jobs)
        return 0
    try:
        return measure(jobs, options)
    except (InputError, Lost) as error:
        print(error, file=sys.stderr)
        return 2


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=(__doc__ or "").splitlines()[0],
        epilog="; ".join(f"{part}: {what}" for part, what in PARTS.items()),
    )  # fmt: skip
    parser.add_argument("out", type=Path, help="folder of the measurements, made where missing")
    parser.add_argument(
        "--only", nargs="+", choices=tuple(PARTS), metavar="PART",
        help="only these of the parts below",
    )  # fmt: skip
    parser.add_argument(
        "--budget", type=float, default=BUDGET, metavar="SECONDS",
        help=f"start nothing that should end later ({BUDGET:.0f})",
    )  # fmt: skip
    parser.add_argument("--device", default="cuda", help="cuda or cpu (cuda)")
    parser.add_argument("--toy", action="store_true", help="sizes for a trial on a CPU")
    parser.add_argument(
        "--cold", action="store_true", help="do not compile many kernels at once before"
    )
    parser.add_argument("--again", action="store_true", help="also what is measured already")
    parser.add_argument("--plan", action="store_true", help="print the jobs and their seconds")
    options = parser.parse_args(words)
    if options.budget <= 0:
        parser.error(f"--budget is {options.budget:g}; give seconds above 0")
    return options


def planned(options: argparse.Namespace) -> list[Job]:
    """The jobs that the options name, in order."""
    plan = toy_plan() if options.toy else full_plan()
    return [job for job in plan if not options.only or job.part in options.only]


def show(jobs: Sequence[Job]) -> None:
    """Print the jobs, when each should begin, and how long it should take."""
    begin = 0.0
    for job in jobs:
        print(f"{begin:6.0f} s +{job.guess:4.0f} s  {job.title()}")
        begin += job.guess
    print(
        f"{begin:6.0f} s in all, {len(jobs)} jobs; before, about 15 s to start, and on a GPU "
        f"{WARM_SHARE:.0%} of the budget at most to compile"
    )


def measure(jobs: Sequence[Job], options: argparse.Namespace) -> int:
    """Run the jobs in order and append each result. Raises InputError and Lost."""
    end = time.monotonic() + options.budget
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / FILE
    known = read(path, Job.from_dict)
    worker = Worker(options.device, toy=options.toy, log=options.out / LOG)
    host = this_host(0) | worker.host
    print(f"{host['device']}, torch {host['torch']}, triton {host['triton']}", flush=True)
    done = set() if options.again else finished(known, host, by=SAME)
    if host["device"] != "cpu" and not options.cold:
        left = [job for job in jobs if job.key() not in done]
        said = fill(left, options.device, options.out / LOG, WARM_SHARE * options.budget)
        print(said, flush=True)
    out_of_time: list[Job] = []
    try:
        for number, job in enumerate(jobs, 1):
            if job.key() in done:
                continue
            left = end - time.monotonic()
            if job.guess > left:
                out_of_time.append(job)
                continue
            print(f"[{number}/{len(jobs)}, {left:.0f} s left] {job.title()}", flush=True)
            start = time.monotonic()
            most = min(left, PATIENCE * job.guess)
            result = worker.measure(job, 60 + most, most, left + 10)
            seconds = round(time.monotonic() - start, 1)
            append(Record(job=job, host=host, result=result, seconds=seconds), path)
            for line in outcome(result):
                print(f"    {line}", flush=True)
            print(f"    in {seconds:.0f} s, {job.guess:.0f} guessed", flush=True)
    finally:
        worker.close()
    for job in out_of_time:
        print(f"left out for lack of time ({job.guess:.0f} s): {job.title()}")
    print(f"{path}: {len(jobs) - len(out_of_time)} of {len(jobs)} jobs")
    return 0


def outcome(result: Mapping[str, Any]) -> list[str]:
    """A result in a few lines."""
    if "error" in result:
        return [f"failed: {result['error']}"]
    lines = []
    for name, row in result.get("contestants", {}).items():
        if "error" in row:
            lines.append(f"{name}: {row['error']}")
        elif row.get("seconds"):
            middle = statistics.median(row["seconds"])
            checks = [f"{k} {v:.1e}" for k, v in row.items() if k.endswith("_error")]
            lines.append(", ".join([f"{name}: {middle * 1e3:.4g} ms", *checks]))
    return lines or [str({k: v for k, v in result.items() if k != "lines"})[:300]]


if __name__ == "__main__":
    sys.exit(main())
