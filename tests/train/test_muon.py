"""Muon: orthogonal updates of matrices, AdamW for the rest."""

from __future__ import annotations

import copy

import pytest
import torch

from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.train.muon import UPDATE_SIZE, MuonAdamW, orthogonal
from hyenadna.train.optim import make_optimizer, parameter_groups
from hyenadna.training_config import PretrainConfig

SMALL = ModelConfig(d_model=16, n_layer=1, max_seq_len=34, filter_order=8, embed_dropout=0.0)


@pytest.mark.parametrize("shape", [(12, 12), (20, 8), (8, 20), (3, 16, 10)])
def test_singular_values_come_near_one_and_the_directions_stay(shape):
    g = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, values, vh = torch.linalg.svd(g, full_matrices=False)
    assert values.max() / values.min() > 3  # else there is nothing to show
    found = u.mT @ orthogonal(g) @ vh.mT
    diagonal = found.diagonal(dim1=-2, dim2=-1)
    assert diagonal.min() > 0.6 and diagonal.max() < 1.25
    torch.testing.assert_close(found, torch.diag_embed(diagonal), rtol=0, atol=1e-9)


def test_a_zero_gradient_moves_nothing():
    assert orthogonal(torch.zeros(4, 6)).eq(0).all()


def stepped(kind, groups, steps: int = 3) -> None:
    optimizer = kind(groups, lr=0.01, betas=(0.9, 0.99), fused=True)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()


def test_groups_without_blocks_are_adamw():
    first = [torch.nn.Parameter(torch.randn(6, 4)), torch.nn.Parameter(torch.randn(5))]
    second = copy.deepcopy(first)
    for kind, parameters in ((torch.optim.AdamW, first), (MuonAdamW, second)):
        stepped(kind, [{"params": parameters, "weight_decay": 0.1}])
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("shape", [(24, 16), (16, 40)])
def test_one_block_is_what_torch_computes(shape):
    first = torch.nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    second = copy.deepcopy(first)
    ours = MuonAdamW([{"params": [first], "weight_decay": 0.1, "blocks": 1}], lr=0.05, fused=True)
    theirs = torch.optim.Muon(
        [second], lr=0.05, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    begun = first.detach().clone()
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        first.grad = torch.randn(shape, generator=generator)
        second.grad = first.grad.clone()
        ours.step()
        theirs.step()
    moved = (first - begun).square().mean().sqrt()
    assert (first - second).square().mean().sqrt() < 0.02 * moved  # torch's is in bf16


def test_blocks_are_matrices_of_their_own():
    whole = torch.nn.Parameter(torch.randn(12, 4))
    parts = [torch.nn.Parameter(p.clone()) for p in whole.detach().split(4)]
    for parameters, blocks in (([whole], 3), (parts, 1)):
        stepped(MuonAdamW, [{"params": parameters, "weight_decay": 0.1, "blocks": blocks}])
    torch.testing.assert_close(whole, torch.cat(parts))


def test_an_update_has_the_size_of_adamw():
    p = torch.nn.Parameter(torch.zeros(64, 16))
    optimizer = MuonAdamW([{"params": [p], "weight_decay": 0.0, "blocks": 1}], lr=1.0, fused=True)
    p.grad = torch.randn(64, 16)
    optimizer.step()
    assert p.square().mean().sqrt().item() == pytest.approx(UPDATE_SIZE, rel=0.25)


def test_which_parameters_are_matrices():
    model = HyenaDNA(SMALL)
    config = PretrainConfig(optimizer="muon", lr=1e-3)
    names = {id(p): name for name, p in model.named_parameters()}
    groups = parameter_groups(model, config)
    turned = {
        names[id(p)].removeprefix("backbone.layers.0."): group["blocks"]
        for group in groups
        for p in group["params"]
        if group.get("blocks")
    }
    assert turned == {
        "mixer.in_proj.weight": 3, "mixer.out_proj.weight": 1, "mlp.fc1.weight": 1,
        "mlp.fc2.weight": 1,
    }  # fmt: skip
    assert {group["peak_lr"] for group in groups if group.get("blocks")} == {4e-3}
    assert sum(len(group["params"]) for group in groups) == len(names)
    assert isinstance(make_optimizer(model, config), MuonAdamW)
    assert not isinstance(make_optimizer(model, PretrainConfig()), MuonAdamW)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"matrix_lr": 0.1}, "--matrix-lr is 0.1; it is for --optimizer muon"),
        ({"optimizer": "muon", "matrix_lr": 0.0}, "--matrix-lr is 0.0; it must be positive"),
        ({"optimizer": "lion"}, "--optimizer is lion; it is one of adamw, muon"),
        ({"optimizer": "muon", "parameter_groups": "paper"}, "--parameter-groups standard"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(InputError, match=message):
        PretrainConfig(**options)
