"""A sequence over several ranks equals the sequence on one: logits, loss, gradients."""

from __future__ import annotations

import pytest
import torch
from tests.parallel.ranks import on_ranks

from hyenadna.alphabet import IGNORED, PAD
from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.likelihood import target_nats
from hyenadna.model.parallel import context
from hyenadna.model.parallel.context import share_context
from hyenadna.model.parallel.shards import SequenceShards
from hyenadna.model.planning import context as planning


def made(config: ModelConfig, dtype: torch.dtype) -> HyenaDNA:
    torch.manual_seed(0)
    model = HyenaDNA(config).to(dtype)
    for parameter in model.parameters():  # filters that reach far
        parameter.data += 0.02 * torch.randn_like(parameter)
    return model.train()


def batch(length: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(7, 12, (2, length + 1), generator=generator)
    targets = rows[:, 1:].clone()
    targets[targets == 11] = IGNORED
    return rows[:, :-1], targets


def results(model: HyenaDNA, inputs, targets, counted: int):
    """Logits, nats of each target, and gradients of their mean."""
    nats = target_nats(model, inputs, targets)
    (nats.sum() / counted).backward()
    with torch.no_grad():
        logits = model(inputs)
    return logits, nats.detach(), {n: p.grad for n, p in model.named_parameters()}


def shared_results(rank, count, config, dtype, length, piece):
    context.PIECE, planning.MIXED = piece, piece * 16
    shards = SequenceShards()
    model = share_context(made(config, dtype), shards)
    inputs, targets = batch(length)
    mine = shards.part(inputs, PAD), shards.part(targets, IGNORED)
    logits, nats, gradients = results(model, *mine, int((targets != IGNORED).sum()))
    for gradient in gradients.values():
        torch.distributed.all_reduce(gradient)
    return (
        shards.whole(logits, length),
        shards.whole(nats, length),
        gradients,
        list(model.state_dict()),
    )


@pytest.mark.parametrize(
    ("count", "dtype", "order", "length", "piece"),
    [
        (2, torch.float64, 2, 40, 1 << 16),
        (2, torch.float32, 2, 37, 7),  # does not divide: padding at the end, and pieces
        (3, torch.float64, 3, 33, 5),
        pytest.param(4, torch.float64, 2, 50, 4, marks=pytest.mark.slow),
    ],
)
def test_equals_one_rank(tmp_path, count, dtype, order, length, piece):
    width = 12
    config = ModelConfig(
        d_model=width, n_layer=2, max_seq_len=50, hyena_order=order, filter_order=8, embed_dropout=0
    )
    model = made(config, dtype)
    inputs, targets = batch(length)
    logits, nats, gradients = results(model, inputs, targets, int((targets != IGNORED).sum()))
    close = (
        {"rtol": 1e-9, "atol": 1e-11} if dtype == torch.float64 else {"rtol": 2e-4, "atol": 2e-5}
    )
    for got in on_ranks(count, shared_results, tmp_path, config, dtype, length, piece):
        torch.testing.assert_close(got[0], logits, **close)
        torch.testing.assert_close(got[1], nats, **close)
        assert got[2].keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(got[2][name], gradient, **close, msg=name)
        assert got[3] == list(model.state_dict())


def refusals(rank, count):
    shards = SequenceShards()
    told = []
    for config in (
        ModelConfig(d_model=16, n_layer=1, max_seq_len=50, mixer="attention"),
        ModelConfig(d_model=9, n_layer=1, max_seq_len=50),
    ):
        try:
            share_context(HyenaDNA(config), shards)
        except InputError as error:
            told.append(str(error))
    model = share_context(HyenaDNA(ModelConfig(d_model=8, n_layer=1, max_seq_len=50)), shards)
    for attempt in (lambda: share_context(model, shards), lambda: model(torch.tensor([[7]]))):
        try:
            attempt()
        except InputError as error:
            told.append(str(error))
    return told


def test_what_cannot_be_shared_is_told(tmp_path):
    told = on_ranks(2, refusals, tmp_path)[0]
    for text, part in zip(
        told, ("has attention", "9 channels over 2 ranks", "already", "reaches 2 back"), strict=True
    ):
        assert part in text


def test_needs_torch_distributed():
    with pytest.raises(InputError, match="torchrun"):
        SequenceShards()
