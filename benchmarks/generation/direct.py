"""The direct cached sum: all samples are kept, and each output adds them up one by one.

It is our decoder with a block that is longer than the sequence, so that nothing is ever folded, and
with the samples of the prompt among the recent ones in place of their effect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from hyenadna.conv.online import OnlineConvolution
from hyenadna.errors import InputError
from hyenadna.model.backbone import Block
from hyenadna.model.decoding import Decoder, DecodingState
from hyenadna.model.decoding.past import no_past
from hyenadna.model.decoding.state import HyenaState
from hyenadna.model.engine.ends import embed_tokens
from hyenadna.model.engine.run import continue_blocks


def unfolded_block(tokens: int) -> int:
    """The `block` of a decoder that folds nothing in so many tokens: a power of two above them."""
    return 1 << tokens.bit_length()


@torch.no_grad()
def prefill_unfolded(decoder: Decoder, prompt: Tensor, *, room: int) -> DecodingState:
    """The state after a prompt of ids (P,), all of whose samples are still to be added one by one.

    room: tokens that may follow; together they must be fewer than the decoder's block. Raises
    InputError where a fold would come, and for a model that the engine does not run.
    """
    state = decoder.prefill([prompt[:1]], room=0)  # only for its filters
    layers = cast(list[HyenaState], state.layers)
    old = [layer.convolutions[0] for layer in layers]
    capacity = len(prompt) + room
    if capacity >= old[0].filter.block:
        raise InputError(
            f"direct sum: {capacity:,} tokens with blocks of {old[0].filter.block:,} are folded; "
            f"make the decoder with block={unfolded_block(capacity)}"
        )
    backbone, tokens = decoder.backbone, prompt[None]
    table = backbone.embeddings.word_embeddings.weight
    run = backbone.engine_pass(table, 1, len(prompt))
    if run is None:
        raise InputError("direct sum: the engine does not run this model; use one of order 2")
    pasts = [no_past(c.filter.taps, decoder.config, 1) for c in old]
    for layer, past, convolution in zip(layers, pasts, old, strict=True):
        kept = _holding_all(convolution, len(prompt), capacity)
        past.keep = _keep_in(kept.recent)
        layer.halo, layer.convolutions = past.next_halo, [kept]
    blocks = cast(Sequence[Block], list(backbone.layers))
    stream = continue_blocks(run, blocks, embed_tokens(run.kernels, table, tokens), pasts)
    state.logits = decoder.model.logits(backbone.ln_f(stream[:, -1:]))[:, 0].clone()
    state.lengths = torch.tensor([len(prompt)])
    state.addresses = None
    return state


def _holding_all(convolution: OnlineConvolution, count: int, capacity: int) -> OnlineConvolution:
    taps = convolution.filter.taps
    shape = (1, capacity, taps.shape[1])
    # Nothing is settled: zeros of numpy are only read, and so take no memory.
    settled = torch.from_numpy(np.zeros(shape, dtype=taps.numpy().dtype))
    kept = OnlineConvolution(convolution.filter, settled, 1)
    kept.recent = taps.new_zeros(shape)
    kept.count = count
    return kept


def _keep_in(recent: Tensor) -> Callable[[slice, Tensor], None]:
    def keep(channels: slice, samples: Tensor) -> None:
        recent[:, : samples.shape[1], channels] = samples.flatten(2)

    return keep
