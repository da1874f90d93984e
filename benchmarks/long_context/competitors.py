"""The competitors behind one face: build, embed, loss."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, cast

import torch
from benchmarks.long_context.original import Original
from torch import Tensor, nn

from hyenadna.config import ModelConfig
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.likelihood import target_nats

Engine = Literal["native", "torch", "plain"]


@dataclass(frozen=True)
class Competitor:
    """A model with its two verbs."""

    name: str
    module: nn.Module
    embed: Callable[[Tensor], Tensor]
    """Tokens (B, L) -> hidden states (B, L, D)."""
    nats: Callable[[Tensor, Tensor], Tensor]
    """Inputs and targets (B, L) -> mean loss."""
    bf16: bool = False

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """The context of every call: autocast to bfloat16, or nothing."""
        if self.bf16:
            return torch.autocast("cpu", dtype=torch.bfloat16)
        return contextlib.nullcontext()


def build(name: str, config: ModelConfig) -> Competitor:
    """The competitor of that name, with the same weights as all others of that configuration.

    All dropout is off, so that all compute one function. (The Transformer twin has other weights.)
    Raises InputError where an engine cannot run here.
    """
    config = config.replace(embed_dropout=0.0)
    if name == "attention":
        return _ours(name, random_model(config.replace(mixer="attention")))
    model = random_model(config)
    if name == "original":
        original = Original(model)
        return Competitor(name, original, original.embed, lambda x, y: mean_nats(original(x), y))
    if name == "multimolecule":
        return _multimolecule(model)
    model.set_engine(kernels=cast(Engine, name.removesuffix("+bf16")))
    return _ours(name, model, bf16=name.endswith("+bf16"))


def _ours(name: str, model: HyenaDNA, *, bf16: bool = False) -> Competitor:
    return Competitor(
        name, model, model.embed, lambda x, y: target_nats(model, x, y).mean(), bf16=bf16
    )


def mean_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy of logits (B, L, V) and targets (B, L), as the original computes it."""
    return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def random_model(config: ModelConfig) -> HyenaDNA:
    """A model with the weights that training starts from, the same at every call."""
    torch.manual_seed(0)
    return HyenaDNA(config)


def random_tokens(batch: int, length: int) -> Tensor:
    """Bases (B, L), always the same."""
    return torch.randint(7, 11, (batch, length), generator=torch.Generator().manual_seed(1))


def _multimolecule(model: HyenaDNA) -> Competitor:
    """The package's model with our weights, by its public names only."""
    package = import_module("multimolecule")
    config = model.config
    theirs = package.HyenaDnaForCausalLM(
        package.HyenaDnaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.d_model,
            num_hidden_layers=config.n_layer,
            intermediate_size=config.inner_width,
            max_position_embeddings=config.max_seq_len,
            embedding_dropout=0.0,
            pad_token_id=4,
        )
    )
    theirs.load_state_dict(published_weights(model, list(theirs.state_dict())))
    return Competitor(
        "multimolecule",
        theirs,
        lambda x: theirs.base_model(x).last_hidden_state,
        lambda x, y: mean_nats(theirs(x).logits, y),
    )


def published_weights(model: HyenaDNA, names: list[str]) -> dict[str, Tensor]:
    """Our weights under multimolecule's names: other norm and head, one frequency a sine layer."""
    ours = model.state_dict()
    ours["lm_head.weight"] = model.head_weight
    weights = {}
    for name in names:
        key = name.replace("model.", "backbone.", 1) if name.startswith("model.") else name
        key = key.replace("final_layer_norm", "ln_f")
        head, dot, tail = key.partition(".implicit_filter.")
        if tail.endswith(".freq"):
            key = f"{head}{dot}1.freq"
        weights[name] = ours[key].detach()
    return weights
