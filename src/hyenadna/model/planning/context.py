"""Bytes that a rank holds where sequences lie over several, tensor by tensor: no torch.

As `hyenadna.model.parallel.context` runs a model; letters as there, P = B L / R positions of a
rank. Neither weights nor gradients are counted, nor the tables of lags.
"""

from __future__ import annotations

from typing import Final

from hyenadna.config import ModelConfig
from hyenadna.model.planning.held import BLOCK_SAMPLES, DEVICE_BLOCK_SAMPLES, Held

MIXED: Final = 1 << 19
"""Numbers (positions x channels) that a rank mixes at once, if that is a channel for each rank."""
DEVICE_MIXED: Final = 1 << 25
"""The same on a GPU, which small pieces would keep waiting."""
PIECE: Final = 1 << 13
"""Positions that an MLP or a filter network takes at once."""
_BESIDE_TRANSFORMS: Final = 10
"""Arrays of the size of what is mixed: projections and their gradients, and what is in exchange."""


def mixed_channels(batch: int, here: int, ranks: int, *, gpu: bool) -> int:
    """Channels that all ranks together mix at once, with `here` positions of each sequence a rank.

    As many for each rank, so one for each at least.
    """
    return ranks * max(1, (DEVICE_MIXED if gpu else MIXED) // (batch * here * ranks))


def context_training(
    config: ModelConfig,
    *,
    batch: int,
    length: int,
    ranks: int,
    gpu: bool = False,
) -> Held:
    """The widest moment of a rank in a training step on (B, L) positions over `ranks` ranks."""
    d, f, v = config.d_model, config.filter_order, config.padded_vocab_size
    here = -(-length // ranks)
    positions = batch * here
    # a block keeps its input, the norm's output and what stands between mixer and MLP; and the
    # filter network's last layer at the lags of this rank
    block = 4 * (positions * (3 * d + 2) + here * f)
    stream, last = 4 * positions * d, 4 * here * f
    kept = config.n_layer * block
    loss = Held(kept + 2 * stream, 0, 4 * positions * 3 * v)
    # the last block's MLP on a piece, from the back: norm, hidden layer and two gradients of it
    piece = batch * min(here, PIECE) * (d + 3 * config.inner_width)
    feed = Held(kept, stream + 4 * piece)
    mixed, exchanged = _mixed(config, batch, here, ranks, gpu)
    several = mixed_channels(batch, here, ranks, gpu=gpu) < d
    inside = kept - stream  # the last block's MLP is behind
    # gradients of the stream, and sums over the groups of channels with a term for each
    linear = Held(inside, 3 * stream + 2 * last + (mixed if several else 2 * mixed))
    sums = (stream + last) if several else 0
    transforms = Held(inside, stream + sums + exchanged)
    return max(loss, feed, linear, transforms, key=lambda held: held.total)


def context_inference(
    config: ModelConfig,
    *,
    batch: int,
    length: int,
    ranks: int,
    gpu: bool = False,
) -> Held:
    """The widest moment of a rank in a pass without a graph, with logits."""
    here = -(-length // ranks)
    stream = 4 * batch * here * config.d_model
    last = 4 * here * config.filter_order
    _, exchanged = _mixed(config, batch, here, ranks, gpu)
    mixing = Held(stream, 3 * stream + last + exchanged)
    logits = Held(2 * stream, 0, 4 * batch * here * 3 * config.padded_vocab_size)
    return max(mixing, logits, key=lambda held: held.total)


def _mixed(
    config: ModelConfig, batch: int, here: int, ranks: int, gpu: bool
) -> tuple[float, float]:
    """Bytes of what is mixed at once beside products, and beside exchanges and transforms."""
    channels = min(config.d_model, mixed_channels(batch, here, ranks, gpu=gpu))
    array = 4.0 * batch * here * channels
    # whole sequences of this rank's channels, a block after the other: padded to twice the length
    padded = 2 * here * ranks
    block_samples = DEVICE_BLOCK_SAMPLES if gpu else BLOCK_SAMPLES
    together = min(channels // ranks, max(1, block_samples // (batch * padded)))
    signal, kernel = 4.0 * together * batch * padded, 4.0 * together * padded
    transforms = max(3 * signal + kernel, 2 * signal + 3 * kernel)
    width = config.hyena_order + 1
    # projections before and after the short filter, gated signals, filters, and what comes and goes
    return _BESIDE_TRANSFORMS * array, (
        2 * width + 6 + 4 * (config.hyena_order - 1)
    ) * array + transforms
