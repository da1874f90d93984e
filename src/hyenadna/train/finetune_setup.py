"""What fine-tuning trains, at which rate, in which precision, and how its targets are weighed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hyenadna.alphabet import IGNORED
from hyenadna.data.labelled_data import LabelledData
from hyenadna.errors import InputError
from hyenadna.model.adapters import add_lora
from hyenadna.model.engine.native_kernels import available, multiplies_bf16
from hyenadna.model.freezing import freeze, layer_groups, train_all, train_last_blocks
from hyenadna.model.heads import TaskModel
from hyenadna.model.prompting.prompted import PromptedModel
from hyenadna.training_config import FinetuneConfig, Precision


def choose_parameters(model: TaskModel, config: FinetuneConfig) -> None:
    """Make those parameters trainable that the mode says, with adapters for `lora`.

    The adapters' first weights come from torch's global generator. Raises InputError for more
    blocks than there are, and for `lora` without peft.
    """
    if config.mode == "full":
        train_all(model.model)
    elif config.mode == "last":
        train_last_blocks(model.model, config.last_blocks)
    elif config.mode == "frozen":
        freeze(model.model)
    else:
        alpha = 2.0 * config.lora_rank if config.lora_alpha is None else config.lora_alpha
        add_lora(model.model, rank=config.lora_rank, alpha=alpha)


def trained_parameters(model: TaskModel) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name."""
    parameters = dict(model.named_parameters())
    return {name: parameters[name] for group in layer_groups(model) for name in group.names}


def make_optimizer(model: TaskModel, config: FinetuneConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices alone; each group carries its `peak_lr`.

    Biases, norms, skips and the filter networks are never decayed.
    """
    parameters = dict(model.named_parameters())
    groups = [
        {
            "params": [parameters[name] for name in group.names],
            "weight_decay": config.weight_decay if group.kind == "matrix" else 0.0,
            "peak_lr": config.peak_lr * group.lr_scale,
        }
        for group in layer_groups(model, decay=config.layer_decay)
    ]
    return torch.optim.AdamW(
        groups, lr=config.peak_lr, betas=(config.beta1, config.beta2), fused=True
    )


def choose_precision(model: TaskModel, config: FinetuneConfig, device: torch.device) -> Precision:
    """The precision that `auto` means for this model and device; others as they are.

    bf16 where matrix products in it are made by hardware and by the engine (which knows neither
    adapters nor soft prompts), float32 elsewhere.
    """
    if config.precision != "auto":
        return config.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if device.type != "cpu" or config.mode == "lora" or isinstance(model, PromptedModel):
        return "float32"
    dtype = model.model.head_weight.dtype
    pays = multiplies_bf16() and available(model.model.config, dtype, torch.bfloat16)
    return "bf16" if pays else "float32"


def class_weights(train: LabelledData, config: FinetuneConfig) -> Tensor | None:
    """Weight of each class, or of the positives of each label, (T,); None where all are equal.

    `balanced`: for C classes n / (C n_c), so that every class weighs the same in all (King and Zeng
    2001, as scikit-learn has it); for labels negatives / positives. A class or label of which the
    train part has no example (or for labels examples of one answer only) weighs 1.

    Raises InputError for values, which have no classes.
    """
    if config.class_weights == "none":
        return None
    if train.task.kind == "values":
        raise InputError("--class-weights is balanced, but the targets are values; leave it out")
    if train.task.kind == "labels":
        targets = np.asarray(train.targets)
        positive, negative = (targets == 1).sum(0), (targets == 0).sum(0)
        return _ratio(negative, positive)
    counts = np.zeros(train.task.outputs, dtype=np.int64)
    for targets in train.targets if isinstance(train.targets, tuple) else (train.targets,):
        counts += np.bincount(targets[targets != IGNORED], minlength=len(counts))
    return _ratio(np.full(len(counts), counts.sum() / (counts > 0).sum()), counts)


def _ratio(above: npt.NDArray[Any], below: npt.NDArray[Any]) -> Tensor:
    fits = (above > 0) & (below > 0)
    ratio = np.divide(above, below, out=np.ones(len(above)), where=fits)
    return torch.from_numpy(ratio).float()


def target_scale(train: LabelledData) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation of each value of the train part, float64 (T,); None for others.

    A head learns standardised values: one learning rate then suits every unit. The deviation of a
    value that is constant or unknown is 1.
    """
    if train.task.kind != "values":
        return None
    targets = torch.from_numpy(np.asarray(train.targets, dtype=np.float64))
    known = ~targets.isnan()
    count = known.sum(0).clamp_min(1)
    mean = targets.nan_to_num(0.0).sum(0) / count
    variance = (targets - mean).square().masked_fill(~known, 0.0).sum(0) / count
    return mean, torch.where(variance > 0, variance.sqrt(), 1.0)
