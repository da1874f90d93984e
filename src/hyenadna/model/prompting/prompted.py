"""A frozen model with a task, adapted by learned vectors in front of every sequence alone.

Soft prompts (Lester et al. 2021, arXiv 2104.08691; for this model arXiv 2306.15794, section 4.3):
P vectors stand before the embedded tokens, and what the model says is read behind the sequence: in
the letters of a label word after `[SEP]`, or by a head that is trained with the vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

import torch
from torch import Tensor, nn

from hyenadna.alphabet import IGNORED, PAD, SEP
from hyenadna.errors import InputError
from hyenadna.label_words import LabelWords
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.digest import versions
from hyenadna.model.engine.sizes import RESERVE_BYTES, resident_bytes
from hyenadna.model.freezing import freeze
from hyenadna.model.heads import Strands, TaskLike, TaskModel
from hyenadna.model.memory import prompted_bytes
from hyenadna.model.pooling import Pooling
from hyenadna.model.prompting.shared_prefix import (
    FrozenFilters,
    PrefixEffects,
    joint_states,
    prefix_effects,
    states_behind,
)

FIRST_DEVIATION: Final = 0.02
"""Standard deviation of the first vectors, as in the original."""
_ONE_STRAND: Final = (
    "soft prompt: with label words the answer is read behind the sequence as it is given; leave "
    "out strands and pooling, or take a head"
)
_MOST_KEPT: Final = 2 << 30
"""Bytes of activations above which they are computed again in the backward pass."""
_KEPT_PER_TOKEN: Final = 24
"""Numbers a layer keeps for the backward pass, for each token and channel, about."""


class PromptedModel(TaskModel):
    """Soft tokens before the sequence; the model itself is frozen, and stays as it is to the bit.

    tokens: how many, P; 0 leaves the model as it is. words: of the classes; the model then spells
    its answer after `sequence [SEP]` with its own language-model head, and nothing but the vectors
    is learned. Without words there is a head, as in `TaskModel`, which learns with them. dropout:
    on the vectors, in training; the same for all sequences of an optimiser step, for which the
    vectors pass through the model once. head_dropout, pooling and strands: as in `TaskModel`;
    with words the sequence is read as it is given. over_vocabulary: count a label letter against
    all tokens in the loss, as the original does, and not against the other classes' words alone.

    The vectors start as N(0, 0.02), from torch's global generator. Raises InputError for numbers
    out of range, words with a task that has no classes or other ones, and as `TaskModel` does.
    """

    def __init__(
        self,
        model: HyenaDNA,
        task: TaskLike,
        *,
        tokens: int,
        words: LabelWords | None = None,
        pooling: Pooling | None = None,
        strands: Strands = "forward",
        dropout: float = 0.1,
        head_dropout: float = 0.0,
        over_vocabulary: bool = False,
    ) -> None:
        _check(model, task, tokens, words, pooling, strands, dropout, over_vocabulary)
        super().__init__(
            model, task, pooling="last" if words else pooling, strands=strands, dropout=head_dropout
        )
        freeze(model)
        self.words, self.over_vocabulary = words, over_vocabulary
        table = model.backbone.embeddings.word_embeddings.weight
        dtype = torch.promote_types(table.dtype, torch.float32)
        drawn = torch.randn(tokens, model.config.d_model, dtype=dtype) * FIRST_DEVIATION
        self.prompt = nn.Parameter(drawn.to(table.device))
        self.prompt_dropout = nn.Dropout(dropout)
        self.prior: Tensor
        self.register_buffer("prior", torch.zeros(task.outputs, dtype=dtype, device=table.device))
        if words is not None:
            del self.head  # the language-model head answers
        self._filters = FrozenFilters(model.backbone)
        self._shared: PrefixEffects | None = None
        self._kept: tuple[list[object], PrefixEffects] | None = None

    @property
    def device(self) -> torch.device:
        """See `TaskModel`."""
        return self.prompt.device

    @property
    def fixed_features(self) -> bool:
        """See `TaskModel`."""
        return not len(self.prompt) and self.words is None and super().fixed_features

    @property
    def max_length(self) -> int:
        """See `TaskModel`: what the vectors and the answer leave."""
        answer = self.words.length if self.words else 0
        return self.model.config.max_seq_len - len(self.prompt) - answer

    def pass_memory(self, batch: int, length: int, *, answer: bool = True) -> int | None:
        """See `TaskModel`. answer: whether the answer is read, or the states alone."""
        many, prompt = batch, len(self.prompt)
        if answer and self.words is not None:
            many, length = batch * len(self.words.beginnings), length + self.words.length
        if not prompt or self.model.config.mixer != "hyena":
            return self.model.pass_memory(many, prompt + length)
        if self.device.type != "cpu":
            return None
        need = resident_bytes() + RESERVE_BYTES
        need += prompted_bytes(self.model.config, prompt=prompt, batch=many, length=length)
        most = self.model.backbone.engine.max_memory
        if most is not None and need > most:
            raise InputError(
                f"max_memory is {most >> 20:,} MiB, but {batch:,} x {length:,} tokens behind "
                f"{prompt:,} soft tokens need about {need >> 20:,} MiB; give more, or shorter "
                "sequences"
            )
        return need

    def read_strands(self, strands: Strands) -> None:
        """See `TaskModel`. Raises InputError also where label words are to be read both ways."""
        if self.words is not None and strands != "forward":
            raise InputError(_ONE_STRAND)
        super().read_strands(strands)

    @property
    def described(self) -> str:
        """See `TaskModel`."""
        start = f"{len(self.prompt)} soft tokens with dropout {self.prompt_dropout.p:g}"
        if self.words is None:
            return f"{start}, {super().described}"
        over = ", over the vocabulary" if self.over_vocabulary else ""
        return f"{start}, words {' '.join(self.words.words)}{over}"

    def states(self, ids: Tensor) -> Tensor:
        """Final hidden states (B, L, D) of ids (B, L) behind the vectors."""
        if not len(self.prompt):
            return self.model.embed(ids)
        backbone = self.model.backbone
        tokens: Tensor = backbone.embeddings(ids.long())
        if self.model.config.mixer != "hyena":
            return joint_states(backbone, self.prompt_dropout(self.prompt), tokens)
        effects = self._effects(ids.shape[1])
        return states_behind(
            backbone, effects, tokens, filters=self._filters, recompute=self._again(ids.numel())
        )

    @contextmanager
    def shared_step(
        self, longest: int, forward: Callable[[], AbstractContextManager[object]] = nullcontext
    ) -> Iterator[None]:
        """See `TaskModel`: the vectors pass through the model once, forward and backward."""
        learned = torch.is_grad_enabled() and self.prompt.requires_grad
        if not len(self.prompt) or self.model.config.mixer != "hyena" or not learned:
            yield
            return
        room = longest + (self.words.length if self.words else 0)
        with forward():
            whole = self._fresh_effects(room)
        self._shared = whole.detached()
        try:
            yield
            pairs = [
                (of, leaf.grad)
                for of, leaf in zip(whole.tensors(), self._shared.tensors(), strict=True)
                if leaf.grad is not None and of.requires_grad
            ]
        finally:
            self._shared = None
        if pairs:
            torch.autograd.backward([of for of, _ in pairs], [grad for _, grad in pairs])

    @torch.no_grad()
    def calibrate(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Let no class be likelier than another before anything is learned.

        A language model finds some letters likelier than others whatever it reads (N above all, of
        which it may have seen none). The mean log-probability of each word over some sequences
        becomes the `prior`, which is subtracted from then on. batches: tokens (B, L) and lengths
        (B,), as for `forward`; no labels. For models with words; others are left as they are.
        """
        if self.words is None:
            return
        was_training = self.training
        self.eval()
        self.prior.zero_()
        found = torch.cat([self(tokens, lengths).double() for tokens, lengths in batches])
        self.prior.copy_(found.mean(0) - found.mean())
        self.train(was_training)

    def logits(self, features: Tensor) -> Tensor:
        """See `TaskModel`; of words (B, U, W, D): log-probabilities less the `prior`, (B, T)."""
        if self.words is None:
            return super().logits(features)
        letters = self.model.logits(features).log_softmax(-1)  # (B, U, W, V)
        ids = torch.from_numpy(self.words.ids).long().to(letters.device)
        at = letters[:, self.words.beginning_of]  # (B, T, W, V)
        said = at.gather(3, ids.expand(len(letters), -1, -1)[..., None])[..., 0].sum(2)
        return said - self.prior.to(said)

    def loss_parts(
        self, outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `TaskModel`."""
        if not self.over_vocabulary:
            return super().loss_parts(outputs, targets, class_weights)
        known = targets != IGNORED
        weights = known.to(outputs.dtype)
        if class_weights is not None:
            weights = weights * class_weights.to(outputs)[targets.clamp_min(0)]
        said = (outputs + self.prior.to(outputs)).gather(1, targets.clamp_min(0)[:, None])[:, 0]
        return -(said * weights).sum(), weights.sum()

    def _pooled(self, ids: Tensor, lengths: Tensor) -> Tensor:
        if self.words is None:
            return super()._pooled(ids, lengths)
        asked, first = self._questions(ids, lengths)
        states = self.states(asked)
        at = first[:, None] + torch.arange(self.words.length, device=ids.device)
        found = states.gather(1, at[..., None].expand(-1, -1, states.shape[2]))
        return found.unflatten(0, (len(ids), -1)).to(
            torch.promote_types(found.dtype, torch.float32)
        )

    def _questions(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """`sequence [SEP] beginning` for each row and beginning of a word, (B U, L + W).

        And the position of [SEP] in each, (B U,). A model that is right goes on with the letter
        that comes after the beginning.
        """
        assert self.words is not None
        beginnings = torch.from_numpy(self.words.beginnings).to(ids)  # (U, W - 1)
        many, left = beginnings.shape
        rows, where = ids.repeat_interleave(many, 0), lengths.repeat_interleave(many)
        asked = torch.cat([rows, rows.new_full((len(rows), 1 + left), PAD)], dim=1)
        asked.scatter_(1, where[:, None], SEP)
        at = where[:, None] + 1 + torch.arange(left, device=ids.device)
        asked.scatter_(1, at, beginnings.repeat(len(ids), 1))
        return asked, where

    def _effects(self, room: int) -> PrefixEffects:
        """What the vectors mean to the next `room` positions, computed as seldom as can be."""
        if self._shared is not None and self._shared.room >= room:
            return self._shared
        if torch.is_grad_enabled() and self.prompt.requires_grad:
            return self._fresh_effects(room)
        if self.training:
            with torch.no_grad():
                return self._fresh_effects(room)
        kind = self.prompt.device.type
        of: list[object] = [
            torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None,
            *versions(self.prompt, *self.model.backbone.parameters()),
        ]
        if self._kept is None or self._kept[0] != of or self._kept[1].room < room:
            with torch.inference_mode(False), torch.no_grad():
                self._kept = of, self._fresh_effects(room)
        return self._kept[1]

    def _fresh_effects(self, room: int) -> PrefixEffects:
        table = self.model.backbone.embeddings.word_embeddings.weight
        prompt = self.prompt_dropout(self.prompt).to(table.dtype)
        return prefix_effects(
            self.model.backbone,
            prompt,
            room=room,
            filters=self._filters,
            recompute=self._again(len(prompt) + room),
        )

    def _again(self, tokens: int) -> bool:
        """Whether activations of so many tokens are too many to keep."""
        shape = self.model.config
        kept = 4 * _KEPT_PER_TOKEN * shape.d_model * shape.n_layer
        return tokens * kept > _MOST_KEPT


def _check(
    model: HyenaDNA,
    task: TaskLike,
    tokens: int,
    words: LabelWords | None,
    pooling: Pooling | None,
    strands: Strands,
    dropout: float,
    over_vocabulary: bool,
) -> None:
    longest = model.config.max_seq_len
    most = longest - 1 - (words.length if words else 0)
    if not 0 <= tokens <= most:
        raise InputError(
            f"soft prompt: {tokens:,} tokens; this model reads {longest:,} in all, so give 0 to "
            f"{most:,}, less what the sequences take"
        )
    if not 0 <= dropout < 1:
        raise InputError(f"soft prompt: dropout is {dropout}; it must be in [0, 1)")
    if words is None:
        if over_vocabulary:
            raise InputError("soft prompt: a loss over the vocabulary is for label words")
        return
    if task.kind != "classes" or words.names != tuple(task.names):
        raise InputError(
            f"soft prompt: words name the classes {', '.join(words.names)}, the task is "
            f"{task.kind} ({', '.join(task.names)}); take a head for it"
        )
    if strands != "forward" or pooling is not None:
        raise InputError(_ONE_STRAND)
