"""The models of a fine-tuning run: a checkpoint, its shape from random weights, its twin."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hyenadna.cli.finetune_options import HeadOptions
from hyenadna.cli.memory import limit_memory
from hyenadna.config import ModelConfig, preset
from hyenadna.errors import InputError

if TYPE_CHECKING:
    from hyenadna.data.labelled_data import Task
    from hyenadna.model.backbone import HyenaDNA
    from hyenadna.model.heads import TaskModel

RANDOM: Final = "random:"
_MOST_HEADS: Final = 8
IN_A_RUN: Final = ("best", "last")
"""Folders that are called after their place in a run, which is what has a name."""


@dataclass(frozen=True, eq=False)
class ModelSource:
    """Where the models to begin with come from; made by `find_model`."""

    name: str
    """As the user gave it, without `random:`."""
    config: ModelConfig
    weights: HyenaDNA | None = None
    """None for random weights, which differ from seed to seed."""
    max_memory: str | None = None

    @property
    def title(self) -> str:
        """In a few words, for tables."""
        path = Path(self.name)
        short = (path.parent.name if path.name in IN_A_RUN else path.name) or self.name
        if self.config.mixer == "attention" and self.weights is None:
            return "Transformer, random weights"
        return f"{short}, random weights" if self.weights is None else short

    @property
    def described(self) -> str:
        """For a sentence."""
        if self.weights is None:
            return f"The shape of {self.name} with random weights (nothing pretrained)"
        return self.name

    def make(self) -> HyenaDNA:
        """A model of its own; random weights come from torch's global generator."""
        from hyenadna.model.backbone import HyenaDNA, rescale_filters

        if self.weights is not None:
            model = copy.deepcopy(self.weights)
        else:
            model = HyenaDNA(self.config)
            rescale_filters(model)  # as pretraining starts
        limit_memory(model, self.max_memory)
        return model

    def make_task(self, task: Task, head: HeadOptions) -> TaskModel:
        """The model with a fresh head. Raises InputError for a head that does not go with it."""
        from hyenadna.model.heads import TaskModel

        return TaskModel(
            self.make(), task, pooling=head.pooling, strands=head.strands, dropout=head.dropout
        )

    def random(self) -> ModelSource:
        """The same architecture from random weights."""
        return replace(self, weights=None)

    def transformer(self) -> ModelSource:
        """The Transformer of the same width and depth, from random weights.

        Raises InputError for a width that no number of heads divides.
        """
        width = self.config.d_model
        heads = [n for n in range(1, _MOST_HEADS + 1) if width % (2 * n) == 0]
        if not heads:
            raise InputError(f"--baselines transformer: width {width} is odd; leave it out")
        config = self.config.replace(mixer="attention", num_heads=heads[-1])
        return replace(self, weights=None, config=config)


def find_model(name: str, max_memory: str | None = None) -> ModelSource:
    """The model of a run, folder or published name; with `random:` before it, its shape alone.

    max_memory: as the command takes it. Raises InputError where there is none.
    """
    from hyenadna.checkpoint.load import load

    if not name.startswith(RANDOM):
        model = load(name)
        return ModelSource(name, model.config, model, max_memory)
    shape = name.removeprefix(RANDOM)
    try:
        config = preset(shape)
    except InputError:
        if not Path(shape).exists():
            raise
        config = load(shape).config
    return ModelSource(shape, config, None, max_memory)
