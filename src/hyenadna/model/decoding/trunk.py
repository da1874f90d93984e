"""Many sequences that leave one sequence anywhere in it, read at the cost of their own ends alone.

The sequence, the trunk, is read once, and of each layer its projections, the samples u of the long
convolution and its outputs y are kept. A branch is the first p tokens of the trunk and an end of
its own, with samples u'. By linearity its outputs behind position p are

    y'[p + i] = sum_{s < p} k[p+i-s] u[s] + sum_{j <= i} k[i-j] u'[j]
              = y[p + i] + sum_{j <= i} k[i-j] (u'[j] - u[p + j])

so a branch needs a convolution of the length of its end, wherever it leaves the trunk, and branches
that leave at different places are read in one batch. Nothing is approximated. (States of a
`Decoder` serve where a sequence grows; to have one at each of many places costs a pass for each.)

`hyenadna.model.decoding.shared_reading.read_whole` is the slow twin.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, cast

import torch
from torch import Tensor, nn

from hyenadna.conv.online import Lags
from hyenadna.conv.right_angle import RightAngle
from hyenadna.errors import InputError
from hyenadna.model.attention import CausalAttention, rotate
from hyenadna.model.backbone import Block, HyenaDNA
from hyenadna.model.decoding.decoder import check_decodable
from hyenadna.model.decoding.filter_lags import FilterLags
from hyenadna.model.decoding.modules import HyenaContinuation, Mixing, advance_block
from hyenadna.model.decoding.native_steps import bare_embeddings
from hyenadna.model.decoding.past import no_past
from hyenadna.model.decoding.state import HyenaState
from hyenadna.model.engine.alone import alone
from hyenadna.model.engine.block import Pass, block_inference
from hyenadna.model.engine.ends import embed_tokens
from hyenadna.model.engine.kernels import Past
from hyenadna.model.engine.run import continue_blocks, layers_of
from hyenadna.model.operator import HyenaOperator

_KEPT_LAGS: Final = 1 << 15
"""Lags of a filter whose spectra are kept, of all lengths together."""
_PART_SAMPLES: Final = 1 << 21
"""Complex samples that are transformed together on a CPU."""


class TrunkLayer(Mixing, Protocol):
    """What one layer keeps of the trunk; made by `mix`, which is called once."""

    def branch(self, at: Tensor) -> Mixing:
        """How branches that leave at positions (B,) follow."""
        ...


@dataclass(frozen=True)
class Trunk:
    """A sequence that has been read."""

    hidden: Tensor
    """(T, D): hidden states after the final norm."""
    nats: Tensor
    """(T,): minus the log-probability of each token given those before, all V classes competing;
    nan for the first, which has no prediction."""
    layers: Sequence[TrunkLayer]

    def __len__(self) -> int:
        return len(self.hidden)


@dataclass(frozen=True)
class Ends:
    """The ends of branches as a model reads them; void where an end is padded."""

    hidden: Tensor
    """(B, n, D): hidden states after the final norm."""
    nats: Tensor
    """(B, n): minus the log-probability of each token, all V classes competing."""


class TrunkReader:
    """Reads trunks and their branches with one model, which is in evaluation mode.

    Through the engine where it fits the model, else through the modules themselves, so that
    adapters have their effect, on any device and under autocast. Weights must not change while the
    reader is in use.

    Raises InputError for a model with hooks on modules that would not be called.
    """

    def __init__(self, model: HyenaDNA) -> None:
        self.model = model
        self._blocks = cast(Sequence[Block], list(model.backbone.layers))
        check_decodable(model.backbone, self._blocks)
        self._filters = [_filters(block.mixer) for block in self._blocks]

    @torch.inference_mode()
    def read(self, tokens: Tensor) -> Trunk:
        """The trunk of token ids (T,), int64 on the model's device.

        Raises InputError for none, and for more than the model reads.
        """
        limit = self.model.config.max_seq_len
        if tokens.ndim != 1 or not 1 <= len(tokens) <= limit:
            raise InputError(
                f"trunk: tokens have shape {tuple(tokens.shape)}; give 1 to {limit:,} of them"
            )
        run = self._engine_pass(1, len(tokens))
        layers: list[TrunkLayer]
        if run is not None:
            stream, layers = self._through_engine(run, tokens[None])
            hidden = self.model.backbone.norm(stream, run)[0]
        else:
            layers = [
                _HyenaTrunk(own) if isinstance(block.mixer, HyenaOperator) else _AttentionTrunk()
                for block, own in zip(self._blocks, self._filters, strict=True)
            ]
            hidden = self._through(tokens[None], layers)[0]
        nats = torch.full_like(tokens, torch.nan, dtype=_score_type(hidden))
        if len(tokens) > 1:
            nats[1:] = _nats(self.model.logits(hidden[None, :-1]), tokens[None, 1:])[0]
        return Trunk(hidden, nats, layers)

    @torch.inference_mode()
    def ends(self, trunk: Trunk, at: Tensor, tokens: Tensor) -> Ends:
        """Ends (B, n) of branches, each behind the first `at` tokens of the trunk.

        at: int64 (B,), 1 .. T; tokens: int64 (B, n), padded on the right. The trunk must be as long
        as each branch is without its padding (its own last tokens may be padding); what is beyond
        it is void. A row depends on no other row, beyond rounding.
        """
        run = self._engine_pass(*tokens.shape)
        hyena = [layer for layer in trunk.layers if isinstance(layer, _HyenaTrunk)]
        if run is not None and hyena:
            pasts = [layer.past(at, tokens.shape[1]) for layer in hyena]
            h = embed_tokens(run.kernels, self._table, tokens)
            hidden = self.model.backbone.norm(continue_blocks(run, self._blocks, h, pasts), run)
        else:
            hidden = self._through(tokens, [layer.branch(at) for layer in trunk.layers])
        before = self.model.logits(trunk.hidden[at - 1])[:, None]
        logits = torch.cat([before, self.model.logits(hidden[:, :-1])], dim=1)
        return Ends(hidden, _nats(logits, tokens))

    def _engine_pass(self, batch: int, length: int) -> Pass | None:
        """How the engine reads so many tokens; None where the modules do."""
        backbone = self.model.backbone
        if not bare_embeddings(backbone):
            return None
        return backbone.engine_pass(self._table, batch, length)

    @property
    def _table(self) -> Tensor:
        table: Tensor = self.model.backbone.embeddings.word_embeddings.weight
        return table

    def _through_engine(self, run: Pass, tokens: Tensor) -> tuple[Tensor, list[TrunkLayer]]:
        """The residual stream (1, T, D) after all blocks, and what each of them keeps."""
        h = embed_tokens(run.kernels, self._table, tokens)
        y, layers = run.kernels.mixed_like(h), list[TrunkLayer]()
        through = layers_of(run, self._blocks, h.shape[1], training=False)
        for layer, block, (filter_,) in zip(through, self._blocks, self._filters, strict=True):
            kept = _EngineTrunk(filter_, block, h)
            past = no_past(kept.samples[0], self.model.config, 1)
            past.keep = kept.take
            with alone(run.kernels, h.device.type):
                block_inference(run, layer, h, y, h, past)
            kept.outputs.append(filter_.convolve(kept.samples[0][None])[0])
            layers.append(kept)
        run.kernels.release()
        return h, layers

    def _through(self, tokens: Tensor, layers: Sequence[Mixing]) -> Tensor:
        h: Tensor = self.model.backbone.embeddings(tokens)
        for block, layer in zip(self._blocks, layers, strict=True):
            h = advance_block(block, h, layer)
        out: Tensor = self.model.backbone.ln_f(h)
        return out


def _nats(logits: Tensor, targets: Tensor) -> Tensor:
    """(B, L): of targets (B, L) under logits (B, L, V)."""
    return nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")


def _score_type(hidden: Tensor) -> torch.dtype:
    return torch.float64 if hidden.dtype == torch.float64 else torch.float32


class _Filter:
    """Causal convolution with one long filter; the spectra of the last lengths are kept."""

    def __init__(self, lags: Lags) -> None:
        self.lags = lags
        self._spectra: OrderedDict[int, Tensor] = OrderedDict()

    def convolve(self, u: Tensor) -> Tensor:
        """(B, n, C) of samples u (B, n, C), from nothing."""
        fft = RightAngle(u.shape[1], u.dtype, u.device)
        spectrum = self._spectrum(fft)
        out = torch.empty_like(u)
        for channels in fft.parts(u.shape[2], len(u), _PART_SAMPLES):
            spectra = fft.forward(u[..., channels].transpose(1, 2))
            spectra *= spectrum[channels]
            out[..., channels] = fft.back(spectra).transpose(1, 2)
        return out

    def _spectrum(self, fft: RightAngle) -> Tensor:
        """(C, m), of all lags up to the length of the transform."""
        found = self._spectra.pop(fft.m, None)
        if found is None:
            lags = self.lags.between(0, fft.m)(slice(0, self.lags.channels))
            found = _whole_length(fft, lags)
            while self._spectra and sum(self._spectra) + fft.m > _KEPT_LAGS:
                self._spectra.popitem(last=False)
        self._spectra[fft.m] = found
        return found


def _whole_length(fft: RightAngle, lags: Tensor) -> Tensor:
    """Transform of lags (C, m). Lags beyond the length of the signal change nothing in it."""
    return RightAngle(fft.m, lags.dtype, lags.device).forward(lags)


def _filters(mixer: nn.Module) -> list[_Filter]:
    """Of each long convolution of a layer; none where it has attention."""
    if not isinstance(mixer, HyenaOperator):
        return []
    width = mixer.d_model
    parts = [slice(o * width, (o + 1) * width) for o in range(mixer.order - 1)]
    return [_Filter(FilterLags(mixer.filter_fn, part)) for part in parts]


class _HyenaTrunk(HyenaContinuation):
    """Keeps projections (T, (N+1) D), and samples and outputs (T, D) of each convolution."""

    def __init__(self, filters: Sequence[_Filter]) -> None:
        super().__init__(HyenaState(torch.empty(0), []), keep=False)
        self.filters = filters
        self.projected, self.width = torch.empty(0), 0
        self.samples: list[Tensor] = []
        self.outputs: list[Tensor] = []

    def branch(self, at: Tensor) -> Mixing:
        """See `TrunkLayer`."""
        return _HyenaBranches(self, at)

    def halo(self, at: Tensor, width: int) -> Tensor:
        """Projections (B, width, (N+1) D) at the positions before, 0 before the first."""
        # they begin with as many zeros
        return self.projected[at[:, None] + torch.arange(width, device=at.device)]

    def places(self, at: Tensor, count: int) -> Tensor:
        """Positions (B, count) from `at` on; padding may reach beyond the trunk."""
        places = at[:, None] + torch.arange(count, device=at.device)
        return places.clamp_(max=len(self.samples[0]) - 1)

    def past(self, at: Tensor, count: int) -> Past:
        """What comes before ends of `count` tokens, in the terms of the engine, for order 2."""
        places = self.places(at, count)
        settled = self.outputs[0][places] - self.filters[0].convolve(self.samples[0][places])
        halo = self.halo(at, self.width)
        return Past(halo, settled, torch.empty_like(halo), _forget)

    def _halo(self, width: int, like: Tensor) -> Tensor:
        self.width = width
        nothing = like.new_zeros(1, width, like.shape[2])
        self.projected = torch.cat([nothing, like], dim=1)[0]
        return nothing

    def _convolve(self, order: int, u: Tensor) -> Tensor:
        y = self.filters[order].convolve(u)
        self.samples.append(u[0])
        self.outputs.append(y[0])
        return y


class _EngineTrunk(_HyenaTrunk):
    """Of a layer that the engine has run: it gives the samples; the rest follows from the input."""

    def __init__(self, filter_: _Filter, block: Block, h: Tensor) -> None:
        super().__init__([filter_])
        assert isinstance(block.mixer, HyenaOperator)
        self.norm, self.mixer, self.input = block.norm1, block.mixer, h[0].clone()
        self.width = block.mixer.short_filter.weight.shape[-1] - 1
        self.samples = [torch.empty_like(self.input)]

    def take(self, channels: slice, samples: Tensor) -> None:
        """Keep the samples of some channels; see `Past.keep`."""
        self.samples[0][:, channels] = samples.flatten(2)[0]

    def halo(self, at: Tensor, width: int) -> Tensor:
        """See `_HyenaTrunk.halo`."""
        places = at[:, None] + torch.arange(-width, 0, device=at.device)
        found: Tensor = self.mixer.in_proj(self.norm(self.input[places.clamp(min=0)]))
        found = found.to(torch.promote_types(found.dtype, torch.float32))
        return found * (places >= 0)[..., None]


def _forget(channels: slice, samples: Tensor) -> None:
    """Keeps nothing."""


class _HyenaBranches(HyenaContinuation):
    """Ends that leave the trunk at positions (B,)."""

    def __init__(self, trunk: _HyenaTrunk, at: Tensor) -> None:
        super().__init__(HyenaState(torch.empty(0), []), keep=False)
        self.trunk, self.at = trunk, at

    def _halo(self, width: int, like: Tensor) -> Tensor:
        return self.trunk.halo(self.at, width)

    def _convolve(self, order: int, u: Tensor) -> Tensor:
        samples, outputs = self.trunk.samples[order], self.trunk.outputs[order]
        places = self.trunk.places(self.at, u.shape[1])
        y = self.trunk.filters[order].convolve(u - samples[places])
        y += outputs[places]
        return y


class _AttentionTrunk:
    """Keeps rotated keys and values (H, T, D / H)."""

    def __init__(self) -> None:
        self.keys = self.values = torch.empty(0)

    def mix(self, mixer: nn.Module, x: Tensor) -> Tensor:
        """See `TrunkLayer`."""
        q, k, self.values = _heads(mixer, x)
        self.keys = rotate(k)
        return _joined(mixer, rotate(q), self.keys, self.values, None)

    def branch(self, at: Tensor) -> Mixing:
        """See `TrunkLayer`."""
        return _AttentionBranches(self, at)


class _AttentionBranches:
    """Ends that leave the trunk at positions (B,)."""

    def __init__(self, trunk: _AttentionTrunk, at: Tensor) -> None:
        self.trunk, self.at = trunk, at

    def mix(self, mixer: nn.Module, x: Tensor) -> Tensor:
        """See `Mixing`."""
        q, k, v = _heads(mixer, x)
        count, before = x.shape[1], self.trunk.keys.shape[2]
        own = torch.arange(count, device=x.device)
        places = self.at[:, None, None] + own
        front = torch.arange(before, device=x.device) < self.at[:, None, None]  # (B, 1, T)
        mask = torch.cat(
            [front.expand(-1, count, -1), (own <= own[:, None]).expand(len(x), -1, -1)], dim=2
        )
        keys = torch.cat([self.trunk.keys.expand(len(x), -1, -1, -1), rotate(k, places)], dim=2)
        values = torch.cat([self.trunk.values.expand(len(x), -1, -1, -1), v], dim=2)
        return _joined(mixer, rotate(q, places), keys, values, mask[:, None])


def _heads(mixer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (B, H, n, D / H)."""
    assert isinstance(mixer, CausalAttention)
    q, k, v = mixer.in_proj(x).unflatten(-1, (3, mixer.num_heads, -1)).transpose(1, 3).unbind(2)
    return q, k, v


def _joined(mixer: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """(B, n, D): causal where there is no mask."""
    mixed = nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None
    )
    assert isinstance(mixer, CausalAttention)
    out: Tensor = mixer.out_proj(mixed.transpose(1, 2).flatten(2))
    return out
