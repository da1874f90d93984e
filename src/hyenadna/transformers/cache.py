"""The cache of `generate`: exact decoding states behind the library's cache interface."""

# The library types its methods for itself, differently in each release.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

from hyenadna.errors import InputError
from hyenadna.model.backbone import Backbone
from hyenadna.model.decoding import Decoder, DecodingState
from hyenadna.model.engine.choose import expects_call, untouched
from hyenadna.transformers.history import History
from hyenadna.transformers.padding import packing

if TYPE_CHECKING:
    from hyenadna.transformers.causal_lm import HyenaDNAForCausalLM

ROOM: Final = 1000
"""Tokens that a cache without a `max_length` first makes room for."""

OLD_NAME: Final = "past_key_values"
NAME: Final = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else OLD_NAME
"""What `generate` and outputs call a cache: `cache` since transformers 5.24. Ours take both."""


class HyenaDNACache(Cache):
    """Where the sequences of a batch stand, so that further tokens cost little and change nothing.

    Not keys and values, but what the tokens so far add to all later positions, worked out ahead
    (`hyenadna.model.decoding`). Logits equal those of the whole sequence up to rounding; there is
    no dropout. `generate` makes one by itself, `model(ids, use_cache=True)` returns one, and both
    go on from one given as `past_key_values` or, since transformers 5.24 its name there, `cache`.
    Branches: `copy.deepcopy`, `batch_repeat_interleave`.

    model: its weights are taken as they are now. max_length: tokens in all to make room for at
    once, n_layer x D numbers each; a cache that grows beyond it reads its tokens once more, with
    twice the room.

    Raises InputError for a model with hooks on modules that would not be called.
    """

    is_compileable = False

    def __init__(self, model: HyenaDNAForCausalLM, max_length: int | None = None) -> None:
        super().__init__(layers=[])
        if expects_call(model.hyena):
            raise InputError(
                "cache: model.hyena has a hook or a forward of its own, which step by step "
                "decoding would never call; remove it, or generate with use_cache=False"
            )
        self.model, self.max_length = model, max_length
        self.decoder = Decoder(_LanguageModel(model))
        self.state: DecodingState | None = None
        self._history: History | None = None
        self._recording = False
        self._mark: tuple[int, DecodingState] | None = None

    def read(self, tokens: Tensor, mask: Tensor | None = None, keep: int = 0) -> Tensor:
        """Logits (B, k, V) of what follows each of the last k of n further tokens.

        tokens: ids (B, n); at the beginning also embedded (B, n, D). mask: 0 where a token is
        padding, which only stands at the beginning; (B, n), or with what was read before in front.
        keep: k, 0 for n. Without any token, what followed the last one.

        Raises InputError for another batch, a mask that does not fit, padding or embedded tokens
        after the beginning, and more tokens than the model reads.
        """
        # states outlive the inference mode in which they may be made
        with torch.inference_mode(False), torch.no_grad():
            if self.state is None:
                return self._begin(tokens, mask, keep)
            return self._go_on(tokens, mask, keep)

    def _begin(self, tokens: Tensor, mask: Tensor | None, keep: int) -> Tensor:
        columns = tokens.shape[1]
        rows = _rows(tokens, mask)
        self.model.hyena.check_length(max(map(len, rows)))
        tail = min(keep or columns, columns) - 1
        apart = tokens.ndim == 2 and min(map(len, rows)) > tail
        if not (_ends(mask, tail + 1) and (apart or not tail)):
            logits = self.model.whole_logits(tokens, mask, keep)
            self._read_first(rows, columns)
            return logits
        # the first pass gives the logits of its last position only; those after it follow
        self._read_first([row[: len(row) - tail] for row in rows], columns - tail, tail)
        assert self.state is not None
        first = self.state.logits[:, None]
        if not tail:
            return first
        return torch.cat([first, self._read_more(tokens[:, columns - tail :])], dim=1)

    def _go_on(self, tokens: Tensor, mask: Tensor | None, keep: int) -> Tensor:
        assert self.state is not None
        batch, count = tokens.shape[:2]
        if batch != self.state.batch or tokens.ndim != 2 or tokens.is_floating_point():
            raise InputError(
                f"cache: {tokens.dtype} tokens of shape {tuple(tokens.shape)} after "
                f"{self.state.batch} sequences; give ids (B, n) for as many "
                "(cache.batch_repeat_interleave makes branches)"
            )
        self._check_mask(mask, batch, count)
        if not count:
            return self.state.logits[:, None]
        return self._read_more(tokens)[:, -keep:]

    def _check_mask(self, mask: Tensor | None, batch: int, count: int) -> None:
        if mask is None:
            return
        whole = self.get_seq_length() + count
        if tuple(mask.shape) not in ((batch, count), (batch, whole)):
            raise InputError(
                f"attention_mask has shape {tuple(mask.shape)}, but {count} tokens follow "
                f"{whole - count}; give {(batch, whole)}"
            )
        if not bool(mask[:, mask.shape[1] - count :].all()):
            raise InputError(
                "attention_mask: padding after the beginning of a cache; put all of it in front, "
                "or pass whole sequences with use_cache=False"
            )

    def _read_first(self, rows: Sequence[Tensor], columns: int, tail: int = 0) -> None:
        room = tail + ROOM if self.max_length is None else self.max_length - columns
        self.state = self._prefill(rows, max(room, tail))
        self._history = History(rows, columns)
        self._set_mark()

    def _read_more(self, ids: Tensor) -> Tensor:
        """Logits (B, n, V) after each of n more ids (B, n); makes room for them where needed."""
        state = self.state
        assert state is not None and self._history is not None
        if state.room < ids.shape[1]:
            longest = int(state.lengths.max())
            self.model.hyena.check_length(longest + ids.shape[1])
            state = self.state = self._prefill(self._all_rows(), max(longest, ids.shape[1]))
        if ids.shape[1] == 1:
            logits = self.decoder.step(state, ids[:, 0])[:, None]
        else:
            logits = self.decoder.extend(state, ids)
        self._history.append(ids)
        return logits

    def _prefill(self, rows: Sequence[Tensor], room: int) -> DecodingState:
        """Read from the start. Equal neighbours, such as the beams of one prompt, are read once."""
        room = min(room, self.model.config.max_seq_len - max(map(len, rows)))
        different: list[Tensor] = []
        at = []
        for row in rows:
            if not different or not torch.equal(row, different[-1]):
                different.append(row)
            at.append(len(different) - 1)
        state = self.decoder.prefill(different, room=room)
        return state if len(different) == len(rows) else state.select(at)

    def _all_rows(self) -> list[Tensor]:
        history = self._history
        assert history is not None
        ids = history.ids
        more = ids if history.prompts[0].ndim == 1 else self.decoder.backbone.embeddings(ids)
        return [torch.cat(pair) for pair in zip(history.prompts, more, strict=True)]

    # -- what the library asks of a cache ----------------------------------------------------------

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions read so far, padding counted."""
        return 0 if self._history is None else self._history.length

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """The longest sequence that the model reads."""
        longest: int = self.model.config.max_seq_len
        return longest

    def get_max_cache_shape(self, layer_idx: int = 0) -> int:
        """As `get_max_length`; the name in older releases."""
        return self.get_max_length()

    @property
    def is_linear(self) -> list[bool]:
        """False for each layer: how much was read is known, so what was read is not given again.

        Asked since 5.24, which hands a cache whose layers are all linear, or none, whole sequences.
        """
        return [False] * len(self)

    @property
    def is_croppable(self) -> bool:
        """Whether `crop` is cheap: while recording.

        Assisted decoding records, and since 5.24 insists on it. Other ways to generate ask too, to
        take a step too many and undo it on some devices; that would leave a trace by rounding.
        """
        return self._recording

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Each row goes on from the row of that number; for beam search."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Only the rows of these numbers, (B',), repeats allowed. Raises InputError for others."""
        self._select(torch.as_tensor(indices).tolist())

    def batch_repeat_interleave(self, repeats: int) -> None:
        """So many branches of each row, beside each other."""
        self._select([row for row in range(max(self.batch_size, 0)) for _ in range(repeats)])

    def _select(self, rows: list[int]) -> None:
        if self.state is None or rows == list(range(self.state.batch)):
            return
        assert self._history is not None
        self.state, self._history = self.state.select(rows), self._history.select(rows)
        self._mark = None

    def activate_past_recording(self) -> None:
        """From now on `crop` is cheap as far back as the last `crop`; for assisted decoding."""
        self._recording = True
        self._set_mark()

    def _set_mark(self) -> None:
        if self._recording and self.state is not None:
            self.state.settle()  # once, for all that go on from here
            self._mark = (self.get_seq_length(), self.state.clone())

    def crop(self, max_length: int) -> None:
        """Go back to so many positions, or by so many where the number is negative.

        Reads the tokens once more where no recording reaches back so far. Raises InputError for a
        position within what was read first.
        """
        length = self.get_seq_length()
        wanted = max_length if max_length > 0 else length + max_length
        if wanted < length:
            assert self._history is not None
            if wanted < self._history.columns:
                raise InputError(
                    f"cache: cannot go back to {wanted:,} positions, within the "
                    f"{self._history.columns:,} that were read first; take a copy.deepcopy of the "
                    "cache before it reads, or a new cache"
                )
            self._history.cut(wanted)
            self._go_back(wanted)
        self._set_mark()

    def _go_back(self, wanted: int) -> None:
        assert self.state is not None and self._history is not None
        at, state = self._mark or (wanted + 1, None)
        count = wanted - at
        if state is None or not 0 <= count <= state.room:
            with torch.inference_mode(False), torch.no_grad():
                room = self.state.room + int(self.state.lengths.max())
                self.state = self._prefill(self._all_rows(), room)
            return
        self.state = state.clone()
        if count:
            self.decoder.extend(self.state, self._history.ids[:, -count:])

    def reset(self) -> None:
        """Forget everything that was read."""
        self.state = self._history = self._mark = None

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """Raises InputError: there are no keys and values."""
        raise InputError(
            "cache: this is the state of a HyenaDNA model, without keys and values; give another "
            "model a cache of its own"
        )

    @property
    def batch_size(self) -> int:
        """Number of sequences, B; -1 before the first."""
        return -1 if self.state is None else self.state.batch

    @property
    def is_initialized(self) -> bool:
        """Whether anything has been read."""
        return self.state is not None

    def __len__(self) -> int:
        """Number of layers."""
        layers: int = self.model.config.n_layer
        return layers

    def __repr__(self) -> str:
        return f"HyenaDNACache(batch_size={self.batch_size}, length={self.get_seq_length()})"

    def __deepcopy__(self, memo: dict[int, Any]) -> HyenaDNACache:
        """A branch of all rows; the model and its filters are shared."""
        other = type(self).__new__(type(self))
        other.__dict__ |= self.__dict__
        if self.state is not None:
            assert self._history is not None
            other.state = self.state.clone()
            other._history = self._history.select(range(self.state.batch))
        return other


@dataclass(frozen=True)
class _LanguageModel:
    """A model of the library as `hyenadna.model.decoding` wants it."""

    model: HyenaDNAForCausalLM

    @property
    def backbone(self) -> Backbone:
        return self.model.hyena.backbone

    @property
    def head_weight(self) -> Tensor | None:
        head = self.model.lm_head
        plain = untouched(head, frozenset({nn.Linear})) and head.bias is None
        return head.weight if plain else None

    def logits(self, hidden: Tensor) -> Tensor:
        return self.model.head_logits(hidden)


def one_cache(past_key_values: Any, cache: Any) -> Any:
    """The cache given under either name, or None. Raises InputError for two different ones."""
    if past_key_values is not None and cache is not None and cache is not past_key_values:
        raise InputError("model: cache and past_key_values are two caches; give one of them")
    return past_key_values if cache is None else cache


def _rows(tokens: Tensor, mask: Tensor | None) -> list[Tensor]:
    """The real tokens of each row, (P,) or (P, D)."""
    packed = packing(mask, tokens.shape)
    if packed is None:
        return list(tokens)
    lengths = packed.real.sum(1).tolist()
    return [row[:length] for row, length in zip(packed.pack(tokens), lengths, strict=True)]


def _ends(mask: Tensor | None, count: int) -> bool:
    """Whether the last `count` positions of all rows are real."""
    return mask is None or bool(mask[:, -count:].all())
