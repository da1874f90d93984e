"""Time and memory of the model against length, and against others.

    python -m benchmarks.long_context            # two or three minutes
    python -m benchmarks.long_context --full     # about 25 minutes on two quiet cores
    python -m benchmarks.long_context --report   # only the page

Run it from the root of the repository. Each measurement runs in a process of its own and is kept as
soon as it is made: run the same command again to go on after a break. Then the page
docs/benchmarks/long_context.md is written anew, with its pictures.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.long_context import jobs as plans
from benchmarks.long_context.jobs import Job, guessed_seconds
from benchmarks.long_context.launch import run_job
from benchmarks.measurements import Record, append, finished, read, this_host
from benchmarks.processes import ROOT

from hyenadna.errors import InputError

RESULTS = ROOT / "benchmarks" / "results" / "long_context.jsonl"
PAGE = ROOT / "docs" / "benchmarks" / "long_context.md"


def main(words: Sequence[str] | None = None) -> int:
    """Measure what is left of the plan and write the page; returns the exit code."""
    options = parse(words)
    try:
        if options.list:
            show(left(options))
            return 0
        if not options.report:
            measure(left(options), options)
        from benchmarks.long_context.page import write_page  # loads matplotlib

        write_page(read(options.results, Job.from_dict), options.page)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"wrote {options.page}")
    return 0


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.long_context", description=(__doc__ or "").splitlines()[0]
    )
    plan = parser.add_mutually_exclusive_group()
    plan.add_argument("--quick", action="store_true", help="the short plan (default)")
    plan.add_argument("--full", action="store_true", help="all but the two flags below")
    plan.add_argument("--report", action="store_true", help="measure nothing, write the page")
    parser.add_argument(
        "--original-1m", action="store_true", help="also the original's forward pass at 999,999"
    )
    parser.add_argument(
        "--train-1m", nargs="*", choices=("native", "torch", "native+bf16", "torch+bf16"),
        metavar="ENGINE", help="also a training step at 999,999 (engines; native)",
    )  # fmt: skip
    parser.add_argument("--only", nargs="+", metavar="PART", help="only these parts of the plan")
    parser.add_argument("--minutes", type=float, help="start nothing that would end later")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="(all cores)")
    parser.add_argument("--again", action="store_true", help="also what is measured already")
    parser.add_argument("--list", action="store_true", help="only print what would be measured")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(words)
    if options.threads < 1:
        parser.error(f"--threads is {options.threads}; it must be at least 1")
    return options


def planned(options: argparse.Namespace) -> list[Job]:
    """The jobs that the options name; a flag of the long ones alone means only these.

    Raises InputError for a part that the plan does not have.
    """
    extra = plans.original_million() if options.original_1m else []
    if options.train_1m is not None:
        extra += plans.train_million(options.train_1m or ["native"])
    if options.full:
        chosen = plans.full_plan()
    else:
        chosen = plans.quick_plan() if options.quick or not extra else []
    if options.only:
        parts = {job.part for job in chosen}
        unknown = sorted(set(options.only) - parts)
        if unknown:
            raise InputError(f"--only {unknown[0]}: the plan has {', '.join(sorted(parts))}")
        chosen = [job for job in chosen if job.part in options.only]
    return chosen + extra


def left(options: argparse.Namespace) -> list[Job]:
    """The planned jobs that are not measured yet on this machine."""
    done = finished(read(options.results, Job.from_dict), this_host(options.threads))
    return [job for job in planned(options) if options.again or job.key() not in done]


def show(jobs: Sequence[Job]) -> None:
    """Print the jobs with the time that each is expected to take."""
    for job in jobs:
        print(f"{guessed_seconds(job):6.0f} s  {job.title()}")
    print(f"{sum(map(guessed_seconds, jobs)) / 60:6.1f} min, {len(jobs)} measurements")


def measure(jobs: Sequence[Job], options: argparse.Namespace) -> None:
    """Run the jobs one after the other and append each result."""
    begin, host = time.monotonic(), this_host(options.threads)
    for number, job in enumerate(jobs, 1):
        ends = (time.monotonic() - begin + guessed_seconds(job)) / 60
        if options.minutes and ends > options.minutes:
            print(f"left for another run: {job.title()}", flush=True)
            continue
        print(
            f"[{number}/{len(jobs)}, about {guessed_seconds(job):.0f} s] {job.title()}", flush=True
        )
        start = time.monotonic()
        result = run_job(job, options.threads)
        seconds = round(time.monotonic() - start, 1)
        append(Record(job=job, host=host, result=result, seconds=seconds), options.results)
        print(f"    {outcome(result)}", flush=True)


def outcome(result: dict[str, object]) -> str:
    """A result in one line."""
    if "error" in result:
        return f"failed: {result['error']}"
    competitors = result.get("competitors", {})
    assert isinstance(competitors, dict)
    return "; ".join(
        f"{name} {sorted(values['seconds'])[len(values['seconds']) // 2]:.4g} s"
        if isinstance(values["seconds"], list) else f"{name} {values['seconds']:.4g} s"
        for name, values in competitors.items()
    ) or "measured"  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
