"""A model that reads longer sequences than the one it was made from, and the same shorter ones.

The filters' features depend on the longest sequence M: a network that is simply told another M
computes other filters, longer and coarser ones. Here the tables of features go on beyond M on the
same scale, and are kept with the model as its own. Filters then keep their values at lags 0..M-1,
to the bit, so the model reads up to M tokens as before. At lags from M on the window is at its
floor, and the network gives what it happens to: train on long sequences to make use of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.filter import ImplicitFilter, lag_features


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
    made = HyenaDNA(model.config.replace(max_seq_len=max_seq_len)).to(model.head_weight)
    made.load_state_dict(dict(model.named_parameters()), strict=False)
    filters = ([m for m in x.modules() if isinstance(m, ImplicitFilter)] for x in (model, made))
    for before, after in zip(*filters, strict=True):
        for name, table in _continued(before, max_seq_len).items():
            after.keep_table(name, table)
    return made.eval()


def _continued(before: ImplicitFilter, max_seq_len: int) -> dict[str, Tensor]:
    """The tables at lags 0..max_seq_len-1. Raises InputError as `longer` does."""
    own = before.tables()
    z, t = own["pos_emb.z"], own["pos_emb.t"]
    scale = round(1 / float(t[0, 1, 0])) + 1  # t = lag / (M - 1)
    expected = lag_features(before.max_seq_len, before.emb_dim, t.device, scale=scale)
    if not (torch.allclose(z, expected[0]) and torch.allclose(t, expected[1])):
        raise InputError("the positions of this model follow no formula that goes on; train anew")
    z, t = lag_features(max_seq_len, before.emb_dim, t.device, scale=scale)
    return {"pos_emb.z": z, "pos_emb.t": t, "modulation.deltas": own["modulation.deltas"]}
