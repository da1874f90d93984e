"""The training loop's one step and its complete state."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from hyenadna.alphabet import IGNORED, PAD
from hyenadna.checkpoint.files import StoredTensor
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.engine.alone import one_thread
from hyenadna.model.parallel.parts import parts_like, put
from hyenadna.model.parallel.ranks import ALONE, Ranks
from hyenadna.train.optim import WeightAverage, learning_rate, make_optimizer
from hyenadna.train.parallel import Parallel, Sharded
from hyenadna.train.updates import count_bad, update
from hyenadna.training_config import PretrainConfig, Stage, stage_at

PRECISIONS = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Stream(Protocol):
    """Where batches come from; its state is saved with the run."""

    def batch(
        self, batch_size: int, length: int, *, rank: int = 0, ranks: int = 1
    ) -> tuple[Tensor, Tensor]: ...
    def state(self) -> dict[str, Any]: ...
    def load_state(self, state: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True)
class StepReport:
    """What one optimiser step did."""

    step: int
    """Steps done so far, this one included."""
    loss: float
    """Nats per counted base of this step's batch."""
    lr: float
    grad_norm: float
    length: int
    batch_size: int
    tokens: int
    """Input tokens since the start of the run."""
    seconds: float
    """Duration of the step."""
    skipped: bool
    """Whether the update was left out: the gradient was not finite, or no target counted."""

    @property
    def bits_per_base(self) -> float:
        """The loss in bits."""
        return self.loss / math.log(2)


class Trainer:
    """A model in training: optimiser, schedule, stages, data position, random state.

    `step()` does one optimiser step; `state()`/`load_state()` carry everything that the next step
    depends on, so that a resumed run equals an unbroken one bit for bit on one device.
    """

    def __init__(
        self,
        model: HyenaDNA,
        stream: Stream,
        config: PretrainConfig,
        *,
        final_length: int,
        ranks: Ranks = ALONE,
        sharded: Sharded | None = None,
    ) -> None:
        """ranks: the processes that train together; sharded: see `Parallel`."""
        self.model, self.stream, self.config = model, stream, config
        self.ranks = ranks
        if sharded and config.precision == "fp16":
            raise InputError("--fsdp with --precision fp16: take bf16")
        self.parallel = Parallel(model, ranks, sharded)
        self.device = model.head_weight.device
        self.stages = config.length_stages(final_length)
        self.optimizer = make_optimizer(model, config)
        self.average = (
            WeightAverage(dict(model.named_parameters()), config.ema) if config.ema else None
        )
        self.precision = PRECISIONS[config.precision]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")
        self.steps_done = 0
        self.tokens = 0
        self.bad_steps = 0
        self.best_bits: float | None = None
        """Lowest bits per base on the valid split so far."""
        # a sequence over several ranks is long, and its blocks are always computed again
        every_part = config.gradient_checkpointing or ranks.context > 1
        model.set_checkpointing(mixer=every_part, mlp=config.gradient_checkpointing)
        model.train()

    def stage(self) -> Stage:
        """The stage that the next step belongs to."""
        return stage_at(self.stages, self.steps_done)

    def batch_size(self, length: int) -> int:
        """Sequences per optimiser step at this length: about constant tokens per step.

        Where one sequence of the last stage is longer than `tokens_per_step`, its length is the
        number of tokens of every step.
        """
        tokens = max(self.config.tokens_per_step, self.stages[-1].length)
        return max(1, round(tokens / length))

    def rows_of_rank(self, length: int) -> int:
        """Sequences of an optimiser step that each rank reads at this length."""
        return -(-self.batch_size(length) // self.ranks.data_count)

    def tokens_after(self, step: int) -> int:
        """Tokens of all steps after `step`."""
        total, start = 0, 0
        for stage in self.stages:
            left = stage.steps - min(max(step - start, 0), stage.steps)
            total += left * stage.length * self.batch_size(stage.length)
            start += stage.steps
        return total

    def step(self) -> StepReport:
        """One optimiser step over the global batch.

        Raises InputError when the loss has not been finite for many steps in a row.
        """
        start = time.perf_counter()
        length = self.stage().length
        batch_size = self.batch_size(length)
        lr = self._set_learning_rates()
        self._seed_step()
        inputs, targets = self.stream.batch(
            batch_size, length, rank=self.ranks.data_rank, ranks=self.ranks.data_count
        )
        loss = self._accumulate(inputs, targets)
        shape = (batch_size, length)
        if loss is None:
            return self._report(math.nan, lr, math.nan, shape, start, skipped=True)
        with one_thread():
            norm, finite = update(
                self.optimizer, self.scaler, self.model.parameters(), clip=self.config.clip,
                loss=loss,
            )  # fmt: skip
            if finite and self.average:
                self.average.update()
        self.bad_steps = count_bad(
            self.bad_steps, self.scaler, finite=finite, loss=loss, step=self.steps_done + 1,
            lr=self.config.lr,
        )  # fmt: skip
        return self._report(loss, lr, norm, shape, start, skipped=not finite)

    def _seed_step(self) -> None:
        """Random numbers of a step, for dropout, that no other rank and no other step has.

        One process alone goes on with its generator, whose state is saved.
        """
        if self.ranks.together:
            torch.manual_seed(self.ranks.seed(self.config.seed, self.steps_done))

    def _report(
        self,
        loss: float,
        lr: float,
        norm: float,
        shape: tuple[int, int],
        start: float,
        *,
        skipped: bool,
    ) -> StepReport:
        batch_size, length = shape
        self.steps_done += 1
        self.tokens += batch_size * length
        return StepReport(
            step=self.steps_done,
            loss=loss,
            lr=lr,
            grad_norm=norm,
            length=length,
            batch_size=batch_size,
            tokens=self.tokens,
            seconds=time.perf_counter() - start,
            skipped=skipped,
        )

    def _set_learning_rates(self) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.steps_done, group["peak_lr"], self.config)
        first: float = self.optimizer.param_groups[0]["lr"]
        return first

    def _accumulate(self, inputs: Tensor, targets: Tensor) -> float | None:
        """Gradients of the mean loss over the batch, in pieces of `micro_batch_tokens`.

        inputs, targets: the rows of this rank. Returns the mean over all ranks; None, and no
        gradients, where no target counts on any.
        """
        counted = int(self._total(float((targets != IGNORED).sum()) / self.ranks.context))
        if not counted:
            return None
        inputs, targets = self.parallel.part(*self._in_step(inputs, targets))
        rows = max(1, self.config.micro_batch_tokens // inputs.shape[1])
        pieces = list(zip(inputs.split(rows), targets.split(rows), strict=True))
        total = 0.0
        for number, (piece, wanted) in enumerate(pieces, start=1):
            total += self.parallel.backward(
                piece.to(self.device),
                wanted.to(self.device),
                lambda nats: self.scaler.scale(nats / counted),
                precision=self.precision,
                last=number == len(pieces),
            )
        return self._total(total) / counted

    def _in_step(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """As many rows on all ranks, so that they compute in step: some that do not count."""
        missing = self.rows_of_rank(inputs.shape[1]) - len(inputs)
        if not missing:
            return inputs, targets
        more = inputs.new_full((missing, inputs.shape[1]), PAD)
        return torch.cat([inputs, more]), torch.cat([targets, torch.full_like(more, IGNORED)])

    def _total(self, value: float) -> float:
        return self.ranks.total([value], self.device)[0]

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors by name, and plain values, beyond the model's own weights and random state.

        As they lie: of a model in parts, the parts of this rank.
        """
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{name}.{key}"] = value
        if self.average:
            tensors |= {f"average.{name}": value for name, value in self.average.weights.items()}
        plain = {
            "step": self.steps_done,
            "tokens": self.tokens,
            "bad_steps": self.bad_steps,
            "best_bits": self.best_bits,
            "stream": self.stream.state(),
            "scaler": self.scaler.state_dict(),
            "average_updates": self.average.updates if self.average else 0,
        }
        return tensors, plain

    def random_state(self) -> dict[str, Tensor]:
        """The state of torch's generators by name, of this rank."""
        tensors = {"rng.cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        return tensors

    def load_state(self, stored: Mapping[str, StoredTensor], plain: Mapping[str, Any]) -> None:
        """Go on from `state()` and `random_state()`, each rank reading its own parts.

        The model's weights must have been loaded already.
        """
        self.stream.load_state(plain["stream"])
        self.steps_done, self.tokens = int(plain["step"]), int(plain["tokens"])
        self.bad_steps, self.best_bits = int(plain["bad_steps"]), plain["best_bits"]
        if plain["scaler"]:
            self.scaler.load_state_dict(dict(plain["scaler"]))
        for name, parameter in self.model.named_parameters():
            entries = _under(f"optimizer.{name}.", stored)
            if entries:
                self.optimizer.state[parameter] = {
                    key: _taken(value, parameter) for key, value in entries.items()
                }
        if self.average:
            averaged = _under("average.", stored)
            for name, weight in self.average.weights.items():
                put(weight, averaged[name].rows)
            self.average.updates = int(plain["average_updates"])
        torch.set_rng_state(stored["rng.cpu"].materialize())
        if "rng.cuda" in stored and self.device.type == "cuda":
            torch.cuda.set_rng_state(stored["rng.cuda"].materialize(), self.device)


def _under(prefix: str, stored: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Those whose name begins so, by the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}


def _taken(value: StoredTensor, parameter: Tensor) -> Tensor:
    """A stored moment of a parameter, in parts as that is; or the count of its updates."""
    if tuple(value.shape) == tuple(parameter.shape):
        return parts_like(parameter, value.rows)
    return value.materialize().to(parameter.device)
