"""Sequences behind one prefix equal the prefix put in front of each of them."""

from __future__ import annotations

import pytest
import torch

from hyenadna.config import ModelConfig
from hyenadna.model.backbone import HyenaDNA, rescale_filters
from hyenadna.model.prompting.shared_prefix import (
    FrozenFilters,
    joint_states,
    prefix_effects,
    states_behind,
)


def frozen(order: int = 2) -> HyenaDNA:
    torch.manual_seed(order)
    config = ModelConfig(d_model=12, n_layer=2, max_seq_len=96, hyena_order=order)
    model = HyenaDNA(config).double()
    rescale_filters(model)  # so that what is far away counts
    return model.requires_grad_(False).eval()


def shared_states(backbone, prefix, tokens, *, recompute=False):
    filters = FrozenFilters(backbone)
    room = tokens.shape[1]
    effects = prefix_effects(backbone, prefix, room=room, filters=filters, recompute=recompute)
    return states_behind(backbone, effects, tokens, filters=filters, recompute=recompute)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("past", [1, 2, 3, 50])
@pytest.mark.parametrize("length", [1, 21])
def test_one_pass_of_the_prefix_is_worth_one_for_each_row(order, past, length):
    model = frozen(order)
    prefix = (0.3 * torch.randn(past, 12, dtype=torch.float64)).requires_grad_()
    tokens = model.backbone.embeddings(torch.randint(7, 11, (3, length))).requires_grad_()
    weights = torch.randn(3, length, 12, dtype=torch.float64)
    found = []
    for states in (
        joint_states(model.backbone, prefix, tokens),
        shared_states(model.backbone, prefix, tokens),
        shared_states(model.backbone, prefix, tokens, recompute=True),
    ):
        found.append((states, *torch.autograd.grad((states * weights).sum(), (prefix, tokens))))
    alone = model.backbone(tokens)
    assert not torch.allclose(found[0][0], alone, atol=1e-3)  # the prefix has an effect
    for other in found[1:]:
        for slow, fast in zip(found[0], other, strict=True):
            torch.testing.assert_close(fast, slow, rtol=0, atol=1e-11)
