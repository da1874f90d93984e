"""Instruction tuning: a language model learns for a moment to answer behind demonstrations."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from hyenadna.alphabet import IGNORED, PAD, Ids
from hyenadna.data.labelled_batches import padded
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.likelihood import target_nats
from hyenadna.train.updates import update
from hyenadna.training_config import InstructConfig

Sample = tuple[Ids, npt.NDArray[np.int64]]
"""What is read, (L,), and what should follow at each place, (L,), IGNORED where nothing counts."""


@dataclass(frozen=True)
class InstructStep:
    """A step of tuning."""

    step: int
    """From 1."""
    steps: int
    """Of the whole run."""
    loss: float
    """Nats of a letter that counts, mean over the step."""
    seconds: float


def instruct(
    model: HyenaDNA, samples: Sequence[Sample], config: InstructConfig, *, seed: int
) -> Iterator[InstructStep]:
    """Tune all weights of a model, in place, on samples in their order; yields each step.

    Later epochs have an order of their own, by the seed. There is no dropout, so that the same
    model, samples and seed give the same weights, bit for bit on one device. The model stays in
    evaluation mode.

    Raises InputError for no samples, samples without a target, and a loss that is not finite.
    """
    if not samples or not all((targets != IGNORED).any() for _, targets in samples):
        raise InputError("tuning: no samples, or one without a target; give at least one letter")
    model.eval()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
    device = model.head_weight.device
    scaler = torch.amp.GradScaler(device.type, enabled=False)  # all is float32
    steps = config.epochs * math.ceil(len(samples) / config.batch_size)
    step = 0
    for order in _orders(len(samples), config.epochs, seed):
        for first in range(0, len(order), config.batch_size):
            start = time.monotonic()
            batch = [samples[i] for i in order[first : first + config.batch_size]]
            inputs = padded([ids for ids, _ in batch], PAD)
            targets = padded([wanted for _, wanted in batch], IGNORED)
            nats = target_nats(model, inputs.to(device), targets.to(device))
            loss = nats.sum() / (targets != IGNORED).sum()
            loss.backward()
            value = float(loss.detach())
            _, finite = update(optimizer, scaler, parameters, clip=config.clip, loss=value)
            if not finite:
                raise InputError(f"tuning: the loss is {value}; give a smaller --lr")
            step += 1
            yield InstructStep(step, steps, value, time.monotonic() - start)


def _orders(count: int, epochs: int, seed: int) -> Iterator[list[int]]:
    random = np.random.default_rng([seed, count])
    for epoch in range(epochs):
        yield random.permutation(count).tolist() if epoch else list(range(count))
