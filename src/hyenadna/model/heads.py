"""A model with a task: hidden states, pooled, to class logits, label logits or values."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Literal, Protocol, Self, get_args

import numpy.typing as npt
import torch
from torch import Tensor, nn

from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.losses import loss_parts
from hyenadna.model.pooling import POOLINGS, AttentionPooling, Pooling, pool
from hyenadna.model.strands import other_strand
from hyenadna.task_kinds import TASK_KINDS, TaskKind, strand_twins

Strands = Literal["forward", "average", "concatenate"]
STRANDS: Final[tuple[str, ...]] = get_args(Strands)


class TaskLike(Protocol):
    """What a head must know of a task; `hyenadna.data.labelled.Task` is one."""

    @property
    def kind(self) -> TaskKind:
        """Classes, labels, values or tokens."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes, the labels or the values, in the order of the outputs."""

    @property
    def outputs(self) -> int:
        """Numbers for each sequence (for tokens: for each base), T."""


class TaskModel(nn.Module):
    """A backbone, a pooling and one linear map: `task_model(tokens, lengths) -> (B, T)`.

    model: the backbone; its language-model head is not used. task: kind and number of outputs.
    pooling: over the real positions of a row, see `hyenadna.model.pooling`; for a task of tokens
    it is `token`, every position for itself, and for all others it is not. `mean` (`token`) where
    left out.

    strands: `forward` reads the sequence as it is given. `average` takes the mean of the logits of
    the sequence and of its reverse complement, `concatenate` gives the features of both to a head
    of twice the width; both cost two passes. The outputs of a token are those at the same base on
    either strand, so that `concatenate` shows it the bases on both sides, which one strand cannot
    (the model is causal). Averaging is for tasks without a strand: it hurts the others.

    dropout: on the features, in training. The head starts with weights N(0, 0.02) and biases 0,
    from torch's global generator.

    A sequence's output is the same alone, in any batch and with any right padding. Raises
    InputError for an option out of range, and a pooling that does not go with the task.
    """

    def __init__(
        self,
        model: HyenaDNA,
        task: TaskLike,
        *,
        pooling: Pooling | None = None,
        strands: Strands = "forward",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        pooling = pooling or ("token" if task.kind == "tokens" else "mean")
        _check_options(task, pooling, strands, dropout)
        self.model, self.task = model, task
        self.pooling: Pooling = pooling
        self.strands: Strands = strands
        width = model.config.d_model
        table = model.backbone.embeddings.word_embeddings.weight
        self.attention = AttentionPooling(width) if pooling == "attention" else None
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width * (2 if strands == "concatenate" else 1), task.outputs)
        nn.init.normal_(self.head.weight, std=model.config.initializer_range)
        nn.init.zeros_(self.head.bias)
        # the head is small, and worth its digits where the model is in half precision
        dtype = torch.promote_types(table.dtype, torch.float32)
        for part in (self.attention, self.head):
            if part is not None:
                part.to(device=table.device, dtype=dtype)

    @property
    def fixed_features(self) -> bool:
        """Whether `features` stay the same while the head alone is trained, so can be kept.

        They do with a frozen backbone (see `hyenadna.model.freezing`), but for attention pooling,
        whose query is trained.
        """
        return self.attention is None and not any(p.requires_grad for p in self.model.parameters())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.weight.device

    @property
    def max_length(self) -> int:
        """Tokens of the longest sequence that it reads."""
        return self.model.config.max_seq_len

    @property
    def described(self) -> str:
        """How states become outputs, in a few words: runs with other words are not alike."""
        return f"{self.pooling}, {self.strands}"

    def pass_memory(self, batch: int, length: int) -> int | None:
        """Estimated bytes of this process in a pass over (B, L) tokens without gradients.

        None where nobody can say. Raises InputError where that is more than the model's
        `max_memory`.
        """
        return self.model.pass_memory(batch, length)

    def loss_parts(
        self, outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `hyenadna.model.losses.loss_parts`."""
        return loss_parts(self.task.kind, outputs, targets, class_weights)

    def shared_step(
        self, longest: int, forward: Callable[[], AbstractContextManager[object]] = nullcontext
    ) -> AbstractContextManager[object]:
        """Around the passes, forward and backward, of one optimiser step.

        What they have in common is then computed once. longest: tokens of the longest sequence.
        forward: makes the context of forward passes, such as autocast.
        """
        return nullcontext()

    def forward(self, tokens: Tensor | npt.ArrayLike, lengths: Tensor | None = None) -> Tensor:
        """Logits or values (B, T), for a task of tokens (B, L, T): float32 (float64 in float64).

        tokens: integer ids (B, L), padded on the right, or (L,) for one sequence. lengths: (B,),
        real tokens of each row, specials included; all of them where left out. At positions that
        are padding, the outputs of a task of tokens mean nothing.

        Raises InputError as the model does, and for lengths that are not (B,) or not in 1 .. L.
        """
        return self.logits(self.features(tokens, lengths))

    def features(self, tokens: Tensor | npt.ArrayLike, lengths: Tensor | None = None) -> Tensor:
        """What the head reads: (B, D), for tokens (B, L, D); 2 D wide with `concatenate`.

        float32, or float64 in a float64 model. With `average` it is the mean of both strands: the
        head is linear, so that the logits of the mean are the mean of the logits. Arguments and
        errors as for `forward`.
        """
        ids = torch.as_tensor(tokens, device=self.device)
        ids = ids[None] if ids.ndim == 1 else ids
        real = _check_lengths(lengths, ids)
        features = self._pooled(ids, real)
        if self.strands == "forward":
            return features
        other_ids, order = other_strand(ids, real)
        other = self._pooled(other_ids, real)
        if self.pooling == "token":
            other = other.gather(1, order[..., None].expand_as(other))
        if self.strands == "average":
            return (features + other) / 2
        return torch.cat([features, other], dim=-1)

    def logits(self, features: Tensor) -> Tensor:
        """The head, with its dropout, on what `features` gave: (..., D) -> (..., T).

        float32 also under autocast, float64 for float64 features.
        """
        dtype = torch.promote_types(features.dtype, torch.float32)
        with torch.autocast(features.device.type, enabled=False):
            kept = self.dropout(features.to(dtype))
            weight, bias = self.head.weight.to(dtype), self.head.bias.to(dtype)
            return nn.functional.linear(kept, weight, bias)

    def read_strands(self, strands: Strands) -> None:
        """Read the strands in another way from now on: the head stays as it is.

        Raises InputError where the task cannot be read so, and from or to `concatenate`, whose
        head is wider.
        """
        if "concatenate" in (strands, self.strands) and strands != self.strands:
            raise InputError(
                f"task head: it was made for strands {self.strands!r}, and reads no other way"
            )
        _check_options(self.task, self.pooling, strands, self.dropout.p)
        self.strands = strands

    @torch.no_grad()
    def rescale(self, mean: Tensor, scale: Tensor) -> None:
        """Change the head so that its outputs become `mean + scale * outputs`, exactly.

        mean, scale: (T,). For a head that learned standardised values: afterwards it gives them in
        their own unit. Raises InputError for tensors of another shape.
        """
        for name, value in (("mean", mean), ("scale", scale)):
            if value.shape != self.head.bias.shape:
                raise InputError(
                    f"rescale: {name} has shape {tuple(value.shape)}; give one number for each of "
                    f"the {len(self.head.bias)} outputs"
                )
        mean, scale = mean.to(self.head.bias), scale.to(self.head.bias)
        self.head.weight.mul_(scale[:, None])
        self.head.bias.mul_(scale).add_(mean)

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation mode; a backbone that is frozen stays in evaluation mode.

        It has nothing to learn there from dropout, and its features stay fixed.
        """
        super().train(mode)
        if not any(p.requires_grad for p in self.model.parameters()):
            self.model.eval()
        return self

    def states(self, ids: Tensor) -> Tensor:
        """Final hidden states (B, L, D) of ids (B, L)."""
        return self.model.embed(ids)

    def _pooled(self, ids: Tensor, lengths: Tensor) -> Tensor:
        return self.pooled(self.states(ids), lengths)

    def pooled(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Features of one strand: (B, L, D), (B,) -> (B, D), for tokens (B, L, D)."""
        if self.attention is not None:
            out: Tensor = self.attention(states, lengths)
            return out
        if self.pooling == "token":
            return states.to(torch.promote_types(states.dtype, torch.float32))
        assert self.pooling != "attention"
        return pool(states, lengths, self.pooling)


def _check_options(task: TaskLike, pooling: str, strands: str, dropout: float) -> None:
    def need(ok: bool, what: str, value: object, rule: str) -> None:
        if not ok:
            raise InputError(f"task head: {what} is {value!r}; {rule}")

    need(task.kind in TASK_KINDS, "kind", task.kind, f"it is one of {', '.join(TASK_KINDS)}")
    need(pooling in POOLINGS, "pooling", pooling, f"it is one of {', '.join(POOLINGS)}")
    need(strands in STRANDS, "strands", strands, f"it is one of {', '.join(STRANDS)}")
    need(0 <= dropout < 1, "dropout", dropout, "it must be in [0, 1)")
    unlike = strands != "average" or strand_twins(task.kind, task.names) is None
    need(unlike, "strands", strands, "it cannot tell + classes from -; forward or concatenate can")
    need(task.outputs >= 1, "outputs", task.outputs, "a task has at least one")
    if task.kind == "tokens":
        need(pooling == "token", "pooling", pooling, "for a class at each base it is 'token'")
    else:
        need(pooling != "token", "pooling", pooling, "it is for a class at each base (tokens) only")


def _check_lengths(lengths: Tensor | None, ids: Tensor) -> Tensor:
    """The lengths as int64 (B,) beside the ids (B, L); what else is wrong the model says."""
    if ids.ndim != 2:
        return torch.zeros(0, dtype=torch.long, device=ids.device)
    if lengths is None:
        return torch.full(ids.shape[:1], ids.shape[1], device=ids.device)
    if lengths.shape != ids.shape[:1] or lengths.is_floating_point():
        raise InputError(
            f"task model: lengths are {lengths.dtype} of shape {tuple(lengths.shape)}; give one "
            f"whole number for each of the {len(ids)} rows"
        )
    if lengths.device.type == "cpu" and len(lengths):
        wrong = lengths[(lengths < 1) | (lengths > ids.shape[1])]
        if len(wrong):
            raise InputError(
                f"task model: length {int(wrong[0])} of a row of {ids.shape[1]} tokens; lengths "
                f"are 1 .. {ids.shape[1]}: leave empty sequences out"
            )
    return lengths.to(device=ids.device, dtype=torch.long)
