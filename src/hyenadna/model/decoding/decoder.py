"""Reads sequences that are still growing, exactly, in time that hardly depends on their length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hyenadna.config import ModelConfig
from hyenadna.conv.online import BLOCK, OnlineConvolution, OnlineFilter, settle
from hyenadna.errors import InputError
from hyenadna.model.backbone import Block, Embeddings, HyenaDNA, engine_fits
from hyenadna.model.decoding.filter_lags import FilterLags
from hyenadna.model.decoding.modules import Beginning, Continuation, advance_block
from hyenadna.model.decoding.state import DecodingState, LayerState, join
from hyenadna.model.engine.block import Pass
from hyenadna.model.engine.choose import all_like, choose_kernels, expects_call, untouched
from hyenadna.model.engine.ends import embed_tokens
from hyenadna.model.engine.kernels import Past
from hyenadna.model.engine.native_step import NativeStepper, StepAddresses, StepLayer
from hyenadna.model.engine.run import continue_blocks, layer_of
from hyenadna.model.operator import HyenaOperator

Ids = npt.ArrayLike | Tensor
P = ParamSpec("P")
R = TypeVar("R")
SCORED_TOKENS = 1 << 15
"""Tokens of continuations that are scored in one pass."""


def _without_graph(method: Callable[P, R]) -> Callable[P, R]:
    """Without gradients, and with ordinary tensors also in inference mode, which a state outlives."""

    @wraps(method)
    def plain(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.inference_mode(False), torch.no_grad():
            return method(*args, **kwargs)

    return plain


class Decoder:
    """What all growing sequences of one model share: its filters in the forms that steps need.

    model: a hyena model; its weights are taken as they are now. block: samples that an output adds
    one by one, a power of two; see `hyenadna.conv.online`.

    A row's values do not depend on the other rows of its batch, and equal those of the whole
    sequence passed through the model at once, up to rounding. On the CPU steps run in native code
    where there is any for the model, else through its modules (also where these carry adapters).

    Raises InputError for another mixer, and for a model with hooks on modules that are not called.
    """

    def __init__(self, model: HyenaDNA, *, block: int = BLOCK) -> None:
        self.model = model
        self._blocks = cast(Sequence[Block], list(model.backbone.layers))
        _check_decodable(model, self._blocks)
        with torch.inference_mode(False), torch.no_grad():
            self._filters = [_filters(b.mixer, block) for b in self._blocks]
            self._stepper = _native_stepper(model, self._blocks)

    def bytes_for(self, batch: int, room: int) -> int:
        """Memory of a state of so many sequences with so much room, at most, in bytes.

        Branches of one prompt share half of it.
        """
        config = self.model.config
        itemsize = self._filters[0][0].taps.element_size()
        per_layer = config.d_model * (config.hyena_order - 1) * room * 2
        return batch * config.n_layer * per_layer * itemsize

    @_without_graph
    def prefill(self, prompts: Sequence[Ids] | Tensor, *, room: int) -> DecodingState:
        """The state after reading prompts, each in one pass; those of one length together.

        prompts: ids (P,) of any lengths >= 1, or one tensor (B, P). room: tokens that may follow.
        Raises InputError for an empty prompt, ids out of range, and where the longest prompt and
        the room are more than the model reads.
        """
        rows = [self._ids(prompt, f"prompt {i}") for i, prompt in enumerate(prompts)]
        longest = max((len(row) for row in rows), default=0)
        limit = self.model.config.max_seq_len
        if not rows or min(len(row) for row in rows) < 1:
            raise InputError("decoding: an empty prompt; give at least one base to go on from")
        if room < 0 or longest + room > limit:
            raise InputError(
                f"decoding: a prompt of {longest:,} tokens and room for {room:,} more, but this "
                f"model reads {limit:,} (max_seq_len); ask for room between 0 and "
                f"{max(0, limit - longest):,} or shorten the prompt"
            )
        groups: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            groups.setdefault(len(row), []).append(i)
        states = [self._read(torch.stack([rows[i] for i in g]), room) for g in groups.values()]
        places = [i for group in groups.values() for i in group]
        return join(states, np.argsort(places).tolist())

    @_without_graph
    def step(self, state: DecodingState, tokens: Ids) -> Tensor:
        """Logits (B, V) after one more token of each row, tokens (B,); the state moves on.

        Raises InputError without room, and for ids out of range.
        """
        ids = torch.as_tensor(tokens, dtype=torch.int64, device=state.logits.device).contiguous()
        if ids.shape != (state.batch,):
            raise InputError(
                f"decoding: tokens of shape {tuple(ids.shape)} for {state.batch} sequences; "
                "give one for each"
            )
        if self._stepper is None:
            return self._extend(state, ids[:, None])[:, 0]
        state.logits = _native_step(self._stepper, state, ids)
        state.lengths = state.lengths + 1
        return state.logits

    @_without_graph
    def extend(self, state: DecodingState, tokens: Ids) -> Tensor:
        """Logits (B, n, V) after each of n more tokens (B, n) of each row; the state moves on.

        All in one pass. Raises InputError without room, and for ids out of range.
        """
        ids = torch.as_tensor(tokens, dtype=torch.int64, device=state.logits.device)
        if ids.ndim != 2 or len(ids) != state.batch or not ids.shape[1]:
            raise InputError(
                f"decoding: tokens of shape {tuple(ids.shape)} for {state.batch} sequences; "
                "give (B, n), n at least 1"
            )
        self._check_ids(ids, "tokens")
        return self._extend(state, ids)

    @_without_graph
    def score(self, state: DecodingState, continuations: Sequence[Ids]) -> list[Tensor]:
        """Nats of each token of each continuation given all before it: C tensors (n,).

        Softmax over all V, as `hyenadna.model.likelihood.target_nats`. The state, of one sequence
        for all continuations or of one for each, stays where it is; the prefix is not computed
        again. Raises InputError where one is longer than the room by more than a token, empty or
        out of range.
        """
        rows = [self._ids(ids, f"continuation {i}") for i, ids in enumerate(continuations)]
        if state.batch not in (1, len(rows)) or not all(len(row) for row in rows):
            raise InputError(
                f"decoding: {len(rows)} continuations, the shortest of "
                f"{min(map(len, rows), default=0)} tokens, for a state of {state.batch} sequences; "
                "give one or more for one sequence, or one for each, none of them empty"
            )
        self._require(state, max(map(len, rows)) - 1)
        out: list[Tensor | None] = [None] * len(rows)
        for chosen in _alike(rows):
            found = self._score(state, [rows[i] for i in chosen], chosen)
            for i, nats in zip(chosen, found, strict=True):
                out[i] = nats
        return [nats for nats in out if nats is not None]

    def _score(
        self, state: DecodingState, rows: Sequence[Tensor], places: Sequence[int]
    ) -> Iterator[Tensor]:
        targets = nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
        at = state.select(places if state.batch > 1 else [0] * len(rows))
        logits = at.logits[:, None]
        if targets.shape[1] > 1:
            stream = self._advance(at, targets[:, :-1], keep=False)
            logits = torch.cat([logits, self._logits(stream)], dim=1)
        nats = nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
        return (row[: len(ids)] for row, ids in zip(nats, rows, strict=True))

    def _extend(self, state: DecodingState, ids: Tensor) -> Tensor:
        self._require(state, ids.shape[1])
        logits = self._logits(self._advance(state, ids, keep=True))
        state.logits = logits[:, -1].clone()
        state.lengths = state.lengths + ids.shape[1]
        return logits

    def _read(self, ids: Tensor, room: int) -> DecodingState:
        """The state after the first tokens (B, P) of sequences."""
        batch, length = ids.shape
        with _evaluating(self.model):
            run = self._engine_pass(ids, self.bytes_for(batch, room) // 2)
            if run is None:
                begun = [Beginning(filters, room) for filters in self._filters]
                stream = self._through_modules(ids, begun)
                layers = [one.state for one in begun]
            else:
                like = self._filters[0][0].taps
                pasts = [_Past.beginning(like, self.model.config, batch) for _ in self._blocks]
                effects = self._effects(pasts, length, batch, room)
                stream = self._through_engine(run, ids, pasts)
                layers = [
                    LayerState(past.next_halo, [OnlineConvolution(filters[0], effect, batch)])
                    for past, filters, effect in zip(pasts, self._filters, effects, strict=True)
                ]
            logits = self._logits(stream[:, -1:])[:, 0]
        return DecodingState(layers, logits, ids.new_full((batch,), length))

    def _advance(self, state: DecodingState, ids: Tensor, *, keep: bool) -> Tensor:
        """The residual stream (B, n, D) at n more tokens (B, n); `keep`: the state moves there."""
        count = ids.shape[1]
        single = keep and count == 1
        if not single:
            state.settle()
        state.addresses = None
        with _evaluating(self.model):
            run = None if single else self._engine_pass(ids)
            if run is None:
                return self._through_modules(
                    ids, [Continuation(layer, keep=keep) for layer in state.layers]
                )
            pasts = [_Past.of(layer) for layer in state.layers]
            if not keep:
                return self._through_engine(run, ids, pasts)
            effects = self._effects(pasts, count, state.batch, state.room - count)
            stream = self._through_engine(run, ids, pasts)
        for layer, past, effect in zip(state.layers, pasts, effects, strict=True):
            layer.halo = past.next_halo
            layer.convolutions[0].advance(count, effect)
        return stream

    def _effects(self, pasts: Sequence[Past], count: int, batch: int, room: int) -> list[Tensor]:
        """By layer the effect (B, room, D) of `count` samples to come, filled while they come."""
        effects = []
        for past, filters in zip(pasts, self._filters, strict=True):
            lags, like = filters[0].lags, filters[0].taps
            assert isinstance(lags, FilterLags)
            effects.append(like.new_empty(batch, room, lags.channels))
            past.keep = _Keeper(lags, effects[-1], count)
        return effects

    def _through_modules(self, ids: Tensor, now: Sequence[Continuation]) -> Tensor:
        h: Tensor = self.model.backbone.embeddings(ids)
        for block, one in zip(self._blocks, now, strict=True):
            h = advance_block(block, h, one)
        return h

    def _through_engine(self, run: Pass, ids: Tensor, pasts: Sequence[Past]) -> Tensor:
        h = embed_tokens(run.kernels, self.model.backbone.embeddings.word_embeddings.weight, ids)
        return continue_blocks(run, self._blocks, h, pasts)

    def _engine_pass(self, ids: Tensor, besides: int = 0) -> Pass | None:
        backbone = self.model.backbone
        if not _bare_embeddings(self.model):
            return None
        table = backbone.embeddings.word_embeddings.weight
        return backbone.engine_pass(table, *ids.shape, besides=besides)

    def _logits(self, stream: Tensor) -> Tensor:
        return self.model.logits(self.model.backbone.ln_f(stream))

    def _require(self, state: DecodingState, count: int) -> None:
        if count > state.room:
            raise InputError(
                f"decoding: {count:,} more tokens, but the state has room for {state.room:,}; "
                "prefill with more room"
            )

    def _ids(self, tokens: Ids, name: str) -> Tensor:
        """One sequence of ids (P,), int64 on the model's device."""
        device = self._filters[0][0].taps.device
        ids = torch.as_tensor(tokens, device=device)
        if ids.ndim != 1 or ids.is_floating_point():
            raise InputError(
                f"decoding: {name} is {ids.dtype} of shape {tuple(ids.shape)}; "
                "give integer ids of shape (L,)"
            )
        ids = ids.long()
        self._check_ids(ids, name)
        return ids

    def _check_ids(self, ids: Tensor, name: str) -> None:
        rows = self.model.vocab_rows
        if ids.numel() and ids.device.type == "cpu" and not 0 <= ids.min() <= ids.max() < rows:
            raise InputError(
                f"decoding: {name} has token ids {int(ids.min())} to {int(ids.max())}; they must "
                f"be in 0 .. {rows - 1} (hyenadna.encode makes them)"
            )


class _Past(Past):
    """Of a layer, with nothing to keep unless told."""

    @classmethod
    def of(cls, layer: LayerState) -> Past:
        settled = layer.convolutions[0].settled
        return cls(layer.halo, settled, torch.empty_like(layer.halo), _forget)

    @classmethod
    def beginning(cls, like: Tensor, config: ModelConfig, batch: int) -> Past:
        halo = like.new_zeros(batch, config.short_filter_order - 1, 3 * config.d_model)
        return cls(halo, None, torch.empty_like(halo), _forget)


def _forget(channels: slice, samples: Tensor) -> None:
    """Keeps nothing."""


class _Keeper:
    """Turns the samples of a layer into their effect on what is to come, as blocks of them come.

    effect: (B, room, D), filled. count: samples of each channel.
    """

    def __init__(self, lags: FilterLags, effect: Tensor, count: int) -> None:
        self.lags, self.effect, self.count = lags, effect, count
        self.holding: FilterLags | None = None

    def __call__(self, channels: slice, samples: Tensor) -> None:
        room = self.effect.shape[1]
        if self.holding is None:
            longest = self.lags.filter_fn.max_seq_len
            self.holding = self.lags.holding(min(self.count + room, longest))
        effect = settle(samples.flatten(2), self.holding.part(channels), room)
        self.effect[..., channels] = effect
        if channels.stop == self.lags.channels:
            self.holding = None


def _filters(mixer: nn.Module, block: int) -> list[OnlineFilter]:
    """Of each long convolution of a layer."""
    assert isinstance(mixer, HyenaOperator)
    width = mixer.d_model
    parts = [slice(o * width, (o + 1) * width) for o in range(mixer.order - 1)]
    return [OnlineFilter(FilterLags(mixer.filter_fn, part), block=block) for part in parts]


def _native_stepper(model: HyenaDNA, blocks: Sequence[Block]) -> NativeStepper | None:
    """Native steps for this model as it is, where there are any."""
    backbone, head = model.backbone, model.head_weight
    table = backbone.embeddings.word_embeddings.weight
    with _evaluating(model):
        kernels = choose_kernels(backbone.engine, model.config, table)
        fits = all(
            engine_fits(block, model.config) and all_like(table, block.parameters())
            for block in blocks
        )
    if kernels is None or kernels.name != "native" or not fits or not _bare_embeddings(model):
        return None
    if not backbone.plain_norm(table) or head.shape != table.shape or not all_like(table, [head]):
        return None
    weights = [layer_of(i, block, 1).weights for i, block in enumerate(blocks)]
    norm = backbone.ln_f
    return NativeStepper(
        weights, norm.eps, head, (norm.weight, norm.bias), table,
        bf16=torch.is_autocast_enabled("cpu"),
    )  # fmt: skip


def _native_step(stepper: NativeStepper, state: DecodingState, ids: Tensor) -> Tensor:
    convolutions = [layer.convolutions[0] for layer in state.layers]
    count, block = convolutions[0].count, convolutions[0].filter.block
    if count == convolutions[0].recent.shape[1]:
        state.addresses = None
        for convolution in convolutions:
            convolution.make_way()
    if state.addresses is None:
        layers = [
            StepLayer(layer.halo, c.recent, c.settled, c.filter.taps)
            for layer, c in zip(state.layers, convolutions, strict=True)
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


def _bare_embeddings(model: HyenaDNA) -> bool:
    embeddings = model.backbone.embeddings
    return untouched(embeddings, frozenset({Embeddings, nn.Embedding}))


def _check_decodable(model: HyenaDNA, blocks: Sequence[Block]) -> None:
    if model.config.mixer != "hyena":
        raise InputError(
            f"decoding: the model's mixer is {model.config.mixer!r}; only hyena models decode "
            "step by step"
        )
    uncalled: list[tuple[str, nn.Module]] = [("model", model), ("backbone", model.backbone)]
    for i, block in enumerate(blocks):
        mixer = block.mixer
        assert isinstance(mixer, HyenaOperator)
        inner = {"": block, ".mixer": mixer, ".mixer.filter_fn": mixer.filter_fn}
        inner[".mixer.short_filter"] = mixer.short_filter
        uncalled += [(f"backbone.layers.{i}{name}", module) for name, module in inner.items()]
    for name, module in uncalled:
        if expects_call(module):
            raise InputError(
                f"decoding: {name} has a hook or a forward of its own, which step by step decoding "
                "would never call; remove it, or pass whole sequences through the model"
            )


def _alike(rows: Sequence[Tensor]) -> Iterator[list[int]]:
    """Numbers of the rows in batches of similar length."""
    batch: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: len(rows[i])):
        if batch and (len(batch) + 1) * len(rows[i]) > SCORED_TOKENS:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode while the block runs: decoding has no dropout."""
    training = [m for m in model.modules() if m.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
