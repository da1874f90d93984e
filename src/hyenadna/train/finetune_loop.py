"""Fine-tuning: one optimiser step, one evaluation, and the complete state between them."""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hyenadna.data.labelled_data import LabelledData
from hyenadna.errors import InputError
from hyenadna.model.adapters import merge_lora
from hyenadna.model.digest import weights_digest
from hyenadna.model.engine.alone import one_thread
from hyenadna.model.freezing import train_all
from hyenadna.model.heads import TaskModel
from hyenadna.model.parallel.parts import parts_like, take, whole
from hyenadna.model.parallel.ranks import ALONE, Ranks
from hyenadna.model.parallel.sharded import shard_task
from hyenadna.model.probabilities import probabilities
from hyenadna.model.prompting.prompted import PromptedModel
from hyenadna.train.finetune_examples import (
    Bools,
    Crop,
    Examples,
    FeatureExamples,
    Int64s,
    Piece,
    Progress,
    SequenceExamples,
    require_parts,
    run_stages,
    step_shares,
    steps_of_epoch,
    turned_rows,
)
from hyenadna.train.finetune_reports import FinetuneEvaluation, FinetuneStep
from hyenadna.train.finetune_setup import (
    choose_parameters,
    choose_precision,
    class_weights,
    make_optimizer,
    target_scale,
    trained_parameters,
)
from hyenadna.train.loop import PRECISIONS
from hyenadna.train.metrics import is_better, main_metric, metrics
from hyenadna.train.optim import WeightAverage, learning_rate
from hyenadna.train.parallel import add_gradients
from hyenadna.train.updates import count_bad, update
from hyenadna.training_config import PLATEAU_FACTOR, FinetuneConfig, stage_at


class Finetuner:
    """A task model in training: optimiser, schedule, position in the data, random state.

    `step()` and `evaluate()` do one of each; `state()`/`load_state()` carry everything that the
    next depends on; `finish()` leaves the model with the best weights, ready to predict. Of the
    data only the parts `train` and `valid` are ever read. The global random state is left alone.

    Until `finish` the head works in units of its own (standardised values and features), and
    adapters are not merged.

    With stages of length warm-up, which are whole epochs, optimiser and schedule go on over all of
    them. The valid part is then cropped as well; only at full length do its figures choose a model
    or count for `patience`.

    Raises InputError for data without those parts or that the model cannot read, and for options
    that do not go with the task.
    """

    def __init__(
        self,
        model: TaskModel,
        data: LabelledData,
        config: FinetuneConfig,
        *,
        seed: int,
        device: torch.device,
        progress: Progress | None = None,
        ranks: Ranks = ALONE,
        sharded: bool = False,
    ) -> None:
        """ranks: the processes that train together, each on its part of the rows of a step.

        sharded: FSDP2 keeps parameters, gradients and moments in parts on the ranks while they
        train; `finish` leaves a model in one piece, another than the one given.
        """
        if sharded:
            require_shardable(model, config, ranks)
        if model.task.kind != data.task.kind or model.task.names != data.task.names:
            raise InputError(
                f"{data.name}: its task is {data.task.kind} ({data.task.outputs}), the model's "
                f"{model.task.kind} ({model.task.outputs}), or their names differ; make the model "
                "for this data"
            )
        self.model, self.config, self.seed, self.device = model.to(device), config, seed, device
        self.ranks = ranks
        # pieces are dealt out by number: they must be the same ones for all ranks
        config = replace(config, micro_batch_tokens=ranks.least(config.micro_batch_tokens))
        self.config = config
        ranks.begin_alike(model.state_dict().values())
        longest = model.max_length
        self.train_part, self.valid_part = require_parts(data, config, longest)
        self.max_length = int(max(self.train_part.lengths.max(), self.valid_part.lengths.max()))
        self.stages = run_stages(self.train_part, self.valid_part, config)
        self.metric = config.metric or main_metric(data.task.kind).name
        self.base_digest = weights_digest(model.model)
        self.precision_name = choose_precision(model, config, device)
        self.precision = PRECISIONS[self.precision_name]
        self._weights = class_weights(self.train_part, config)
        self._scale = target_scale(self.train_part)
        self._random = _fresh_random_state(seed, device)
        with self._own_random_state():
            choose_parameters(model, config)
        self._usual_dropout = model.model.config.embed_dropout
        model.model.set_embed_dropout(config.embed_dropout)
        self.sharded = sharded
        self._shell = copy.deepcopy(model).cpu() if sharded else None
        if sharded:
            shard_task(model)
        self.parameters = trained_parameters(model)
        self.examples = self._examples(progress)
        self.optimizer = make_optimizer(model, config)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision_name == "fp16")
        rows = len(self.train_part)
        self.steps_per_epoch = -(-rows // config.batch_size)
        self.steps = config.epochs * self.steps_per_epoch
        self._schedule = config.cosine(self.steps)
        self._shares = step_shares(self.stages, self.train_part.lengths)
        self.steps_done = self.bad_steps = self.without_better = 0
        self.seconds = 0.0
        self.best: FinetuneEvaluation | None = None
        self.history: list[FinetuneEvaluation] = []
        self._best_weights: dict[str, Tensor] | None = None
        self._losses: list[float] = []  # since the evaluation before
        self._lr_factor = 1.0  # of the schedule `plateau`
        self.average = WeightAverage(self.parameters, config.ema) if config.ema else None
        self._order: tuple[int, list[Int64s]] = (-1, [])
        self._finished = False

    def _examples(self, progress: Progress | None) -> Examples:
        parts = self.train_part, self.valid_part
        if self.model.fixed_features and self.model.task.kind != "tokens":
            return FeatureExamples(
                self.model, *parts, self.config, precision=self.precision, progress=progress,
                ranks=self.ranks,
            )  # fmt: skip
        return SequenceExamples(*parts, self.config.micro_batch_tokens)

    @property
    def evaluation_due(self) -> bool:
        """Whether an evaluation belongs after the last step."""
        done, each = self.steps_done, self.steps_per_epoch
        wanted = min(self.config.evaluations_per_epoch, each)
        within = (done - 1) % each + 1
        return done > 0 and within in {-(-each * k // wanted) for k in range(1, wanted + 1)}

    @property
    def stopped(self) -> str:
        """Why there is no next step: `epochs`, `patience`; empty where there is one."""
        patience = self.config.patience
        if patience is not None and self.without_better >= patience:
            return "patience"
        return "epochs" if self.steps_done >= self.steps else ""

    @property
    def epoch(self) -> int:
        """Epoch of the last step, from 1."""
        return max(self.steps_done - 1, 0) // self.steps_per_epoch + 1

    def crop_length(self, step: int) -> int | None:
        """Tokens that longer sequences are cropped to in a step, from 0; None at full length."""
        stage = stage_at(self.stages, step)
        return None if stage is self.stages[-1] else stage.length

    def step(self) -> FinetuneStep:
        """One optimiser step.

        Raises InputError when the loss has not been finite for many steps in a row.
        """
        start = time.perf_counter()
        epoch, within = divmod(self.steps_done, self.steps_per_epoch)
        if self._order[0] != epoch:
            size = self.config.batch_size
            rows = len(self.train_part)
            self._order = epoch, steps_of_epoch(rows, size, seed=self.seed, epoch=epoch)
        index = self._order[1][within]
        lr = self._set_learning_rates()
        turned = np.zeros(len(index), dtype=np.bool_)
        if self.config.reverse_complement:
            turned = turned_rows(len(index), seed=self.seed, step=self.steps_done)
        length = self.crop_length(self.steps_done)
        crop = None if length is None else Crop(length, self.seed, self.steps_done)
        pieces = list(self._own_part(index, turned, crop))
        self.model.train()
        with self._own_random_state():
            if self.ranks.together:
                torch.manual_seed(self.ranks.seed(self.seed, self.steps_done))
            loss, factor, tokens = self._accumulate(pieces)
        norm, finite = math.nan, False
        if factor is not None:
            with one_thread():
                norm, finite = update(
                    self.optimizer, self.scaler, self.parameters.values(), clip=self.config.clip,
                    loss=loss, factor=factor,
                )  # fmt: skip
            self.bad_steps = count_bad(
                self.bad_steps, self.scaler, finite=finite, loss=loss, step=self.steps_done + 1,
                lr=self.config.peak_lr,
            )  # fmt: skip
        self.steps_done += 1
        if finite:
            self._losses.append(loss)
            if self.average:
                self.average.update()
        seconds = time.perf_counter() - start
        self.seconds += seconds
        return FinetuneStep(
            step=self.steps_done,
            steps=self.steps,
            epoch=epoch + 1,
            loss=loss,
            lr=lr,
            grad_norm=norm,
            sequences=len(index),
            tokens=tokens,
            seconds=seconds,
            skipped=not finite,
            share=float(self._shares[self.steps_done - 1]),
            share_left=float(self._shares[self.steps_done :].sum()),
            length=length,
        )

    def _set_learning_rates(self) -> float:
        share = learning_rate(self.steps_done, 1.0, self._schedule)
        if self.config.schedule == "plateau":
            warmup = self._schedule.lr_warmup_steps()
            share = self._lr_factor * min(1.0, (self.steps_done + 1) / (warmup + 1))
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * share
        return self.config.peak_lr * share

    def _own_part(self, index: Int64s, turned: Bools, crop: Crop | None) -> Iterator[Piece]:
        """This rank's rows of a step, as long as those of the others, in pieces."""
        if not self.ranks.together:
            return self.examples.step(index, turned, crop)
        lengths = self.train_part.lengths[index]
        read = lengths if crop is None else np.minimum(lengths, crop.length)
        own = np.argsort(-read, kind="stable")[self.ranks.rank :: self.ranks.count]
        if crop is not None:
            crop = replace(crop, whole=lengths, own=own)
        return self.examples.step(index[own], turned[own], crop) if len(own) else iter(())

    def _accumulate(self, pieces: list[Piece]) -> tuple[float, float | None, int]:
        """Gradients of the losses of all pieces of all ranks, their mean, and how many tokens.

        How much counts is known only after the last piece. So the sums are divided by the number
        of targets, for numbers of a usual size, and the second result is what is left to multiply
        the gradients by; None where no target counts.
        """
        size, tokens = self.ranks.total(
            [
                sum(piece.targets.numel() for piece in pieces),
                sum(piece.tokens for piece in pieces),
            ],
            self.device,
        )
        total, weight = 0.0, 0.0
        longest = max((piece.inputs.shape[1] for piece in pieces), default=0)
        # to gather parameters that lie in parts, all ranks make as many passes
        passes = self.ranks.most(len(pieces)) if self.sharded else len(pieces)
        with self.model.shared_step(longest, self._autocast):
            for number in range(passes):
                counts = number < len(pieces)
                self._add_up_after_this(number + 1 == passes)
                part, counted = self._loss(pieces[number] if counts else self._any_piece())
                # FSDP averages over ranks, and a sum is wanted
                times = counts * (self.ranks.count if self.sharded else 1)
                self.scaler.scale(part * times / size).backward()
                if counts:
                    total, weight = total + float(part.detach()), weight + float(counted)
        total, weight = self.ranks.total([total, weight], self.device)
        if not weight:
            self.optimizer.zero_grad(set_to_none=True)
            return math.nan, None, int(tokens)
        if not self.sharded:
            add_gradients(self.parameters.values(), self.ranks, self.device)
        return total / weight, size / weight, int(tokens)

    def _add_up_after_this(self, last: bool) -> None:
        """Let FSDP add up gradients over ranks behind the last pass of a step alone."""
        if self.sharded:
            from torch.distributed.fsdp import FSDPModule

            assert isinstance(self.model, FSDPModule)
            self.model.set_requires_gradient_sync(last)

    def _any_piece(self) -> Piece:
        """A short piece of the train part, for passes that do not count."""
        shortest = np.array([int(self.train_part.lengths.argmin())])
        return next(self.examples.step(shortest, np.zeros(1, dtype=np.bool_)))

    def _loss(self, piece: Piece) -> tuple[Tensor, Tensor]:
        outputs = self._outputs(piece)
        targets = self._own_unit(piece.targets).to(self.device)
        return self.model.loss_parts(outputs, targets, self._weights)

    def _autocast(self) -> AbstractContextManager[object]:
        enabled = self.precision is not None
        return torch.autocast(self.device.type, dtype=self.precision, enabled=enabled)

    def _outputs(self, piece: Piece) -> Tensor:
        with self._autocast():
            return self.examples.outputs(self.model, piece)

    def _own_unit(self, targets: Tensor) -> Tensor:
        if self._scale is None:
            return targets
        mean, scale = self._scale
        return ((targets - mean) / scale).float()

    def evaluate(self) -> FinetuneEvaluation:
        """The model on the valid part; keeps its weights where it is the best so far.

        It is the best where the metric is better, or where that is the same (or undefined) and the
        loss is lower: many metrics stand still while a model begins to learn. In length warm-up
        none is: the model asked for is one of the full length.

        Raises InputError for a metric that the task has not, and for outputs that are not finite.
        """
        start = time.perf_counter()
        with self.average.in_place() if self.average else nullcontext():
            loss, found = self._measure()
        found["loss"] = loss
        if self.metric not in found:
            names = ", ".join(found)
            raise InputError(f"--metric is {self.metric}; this task has {names}")
        value = found.pop("loss") if self.metric == "loss" else found[self.metric]
        length = self._evaluated_length
        best = length is None and self._is_better(value, loss)
        seconds = time.perf_counter() - start
        self.seconds += seconds
        report = FinetuneEvaluation(
            step=self.steps_done,
            epoch=self.epoch,
            train_loss=float(np.mean(self._losses)) if self._losses else math.nan,
            loss=loss,
            metrics={name: each for name, each in found.items() if name != "loss"},
            metric=self.metric,
            value=value,
            best=best,
            seconds=seconds,
            length=length,
        )
        self._losses = []
        before = [each.loss for each in self.history if each.length is None]
        if length is None and not all(loss < each for each in before):
            self._lr_factor *= PLATEAU_FACTOR
        self.history.append(report)
        if length is None:
            self.without_better = 0 if best else self.without_better + 1
        if best:
            self.best = report
            weights = self.average.weights if self.average else self.parameters
            self._best_weights = {n: p.detach().clone() for n, p in weights.items()}
        return report

    @property
    def _evaluated_length(self) -> int | None:
        """As `crop_length`, of the last step."""
        return self.crop_length(max(self.steps_done - 1, 0))

    def _is_better(self, value: float, loss: float) -> bool:
        if self.best is None:
            return True
        name = "log_loss" if self.metric == "loss" else self.metric
        old = self.best.value
        same = value == old or (math.isnan(value) and math.isnan(old))
        return loss < self.best.loss if same else is_better(name, value, old)

    @torch.inference_mode()
    def _measure(self) -> tuple[float, dict[str, float]]:
        """Loss and metrics of the whole valid part, of which each rank reads its pieces."""
        kind = self.model.task.kind
        self.model.eval()
        total, weight = 0.0, 0.0
        targets: dict[int, Any] = {}
        outputs: dict[int, Any] = {}
        pieces = self.examples.valid(self._evaluated_length)
        for piece, counts in self.ranks.share(pieces):
            if not counts and not self.sharded:
                continue
            raw = self._outputs(piece)
            wanted = self._own_unit(piece.targets).to(self.device)
            if not counts:  # it was read so that all ranks gather parameters as often
                continue
            part, counted = self.model.loss_parts(raw, wanted, self._weights)
            total, weight = total + float(part), weight + float(counted)
            if self._scale is not None:
                mean, scale = (each.to(raw.device) for each in self._scale)
                raw = mean + scale * raw.double()
            said = probabilities(kind, raw).cpu().numpy()
            lengths = piece.lengths.tolist() if kind == "tokens" else [None] * len(said)
            for row, i, length in zip(range(len(said)), piece.index.tolist(), lengths, strict=True):
                targets[i] = piece.targets[row][:length] if length else piece.targets[row]
                outputs[i] = said[row][:length] if length else said[row]
        total, weight = self.ranks.total([total, weight], self.device)
        for theirs, said_there in self.ranks.gather((targets, outputs)):
            targets |= theirs
            outputs |= said_there
        found: dict[str, float] = {}
        if self.ranks.first:
            join = np.concatenate if kind == "tokens" else np.stack
            order = sorted(outputs)
            true = join([targets[i].numpy() for i in order])
            found = metrics(kind, true, join([outputs[i] for i in order]))
        return total / weight, self.ranks.from_first(found)

    def finish(self) -> None:
        """Leave the model with the best weights (if there are any), whole, in evaluation mode.

        Standardisations are moved into the head and adapters merged, the outputs being the same
        up to rounding. There is no step after it.
        """
        if self._finished:
            return
        self._finished = True
        self._load_weights(self._best_weights or {})
        if self._shell is not None:
            held = {name: whole(value) for name, value in self.model.state_dict().items()}
            self._shell.load_state_dict(held)
            self.model = self._shell.to(self.device)
        self.examples.release(self.model)
        if self._scale is not None:
            self.model.rescale(*self._scale)
        merge_lora(self.model.model)
        if not isinstance(self.model, PromptedModel):  # its backbone stays frozen
            train_all(self.model.model)
        self.model.model.set_embed_dropout(self._usual_dropout)
        self.model.eval()

    @torch.no_grad()
    def _load_weights(self, weights: Mapping[str, Tensor]) -> None:
        for name, value in weights.items():
            take(self.parameters[name], value)

    @contextmanager
    def _own_random_state(self) -> Iterator[None]:
        """Within the block torch draws from this run's generators, which nobody else moves."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.set_rng_state(self._random["cpu"])
            if devices:
                torch.cuda.set_rng_state(self._random["cuda"], self.device)
            yield
            self._random = _random_state(self.device)

    def fingerprint(self) -> dict[str, Any]:
        """What a state belongs to: settings, data, the model that the run began with.

        How much goes through the model at once is not of it: that is a matter of the memory at
        hand, and moves nothing but the draws of dropout.
        """
        config = self.config.to_dict()
        del config["micro_batch_tokens"]
        return {
            "config": config,
            "seed": self.seed,
            "precision": self.precision_name,
            "base": self.base_digest,
            "head": self.model.described,
            "head dropout": self.model.dropout.p,
            "train": part_digest(self.train_part),
            "valid": part_digest(self.valid_part),
        }

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors by name, and plain values: all that the next step depends on.

        Whole ones, whatever the ranks hold; all ranks must ask.
        """
        tensors = {f"random.{name}": value for name, value in self._random.items()}
        tensors |= {f"weights.{name}": whole(p.detach()) for name, p in self.parameters.items()}
        tensors |= {f"best.{name}": whole(v) for name, v in (self._best_weights or {}).items()}
        if self.average:
            tensors |= {f"average.{name}": whole(v) for name, v in self.average.weights.items()}
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{name}.{key}"] = whole(value)
        plain = {
            "step": self.steps_done,
            "bad_steps": self.bad_steps,
            "without_better": self.without_better,
            "lr_factor": self._lr_factor,
            "averaged": self.average.updates if self.average else 0,
            "seconds": self.seconds,
            "losses": self._losses,
            "scaler": self.scaler.state_dict(),
            "history": [vars(report) for report in self.history],
        }
        return tensors, plain

    def load_state(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Go on from `state()`; model, data, config and seed must be those that it began with."""
        self._load_weights(_under("weights.", tensors))
        best = _under("best.", tensors)
        self._best_weights = {
            n: parts_like(self.parameters[n], v.__getitem__) for n, v in best.items()
        } or None
        for name, parameter in self.parameters.items():
            entries = _under(f"optimizer.{name}.", tensors)
            if entries:
                self.optimizer.state[parameter] = {
                    # `step` stays where the optimiser keeps it: fused, on the device too
                    k: parts_like(parameter.detach(), v.__getitem__)
                    if v.shape == parameter.shape
                    else v.to(parameter.device, copy=True)
                    for k, v in entries.items()
                }
        self._random = {k: v.clone() for k, v in _under("random.", tensors).items()}
        self.steps_done, self.bad_steps = int(plain["step"]), int(plain["bad_steps"])
        self.without_better = int(plain["without_better"])
        self._lr_factor = float(plain.get("lr_factor", 1.0))  # states of before have none
        if self.average:
            self.average.load(_under("average.", tensors), int(plain["averaged"]))
        self.seconds, self._losses = float(plain["seconds"]), list(plain["losses"])
        if plain["scaler"]:
            self.scaler.load_state_dict(dict(plain["scaler"]))
        self.history = [FinetuneEvaluation(**report) for report in plain["history"]]
        self.best = next((r for r in reversed(self.history) if r.best), None)


def require_shardable(model: TaskModel, config: FinetuneConfig, ranks: Ranks) -> None:
    """Nothing, where this can be trained with parameters in parts. Raises InputError otherwise."""
    if not ranks.together:
        raise InputError(
            "--fsdp needs several ranks; start them by "
            "torchrun --nproc-per-node N -m hyenadna finetune …"
        )
    if config.mode not in ("full", "last") or isinstance(model, PromptedModel):
        raise InputError(f"--fsdp is for --mode full and last, not {config.mode}; leave it out")
    if config.precision == "fp16":
        raise InputError("--fsdp with --precision fp16: take bf16")


def part_digest(part: LabelledData) -> str:
    """A short name for rows: of all they hold, or for windows read on demand of their places."""
    if isinstance(part.sequences, tuple):
        return part.digest()
    total = hashlib.sha256(repr((part.ids, part.task)).encode())
    total.update(part.lengths.tobytes())
    targets = part.targets
    for array in targets if isinstance(targets, tuple) else (targets,):
        total.update(np.ascontiguousarray(array).data)  # no copy: it may be gigabytes
    return total.hexdigest()


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def _random_state(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _fresh_random_state(seed: int, device: torch.device) -> dict[str, Tensor]:
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        return _random_state(device)
