"""Models that contest, by name: `engine+precision`, all with the same weights.

Engines are those of `set_engine`, and `plain` with checkpointing; `original`, the original's
algorithm in plain torch with checkpointed blocks; `attention8` and `attention2`, the Transformer
twin with 8 heads of 16 channels (as the paper's, of width 128) and with 2 of 64, which suit a GPU
better, in the fastest attention that torch has.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, cast

import torch
from benchmarks.gpu.jobs import engine_of, precision_of
from benchmarks.gpu.timing import Clock
from benchmarks.long_context.competitors import mean_nats, random_model, random_tokens
from benchmarks.long_context.original import Original, OriginalBlock, OriginalFilter
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from hyenadna.config import ModelConfig, preset
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA, rescale_filters
from hyenadna.model.engine.choose import Choice
from hyenadna.model.likelihood import target_nats
from hyenadna.train.loop import PRECISIONS

TYPES: Final = PRECISIONS | {"float64": None}
"""Types of autocast; float64 is that of the weights."""
SCALE: Final = 2.0**12
"""Losses are multiplied by it before the backward pass in fp16, as a GradScaler does."""
BACKENDS: Final = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
CHOSEN_AT: Final = 32_768
"""Longest sequence on which the attentions are compared."""
TOY: Final = ModelConfig(d_model=16, n_layer=1, max_seq_len=200, filter_order=16)


def config_of(shape: str) -> ModelConfig:
    """A published shape, `figure-4.1` or `toy`, without dropout."""
    if shape == "toy":
        return TOY.replace(embed_dropout=0.0)
    if shape == "figure-4.1":
        return preset("tiny-1k").replace(embed_dropout=0.0, max_seq_len=1_000_002)
    return preset(shape).replace(embed_dropout=0.0)


@dataclass
class Competitor:
    """A model and its loss under one precision."""

    model: HyenaDNA
    nats: Callable[[Tensor, Tensor], Tensor]
    """Inputs and targets (B, L) -> mean loss."""
    dtype: torch.dtype | None
    """Of autocast, or None."""
    scale: float = 1.0
    """Of the loss in the backward pass."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What belongs in its row of figures."""
    around: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    """The context of every pass, forward and backward: which attention, say."""

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of inputs and targets (B, L), in the type of the competitor."""
        with self.around(), precision(self.model, self.dtype):
            return self.nats(inputs, targets)

    def step(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The loss; its gradients, times `scale`, are left in the parameters."""
        self.model.zero_grad(set_to_none=True)
        with self.around():
            loss = self.loss(inputs, targets)
            (loss * self.scale).backward()
        return loss.detach()

    def gradient(self) -> Tensor:
        """All gradients of the last `step` in one vector, float64."""
        parts = [
            (torch.zeros_like(p) if p.grad is None else p.grad).flatten().double()
            for p in self.model.parameters()
        ]
        return torch.cat(parts) / self.scale


def precision(model: HyenaDNA, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[Any]:
    """Autocast to that type on the model's device, or nothing."""
    # without a cache of casts: a CUDA graph would hold them
    return torch.autocast(
        model.head_weight.device.type, dtype=dtype, enabled=dtype is not None, cache_enabled=False
    )


def build(name: str, config: ModelConfig, clock: Clock, batch: int, length: int) -> Competitor:
    """The contestant of that name for passes over (B, L) tokens.

    Raises InputError where its kernels do not run such a pass here.
    """
    engine, kind = engine_of(name), precision_of(name)
    dtype, scale = TYPES[kind], SCALE if kind == "fp16" else 1.0
    if engine.startswith("attention"):
        return _attention(engine, config, clock, dtype, length)
    model = fresh(config, clock.device)
    if kind == "float64":
        model.double()
    model.set_checkpointing(mixer=True, mlp=True)
    if engine == "original":
        original = checkpointed(model)
        return Competitor(model, lambda x, y: mean_nats(original(x), y), dtype, scale)
    model.set_engine(cast(Choice, engine))
    kernels = running(model, dtype, batch, length)
    if engine not in ("auto", kernels):
        raise InputError(f"{engine} kernels do not run this: {kernels} would")
    return Competitor(model, mean_loss(model), dtype, scale, {"kernels": kernels})


def mean_loss(model: HyenaDNA) -> Callable[[Tensor, Tensor], Tensor]:
    """Inputs and targets (B, L) -> mean loss of the model."""
    return lambda inputs, targets: target_nats(model, inputs, targets).mean()


def fresh(config: ModelConfig, device: torch.device) -> HyenaDNA:
    """A model with the weights that training starts from, the same at every call."""
    model = random_model(config)
    if config.mixer == "hyena":
        rescale_filters(model)
    return model.to(device).train()


def running(model: HyenaDNA, dtype: torch.dtype | None, batch: int, length: int) -> str:
    """Whose kernels a pass over (B, L) tokens runs on, under autocast to that type or None."""
    backbone = model.backbone
    table = backbone.embeddings.word_embeddings.weight
    with precision(model, dtype):
        found = backbone.engine_pass(table, batch, length)
    return "plain" if found is None else found.kernels.name


def checkpointed(model: HyenaDNA) -> Original:
    """The original's algorithm with checkpointed blocks and filters in float32 under autocast.

    In bf16 its lags would be rounded, and its filters wrong: see `ImplicitFilter.dtype`.
    """
    original = Original(model)
    for block in original.blocks:
        block.filter = cast(OriginalFilter, _without_autocast(block.filter, model))
    original.blocks = [
        cast(OriginalBlock, functools.partial(checkpoint, block, use_reentrant=False))
        for block in original.blocks
    ]
    return original


def _without_autocast(part: Callable[[int], Tensor], model: HyenaDNA) -> Callable[[int], Tensor]:
    def call(length: int) -> Tensor:
        with torch.autocast(model.head_weight.device.type, enabled=False):
            return part(length)

    return call


def _attention(
    engine: str, config: ModelConfig, clock: Clock, dtype: torch.dtype | None, length: int
) -> Competitor:
    heads = int(engine.removeprefix("attention"))
    twin = config.replace(mixer="attention", num_heads=heads)
    times = attention_seconds(twin, clock, dtype, min(length, CHOSEN_AT))
    if not times:
        raise InputError(f"torch has no fused attention for {heads} heads here")
    fastest = min(times, key=lambda name: times[name])
    return _twin(twin, clock.device, dtype, fastest, {"backend": fastest, "backends": times})


def _twin(
    config: ModelConfig, device: torch.device, dtype: torch.dtype | None, backend: str,
    notes: dict[str, Any],
) -> Competitor:  # fmt: skip
    model = fresh(config, device)
    model.set_checkpointing(mixer=True, mlp=True)
    return Competitor(
        model, mean_loss(model), dtype, notes=notes, around=lambda: sdpa_kernel(BACKENDS[backend])
    )


@functools.lru_cache(maxsize=32)
def attention_seconds(
    config: ModelConfig, clock: Clock, dtype: torch.dtype | None, length: int
) -> dict[str, float]:
    """Seconds of a training step by attention, of those that run here."""
    found: dict[str, float] = {}
    tokens = tokens_on(clock.device, 1, length)
    for name in BACKENDS:
        if name == "math" and clock.gpu:
            continue  # L^2 numbers: never the fastest, and may not fit
        one = _twin(config, clock.device, dtype, name, {})
        try:
            with warnings.catch_warnings():  # torch says at length why a kernel does not fit
                warnings.simplefilter("ignore")
                clock.seconds(lambda one=one: one.step(*tokens))  # type: ignore[misc]
            found[name] = min(
                clock.seconds(lambda one=one: one.step(*tokens))  # type: ignore[misc]
                for _ in range(3)
            )
        except RuntimeError:  # "No available kernel": not for this type or number of channels
            clock.clean()
    return found


def tokens_on(device: torch.device, batch: int, length: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets (B, L), always the same bases."""
    tokens = random_tokens(batch, length + 1).to(device)
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
