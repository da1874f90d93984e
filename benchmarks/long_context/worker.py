"""One measurement in this process: `python -m benchmarks.long_context.worker JOB THREADS`.

JOB is the JSON of a job. Prints one line, `RESULT` and the JSON of the result.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.long_context.jobs import Job, rounds_for
from benchmarks.processes import ROOT, resident_bytes

if TYPE_CHECKING:
    from benchmarks.long_context.competitors import Competitor
    from torch import Tensor

WARM_LENGTH = 256
SAMPLE_SECONDS = 0.05
"""A sample lasts at least this long: shorter calls are repeated inside it."""


def main() -> None:
    """Measure the job of the command line."""
    job, threads = Job.from_dict(json.loads(sys.argv[1])), int(sys.argv[2])
    if job.memory == "kept" and not _process_settings().reuse_freed_memory():
        raise SystemExit("this system cannot keep freed memory (no glibc)")
    import torch

    torch.set_num_threads(threads)
    print("RESULT", json.dumps(measure(job)))


def measure(job: Job) -> dict[str, Any]:
    """The result of one job, made in this process."""
    if job.task == "limits":
        from benchmarks.long_context.limits import machine_limits

        return machine_limits()
    if job.task == "parts":
        from benchmarks.long_context.parts import profile_parts

        return {"competitors": {name: profile_parts(job, name) for name in job.competitors}}
    return race(job)


def race(job: Job) -> dict[str, Any]:
    """Seconds of every call of every competitor, in alternation; memory and agreement.

    `imports` and `peak` are resident bytes, the peak only where there is one competitor.
    `first` is the first call at this length, without cached spectra.
    `difference` is the largest deviation from the first competitor, over its largest value; `rms`
    is the root mean square of the deviations over that of its values.
    `sample` is the end of the output, or the loss: the same in every process up to rounding.
    """
    from benchmarks.long_context.competitors import build

    from hyenadna.config import preset

    if "multimolecule" in job.competitors:
        import_module("multimolecule")
    imports = resident_bytes("VmRSS")
    calls = {name: make_call(build(name, preset(job.shape)), job) for name in job.competitors}
    rows: dict[str, dict[str, Any]] = {name: {} for name in calls}
    outputs = {}
    for name, call in calls.items():
        seconds, out = timed(call)
        rows[name] |= {"first": seconds, "seconds": [seconds], "sample": sample(out)}
        outputs[name] = out
    if not job.once:
        reference = outputs[job.competitors[0]]
        for name, out in outputs.items():
            off = (out - reference).double()
            rows[name]["difference"] = float(off.abs().max() / reference.abs().max())
            rows[name]["rms"] = float(off.norm() / reference.double().norm())
        del out, off, outputs, reference
        alternate(calls, rows)
    result: dict[str, Any] = {"competitors": rows, "imports": imports}
    if len(calls) == 1:
        rows[job.competitors[0]]["peak"] = resident_bytes("VmHWM")
    return result


def alternate(calls: dict[str, Callable[[], Tensor]], rows: dict[str, dict[str, Any]]) -> None:
    """Time further calls, A B A B, in place of the first ones; short calls several at a time."""
    repeats = {name: max(1, int(SAMPLE_SECONDS / rows[name]["first"])) for name in calls}
    for name in calls:
        rows[name]["seconds"] = []
    for _ in range(rounds_for(sum(rows[name]["first"] * repeats[name] for name in calls))):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            rows[name]["seconds"].append((time.perf_counter() - start) / repeats[name])


def timed(call: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Seconds of one call, and what came out."""
    start = time.perf_counter()
    out = call()
    return time.perf_counter() - start, out


def sample(out: Tensor) -> list[float]:
    """A loss, or sixteen channels of the last position."""
    end = out if out.ndim == 0 else out[0, -1, :16]
    return [float(x) for x in end.flatten()]


def make_call(competitor: Competitor, job: Job) -> Callable[[], Tensor]:
    """What is timed: embeddings, mean loss, or a whole training step; everything loaded before.

    The warm-up on a short sequence loads libraries and builds native code, so that not even a
    first call has that to do.
    """
    from benchmarks.long_context.competitors import random_tokens

    tokens = random_tokens(job.batch, job.length + 1)
    short = tokens[:, : WARM_LENGTH + 1]
    if job.task == "step":
        _step(competitor, short, rate=0.0)()  # so that the weights stay the first ones
        return _step(competitor, tokens, rate=1e-4)
    _inference(competitor, short, job.task)()
    return _inference(competitor, tokens, job.task)


def _inference(competitor: Competitor, tokens: Tensor, task: str) -> Callable[[], Tensor]:
    import torch

    competitor.module.eval()
    inputs, targets = tokens[:, :-1], tokens[:, 1:]

    def call() -> Tensor:
        with torch.inference_mode(), competitor.precision():
            if task == "forward":
                return competitor.embed(inputs)
            return competitor.nats(inputs, targets)

    return call


def _step(competitor: Competitor, tokens: Tensor, *, rate: float) -> Callable[[], Tensor]:
    import torch

    competitor.module.train()
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    parameters = competitor.module.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0, fused=True)

    def call() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with competitor.precision():
            loss = competitor.nats(inputs, targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return call


def _process_settings() -> Any:
    """The module hyenadna/cli/process.py, loaded from its file.

    Importing it by name loads the whole command line, which the environment of multimolecule
    cannot and no measurement should.
    """
    path = ROOT / "src" / "hyenadna" / "cli" / "process.py"
    spec = importlib.util.spec_from_file_location("process_settings", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
