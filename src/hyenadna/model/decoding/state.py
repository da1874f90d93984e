"""Where growing sequences stand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from hyenadna.conv.online import OnlineConvolution, OnlineFilter
from hyenadna.errors import InputError
from hyenadna.model.attention import CausalAttention, rotate
from hyenadna.model.engine.native_step import StepAddresses


class LayerState(Protocol):
    """What one block remembers of B sequences."""

    @property
    def room(self) -> int:
        """Tokens that may still come."""
        ...

    def select(self, rows: Tensor) -> Self:
        """A state of its own for the chosen rows, int64 (B',)."""
        ...

    def shortened(self, room: int) -> Self:
        """The same with less room, of a state that has been settled; tensors are shared."""
        ...

    def settle(self) -> None:
        """Makes ready for many tokens at once."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name, for a file; see `restore`."""
        ...


class HyenaState:
    """The last projections, for the short filter, and the long convolutions.

    halo: (B, K-1, (N+1) D), oldest first, at least float32. convolutions: N - 1 of D channels.
    """

    def __init__(self, halo: Tensor, convolutions: list[OnlineConvolution]) -> None:
        self.halo, self.convolutions = halo, convolutions

    @property
    def room(self) -> int:
        """See `LayerState`."""
        return self.convolutions[0].room

    def select(self, rows: Tensor) -> HyenaState:
        """See `LayerState`."""
        return HyenaState(self.halo[rows], [c.select(rows) for c in self.convolutions])

    def shortened(self, room: int) -> HyenaState:
        """See `LayerState`."""
        return HyenaState(self.halo, [c.shortened(room) for c in self.convolutions])

    def settle(self) -> None:
        """See `LayerState`."""
        for convolution in self.convolutions:
            convolution.settle()

    def tensors(self) -> dict[str, Tensor]:
        """See `LayerState`; of a state that has been settled."""
        assert not any(c.count for c in self.convolutions)
        settled = {f"settled.{o}": c.settled for o, c in enumerate(self.convolutions)}
        return {"halo": self.halo, **settled}

    @classmethod
    def restore(cls, tensors: dict[str, Tensor], filters: Sequence[OnlineFilter]) -> HyenaState:
        """The state that `tensors` took apart."""
        halo = tensors["halo"]
        return cls(
            halo,
            [
                OnlineConvolution(filter_, tensors[f"settled.{o}"], len(halo))
                for o, filter_ in enumerate(filters)
            ],
        )


class AttentionState:
    """Keys, rotated, and values of all tokens so far, (B, H, capacity, D / H); the baseline's.

    lengths: (B,) int64, tokens of each row.
    """

    def __init__(self, keys: Tensor, values: Tensor, lengths: Tensor, room: int) -> None:
        self.keys, self.values, self.lengths, self.room = keys, values, lengths, room

    @classmethod
    def empty(cls, mixer: CausalAttention, like: Tensor, capacity: int) -> AttentionState:
        """Nothing has come yet. like: (B, L, D), of the type and device of what will come."""
        batch, _, d_model = like.shape
        keys = like.new_zeros(batch, mixer.num_heads, capacity, d_model // mixer.num_heads)
        lengths = torch.zeros(batch, dtype=torch.int64, device=like.device)
        return cls(keys, torch.zeros_like(keys), lengths, capacity)

    def mix(self, mixer: CausalAttention, x: Tensor) -> Tensor:
        """The mixer's output (B, n, D) at n more positions x (B, n, D); the state moves there."""
        count = x.shape[1]
        heads = mixer.in_proj(x).unflatten(-1, (3, mixer.num_heads, -1)).transpose(1, 3)
        q, k, v = (t.to(self.keys.dtype) for t in heads.unbind(2))  # autocast may change it
        first = not bool(self.lengths.any())
        position = self.lengths[:, None, None] + torch.arange(count, device=x.device)  # (B, 1, n)
        at = position[..., None].expand_as(k)
        self.keys.scatter_(2, at, rotate(k, position))
        self.values.scatter_(2, at, v)
        self.lengths, self.room = self.lengths + count, self.room - count
        seen = int(self.lengths.max())
        mask = None  # (B, 1, n, seen); a prompt needs none of that size
        if not first:
            mask = torch.arange(seen, device=x.device) <= position[..., None]
        mixed = torch.nn.functional.scaled_dot_product_attention(
            rotate(q, position), self.keys[:, :, :seen], self.values[:, :, :seen],
            attn_mask=mask, is_causal=first,
        )  # fmt: skip
        out: Tensor = mixer.out_proj(mixed.transpose(1, 2).flatten(2))
        return out

    def select(self, rows: Tensor) -> AttentionState:
        """See `LayerState`."""
        return AttentionState(self.keys[rows], self.values[rows], self.lengths[rows], self.room)

    def shortened(self, room: int) -> AttentionState:
        """See `LayerState`."""
        return AttentionState(self.keys, self.values, self.lengths, room)

    def settle(self) -> None:
        """Nothing is to be done."""

    def tensors(self) -> dict[str, Tensor]:
        """See `LayerState`."""
        room = torch.tensor([self.room])
        return {"keys": self.keys, "values": self.values, "lengths": self.lengths, "room": room}

    @classmethod
    def restore(cls, tensors: dict[str, Tensor]) -> AttentionState:
        """The state that `tensors` took apart."""
        room = int(tensors["room"])
        return cls(tensors["keys"], tensors["values"], tensors["lengths"], room)


@dataclass
class DecodingState:
    """B sequences that have been read so far, each of a length of its own.

    Made by `Decoder.prefill` and changed by `Decoder.step` and `Decoder.extend`. Numbers of hyena
    layers are float32 (float64 in a float64 model), whatever the type of the model.
    """

    layers: Sequence[LayerState]
    backbone: object
    """Of the model that reads them; with another one they mean nothing."""
    logits: Tensor
    """(B, V): of the next token of each row."""
    lengths: Tensor
    """(B,) int64: tokens that each row has read."""
    addresses: StepAddresses | None = None
    """What native code was last told about these tensors; None when they have changed."""
    torn: bool = False
    """Whether a change broke off, so that layers stand at different places."""

    @contextmanager
    def moving(self) -> Iterator[None]:
        """While it changes. Raises InputError where an earlier change broke off."""
        self.require_whole()
        self.torn = True
        try:
            yield
        except InputError:  # refused before anything has changed
            self.torn = False
            raise
        self.torn = False

    def require_whole(self) -> None:
        """Raises InputError for a state that a change has broken off in."""
        if self.torn:
            raise InputError(
                "decoding state: a step of it was interrupted half done (by Ctrl-C or for want of "
                "memory); go on from a clone made before, or prefill again"
            )

    @property
    def batch(self) -> int:
        """Number of sequences, B."""
        return len(self.logits)

    @property
    def room(self) -> int:
        """Tokens that may still come."""
        return self.layers[0].room

    @property
    def nbytes(self) -> int:
        """Memory of the state, in bytes."""
        held = [self.logits, self.lengths]
        for layer in self.layers:
            if isinstance(layer, HyenaState):
                held += [layer.halo]
                held += [t for c in layer.convolutions for t in (c.settled, c.recent)]
            else:
                held += layer.tensors().values()
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held}
        return sum(storages.values())

    @property
    def row_tokens(self) -> int:
        """About how many tokens' worth a branch of one row copies."""
        first = self.layers[0]
        return first.keys.shape[2] if isinstance(first, AttentionState) else 1

    def clone(self) -> DecodingState:
        """The same state once more: steps on one do not change the other."""
        return self.select(range(self.batch))

    def select(self, rows: Sequence[int] | Tensor) -> DecodingState:
        """A state of its own for the chosen rows, repeats allowed: branches, or fewer sequences.

        rows: indices in 0..B-1. What branches of a state of one sequence have in common from before
        the last settling (its prompt, as a rule) is stored once; the rest is copied.
        Raises InputError for a row that is not there.
        """
        self.require_whole()
        given = torch.as_tensor(rows).reshape(-1)
        numbers = not (given.is_floating_point() or given.dtype == torch.bool)
        index = given.long()
        if not numbers or not len(index) or int(index.min()) < 0 or int(index.max()) >= self.batch:
            raise InputError(
                f"decoding state: rows {given.tolist()[:8]} of a state of {self.batch} sequences; "
                f"give at least one whole number, each in 0 .. {self.batch - 1}"
            )
        with torch.inference_mode(False), torch.no_grad():
            index = index.to(self.logits.device)
            layers = [layer.select(index) for layer in self.layers]
            return DecodingState(layers, self.backbone, self.logits[index], self.lengths[index])

    def __deepcopy__(self, memo: object) -> DecodingState:
        return self.clone()

    def settle(self) -> None:
        """Makes ready for many tokens at once."""
        self.require_whole()
        self.addresses = None
        with torch.inference_mode(False), torch.no_grad():
            for layer in self.layers:
                layer.settle()


def join(states: Sequence[DecodingState], rows: Sequence[Sequence[int]]) -> DecodingState:
    """One state of several fresh ones with the same room; the fresh ones are used up.

    rows: of each state, the rows of the result that are its own, in order.
    """
    if len(states) == 1:
        return states[0]
    device = states[0].logits.device
    index = [torch.tensor(own, device=device) for own in rows]

    def joined(parts: Sequence[Tensor]) -> Tensor:
        """(B, ...) of all rows; what is shorter along an axis has zeros behind."""
        sizes = [max(axis) for axis in zip(*(part.shape[1:] for part in parts), strict=True)]
        out = parts[0].new_zeros(sum(map(len, rows)), *sizes)
        for own, part in zip(index, parts, strict=True):
            missing = [(0, most - n) for most, n in zip(sizes, part.shape[1:], strict=True)]
            pad = [n for pair in reversed(missing) for n in pair]
            out[own] = torch.nn.functional.pad(part, pad) if any(pad) else part
        return out

    logits = joined([state.logits for state in states])
    lengths = joined([state.lengths for state in states])
    left = [list(state.layers) for state in states]
    for state in states:
        state.layers = ()  # so that each layer goes as soon as it is joined
    layers = [_join_layers([own.pop(0) for own in left], joined) for _ in range(len(left[0]))]
    return DecodingState(layers, states[0].backbone, logits, lengths)


def _join_layers(
    parts: Sequence[LayerState], joined: Callable[[Sequence[Tensor]], Tensor]
) -> LayerState:
    hyena = [part for part in parts if isinstance(part, HyenaState)]
    if hyena:
        halo = joined([part.halo for part in hyena])
        convolutions = []
        for same in zip(*(part.convolutions for part in hyena), strict=True):
            assert not any(c.count for c in same)
            settled = joined([c.settled for c in same])
            convolutions.append(OnlineConvolution(same[0].filter, settled, len(halo)))
        return HyenaState(halo, convolutions)
    attention = [part for part in parts if isinstance(part, AttentionState)]
    return AttentionState(
        joined([part.keys for part in attention]),
        joined([part.values for part in attention]),
        joined([part.lengths for part in attention]),
        attention[0].room,
    )
