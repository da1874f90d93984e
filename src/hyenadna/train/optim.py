"""Parameter groups, learning-rate schedules, weight averaging."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hyenadna.model.parallel.parts import take
from hyenadna.train.muon import MuonAdamW
from hyenadna.training_config import PretrainConfig


def is_filter_network(name: str) -> bool:
    """Whether the parameter belongs to the network that computes the long filters."""
    return ".implicit_filter." in name


def parameter_groups(model: nn.Module, config: PretrainConfig) -> list[dict[str, object]]:
    """Groups of parameters: decayed, plain, filter network (never decayed, its own learning rate).

    `standard` decays the matrices of projections, MLP and token table; `paper` everything outside
    the filter network, as the original's optimiser does. Under `muon` the matrices of projections
    and MLP are groups of their own, by their number of `blocks` (see `MuonAdamW`).
    """
    matrices = {
        f"{module_name}.weight".lstrip(".")
        for module_name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Embedding)
    }
    blocks = _blocks(model) if config.optimizer == "muon" else {}
    matrix_lr = 4 * config.lr if config.matrix_lr is None else config.matrix_lr
    turned: dict[int, list[nn.Parameter]] = {}
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    filters: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if is_filter_network(name):
            filters.append(parameter)
        elif name in blocks:
            turned.setdefault(blocks[name], []).append(parameter)
        elif config.parameter_groups == "paper" or name in matrices:
            decayed.append(parameter)
        else:
            plain.append(parameter)
    filter_lr = config.lr if config.filter_lr is None else config.filter_lr
    groups: list[dict[str, object]] = [
        {"params": decayed, "weight_decay": config.weight_decay, "peak_lr": config.lr},
        {"params": plain, "weight_decay": 0.0, "peak_lr": config.lr},
        {"params": filters, "weight_decay": 0.0, "peak_lr": filter_lr},
    ]
    for count, matrices_of in turned.items():
        groups.append(
            {
                "params": matrices_of,
                "weight_decay": config.weight_decay,
                "peak_lr": matrix_lr,
                "blocks": count,
            }
        )
    return [group for group in groups if group["params"]]


def _blocks(model: nn.Module) -> dict[str, int]:
    """Names of the matrices of mixers and MLPs, with the number of matrices that each is.

    An input projection is several of (D, D) below each other: x_0 … v, or queries, keys, values.
    """
    found: dict[str, int] = {}
    for name, module in model.named_modules():
        weight = f"{name}.weight"
        if ".layers." in name and isinstance(module, nn.Linear) and not is_filter_network(weight):
            stacked = name.endswith(".in_proj")
            found[weight] = module.out_features // module.in_features if stacked else 1
    return found


def make_optimizer(model: nn.Module, config: PretrainConfig) -> torch.optim.AdamW:
    """AdamW, or Muon and AdamW, over `parameter_groups`; each group carries its `peak_lr`."""
    groups = parameter_groups(model, config)
    kind = MuonAdamW if config.optimizer == "muon" else torch.optim.AdamW
    return kind(groups, lr=config.lr, betas=(config.beta1, config.beta2), fused=True)


def learning_rate(step: int, peak: float, config: PretrainConfig) -> float:
    """Learning rate of optimiser step `step` (0-based).

    `cosine`: rises linearly to the peak over the warm-up, then falls by a half cosine to
    `final_lr * peak` where the last step ends. `paper`: timm's schedule as the original used it
    (warm-up from 1e-6, cosine phase counted from step 0).
    """
    total, warmup = config.steps, config.lr_warmup_steps()
    low = config.final_lr * peak
    if config.schedule == "paper":
        if step < warmup:
            return 1e-6 + step * (peak - 1e-6) / warmup
        phase = min(step / total, 1.0)
    else:
        if step < warmup:
            return peak * (step + 1) / (warmup + 1)
        phase = min((step - warmup) / max(total - warmup, 1), 1.0)
    return low + 0.5 * (peak - low) * (1 + math.cos(math.pi * phase))


class WeightAverage:
    """Exponential moving average of parameters, kept beside them.

    parameters: by name; the average follows these.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = dict(parameters), decay
        self.updates = 0
        self.weights = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the parameters; the first updates weigh more than later ones."""
        self.updates += 1
        decay = min(self.decay, self.updates / (self.updates + 10))
        for name, parameter in self.parameters.items():
            self.weights[name].lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the parameters and the average; call twice to get back."""
        for name, parameter in self.parameters.items():
            held = self.weights[name].clone()
            self.weights[name].copy_(parameter)
            parameter.copy_(held)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block, the parameters hold the average."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def load(self, weights: Mapping[str, Tensor], updates: int) -> None:
        """Take over saved weights."""
        self.updates = updates
        for name, value in weights.items():
            take(self.weights[name], value)
