"""Steps in native code: which models have them, and where a state lies in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from hyenadna.model.backbone import Backbone, Block, Embeddings, engine_fits
from hyenadna.model.decoding.state import DecodingState, HyenaState
from hyenadna.model.engine.choose import all_like, choose_kernels, untouched
from hyenadna.model.engine.native_step import NativeStepper, StepAddresses, StepLayer
from hyenadna.model.engine.run import layer_of


def native_stepper(
    backbone: Backbone, blocks: Sequence[Block], head: Tensor | None
) -> NativeStepper | None:
    """Native steps for this model as it is, in evaluation mode, where there are any.

    head: (V, D), or None where logits are not just a product with it.
    """
    table = backbone.embeddings.word_embeddings.weight
    kernels = choose_kernels(backbone.engine, backbone.config, table)
    if kernels is None or kernels.name != "native" or not bare_embeddings(backbone):
        return None
    if head is None or head.shape != table.shape or not all_like(table, [head]):
        return None
    if not backbone.plain_norm(table) or not all(
        engine_fits(block, backbone.config) and all_like(table, block.parameters())
        for block in blocks
    ):
        return None
    weights = [layer_of(i, block, 1).weights for i, block in enumerate(blocks)]
    norm = backbone.ln_f
    return NativeStepper(
        weights, norm.eps, head, (norm.weight, norm.bias), table,
        bf16=torch.is_autocast_enabled("cpu") and table.dtype == torch.float32,
    )  # fmt: skip


def native_step(stepper: NativeStepper, state: DecodingState, ids: Tensor) -> Tensor:
    """Logits (B, V) after one more token of each row, ids (B,); the state moves on."""
    hyena = cast(list[HyenaState], state.layers)
    convolutions = [layer.convolutions[0] for layer in hyena]
    count, block = convolutions[0].count, convolutions[0].filter.block
    stepper.require(len(hyena), hyena[0].halo)
    if state.addresses is None and any(c.count != count for c in convolutions):
        for layer in hyena:  # a settling broke off between two layers: finish it
            layer.settle()
        count = 0
    if count == convolutions[0].recent.shape[1]:
        state.addresses = None
        for convolution in convolutions:
            convolution.make_way()
    if state.addresses is None:
        layers = [
            StepLayer(layer.halo, c.recent, c.settled, c.filter.taps)
            for layer, c in zip(hyena, convolutions, strict=True)
        ]
        state.addresses = StepAddresses(layers, block, torch.get_num_threads())
    logits = stepper.step(state.addresses, count, ids)
    if (count + 1) % block:
        for convolution in convolutions:
            convolution.count += 1
    else:
        state.addresses = None
        for convolution in convolutions:
            convolution.came()
    return logits


def bare_embeddings(backbone: Backbone) -> bool:
    """Whether embedding tokens is just looking them up in a table of the usual shape."""
    embeddings, config = backbone.embeddings, backbone.config
    usual = (config.padded_vocab_size, config.d_model)
    bare = untouched(embeddings, frozenset({Embeddings, nn.Embedding}))
    return bare and embeddings.word_embeddings.weight.shape == usual
