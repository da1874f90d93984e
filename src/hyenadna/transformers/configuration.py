"""The configuration class of `transformers` <-> `ModelConfig`."""

# The library types its methods for itself, differently in each release.

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Self

from transformers import PretrainedConfig

from hyenadna.alphabet import PAD
from hyenadna.config import ModelConfig
from hyenadna.errors import InputError

POOLINGS: Final = ("last_token", "published")
_FIELDS: Final = tuple(field.name for field in dataclasses.fields(ModelConfig))
# What a field means that a file leaves out: the published class defaults, not the published shapes.
_DEFAULTS: Final[Mapping[str, Any]] = ModelConfig.from_dict({}).to_dict()


class HyenaDNAConfig(PretrainedConfig):
    """Shape and function of a model, under the field names of the published `config.json`.

    Keyword arguments: every field of `hyenadna.ModelConfig`, and

    pooling: which position the sequence classifier reads. `last_token`: the last real one (by the
    attention mask, or without one the last that is no `[PAD]`). `published`: the one before the
    first `[PAD]` of the row, the last where there is none, as the published port has it.
    pad_token_id: `[PAD]`, 4. use_bias, hyena_filter_dropout: fields that the published code reads
    and never uses, kept for it. All others are those of `PretrainedConfig`.

    `hidden_size`, `num_hidden_layers`, `num_attention_heads` and `max_position_embeddings` are
    other names, which tools of the library look for, of `d_model`, `n_layer`, `num_heads` and
    `max_seq_len`.

    Raises InputError when a value is out of range.
    """

    model_type = "hyenadna"
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "d_model",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "num_heads",
        "max_position_embeddings": "max_seq_len",
    }

    def __init__(
        self,
        *,
        pooling: str = "last_token",
        pad_token_id: int | None = PAD,
        use_bias: bool = True,
        hyena_filter_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        if pooling not in POOLINGS:
            raise InputError(f"model config: pooling is {pooling!r}; it is one of {POOLINGS}")
        self.pooling = pooling
        self.use_bias = use_bias
        self.hyena_filter_dropout = hyena_filter_dropout
        for name, default in _DEFAULTS.items():
            value = kwargs.pop(name, None)
            setattr(self, name, default if value is None else value)
        tied = self.tie_word_embeddings
        super().__init__(pad_token_id=pad_token_id, tie_word_embeddings=tied, **kwargs)
        self.model_config()  # raises for a value out of range

    def model_config(self) -> ModelConfig:
        """The same model as a `ModelConfig`."""
        return ModelConfig(**{name: getattr(self, name) for name in _FIELDS})

    @classmethod
    def from_model_config(cls, config: ModelConfig, **kwargs: Any) -> Self:
        """The configuration of a model of ours; kwargs: further fields, such as `num_labels`."""
        return cls(**{**config.to_dict(), "d_inner": config.inner_width}, **kwargs)

    def to_diff_dict(self) -> dict[str, Any]:
        """What `config.json` holds: every model field, also where it has its default.

        The library would leave defaults out, and other readers have others.
        """
        values: dict[str, Any] = super().to_diff_dict()
        return values | {name: getattr(self, name) for name in _FIELDS}


class HyenaDNAAttentionConfig(HyenaDNAConfig):
    """The Transformer baseline: `hyenadna.save` gives it a model type of its own, so that the
    published code does not take it for a Hyena model."""

    model_type = "hyenadna_attention"

    def __init__(self, *, mixer: str = "attention", **kwargs: Any) -> None:
        super().__init__(mixer=mixer, **kwargs)
