"""A model that reads longer sequences than the one it was made from, and the same shorter ones.

The filters' features depend on the longest sequence M: a network that is simply told another M
computes other filters, longer and coarser ones. So the lag axis keeps its scale and goes on beyond
M. Filters then keep their values at lags 0..M-1, to the bit, and the model reads up to M tokens as
before. At lags from M on the window is at its floor, and the network gives what it happens to:
train on long sequences to make use of them.
"""

from __future__ import annotations

import torch

from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.filter import filters, lag_features

_RATES = "modulation.deltas"


def longer(model: HyenaDNA, max_seq_len: int) -> HyenaDNA:
    """A copy that reads up to `max_seq_len` tokens, in evaluation mode.

    Raises InputError where that is not more than the model reads, and where its positions are on no
    scale that could be continued.
    """
    old = model.config.max_seq_len
    if max_seq_len <= old:
        raise InputError(
            f"--max-seq-len is {max_seq_len:,}, but the model reads {old:,} tokens already; give "
            "more, or leave it out"
        )
    config = model.config.replace(max_seq_len=max_seq_len, lag_scale=_lag_scale(model))
    made = HyenaDNA(config).to(model.head_weight)
    made.load_state_dict(dict(model.named_parameters()), strict=False)
    for before, after in zip(filters(model).values(), filters(made).values(), strict=True):
        if _RATES in before.stored():  # a table of channels, not of lags
            after.keep_table(_RATES, before.tables()[_RATES])
    return made.eval()


def _lag_scale(model: HyenaDNA) -> int:
    """The scale of all lag axes: the configuration's, or that of tables which the model keeps.

    Raises InputError as `longer` does.
    """
    length = model.config.max_seq_len
    scale = model.config.lag_scale or length
    lags = {"pos_emb.z", "pos_emb.t"}
    kept = [own.tables() for own in filters(model).values() if lags & set(own.stored())]
    if kept:
        scale = round(1 / float(kept[0]["pos_emb.t"][0, 1, 0])) + 1  # t = lag / (scale - 1)
    for own in kept:
        z, t = own["pos_emb.z"], own["pos_emb.t"]
        expected = lag_features(length, z.shape[-1], t.device, scale)
        if not (torch.allclose(z, expected[0]) and torch.allclose(t, expected[1])):
            raise InputError(
                "the positions of this model follow no formula that goes on; train anew"
            )
    return scale
