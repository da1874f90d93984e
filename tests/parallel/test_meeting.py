"""Ranks of one start find each other, whatever earlier starts have left in the store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch.distributed as dist

from hyenadna.model.parallel.meeting import _First, common_token


def meet(store: dist.Store, count: int, absent: int | None = None) -> set[str]:
    """The tokens of all ranks of a start; one of them may have died before it came."""
    here = [rank for rank in range(count) if rank != absent]
    with ThreadPoolExecutor(count) as pool:
        timeout = 20.0 if absent is None else 0.3
        calls = [pool.submit(common_token, store, r, count, timeout=timeout) for r in here]
        return {call.result() for call in calls}


def test_each_start_has_its_own_token():
    store = dist.HashStore()
    tokens = []
    for count in (3, 3, 2, 4, 1):  # what the one before left is all there
        found = meet(store, count)
        assert len(found) == 1
        tokens += found
    assert len(set(tokens)) == 5


@pytest.mark.parametrize("absent", [0, 1, 2])
def test_a_rank_that_died_before_it_came(absent):
    store = dist.HashStore()
    old = meet(store, 3)
    with pytest.raises(TimeoutError, match="not all 3 ranks were heard"):
        meet(store, 3, absent)
    new = meet(store, 3)
    assert len(new) == 1 and not new & old


def test_the_first_does_not_begin_with_words_of_an_earlier_start():
    """It may read an old hello: then the answers, old as well, are not to its call."""
    store = dist.HashStore()
    meet(store, 2)
    store.set("hello/0", "new word")
    first = _First(store, 2)
    assert first.token() is None and first.token() is None
    call = first.newest
    store.set("hello/1", "another new word")
    assert first.token() is None and first.newest != call
    store.set("answer/1", first.newest)
    assert first.token() == first.newest
