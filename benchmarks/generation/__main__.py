"""Time and memory of generating bases, against two other ways that are exact too.

    python -m benchmarks.generation              # less than two minutes
    python -m benchmarks.generation --full       # about a quarter of an hour on two quiet cores
    python -m benchmarks.generation --report     # only the page

Run it from the root of the repository. Each measurement runs in a process of its own and is kept as
soon as it is made: run the same command again to go on after a break. Then the page
docs/benchmarks/generation.md is written anew, with its pictures.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.generation import jobs as plans
from benchmarks.generation.jobs import Job, guessed_seconds
from benchmarks.measurements import Record, append, finished, read, this_host
from benchmarks.processes import ROOT, run_worker

from hyenadna.errors import InputError

RESULTS = ROOT / "benchmarks" / "results" / "generation.jsonl"
PAGE = ROOT / "docs" / "benchmarks" / "generation.md"


def main(words: Sequence[str] | None = None) -> int:
    """Measure what is left of the plan and write the page; returns the exit code."""
    options = parse(words)
    try:
        if options.list:
            show(left(options))
            return 0
        if not options.report:
            measure(left(options), options)
        from benchmarks.generation.page import write_page  # loads matplotlib

        write_page(read(options.results, Job.from_dict), options.page)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"wrote {options.page}")
    return 0


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.generation", description=(__doc__ or "").splitlines()[0]
    )
    plan = parser.add_mutually_exclusive_group()
    plan.add_argument("--quick", action="store_true", help="the short plan (default)")
    plan.add_argument("--full", action="store_true", help="everything")
    plan.add_argument("--report", action="store_true", help="measure nothing, write the page")
    parser.add_argument(
        "--only", nargs="+", choices=("ways", "split", "blocks", "whole"), metavar="PART",
        help="only these parts of the plan: ways, split, blocks, whole",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="(all cores)")
    parser.add_argument("--again", action="store_true", help="also what is measured already")
    parser.add_argument("--list", action="store_true", help="only print what would be measured")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(words)
    if options.threads < 1:
        parser.error(f"--threads is {options.threads}; it must be at least 1")
    return options


def left(options: argparse.Namespace) -> list[Job]:
    """The planned jobs that are not measured yet on this machine."""
    plan = plans.full_plan() if options.full else plans.quick_plan()
    done = finished(read(options.results, Job.from_dict), this_host(options.threads))
    return [
        job
        for job in plan
        if (not options.only or job.part in options.only)
        and (options.again or job.key() not in done)
    ]


def show(jobs: Sequence[Job]) -> None:
    """Print the jobs with the time that each is expected to take."""
    for job in jobs:
        print(f"{guessed_seconds(job):6.0f} s  {job.title()}")
    print(f"{sum(map(guessed_seconds, jobs)) / 60:6.1f} min, {len(jobs)} measurements")


def measure(jobs: Sequence[Job], options: argparse.Namespace) -> None:
    """Run the jobs one after the other and append each result."""
    host = this_host(options.threads)
    for number, job in enumerate(jobs, 1):
        about = f"about {guessed_seconds(job):.0f} s"
        print(f"[{number}/{len(jobs)}, {about}] {job.title()}", flush=True)
        start = time.monotonic()
        result = run_job(job, options.threads)
        seconds = round(time.monotonic() - start, 1)
        append(Record(job=job, host=host, result=result, seconds=seconds), options.results)
        outcome = f"failed: {result['error']}" if "error" in result else "measured"
        print(f"    {outcome} in {seconds:.0f} s", flush=True)


def run_job(job: Job, threads: int) -> dict[str, Any]:
    """The result of the job, or `{"error": one line}` where it fails or takes too long."""
    return run_worker("benchmarks.generation.worker", job.to_dict(), threads, guessed_seconds(job))


if __name__ == "__main__":
    sys.exit(main())
