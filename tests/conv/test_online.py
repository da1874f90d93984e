"""Online convolution equals the whole one, however the samples come."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenadna.conv import long_convolution, online
from hyenadna.conv.online import OnlineConvolution, OnlineFilter, StoredLags
from hyenadna.errors import InputError


def signals(batch, channels, length, seed=0):
    gen = torch.Generator().manual_seed(seed)
    u = torch.randn(batch, length, channels, generator=gen, dtype=torch.float64)
    k = torch.randn(channels, length, generator=gen, dtype=torch.float64)
    return u, k


def whole(u, k):
    return long_convolution(u.transpose(1, 2), k, method="direct").transpose(1, 2)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.lists(st.booleans(), min_size=6, max_size=6),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(1, 3),
    st.integers(0, 30),
)
def test_any_mixture_of_steps_and_chunks(lengths, one_by_one, block, batch, spare):
    total = sum(lengths)
    u, k = signals(batch, 3, total + spare)
    state = OnlineConvolution.empty(OnlineFilter(StoredLags(k), block=block), batch, total + spare)
    found, at = [], 0
    for n, single in zip(lengths, one_by_one, strict=False):
        chunk = u[:, at : at + n]
        if single:
            found += [state.step(sample)[:, None] for sample in chunk.unbind(1)]
        else:
            found.append(state.extend(chunk))
        at += n
    torch.testing.assert_close(torch.cat(found, 1), whole(u[:, :total], k[:, :total]))
    assert state.room == spare


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 70), st.integers(0, 70), st.integers(1, 2))
def test_settling_is_the_effect_on_outputs_to_come(n, room, batch):
    u, k = signals(batch, 2, n + room)
    silent = torch.cat([u[:, :n], torch.zeros(batch, room, 2, dtype=u.dtype)], 1)
    found = online.settle(u[:, :n], StoredLags(k), room)
    torch.testing.assert_close(found, whole(silent, k)[:, n:])


def test_settling_in_many_pieces(monkeypatch):
    monkeypatch.setattr(online, "SHORTEST_PIECE", 4)
    monkeypatch.setattr(online, "LONGEST_PIECE", 16)
    monkeypatch.setattr(online, "PART_SAMPLES", 64)
    for n, room in ((100, 3), (3, 100), (70, 90), (64, 64)):
        u, k = signals(2, 5, n + room)
        silent = torch.cat([u[:, :n], torch.zeros(2, room, 5, dtype=u.dtype)], 1)
        found = online.settle(u[:, :n], StoredLags(k), room)
        torch.testing.assert_close(found, whole(silent, k)[:, n:])


def test_branches_go_their_own_ways():
    u, k = signals(4, 3, 50)
    state = OnlineConvolution.empty(OnlineFilter(StoredLags(k), block=4), 2, 50)
    state.extend(u[:2, :10])
    for t in range(10, 23):
        state.step(u[:2, t])
    branched = state.select(torch.tensor([1, 0, 1]))
    for _ in range(23, 30):
        state.step(torch.zeros(2, 3, dtype=u.dtype))  # the trunk does not disturb its branches
    mine = torch.stack([u[1], u[0], u[1]])
    mine[:, 23:] = u[[3, 2, 2], 23:]
    wanted = whole(mine, k)
    for t in range(23, 50):
        torch.testing.assert_close(branched.step(mine[:, t]), wanted[:, t])


def test_room_is_a_promise():
    _, k = signals(1, 3, 5)
    state = OnlineConvolution.empty(OnlineFilter(StoredLags(k)), 1, 5)
    for _ in range(5):
        state.step(torch.ones(1, 3, dtype=torch.float64))
    with pytest.raises(InputError, match=r"1 more samples, but there is room for 0"):
        state.step(torch.ones(1, 3, dtype=torch.float64))
    with pytest.raises(InputError, match="block is 3"):
        OnlineFilter(StoredLags(k), block=3)


def test_memory_is_that_of_the_room():
    """Two numbers for each sample that may come, and no more however many have come."""
    _, k = signals(1, 4, 1024)
    state = OnlineConvolution.empty(OnlineFilter(StoredLags(k), block=8), 1, 1024)
    for _ in range(1024):
        state.step(torch.ones(1, 4, dtype=torch.float64))
    assert state.nbytes == 2 * 1024 * 4 * 8


def test_long_folds_in_blocks_of_channels(monkeypatch):
    """Folds whose spectra are not kept, cut to few channels at once."""
    monkeypatch.setattr(online, "KEPT_SAMPLES", 4)
    monkeypatch.setattr(online, "PART_SAMPLES", 64)
    u, k = signals(2, 7, 150)
    state = OnlineConvolution.empty(OnlineFilter(StoredLags(k), block=4), 2, 150)
    found = torch.stack([state.step(sample) for sample in u.unbind(1)], dim=1)
    torch.testing.assert_close(found, whole(u, k))
