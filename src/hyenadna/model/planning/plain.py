"""Bytes that the plain modules hold at the widest moments of a pass, tensor by tensor: no torch.

Letters as in docs/notation.md; T = B L positions. Counted are the tensors that are alive, neither
weights nor gradients, the tables of lags, nor what the allocator keeps of freed ones. A test counts
the same in real passes (tests/model/test_planning_memory.py): within 2 %.
"""

from __future__ import annotations

from dataclasses import dataclass

from hyenadna.config import ModelConfig
from hyenadna.model.planning.held import BLOCK_SAMPLES, Held


@dataclass(frozen=True)
class PlainPass:
    """One pass of the modules as they are over B sequences of L tokens."""

    config: ModelConfig
    batch: int
    length: int
    half: bool = False
    """Whether products are in half precision (autocast)."""
    checkpointing: bool = False
    block_samples: int = BLOCK_SAMPLES

    def training(self) -> Held:
        """The widest moment of a forward and backward pass."""
        return max(self._training_moments(), key=lambda held: held.total)

    @property
    def _dropped(self) -> tuple[float, float]:
        """Bytes that dropout keeps: of the embeddings, and in a block."""
        c, mask = self.config, 4 * self._tokens * self.config.d_model
        rounds = c.hyena_order - 1 if c.mixer == "hyena" else 0
        block = 2 * (c.resid_dropout > 0) + rounds * (c.hyena_dropout > 0)
        return mask * (c.embed_dropout > 0), mask * block

    def inference(self, *, logits: bool = True) -> Held:
        """The widest moment of a pass without a graph. logits: whether they are made at the end."""
        c, t, p = self.config, self._tokens, self._product_size
        stream = 4 * t * c.d_model
        moments = [
            Held(stream, self._mixer_forward()),
            # beside the MLP's: the block's input, the mixer's output, the norm's
            Held(2 * stream, t * p * (c.d_model + 2 * c.inner_width) + stream),
        ]
        if logits:
            moments.append(Held(2 * stream, 0, 4 * t * 3 * c.padded_vocab_size))
        return max(moments, key=lambda held: held.total)

    @property
    def _tokens(self) -> int:
        return self.batch * self.length

    @property
    def _product_size(self) -> int:
        """Bytes of a number that a product gives or takes."""
        return 2 if self.half else 4

    @property
    def _lags(self) -> float:
        """Bytes that the filters of a layer keep: networks, decay, filters with their skip term."""
        c = self.config
        sines = (3 if c.train_freq else 2) * (c.num_inner_mlps + 1) * c.filter_order
        return 4 * self.length * (sines + 2 * c.filter_channels)

    def _signals(self) -> tuple[float, float]:
        """Bytes of a block of padded signals in a convolution, and of their filters."""
        n = 2 * self.length
        channels = min(self.config.d_model, max(1, self.block_samples // (self.batch * n)))
        return 4.0 * channels * self.batch * n, 4.0 * channels * n

    def _mixer_kept(self) -> float:
        """What a mixer with its norm keeps beside the block's input."""
        c, t, p = self.config, self._tokens, self._product_size
        d = c.d_model
        if c.mixer == "attention":
            # norm, projections, turned queries and keys, result twice; sums, norm, rotary tables
            return t * (p * 8 * d + 4 * (c.num_heads + 2)) + 8 * self.length * d / c.num_heads
        rounds = c.hyena_order - 1
        # norm and last product in the type of the products; projections before and after the short
        # filter, gated signals and what the convolutions make of them in float32
        return t * (2 * p * d + 4 * (2 * c.projected_width + 2 * rounds * d + 2)) + self._lags

    def _feed_kept(self) -> float:
        """What an MLP with its norm keeps beside its input."""
        c, p = self.config, self._product_size
        return self._tokens * (p * (c.d_model + 2 * c.inner_width) + 8)

    def _mixer_forward(self) -> float:
        """Temporaries of a mixer's forward pass without a graph, at its widest."""
        c, t = self.config, self._tokens
        d = c.d_model
        if c.mixer == "attention":
            return t * self._product_size * 8 * d
        signal, kernel = self._signals()
        # norm, projections before and after the short filter, gated signal, result; filters with
        # and without their skip term
        streams = 4 * t * (2 * self.config.projected_width + 3 * d)
        return (
            streams
            + 4 * self.length * (c.filter_channels + d)
            + max(3 * signal, signal + 2 * kernel)
        )

    def _training_moments(self) -> list[Held]:
        c, t, p = self.config, self._tokens, self._product_size
        stream = 4 * t * c.d_model
        mixer, feed = self._mixer_kept(), self._feed_kept()
        embedded, dropped = self._dropped
        block = 2 * stream + (0 if self.checkpointing else mixer + feed) + dropped
        before = embedded + (c.n_layer - 1) * block
        kept = before + block
        loss = Held(kept + 2 * stream, 0, 4 * t * 3 * c.padded_vocab_size)
        # the last block from the back: gradients of the MLP's output and hidden layer
        again = feed if self.checkpointing else 0
        hidden = Held(kept + again, stream + t * p * c.inner_width)
        return [loss, hidden, *self._mixer_backward(before, stream, mixer)]

    def _mixer_backward(self, before: float, stream: float, mixer: float) -> list[Held]:
        """The last block's mixer, from the back; before: kept by the other blocks."""
        c, t, p = self.config, self._tokens, self._product_size
        d = c.d_model
        if c.mixer == "attention":
            return [Held(before + stream + mixer, stream + t * p * 6 * d)]
        signal, kernel = self._signals()
        transforms = max(3 * signal + kernel, 2 * signal + 3 * kernel)
        # gradients of residual stream, last gate, convolution and its input; of the filter
        convolution = 4 * stream + 4 * self.length * d + transforms
        used = t * p * d + stream  # what the last product and gate had kept
        width = 4 * t * self.config.projected_width
        return [
            Held(before + stream + mixer - used, convolution),
            # at the short filter: gradients behind and before it, and a product for its own
            Held(before + stream + t * p * d + width, stream + 3 * width),
        ]
