"""Memory that a model needs, by arithmetic: no torch, so that it can be printed at once."""

from __future__ import annotations

from hyenadna.config import ModelConfig


def inference_bytes(config: ModelConfig, *, tokens: int) -> int:
    """Peak bytes of a float32 forward pass over `tokens` positions (batch x length).

    Counts, per position: the residual stream, the widest moment of one block (projections before
    and after the short filter, or the MLP's hidden layer twice), and the logits; and per lag of the
    longest sequence the filter of one layer.
    """
    d, inner = config.d_model, config.inner_width
    width = (config.hyena_order + 1 if config.mixer == "hyena" else 3) * d
    mixer = 2 * width + 2 * d
    feed = 2 * inner
    per_token = 2 * d + max(mixer, feed) + config.padded_vocab_size
    filters = 4 * config.filter_channels if config.mixer == "hyena" else 0
    length = min(tokens, config.max_seq_len)
    return 4 * (config.num_parameters() + tokens * per_token + length * filters)


def training_bytes(
    config: ModelConfig,
    *,
    tokens: int,
    checkpointing: bool = False,
    precision: str = "float32",
    average: bool = False,
) -> int:
    """Peak bytes of a training step over `tokens` positions in one forward pass.

    Weights, gradients and two moments (16 bytes a parameter; 4 more for the moving average), plus
    what each block keeps for its backward pass.
    """
    d, inner = config.d_model, config.inner_width
    width = (config.hyena_order + 1 if config.mixer == "hyena" else 3) * d
    # residual stream twice, both norms, projections before and after the short filter, gated input,
    # convolution, last product, MLP hidden before and after GELU
    kept = 4 * d + 2 * width + 4 * d + 2 * inner
    size = 4 if precision == "float32" else 3  # half of the kept activations are half precision
    block_tokens = tokens * kept * size
    if checkpointing:
        activations = config.n_layer * tokens * 2 * d * 4 + block_tokens
    else:
        activations = config.n_layer * block_tokens
    work = tokens * (2 * inner + 2 * width) * 4 + tokens * config.padded_vocab_size * 12
    length = min(tokens, config.max_seq_len)
    filters = config.n_layer * length * (config.filter_channels * 3 + config.filter_order * 8) * 4
    return config.num_parameters() * (20 if average else 16) + activations + work + filters
