"""The process that measures: `python -m benchmarks.gpu.worker DEVICE TOY`, jobs on its input.

Each line of input is the JSON of `{"job": …, "seconds": …}`. Lines of output begin with a word:
HOST and JSON at the start, AT and the name of the contestant that runs now, RESULT and JSON at the
end of a job, BROKEN and a message where the GPU cannot be used any more and the process ends.
"""

from __future__ import annotations

import gc
import json
import sys
from typing import Any

import torch
from benchmarks.gpu.accuracy import check_models
from benchmarks.gpu.convolution import check_convolution, measure_forward
from benchmarks.gpu.generation import measure_generation
from benchmarks.gpu.jobs import Job
from benchmarks.gpu.kernel_shares import measure_kernels
from benchmarks.gpu.launches import measure_short
from benchmarks.gpu.limits import rates
from benchmarks.gpu.race import Broken, one_line
from benchmarks.gpu.stability import measure_stability
from benchmarks.gpu.suite import run_suite
from benchmarks.gpu.timing import Clock, host
from benchmarks.gpu.training import measure_inference, measure_steps

from hyenadna.train.code_version import code_digest


def main() -> None:
    """Measure jobs until there are no more."""
    device, toy = torch.device(sys.argv[1]), sys.argv[2] == "toy"
    clock = Clock(device, hurry=toy)
    torch.backends.cudnn.allow_tf32 = False  # matrix products have none by default; nor shall these
    gc.freeze()  # modules stay; looking for garbage among them takes a tenth of a second
    say("HOST", host(device) | {"toy": toy, "code": code_digest()})
    for line in sys.stdin:
        asked = json.loads(line)
        job = Job.from_dict(asked["job"])
        try:
            result = measure(job, clock, asked["seconds"], toy=toy)
        except Broken as error:
            say("BROKEN", str(error))
            return
        except Exception as error:
            result = {"error": one_line(error)}
        clock.clean()
        say("RESULT", result)


def say(word: str, value: Any) -> None:
    """A line of output."""
    print(word, json.dumps(value), flush=True)


def measure(job: Job, clock: Clock, seconds: float, *, toy: bool = False) -> dict[str, Any]:
    """The result of a job. seconds: that it may take, as far as it can choose."""

    def tell(name: str) -> None:
        say("AT", name)

    match job.part, job.task:
        case "limits", _:
            return rates(clock, scale=64 if toy else 1)
        case "accuracy", "model":
            return check_models(job, clock, tell)
        case "accuracy", "convolution":
            return check_convolution(job, clock, tell)
        case (("training" | "large"), "step"):
            return measure_steps(job, clock, tell, seconds)
        case "large", "infer":
            return measure_inference(job, clock, tell)
        case "convolution", _:
            return measure_forward(job, clock, tell)
        case "suite", _:
            return run_suite(job.task, seconds, only_collect=toy)
        case "profile", _:
            return measure_kernels(job, clock, tell)
        case "launches", _:
            return measure_short(job, clock, tell)
        case "generation", _:
            return measure_generation(job, clock, tell)
        case "stability", _:
            return measure_stability(job, clock, tell, seconds)
    raise ValueError(f"no such job: {job.title()}")


if __name__ == "__main__":
    main()
