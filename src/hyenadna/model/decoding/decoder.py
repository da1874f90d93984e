"""Reads sequences that are still growing, exactly, in time that hardly depends on their length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hyenadna.conv.online import BLOCK, OnlineConvolution, OnlineFilter
from hyenadna.errors import InputError
from hyenadna.model.backbone import Backbone, Block
from hyenadna.model.decoding.filter_lags import FilterLags
from hyenadna.model.decoding.modules import (
    AttentionContinuation,
    Continuation,
    HyenaBeginning,
    HyenaContinuation,
    advance_block,
)
from hyenadna.model.decoding.native_steps import bare_embeddings, native_step, native_stepper
from hyenadna.model.decoding.past import keep_effects, no_past, past_of
from hyenadna.model.decoding.state import (
    AttentionState,
    DecodingState,
    HyenaState,
    LayerState,
    join,
)
from hyenadna.model.decoding.state_file import read_state, write_state
from hyenadna.model.digest import versions, weights_digest
from hyenadna.model.engine.block import Pass
from hyenadna.model.engine.choose import expects_call
from hyenadna.model.engine.ends import embed_tokens
from hyenadna.model.engine.kernels import Past
from hyenadna.model.engine.run import continue_blocks
from hyenadna.model.operator import HyenaOperator

Ids = npt.ArrayLike | Tensor
P = ParamSpec("P")
R = TypeVar("R")
SCORED_TOKENS = 1 << 15
"""Tokens of continuations that are scored in one pass."""


class LanguageModel(Protocol):
    """A backbone with a head, such as `hyenadna.model.backbone.HyenaDNA`."""

    @property
    def backbone(self) -> Backbone:
        """Table, blocks and final norm."""
        ...

    @property
    def head_weight(self) -> Tensor | None:
        """(V, D), if `logits` is a product with it and nothing more."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., V) of hidden states (..., D) after the final norm, at least float32."""
        ...


def _without_graph(method: Callable[P, R]) -> Callable[P, R]:
    """Without gradients, and with ordinary tensors also in inference mode, which states outlive."""

    @wraps(method)
    def plain(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.inference_mode(False), torch.no_grad():
            return method(*args, **kwargs)

    return plain


class Decoder:
    """What all growing sequences of one model share: its filters in the forms that steps need.

    model: its weights must not change while the decoder is in use. block: samples of a long
    convolution that an output adds one by one, a power of two; see `hyenadna.conv.online`.

    A row's values do not depend on the other rows of its batch, and equal those of the whole
    sequence passed through the model at once, up to rounding; there is no dropout. On the CPU steps
    run in native code where there is any for the model, else through its modules (also where these
    carry adapters). The Transformer baseline decodes with a cache of keys and values.

    Raises InputError for a model with hooks on modules that would not be called.
    """

    def __init__(self, model: LanguageModel, *, block: int = BLOCK) -> None:
        self.model, self.backbone = model, model.backbone
        self.config = self.backbone.config
        self._blocks = cast(Sequence[Block], list(self.backbone.layers))
        self._hyena = self.config.mixer == "hyena"
        check_decodable(self.backbone, self._blocks)
        with torch.inference_mode(False), torch.no_grad(), self._evaluating():
            filters = [_filters(b.mixer, block) for b in self._blocks] if self._hyena else []
            self._filters: list[list[OnlineFilter]] = filters
            head = model.head_weight
            self._stepper = native_stepper(self.backbone, self._blocks, head)
        self._weights = self._versions()

    def bytes_for(self, batch: int, room: int, prompt: int = 0) -> int:
        """Memory of a state of so many sequences with so much room, at most, in bytes.

        Branches of one prompt share half of it. prompt: its tokens, which only the Transformer
        baseline has to keep.
        """
        if self._hyena:
            values = 2 * room * (self.config.hyena_order - 1)
            itemsize = self._filters[0][0].taps.element_size()
        else:
            values, itemsize = 2 * (prompt + room), self._table.element_size()
        return batch * self.config.n_layer * values * self.config.d_model * itemsize

    @_without_graph
    def prefill(
        self,
        prompts: Sequence[Ids] | Tensor,
        *,
        room: int,
        behind: DecodingState | None = None,
    ) -> DecodingState:
        """The state after reading prompts, each in one pass; those of one length together.

        prompts: ids (P,) of any lengths >= 1, or embedded tokens (P, D), or one tensor of them with
        a batch in front. room: tokens that may follow. behind: a state of one sequence that all
        prompts go on from; it is settled and stays where it is, so that it is read once for any
        number of prompts. Raises InputError for an empty prompt, ids out of range, and where the
        longest prompt and the room are more than the model reads, or than there is room behind.
        """
        self._check_weights()
        self._check_behind(behind)
        rows = [self._prompt(prompt, f"prompt {i}") for i, prompt in enumerate(prompts)]
        if not rows or min(len(row) for row in rows) < 1:
            raise InputError("decoding: an empty prompt; give at least one base to go on from")
        longest = max(len(row) for row in rows)
        limit = self.config.max_seq_len if behind is None else behind.room
        if room < 0 or longest + room > limit:
            who = "this model reads" if behind is None else "the state behind which it stands takes"
            raise InputError(
                f"decoding: a prompt of {longest:,} tokens and room for {room:,} more, but {who} "
                f"{limit:,}{' (max_seq_len)' if behind is None else ''}; ask for room between 0 "
                f"and {max(0, limit - longest):,} or shorten the prompt"
            )
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, row in enumerate(rows):
            groups.setdefault(tuple(row.shape), []).append(i)
        stacks = [torch.stack([rows[i] for i in g]) for g in groups.values()]
        if behind is None:
            states = [self._read(stack, room) for stack in stacks]
        else:
            behind.settle()  # once, for all of them
            states = [self._read_behind(behind, stack, room) for stack in stacks]
        return join(states, list(groups.values()))

    @_without_graph
    def step(self, state: DecodingState, tokens: Ids) -> Tensor:
        """Logits (B, V) after one more token of each row, tokens (B,); the state moves on.

        Raises InputError without room, and for ids out of range.
        """
        self._check_state(state)
        ids = self._tensor(tokens)
        if ids.shape != (state.batch,) or not _whole(ids):
            raise InputError(
                f"decoding: tokens are {ids.dtype} of shape {tuple(ids.shape)} for {state.batch} "
                "sequences; give one integer id for each"
            )
        ids = ids.long().contiguous()
        if self._stepper is None:
            return self._extend(state, self._checked(ids, "tokens")[:, None])[:, 0]
        _require(state, 1)
        ids = ids.to(self._table.device)
        with state.moving():
            state.logits = native_step(self._stepper, state, ids)
            state.lengths = state.lengths + 1
        return state.logits.clone()

    @_without_graph
    def extend(self, state: DecodingState, tokens: Ids) -> Tensor:
        """Logits (B, n, V) after each of n more tokens (B, n) of each row; the state moves on.

        All in one pass. Raises InputError without room, and for ids out of range.
        """
        self._check_state(state)
        self._check_weights()
        ids = self._tensor(tokens)
        fits = ids.ndim == 2 and len(ids) == state.batch and ids.shape[1] > 0
        if not fits or not _whole(ids):
            raise InputError(
                f"decoding: tokens are {ids.dtype} of shape {tuple(ids.shape)} for {state.batch} "
                "sequences; give integer ids of shape (B, n), n at least 1"
            )
        return self._extend(state, self._checked(ids.long(), "tokens"))

    @_without_graph
    def score(self, state: DecodingState, continuations: Sequence[Ids]) -> list[Tensor]:
        """Nats of each token of each continuation given all before it: C tensors (n,).

        Softmax over all V, as `hyenadna.model.likelihood.target_nats`. The state, of one sequence
        for all continuations or of one for each, stays where it is; the prefix is not computed
        again. It is settled, so another thread needs a clone of its own. Raises InputError where
        one is longer than the room by more than a token, empty or out of range.
        """
        self._check_state(state)
        self._check_weights()
        rows = [self._ids(ids, f"continuation {i}") for i, ids in enumerate(continuations)]
        if not rows or state.batch not in (1, len(rows)) or not all(len(row) for row in rows):
            raise InputError(
                f"decoding: {len(rows)} continuations, the shortest of "
                f"{min(map(len, rows), default=0)} tokens, for a state of {state.batch} sequences; "
                "give one or more for one sequence, or one for each, none of them empty"
            )
        _require(state, max(map(len, rows)) - 1)
        state.settle()  # once, for all batches
        out: dict[int, Tensor] = {}
        for chosen in _alike(rows, state.row_tokens):
            at = state.select(chosen if state.batch > 1 else [0] * len(chosen))
            out |= zip(chosen, self._score(at, [rows[i] for i in chosen]), strict=True)
        return [out[i] for i in range(len(rows))]

    @_without_graph
    def read(self, state: DecodingState, tokens: Ids) -> Tensor:
        """Final hidden states (B, n, D) at n more tokens (B, n) of each row, in one pass.

        The state, of one sequence for all rows or of one for each, stays where it is: any number of
        batches can be read behind it, and the prefix is not computed again. Rows may be padded on
        the right. It is settled, so another thread needs a clone of its own. Raises InputError
        without room, and for ids out of range.
        """
        self._check_state(state)
        self._check_weights()
        ids = self._tensor(tokens)
        if ids.ndim != 2 or 0 in ids.shape or state.batch not in (1, len(ids)) or not _whole(ids):
            raise InputError(
                f"decoding: tokens are {ids.dtype} of shape {tuple(ids.shape)} for a state of "
                f"{state.batch} sequences; give integer ids of shape (B, n), n at least 1"
            )
        _require(state, ids.shape[1])
        state.settle()
        at = state.select(range(len(ids)) if state.batch > 1 else [0] * len(ids))
        stream = self._advance(at, self._checked(ids.long(), "tokens"), keep=False)
        out: Tensor = self.backbone.ln_f(stream)
        return out

    @_without_graph
    def save(self, state: DecodingState, path: str | Path) -> None:
        """Writes a state to a file (safetensors, beside it first), for `load`."""
        self._check_state(state)
        write_state(state, self._digest(), path)

    @_without_graph
    def load(self, path: str | Path) -> DecodingState:
        """The state of a file that `save` wrote.

        Raises InputError where it is no such file, or one of a model of other weights.
        """
        self._check_weights()
        device = self._table.device
        return read_state(path, self.backbone, self._digest(), self._filters, device)

    def _score(self, at: DecodingState, rows: Sequence[Tensor]) -> list[Tensor]:
        """Nats (n,) of a continuation for each row of a state, which is used up."""
        targets = nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
        logits = at.logits[:, None]
        if targets.shape[1] > 1:
            stream = self._advance(at, targets[:, :-1], keep=False)
            logits = torch.cat([logits, self._logits(stream)], dim=1)
        nats = nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
        return [row[: len(ids)] for row, ids in zip(nats, rows, strict=True)]

    def _extend(self, state: DecodingState, ids: Tensor) -> Tensor:
        _require(state, ids.shape[1])
        if ids.shape[1] > 1:
            state.settle()
        with state.moving():
            logits = self._logits(self._advance(state, ids, keep=True))
            state.logits = logits[:, -1].clone()
            state.lengths = state.lengths + ids.shape[1]
        return logits

    def _read(self, first: Tensor, room: int) -> DecodingState:
        """The state after the first tokens of sequences: ids (B, P), or embedded (B, P, D)."""
        batch, length = first.shape[:2]
        with self._evaluating():
            run = self._engine_pass(first, self.bytes_for(batch, room) // 2)
            layers: Sequence[LayerState]
            if run is None:
                begun = self._beginnings(length, room)
                stream = self._through_modules(first, begun)
                layers = [one.state for one in begun]
            else:
                filters = [own[0] for own in self._filters]
                pasts = [no_past(f.taps, self.config, batch) for f in filters]
                effects = keep_effects(run, self._blocks, pasts, batch, length, room)
                stream = self._through_engine(run, first, pasts)
                layers = [
                    HyenaState(past.next_halo, [OnlineConvolution(filter_, effect, batch)])
                    for past, filter_, effect in zip(pasts, filters, effects, strict=True)
                ]
            logits = self._last_logits(stream)
        lengths = torch.full((batch,), length, device=first.device)
        return DecodingState(layers, self.backbone, logits, lengths)

    def _read_behind(self, behind: DecodingState, more: Tensor, room: int) -> DecodingState:
        """The state after more tokens, as for `_read`, of B branches of one settled sequence."""
        batch, count = more.shape[:2]
        # no more room than is needed: the rows will not share it
        layers = [layer.shortened(count + room) for layer in behind.layers]
        one = DecodingState(layers, self.backbone, behind.logits, behind.lengths)
        state = one.select([0] * batch)
        stream = self._advance(state, more, keep=True)
        state.settle()
        state.logits, state.lengths = self._last_logits(stream), state.lengths + count
        return state

    def _last_logits(self, stream: Tensor) -> Tensor:
        """Logits (B, V) at the last position of (B, n, D)."""
        with self._evaluating():
            # a product for each row, so that none depends on how many there are
            return torch.cat([self._logits(row[-1:]) for row in stream])

    def _beginnings(self, length: int, room: int) -> Sequence[Continuation]:
        if self._hyena:
            return [HyenaBeginning(filters, room) for filters in self._filters]
        return [AttentionContinuation(None, length + room) for _ in self._blocks]

    def _advance(self, state: DecodingState, ids: Tensor, *, keep: bool) -> Tensor:
        """The residual stream (B, n, D) at n more tokens (B, n); `keep`: the state moves there."""
        count = ids.shape[1]
        single = keep and count == 1
        state.addresses = None
        with self._evaluating():
            besides = self.bytes_for(len(ids), state.room - count) // 2 if keep else 0
            run = None if single else self._engine_pass(ids, besides)
            if run is None:
                now = [_continuation(layer, keep=keep) for layer in state.layers]
                return self._through_modules(ids, now)
            layers = cast(list[HyenaState], state.layers)
            pasts = [past_of(layer) for layer in layers]
            if not keep:
                return self._through_engine(run, ids, pasts)
            rest = state.room - count
            effects = keep_effects(run, self._blocks, pasts, state.batch, count, rest)
            stream = self._through_engine(run, ids, pasts)
        for layer, past, effect in zip(layers, pasts, effects, strict=True):
            layer.halo = past.next_halo
            layer.convolutions[0].advance(count, effect)
        return stream

    def _through_modules(self, tokens: Tensor, now: Sequence[Continuation]) -> Tensor:
        h = tokens if tokens.is_floating_point() else self.backbone.embeddings(tokens)
        for block, one in zip(self._blocks, now, strict=True):
            h = advance_block(block, h, one)
        return h

    def _through_engine(self, run: Pass, tokens: Tensor, pasts: Sequence[Past]) -> Tensor:
        if tokens.is_floating_point():
            h = tokens.clone()
        else:
            h = embed_tokens(run.kernels, self._table, tokens)
        return continue_blocks(run, self._blocks, h, pasts)

    def _engine_pass(self, tokens: Tensor, besides: int = 0) -> Pass | None:
        embedded = tokens.is_floating_point()
        if not embedded and not bare_embeddings(self.backbone):
            return None
        like = tokens if embedded else self._table
        return self.backbone.engine_pass(like, *tokens.shape[:2], besides=besides)

    def _logits(self, stream: Tensor) -> Tensor:
        return self.model.logits(self.backbone.ln_f(stream))

    @property
    def _table(self) -> Tensor:
        table: Tensor = self.backbone.embeddings.word_embeddings.weight
        return table

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """The modules in evaluation mode while the block runs: decoding has no dropout."""
        training = [m for m in self.backbone.modules() if m.training]
        for module in training:
            module.training = False
        try:
            yield
        finally:
            for module in training:
                module.training = True

    def _prompt(self, tokens: Ids, name: str) -> Tensor:
        """Ids (P,), or embedded tokens (P, D) as they are."""
        if isinstance(tokens, Tensor) and tokens.is_floating_point():
            if tokens.ndim == 2 and tokens.shape[1] == self.config.d_model:
                return tokens.to(self._table)
            raise InputError(
                f"decoding: {name} is {tokens.dtype} of shape {tuple(tokens.shape)}; give integer "
                f"ids of shape (L,), or embedded tokens of shape (L, {self.config.d_model})"
            )
        return self._ids(tokens, name)

    def _tensor(self, tokens: Ids) -> Tensor:
        """Tokens in any form as a tensor."""
        if isinstance(tokens, Tensor):
            return tokens
        # through numpy, since torch takes a list of arrays apart number by number
        array = np.asarray(tokens)
        if array.dtype.kind not in "iufb":
            raise InputError(
                f"decoding: tokens are {array.dtype}; give integer ids (hyenadna.encode makes them)"
            )
        return torch.as_tensor(array)

    def _ids(self, tokens: Ids, name: str) -> Tensor:
        """One sequence of ids (P,), int64 on the model's device."""
        ids = self._tensor(tokens)
        if ids.ndim != 1 or (len(ids) and not _whole(ids)):
            raise InputError(
                f"decoding: {name} is {ids.dtype} of shape {tuple(ids.shape)}; "
                "give integer ids of shape (L,)"
            )
        return self._checked(ids.long(), name)

    def _checked(self, ids: Tensor, name: str) -> Tensor:
        """Ids on the model's device. Ids that come from the CPU are looked at first."""
        rows = self.config.padded_vocab_size
        if ids.numel() and ids.device.type == "cpu" and not 0 <= ids.min() <= ids.max() < rows:
            raise InputError(
                f"decoding: {name} has token ids {int(ids.min())} to {int(ids.max())}; they must "
                f"be in 0 .. {rows - 1} (hyenadna.encode makes them)"
            )
        return ids.to(self._table.device)

    def _check_state(self, state: DecodingState) -> None:
        if state.backbone is not self.backbone:
            raise InputError(
                "decoding: the state is of another model; prefill or load it with this decoder"
            )

    def _check_behind(self, behind: DecodingState | None) -> None:
        if behind is None:
            return
        self._check_state(behind)
        if behind.batch != 1:
            raise InputError(
                f"decoding: prompts behind a state of {behind.batch} sequences; select one of them"
            )

    def _check_weights(self) -> None:
        if self._versions() != self._weights:
            raise InputError(
                "decoding: the model has changed since the decoder was made; make a new Decoder"
            )

    def _versions(self) -> list[tuple[int, int]]:
        return versions(*self.backbone.parameters(), *self.backbone.buffers())

    def _digest(self) -> str:
        """Of all weights that the numbers of a state depend on."""
        head = self.model.head_weight
        if head is None or head is self._table:
            return weights_digest(self.backbone)
        return weights_digest(self.backbone, head=head)


def _whole(ids: Tensor) -> bool:
    """Whether they are integers."""
    return not (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool)


def _require(state: DecodingState, count: int) -> None:
    if count > state.room:
        raise InputError(
            f"decoding: {count:,} more tokens, but the state has room for {state.room:,}; "
            "prefill with more room"
        )


def _continuation(layer: LayerState, *, keep: bool) -> Continuation:
    if isinstance(layer, HyenaState):
        return HyenaContinuation(layer, keep=keep)
    assert isinstance(layer, AttentionState)
    return AttentionContinuation(layer)


def _filters(mixer: nn.Module, block: int) -> list[OnlineFilter]:
    """Of each long convolution of a layer."""
    assert isinstance(mixer, HyenaOperator)
    width = mixer.d_model
    parts = [slice(o * width, (o + 1) * width) for o in range(mixer.order - 1)]
    return [OnlineFilter(FilterLags(mixer.filter_fn, part), block=block) for part in parts]


def check_decodable(backbone: Backbone, blocks: Sequence[Block]) -> None:
    """Nothing, where the parts of the blocks can be called one by one.

    Raises InputError for hooks, or a forward of its own, on a module that would not be called.
    """
    uncalled: list[tuple[str, nn.Module]] = [("backbone", backbone)]
    for i, block in enumerate(blocks):
        inner: dict[str, nn.Module] = {"": block, ".mixer": block.mixer}
        if isinstance(block.mixer, HyenaOperator):
            inner[".mixer.filter_fn"] = block.mixer.filter_fn
            inner[".mixer.short_filter"] = block.mixer.short_filter
        uncalled += [(f"backbone.layers.{i}{name}", module) for name, module in inner.items()]
    for name, module in uncalled:
        if expects_call(module):
            raise InputError(
                f"decoding: {name} has a hook or a forward of its own, which step by step decoding "
                "would never call; remove it, or pass whole sequences through the model"
            )


def _alike(rows: Sequence[Tensor], besides: int) -> Iterator[list[int]]:
    """Numbers of the rows in batches of similar length."""
    batch: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: len(rows[i])):
        if batch and (len(batch) + 1) * (len(rows[i]) + besides) > SCORED_TOKENS:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
