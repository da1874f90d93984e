"""Ends read behind a shared front equal the whole sequences read one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.decoding import Decoder
from hyenadna.model.decoding.shared_reading import read_ends, read_whole


@pytest.mark.parametrize("kernels", ["auto", "torch", "plain"])
@pytest.mark.parametrize("mixer", ["hyena", "attention"])
def test_equals_the_slow_twin(kernels, mixer):
    torch.manual_seed(0)
    model = HyenaDNA(ModelConfig(d_model=16, n_layer=2, max_seq_len=200, mixer=mixer)).eval()
    model.set_engine(kernels)
    rng = np.random.default_rng(1)
    front = rng.integers(7, 12, 60).astype(np.uint8)
    ends = [rng.integers(7, 12, n).astype(np.uint8) for n in (1, 2, 40, 39, 7, 80, 1)]
    decoder = Decoder(model)
    state = decoder.prefill([front], room=80)
    slow = read_whole(model, front, ends)
    for row_tokens in (1, 100, 1 << 14):
        for got, want, end in zip(
            read_ends(decoder, state, ends, row_tokens=row_tokens), slow, ends, strict=True
        ):
            assert got.nats.shape == (len(end),) and got.hidden.shape == (len(end), 16)
            torch.testing.assert_close(got.nats, want.nats, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(got.hidden, want.hidden, rtol=1e-4, atol=1e-4)


def test_refuses_what_does_not_fit():
    model = HyenaDNA(ModelConfig(d_model=16, n_layer=1, max_seq_len=20))
    decoder = Decoder(model)
    state = decoder.prefill([[7, 8, 9]], room=4)
    with pytest.raises(InputError, match="room for 4"):
        read_ends(decoder, state, [[7] * 5])
