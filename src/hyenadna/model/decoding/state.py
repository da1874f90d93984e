"""Where growing sequences stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from hyenadna.conv.online import OnlineConvolution, OnlineFilter
from hyenadna.errors import InputError
from hyenadna.model.attention import CausalAttention, rotate


class LayerState(Protocol):
    """What one block remembers of B sequences."""

    @property
    def room(self) -> int:
        """Tokens that may still come."""
        ...

    def select(self, rows: Tensor) -> Self:
        """A state of its own for the chosen rows, int64 (B',)."""
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

    def settle(self) -> None:
        """See `LayerState`."""
        for convolution in self.convolutions:
            convolution.settle()

    def tensors(self) -> dict[str, Tensor]:
        """See `LayerState`."""
        self.settle()
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
        q, k, v = heads.unbind(2)
        position = self.lengths[:, None, None] + torch.arange(count, device=x.device)  # (B, 1, n)
        at = position[..., None].expand_as(k)
        self.keys.scatter_(2, at, rotate(k, position))
        self.values.scatter_(2, at, v)
        self.lengths, self.room = self.lengths + count, self.room - count
        seen = int(self.lengths.max())
        mask = torch.arange(seen, device=x.device) <= position[..., None]  # (B, 1, n, seen)
        mixed = torch.nn.functional.scaled_dot_product_attention(
            rotate(q, position), self.keys[:, :, :seen], self.values[:, :, :seen], attn_mask=mask
        )
        out: Tensor = mixer.out_proj(mixed.transpose(1, 2).flatten(2))
        return out

    def select(self, rows: Tensor) -> AttentionState:
        """See `LayerState`."""
        return AttentionState(self.keys[rows], self.values[rows], self.lengths[rows], self.room)

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
    logits: Tensor
    """(B, V): of the next token of each row."""
    lengths: Tensor
    """(B,) int64: tokens that each row has read."""
    addresses: Any = None
    """What native code was last told about these tensors; None when they have changed."""

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

    def clone(self) -> DecodingState:
        """The same state once more: steps on one do not change the other."""
        return self.select(range(self.batch))

    def select(self, rows: Sequence[int] | Tensor) -> DecodingState:
        """A state of its own for the chosen rows, repeats allowed: branches, or fewer sequences.

        rows: indices in 0..B-1. What the branches of one prompt have in common is stored once.
        Raises InputError for a row that is not there.
        """
        index = torch.as_tensor(rows, dtype=torch.int64).reshape(-1)
        if not len(index) or int(index.min()) < 0 or int(index.max()) >= self.batch:
            raise InputError(
                f"decoding state: rows {index.tolist()[:8]} of a state of {self.batch} sequences; "
                f"give at least one, each in 0 .. {self.batch - 1}"
            )
        with torch.inference_mode(False), torch.no_grad():
            index = index.to(self.logits.device)
            layers = [layer.select(index) for layer in self.layers]
            return DecodingState(layers, self.logits[index], self.lengths[index])

    def settle(self) -> None:
        """Makes ready for many tokens at once."""
        self.addresses = None
        for layer in self.layers:
            layer.settle()


def join(states: Sequence[DecodingState], order: Sequence[int]) -> DecodingState:
    """One state of the rows of several fresh ones, in a new order.

    order: of each row of the result, its number among all rows of the states. All have just been
    prefilled, with the same room.
    """
    if len(states) == 1 and list(order) == list(range(states[0].batch)):
        return states[0]
    index = torch.as_tensor(order, device=states[0].logits.device)
    layers = [_join_layers(parts, index) for parts in zip(*(s.layers for s in states), strict=True)]
    logits = torch.cat([state.logits for state in states])[index]
    return DecodingState(layers, logits, torch.cat([state.lengths for state in states])[index])


def _join_layers(parts: Sequence[LayerState], index: Tensor) -> LayerState:
    hyena = [part for part in parts if isinstance(part, HyenaState)]
    if hyena:
        halo = torch.cat([part.halo for part in hyena])[index]
        convolutions = []
        for same in zip(*(part.convolutions for part in hyena), strict=True):
            assert not any(c.count for c in same)
            settled = torch.cat([c.settled.expand(c.batch, -1, -1) for c in same])[index]
            convolutions.append(OnlineConvolution(same[0].filter, settled, len(index)))
        return HyenaState(halo, convolutions)
    attention = [part for part in parts if isinstance(part, AttentionState)]
    capacity = max(part.keys.shape[2] for part in attention)

    def rows(tensors: list[Tensor]) -> Tensor:
        pad = torch.nn.functional.pad
        return torch.cat([pad(t, (0, 0, 0, capacity - t.shape[2])) for t in tensors])[index]

    return AttentionState(
        rows([part.keys for part in attention]),
        rows([part.values for part in attention]),
        torch.cat([part.lengths for part in attention])[index],
        attention[0].room,
    )
