"""Branches read anywhere behind a trunk equal the whole sequences read one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hyenadna.alphabet import PAD
from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.decoding.shared_reading import read_whole
from hyenadna.model.decoding.trunk import TrunkReader
from hyenadna.model.likelihood import target_nats


def padded(ends):
    tokens = torch.full((len(ends), max(map(len, ends))), PAD)
    for row, end in zip(tokens, ends, strict=True):
        row[: len(end)] = torch.as_tensor(end)
    return tokens


@pytest.mark.parametrize("kernels", ["auto", "torch", "plain"])
@pytest.mark.parametrize("kind", ["order 2", "order 3", "attention"])
def test_equals_the_slow_twin(kind, kernels):
    torch.manual_seed(0)
    mixer = "attention" if kind == "attention" else "hyena"
    order = 3 if kind == "order 3" else 2
    config = ModelConfig(d_model=16, n_layer=2, max_seq_len=200, mixer=mixer, hyena_order=order)
    model = HyenaDNA(config).eval()
    model.set_engine(kernels)
    rng = np.random.default_rng(1)
    trunk = rng.integers(7, 12, 120).astype(np.uint8)
    places = [1, 2, 3, 60, 60, 100, 119, 120 - 40]
    ends = [rng.integers(7, 12, n).astype(np.uint8) for n in (40, 3, 119 - 2, 60, 1, 20, 1, 40)]
    reader = TrunkReader(model)
    read = reader.read(torch.as_tensor(trunk).long())
    found = reader.ends(read, torch.tensor(places), padded(ends))
    for row, (place, end) in enumerate(zip(places, ends, strict=True)):
        (want,) = read_whole(model, trunk[:place], [end])
        n = len(end)
        torch.testing.assert_close(found.nats[row, :n], want.nats, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.hidden[row, :n], want.hidden, rtol=1e-4, atol=1e-4)


def test_the_trunk_itself():
    torch.manual_seed(0)
    model = HyenaDNA(ModelConfig(d_model=16, n_layer=2, max_seq_len=64)).eval()
    tokens = torch.from_numpy(np.random.default_rng(1).integers(7, 12, 64))
    read = TrunkReader(model).read(tokens)
    assert len(read) == 64 and torch.isnan(read.nats[0])
    want = target_nats(model, tokens[None, :-1], tokens[None, 1:])[0]
    torch.testing.assert_close(read.nats[1:], want, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(read.hidden, model.embed(tokens)[0], rtol=1e-4, atol=1e-4)
    one = TrunkReader(model).read(tokens[:1])
    torch.testing.assert_close(one.hidden, read.hidden[:1], rtol=1e-4, atol=1e-4)


def test_too_long_a_trunk_is_refused():
    model = HyenaDNA(ModelConfig(d_model=16, n_layer=1, max_seq_len=20)).eval()
    with pytest.raises(InputError, match="give 1 to 20"):
        TrunkReader(model).read(torch.full((21,), 7))
