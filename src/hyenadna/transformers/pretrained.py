"""The backbone as a `PreTrainedModel`, and what all classes share: weights, loading, saving."""

# The library types its methods for itself, differently in each release.

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.model.backbone import Backbone, Block, initialise_module
from hyenadna.model.filter import ImplicitFilter, Sine
from hyenadna.model.operator import ShortFilter
from hyenadna.transformers.configuration import HyenaDNAConfig
from hyenadna.transformers.padding import packing
from hyenadna.transformers.tables import (
    all_tables,
    attach_hooks,
    expect_tables,
    mark_absent,
    settle_tables,
)


class HyenaDNAPreTrainedModel(PreTrainedModel):
    """Loading and saving in the published layout, fresh weights, activation checkpointing."""

    config_class = HyenaDNAConfig
    base_model_prefix = "hyena"
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["Block"]
    # Some files hold the shared sine frequency under each of its names; it is read under the first.
    # A language model's head has no place in the other models, and its loss is no news.
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [
        r"implicit_filter\.\d+\.freq$",
        r"^lm_head\.weight$",
    ]
    # Files without tables are whole: the tables follow from the configuration.
    _keys_to_ignore_on_load_missing: ClassVar[list[str]] = [
        r"filter_fn\.pos_emb\.[zt]$",
        r"filter_fn\.modulation\.deltas$",
    ]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """The model of a folder or repository, in evaluation mode; arguments of the library's own.

        A stored z, t or deltas that differs from its formula is kept; the rest is computed, so that
        it keeps its precision whatever the type of the weights.

        Raises InputError for a configuration out of range and, in transformers 4, for a file that
        lacks the sine frequency; OSError where nothing is found.
        """
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        _refuse_empty(model, pretrained_model_name_or_path)
        settle_tables(model, model.config.model_config())
        model._after_loading()
        return loaded

    def _after_loading(self) -> None:
        """What a subclass settles once its weights and files are read."""

    def save_pretrained(
        self,
        save_directory: str | Path,
        is_main_process: bool = True,
        state_dict: dict[str, Tensor] | None = None,
        *,
        tables: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Write a folder that `from_pretrained`, `hyenadna.load` and the published loader read.

        tables: with z, t and deltas, which the published loader demands and which are most of the
        file of a long model. The other arguments are those of the library.
        """
        state = dict(self.state_dict() if state_dict is None else state_dict)
        if tables:
            state = all_tables(self) | state
        return super().save_pretrained(
            save_directory, is_main_process=is_main_process, state_dict=state, **kwargs
        )

    @property
    def embeddings(self) -> nn.Module:
        """What holds the token table, where `peft` looks for it: `embeddings.word_embeddings`."""
        embeddings: nn.Module = self.base_model.backbone.embeddings
        return embeddings

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Raises InputError: the vocabulary is that of `hyenadna.alphabet`."""
        raise InputError(
            "the vocabulary of HyenaDNA is fixed (12 tokens); give new labels a head of their own"
        )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Fresh values, as in `initialise`, for what this module itself holds and no file filled.

        Older releases of the library call this for modules that a file filled in part.
        """
        mark_absent(module)
        own = module.parameters(recurse=False)
        kept = [(p, p.clone()) for p in own if getattr(p, "_is_hf_initialized", False)]
        if isinstance(module, Sine):
            nn.init.constant_(module.freq, float(self.config.activation_freq))
        elif isinstance(module, ImplicitFilter):
            nn.init.normal_(module.bias)
        elif isinstance(module, ShortFilter):
            fresh = ShortFilter(module.weight.shape[0], module.weight.shape[2])
            module.weight.copy_(fresh.weight)
            module.bias.copy_(fresh.bias)
        elif isinstance(module, nn.Linear | nn.Embedding | nn.LayerNorm):
            name = next((n for n, m in self.named_modules() if m is module), "")
            initialise_module(name, module, self.config.model_config())
        for parameter, value in kept:
            parameter.copy_(value)

    def _set_gradient_checkpointing(self, enable: bool = True, *args: Any, **kwargs: Any) -> None:
        """What `gradient_checkpointing_enable` and `..._disable` call: the whole of each block."""
        for module in self.modules():
            if isinstance(module, HyenaDNAModel):
                module.gradient_checkpointing = enable
            if isinstance(module, Block):
                module.checkpoint_mixer = module.checkpoint_mlp = enable


class HyenaDNAModel(HyenaDNAPreTrainedModel):
    """Tokens to hidden states after the final norm; parameters are named `backbone.`."""

    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__(config)
        shape: ModelConfig = config.model_config()
        self.backbone = Backbone(shape)
        self.gradient_checkpointing = False
        attach_hooks(self, shape)
        if self.get_input_embeddings().weight.is_meta:  # made by `from_pretrained`
            expect_tables(self)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """The token table."""
        table: nn.Embedding = self.backbone.embeddings.word_embeddings
        return table

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the token table."""
        self.backbone.embeddings.word_embeddings = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutput | tuple[Any, ...]:
        """`last_hidden_state` (B, L, D) after the final norm, and on request `hidden_states`.

        input_ids: integer (B, L), or inputs_embeds (B, L, D) in their place. attention_mask:
        (B, L), 0 where a token is padding, on either side or in between. With it the outputs at
        real positions are those of the row alone, and outputs at padding are 0. Without it every
        `[PAD]` is an ordinary token, as in the published port: harmless behind a sequence, wrong in
        front of it.

        output_hidden_states: also the n_layer + 2 states, each (B, L, D): embeddings, residual
        stream after each block, after the final norm. return_dict: whether the output has names
        rather than being a tuple.

        Raises InputError for both or neither kind of input, a mask that does not fit, a row without
        a real token, more than `max_seq_len` real tokens, and a request for attention weights.
        """
        refuse_attentions(output_attentions)
        given = only_input(input_ids, inputs_embeds)
        packed = packing(attention_mask, given.shape)
        real = given if packed is None else packed.pack(given)
        self.check_length(real.shape[1])
        embedded = self.get_input_embeddings()(real) if inputs_embeds is None else real
        if _chosen(output_hidden_states, self.config.output_hidden_states):
            states = self.backbone.hidden_states(self.backbone.dropout(embedded))
        else:
            states = [self.backbone(embedded)]
        if packed is not None:
            states = [packed.unpack(state) for state in states]
        output = BaseModelOutput(
            last_hidden_state=states[-1], hidden_states=tuple(states) if states[1:] else None
        )
        return output if _chosen(return_dict, self.config.return_dict) else output.to_tuple()

    def check_length(self, length: int) -> None:
        """Raises InputError for a sequence without tokens, or with more than the model reads."""
        if not 1 <= length <= self.config.max_seq_len:
            raise InputError(
                f"model: sequence of {length:,} tokens, but this model reads 1 to "
                f"{self.config.max_seq_len:,} (max_seq_len); cut it, for instance with "
                "tokenizer(..., truncation=True), or take a longer model"
            )


def _refuse_empty(model: nn.Module, source: Any) -> None:
    """Transformers 4 takes a parameter with several names for present when all are missing."""
    if hasattr(model, "hf_device_map"):  # then what lies on disk looks the same
        return
    empty = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if empty:
        raise InputError(
            f"{source}: {empty[0].partition('filter_fn.')[2] or empty[0]} is missing; fetch the "
            "checkpoint again"
        )


def _chosen(asked: bool | None, default: bool | None) -> bool:
    return bool(default if asked is None else asked)


def only_input(input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
    """The one of them that is given. Raises InputError for both or neither."""
    if (input_ids is None) == (inputs_embeds is None):
        raise InputError("model: give either input_ids or inputs_embeds")
    given = input_ids if inputs_embeds is None else inputs_embeds
    assert given is not None
    return given


def refuse_attentions(asked: bool | None) -> None:
    """Raises InputError where attention weights are asked for."""
    if asked:
        raise InputError("model: output_attentions is on, but this model has no attention weights")
