"""A model as attribution methods want it: one-hot bases in, numbers out, gradients in between."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hyenadna.alphabet import BASES, Ids, N
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.heads import TaskModel


class OneHotModel(nn.Module):
    """`OneHotModel(model)(x)` -> (B, T) of one-hot sequences x (B, 4, L), rows A C G T.

    Of a language model T is 1: the log-likelihood of the sequence, in nats, all bases but the first
    given those before it. Of a fine-tuned model they are its logits or values, T outputs.

    A column of zeros is N, which has no likelihood. Anything between is a mixture: of the vectors
    of the bases where it is read, of their log-likelihoods where it is predicted. So the outputs
    are smooth in x, and those of a real one-hot sequence are the model's own.

    Attributions are gradients of the network as it is: dropout belongs off (`eval()`). Methods that
    take a second derivative need `model.set_engine("plain")`. Raises InputError for a model that
    gives a class to each base, which has no one output, and for x of another shape.
    """

    def __init__(self, model: HyenaDNA | TaskModel) -> None:
        super().__init__()
        if isinstance(model, TaskModel) and model.task.kind == "tokens":
            raise InputError("one-hot model: a class for each base is no one output to explain")
        self.model = model
        # as the model, so that who puts a wrapper back as it was puts the model back too
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if x.ndim != 3 or x.shape[1] != len(BASES) or not x.shape[2]:
            raise InputError(
                f"one-hot model: x has shape {tuple(x.shape)}; give (B, 4, L), rows A C G T"
            )
        if isinstance(self.model, HyenaDNA):
            return self._log_likelihood(x, self.model)
        return self.model.logits(self._features(x, self.model))

    def _log_likelihood(self, x: Tensor, model: HyenaDNA) -> Tensor:
        bases = x.transpose(1, 2)
        logits = model.logits(_states(model, bases)[:, :-1])
        logp = logits.log_softmax(-1)[..., list(BASES)]
        return (bases[:, 1:].to(logp) * logp).sum((1, 2))[:, None]

    def _features(self, x: Tensor, task_model: TaskModel) -> Tensor:
        lengths = torch.full((len(x),), x.shape[2], device=x.device)

        def pooled(strand: Tensor) -> Tensor:
            return task_model.pooled(_states(task_model.model, strand.transpose(1, 2)), lengths)

        features = pooled(x)
        if task_model.strands == "forward":
            return features
        other = pooled(x.flip(1, 2))  # the complement of A C G T is T G C A
        if task_model.strands == "average":
            return (features + other) / 2
        return torch.cat([features, other], dim=-1)


def _states(model: HyenaDNA, bases: Tensor) -> Tensor:
    """Final hidden states (B, L, D) of shares (B, L, 4) of the bases; what is missing is N."""
    table: Tensor = model.backbone.embeddings.word_embeddings.weight
    shares = bases.to(table)
    rest = 1 - shares.sum(-1, keepdim=True)
    out: Tensor = model.backbone(shares @ table[list(BASES)] + rest * table[N])
    return out


def one_hot(ids: Ids) -> Tensor:
    """(4, L) float32 of token ids (L,): rows A C G T, a column of zeros for N.

    Raises InputError for tokens that are no bases.
    """
    tokens = torch.as_tensor(ids).long()
    if tokens.ndim != 1 or bool(((tokens < BASES[0]) | (tokens > N)).any()):
        raise InputError("one-hot: give the ids of one sequence of A, C, G, T and N, shape (L,)")
    return (torch.tensor(BASES)[:, None] == tokens).float()
