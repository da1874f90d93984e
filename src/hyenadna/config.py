"""Model configuration, the seven published shapes, and a larger one of ours.

Field names are those of the published Hugging Face configuration, so that its `config.json` is read
and written without a second vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

from hyenadna.errors import InputError

Mixer = Literal["hyena", "attention"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that fixes the shape and the function of a model (not how it is trained).

    Raises InputError when a value is out of range.
    """

    d_model: int = 256
    """Width of the residual stream, D."""
    n_layer: int = 8
    """Number of blocks."""
    d_inner: int | None = None
    """Hidden width of the MLP; 4 * d_model when left out."""
    max_seq_len: int = 1024
    """Longest sequence in tokens, M. The filter's lag axis is scaled by it where `lag_scale` is
    left out: then it is part of the function, not only a limit."""
    lag_scale: int | None = None
    """Tokens that the filter's lag axis is scaled by; `max_seq_len` when left out. A model that was
    made longer keeps that of the model it was made from."""
    vocab_size: int = 12
    """Number of tokens before padding."""
    pad_vocab_size_multiple: int = 8
    """The token table is padded to a multiple of this (12 becomes V = 16)."""
    mixer: Mixer = "hyena"
    """`hyena`, or `attention` for the Transformer baseline of the same width and depth."""
    hyena_order: int = 2
    """Order N of the operator: N - 1 long convolutions and N gates."""
    short_filter_order: int = 3
    """Taps of the short causal filter; odd."""
    emb_dim: int = 5
    """Width E of the positional features of the filter network; odd, at least 3."""
    filter_order: int = 64
    """Hidden width F of the filter network."""
    num_inner_mlps: int = 2
    """Hidden layers of the filter network beyond the first."""
    activation_freq: float = 10.0
    """Initial frequency of the sine activations."""
    train_freq: bool = True
    """Whether the sine frequency is trained (otherwise it is a constant that is not stored)."""
    window_shift: float = 0.05
    """Constant added to the exponential window of the filter. The published weights need 0.05; no
    published file stores it (the training code of the original used 0.0)."""
    num_heads: int = 8
    """Attention heads (attention mixer only)."""
    embed_dropout: float = 0.1
    """Dropout on the token embeddings."""
    resid_dropout: float = 0.0
    """Dropout on the output of each mixer and MLP before it joins the residual stream."""
    hyena_dropout: float = 0.0
    """Dropout on the gated signal before each long convolution (attention: on the weights)."""
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    """Standard deviation of the initial weights."""
    tie_word_embeddings: bool = True
    """Whether the head is the token table (as pretrained) or a matrix of its own (as the `-hf`
    files store it)."""

    def __post_init__(self) -> None:
        def need(ok: bool, field: str, rule: str) -> None:
            if not ok:
                raise InputError(f"model config: {field} is {getattr(self, field)}; {rule}")

        for f in dataclasses.fields(self):
            _require_type(f.name, f.type, getattr(self, f.name))
        for field in (
            "d_model", "n_layer", "vocab_size", "pad_vocab_size_multiple", "filter_order",
            "num_heads",
        ):  # fmt: skip
            need(getattr(self, field) >= 1, field, "it must be at least 1")
        need(self.d_inner is None or self.d_inner >= 1, "d_inner", "it must be at least 1")
        need(self.num_inner_mlps >= 0, "num_inner_mlps", "it must be at least 0")
        need(self.max_seq_len >= 2, "max_seq_len", "it must be at least 2")
        need(self.lag_scale is None or self.lag_scale >= 2, "lag_scale", "it must be at least 2")
        need(self.layer_norm_epsilon > 0, "layer_norm_epsilon", "it must be positive")
        need(self.mixer in ("hyena", "attention"), "mixer", "it is 'hyena' or 'attention'")
        need(self.hyena_order >= 2, "hyena_order", "it must be at least 2")
        need(
            self.short_filter_order >= 1 and self.short_filter_order % 2 == 1,
            "short_filter_order",
            "it must be odd and positive",
        )
        need(self.emb_dim >= 3 and self.emb_dim % 2 == 1, "emb_dim", "it must be odd, at least 3")
        for field in ("embed_dropout", "resid_dropout", "hyena_dropout"):
            need(0 <= getattr(self, field) < 1, field, "it must be in [0, 1)")
        if self.mixer == "attention":
            need(
                self.d_model % (2 * self.num_heads) == 0,
                "num_heads",
                f"2 * num_heads must divide d_model = {self.d_model}",
            )

    @property
    def inner_width(self) -> int:
        """Hidden width of the MLP, I."""
        return 4 * self.d_model if self.d_inner is None else self.d_inner

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the token table and width of the logits, V."""
        multiple = self.pad_vocab_size_multiple
        return -(-self.vocab_size // multiple) * multiple

    @property
    def projected_width(self) -> int:
        """Channels of a mixer's input projection: (N + 1) D, of attention 3 D."""
        return (self.hyena_order + 1 if self.mixer == "hyena" else 3) * self.d_model

    @property
    def filter_channels(self) -> int:
        """Channels of the implicit filter, C = D (N - 1)."""
        return self.d_model * (self.hyena_order - 1)

    def num_parameters(self) -> int:
        """Trainable parameters, without building the model (formula of the published shapes)."""
        d, order, inner = self.d_model, self.hyena_order, self.inner_width
        if self.mixer == "hyena":
            width, channels, f = (order + 1) * d, self.filter_channels, self.filter_order
            mixer = d * width + width + d * d + d
            mixer += width * (self.short_filter_order + 1) + channels
            mixer += self.emb_dim * f + f + self.num_inner_mlps * (f * f + f) + f * channels
            mixer += f if self.train_freq else 0
        else:
            mixer = 3 * d * d + 3 * d + d * d + d
        block = mixer + 4 * d + 2 * d * inner + inner + d
        tables = 1 if self.tie_word_embeddings else 2
        return self.n_layer * block + tables * self.padded_vocab_size * d + 2 * d

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values by field name, in the published names."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Configuration from a published (flat, Hugging Face) or own `config.json`.

        Fields that do not belong to the model (`architectures`, `torch_dtype`, …) are passed over.
        The published class defaults differ from ours and apply where a published file leaves a
        field out.
        """
        if "layer" in values:
            raise InputError(
                "config has a nested 'layer' block (the original's layout); "
                "read it with hyenadna.checkpoint"
            )
        known = {f.name for f in dataclasses.fields(cls)}
        chosen: dict[str, Any] = dict(PUBLISHED_CLASS_DEFAULTS)
        chosen |= {k: v for k, v in values.items() if k in known}
        return cls(**chosen)


def _require_type(field: str, annotation: object, value: object) -> None:
    """Raise InputError where a value, from a file say, is not of the type of its field."""
    name = str(annotation)
    if value is None and "None" in name:
        return
    whole = isinstance(value, int) and not isinstance(value, bool)
    fits = {
        "int": whole,
        "float": whole or isinstance(value, float),
        "bool": isinstance(value, bool),
    }.get(name.partition(" ")[0], True)
    if not fits:
        raise InputError(f"model config: {field} is {value!r}; it must be of type {name}")


# Class defaults of the published configuration (spec (e)): what a missing field means there.
PUBLISHED_CLASS_DEFAULTS: Final[Mapping[str, Any]] = {
    "n_layer": 12,
    "emb_dim": 3,
    "activation_freq": 1.0,
}


def _shape(d_model: int, n_layer: int, max_seq_len: int) -> ModelConfig:
    return ModelConfig(d_model=d_model, n_layer=n_layer, max_seq_len=max_seq_len)


# Short name -> shape. The published repository is LongSafari/hyenadna-<...> (see PUBLISHED_NAMES);
# there are no published weights of xlarge-1m, a shape for training over many devices.
PRESETS: Final[Mapping[str, ModelConfig]] = {
    "tiny-1k": _shape(128, 2, 1026),
    "tiny-1k-d256": _shape(256, 2, 1026),
    "tiny-16k-d128": _shape(128, 2, 16386),
    "small-32k": _shape(256, 4, 32770),
    "medium-160k": _shape(256, 8, 160002),
    "medium-450k": _shape(256, 8, 450002),
    "large-1m": _shape(256, 8, 1000002),
    "xlarge-1m": _shape(2048, 26, 1000002),
}

PUBLISHED_NAMES: Final[Mapping[str, str]] = {
    "tiny-1k": "hyenadna-tiny-1k-seqlen",
    "tiny-1k-d256": "hyenadna-tiny-1k-seqlen-d256",
    "tiny-16k-d128": "hyenadna-tiny-16k-seqlen-d128",
    "small-32k": "hyenadna-small-32k-seqlen",
    "medium-160k": "hyenadna-medium-160k-seqlen",
    "medium-450k": "hyenadna-medium-450k-seqlen",
    "large-1m": "hyenadna-large-1m-seqlen",
}


def preset(name: str) -> ModelConfig:
    """The configuration of a shape, by short or by published name.

    Raises InputError for an unknown name, listing those that exist.
    """
    short = {published: key for key, published in PUBLISHED_NAMES.items()}.get(name, name)
    if short not in PRESETS:
        raise InputError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[short]
