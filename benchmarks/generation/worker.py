"""One measurement in this process: `python -m benchmarks.generation.worker JOB THREADS`.

JOB is the JSON of a job. Prints one line, `RESULT` and the JSON of the result.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from benchmarks.generation.blocks import measure_blocks
from benchmarks.generation.jobs import Job
from benchmarks.generation.split import measure_split
from benchmarks.generation.ways import measure_way
from benchmarks.generation.whole import measure_whole


def main() -> None:
    """Measure the job of the command line."""
    job, threads = Job.from_dict(json.loads(sys.argv[1])), int(sys.argv[2])
    torch.set_num_threads(threads)
    print("RESULT", json.dumps(measure(job)))


def measure(job: Job) -> dict[str, Any]:
    """The result of one job, made in this process."""
    measures = {"blocks": measure_blocks, "whole": measure_whole, "split": measure_split}
    return measures.get(job.task, measure_way)(job)


if __name__ == "__main__":
    main()
