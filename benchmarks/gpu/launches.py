"""Short sequences, where a GPU waits for its kernels to be started: CUDA graphs, torch.compile.

A whole step is captured: forward and backward pass and AdamW, of static shape. A captured step is
right if it walks the same way as the plain step: losses of some steps on changing input.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import torch
from benchmarks.gpu.contestants import Competitor, build, config_of, tokens_on
from benchmarks.gpu.jobs import Job, engine_of
from benchmarks.gpu.race import Broken, Contestant, Row, Tell, one_line, race
from benchmarks.gpu.roofline import model_work
from benchmarks.gpu.timing import Clock
from benchmarks.long_context.competitors import mean_nats
from torch import Tensor
from torch.nn import functional

from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA

CHECKED_STEPS: Final = 5
LOSS_LIMIT: Final = 1e-2
"""Largest relative difference of a loss from that of the plain modules in float32. In five steps of
tiny-1k the loss falls by a third, and bf16 comes to differ by 2e-3 (on a CPU)."""
LEARNING_RATE: Final = 1e-3


def measure_short(job: Job, clock: Clock, tell: Tell) -> dict[str, Any]:
    """Rows of steps, or of passes without gradients, as they are, captured, or compiled.

    A compiled one has `compile_seconds` too, those of its first call.
    """
    config, training = config_of(job.shape), job.task != "infer"
    wanted: list[float] = []

    def walk(name: str) -> Walk:
        one = build(name, config, clock, job.batch, job.length)
        # checkpoints look at random states, which no graph can hold, and save nothing worth it here
        one.model.set_checkpointing(mixer=False, mlp=False)
        return Walk(one, clock, job, training=training)

    def contestant(name: str) -> Contestant:
        work = walk(name.replace("compiled", "plain"))
        notes = work.one.notes
        if name.endswith("+graph"):
            work.capture()
        elif engine_of(name) == "compiled":
            backend = "inductor" if clock.gpu else "eager"
            work.one.nats = torch.compile(partial(bare_nats, work.one.model), backend=backend)
            notes |= {"compile_seconds": clock.seconds(work.call)}
        return Contestant(work.call, partial(check, work), notes)

    def check(work: Walk) -> Row:
        """The largest difference of a loss from that of the plain modules in float32."""
        if not wanted:
            wanted.extend(walk("plain+float32").losses())
        off = max(abs(a - b) / abs(b) for a, b in zip(work.losses(), wanted, strict=True))
        if not off <= LOSS_LIMIT:
            raise InputError(f"wrong: after some steps a loss is off by {off:.1e} of itself")
        return {"loss_error": off}

    rows = race({name: partial(contestant, name) for name in job.contestants}, clock, tell)
    need = model_work(config, job.batch, job.length, training=training)
    return {"contestants": rows, "work": vars(need)}


def bare_nats(model: HyenaDNA, inputs: Tensor, targets: Tensor) -> Tensor:
    """The mean loss by the modules alone, without the questions whether an engine fits.

    inputs, targets: (B, L).
    """
    backbone = model.backbone
    h = backbone.embeddings(inputs)
    for block in backbone.layers:
        h = block(h)
    logits = functional.linear(backbone.ln_f(h), model.head_weight)
    return mean_nats(logits.float(), targets)


class Walk:
    """Steps or passes on tokens that are written in place, from the same weights as others."""

    def __init__(self, one: Competitor, clock: Clock, job: Job, *, training: bool) -> None:
        self.one, self.clock, self.training = one, clock, training
        self.inputs, self.targets = tokens_on(clock.device, job.batch, job.length)
        self.first = [p.detach().clone() for p in one.model.parameters()]
        one.model.train(training)
        self.optimizer = torch.optim.AdamW(
            one.model.parameters(), lr=LEARNING_RATE, weight_decay=0.0,
            capturable=clock.gpu, fused=True,
        )  # fmt: skip
        self.call: Callable[[], Tensor] = self._step if training else self._pass

    def _step(self) -> Tensor:
        loss = self.one.step(self.inputs, self.targets)
        self.optimizer.step()
        return loss

    @torch.no_grad()
    def _pass(self) -> Tensor:
        return self.one.loss(self.inputs, self.targets)

    def capture(self) -> None:
        """From now on `call` replays a CUDA graph of itself; on a CPU it stays as it is.

        Raises Broken where it cannot be captured.
        """
        plain = self.call
        if not self.clock.gpu:
            return
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                plain()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                out = plain()
        except Exception as error:
            # torch 2.11 takes a capture that failed for one that goes on, and frees no memory any
            # more (pytorch/pytorch#180395)
            raise Broken(f"no graph: {one_line(error.__context__ or error)}") from error

        def replay() -> Tensor:
            graph.replay()
            return out

        self.call = replay

    @torch.no_grad()
    def restart(self) -> None:
        """First weights and moments again, where a graph has them."""
        for parameter, value in zip(self.one.model.parameters(), self.first, strict=True):
            parameter.copy_(value)
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()

    def losses(self) -> list[float]:
        """Of the first steps, each on other tokens."""
        self.restart()
        found = []
        for turn in range(CHECKED_STEPS):
            moved = 7 + (self.inputs - 7 + turn) % 4
            self.inputs.copy_(moved)
            found.append(float(self.call()))
        return found
