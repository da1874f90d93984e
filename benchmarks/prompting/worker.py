"""One cost in a process of its own: `python -m benchmarks.prompting.worker JOB THREADS`.

A step is the forward and backward pass of rows behind soft tokens whose gradient is wanted, the
model frozen; a prediction is a forward pass behind tokens that have been read before. The shared
prefix and its twin, which puts the tokens in front of every row, take turns; the least time counts.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from hyenadna.checkpoint.load import load
from hyenadna.label_words import label_words
from hyenadna.model.prompting.prompted import PromptedModel
from hyenadna.model.prompting.shared_prefix import joint_states
from hyenadna.task_kinds import TaskKind

TURNS, LEAST_SECONDS = 5, 8.0


class _Two:
    """A task of two classes."""

    kind: TaskKind = "classes"
    names = ("no", "yes")
    outputs = 2


class _Twin(PromptedModel):
    """The tokens in front of every row, through the modules."""

    def states(self, ids: Tensor) -> Tensor:
        tokens = self.model.backbone.embeddings(ids)
        return joint_states(self.model.backbone, self.prompt, tokens)

    def shared_step(self, longest: int, forward: Any = nullcontext) -> Any:
        return torch.autograd.set_grad_enabled(True)


def main() -> None:
    """Measure and print."""
    job, threads = json.loads(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    print("RESULT", json.dumps(measure(job)))


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Seconds of a step and of a prediction, each way; the largest difference; peak memory."""
    model = load(job["model"])
    model.set_engine("plain")
    kinds: dict[str, type[PromptedModel]] = {"shared": PromptedModel}
    if job["twin"]:
        kinds["twin"] = _Twin
    words = label_words(_Two.names)
    made = {}
    for name, kind in kinds.items():
        torch.manual_seed(1)
        made[name] = kind(model, _Two(), tokens=job["tokens"], words=words, dropout=0.0)
    ids = torch.randint(7, 11, (job["rows"], job["length"]))
    targets = torch.arange(job["rows"]) % 2
    lengths = torch.full((job["rows"],), job["length"])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def step(each: PromptedModel) -> Tensor:
        each.train()
        with each.shared_step(job["length"]):
            total, count = each.loss_parts(each(ids, lengths), targets)
            (total / count).backward()
        grad, each.prompt.grad = each.prompt.grad, None
        assert grad is not None
        return grad

    @torch.inference_mode()
    def predict(each: PromptedModel) -> Tensor:
        each.eval()
        return each(ids, lengths)

    found: dict[str, Any] = {"step": times(made, step)}
    found["peak"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found["before"] = 1024 * before
    found["predict"] = times(made, predict)
    if job["twin"]:
        grads = [step(each) for each in made.values()]
        said = [predict(each) for each in made.values()]
        found["gradient difference"] = float((grads[0] - grads[1]).norm() / grads[1].norm())
        found["output difference"] = float((said[0] - said[1]).abs().max())
    return found


def times(
    made: dict[str, PromptedModel], run: Callable[[PromptedModel], Tensor]
) -> dict[str, float]:
    """Least seconds of each, taken in turns after a first call each."""
    best = dict.fromkeys(made, float("inf"))
    begun = time.perf_counter()
    for turn in range(TURNS + 1):
        for name, each in made.items():
            start = time.perf_counter()
            run(each)
            if turn or len(made) == 1:
                best[name] = min(best[name], time.perf_counter() - start)
        if turn > 1 and time.perf_counter() - begun > LEAST_SECONDS:
            break
    return best


if __name__ == "__main__":
    main()
