"""A model in parts starts as one process would start it, and no rank holds all of it."""

from __future__ import annotations

import torch
from tests.parallel.ranks import on_ranks

from hyenadna.config import ModelConfig
from hyenadna.model.backbone import HyenaDNA, rescale_filters
from hyenadna.model.parallel.parts import own_rows, whole
from hyenadna.model.parallel.sharded import draw_weights, empty_model, shard

SMALL = ModelConfig(d_model=12, n_layer=3, max_seq_len=50, filter_order=8)


CASES = (
    ({}, True),
    ({"tie_word_embeddings": False, "train_freq": False, "hyena_order": 3}, False),
    ({"mixer": "attention", "num_heads": 2}, True),
)


def drawn(rank, count):
    """Of each case: all tensors whole, the numbers held here, the rows, and what is drawn next."""
    made = []
    for change, rescaled in CASES:
        torch.manual_seed(5)
        model = empty_model(SMALL.replace(**change))
        shard(model, torch.device("cpu"))
        draw_weights(model, rescaled=rescaled)
        held = sum(p.to_local().numel() for p in model.parameters())
        rows = {name: own_rows(p) for name, p in model.named_parameters()}
        tensors = {name: whole(value).clone() for name, value in model.state_dict().items()}
        tensors |= {name: value.clone() for name, value in model.named_buffers()}
        made.append((tensors, held, rows, torch.rand(3)))
    return made


def test_the_first_weights_are_those_of_one_process(tmp_path):
    count = 3  # does not divide the widths
    ranks = on_ranks(count, drawn, tmp_path)
    for case, (change, rescaled) in enumerate(CASES):
        torch.manual_seed(5)
        model = HyenaDNA(SMALL.replace(**change))
        if rescaled:
            rescale_filters(model)
        after = torch.rand(3)
        expected = model.state_dict() | dict(model.named_buffers())
        parts = [made[case] for made in ranks]
        for tensors, held, _, following in parts:
            assert tensors.keys() == expected.keys()
            for name, value in expected.items():
                assert torch.equal(tensors[name], value), name
            assert torch.equal(following, after)
            assert held < model.config.num_parameters() * (1 / count + 0.2)
        assert sum(held for _, held, _, _ in parts) == model.config.num_parameters()
        for name, parameter in model.named_parameters():  # all rows, one after the other
            rows = [part[2][name] for part in parts]
            assert [i for r in rows for i in range(r.start, r.stop)] == list(range(len(parameter)))
