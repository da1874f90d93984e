"""How the ranks of one start of torchrun find each other, and nobody of an earlier start.

torchrun keeps one store over its restarts, and nothing in it says which start a value is of (torch
2.11 to 2.13; https://github.com/pytorch/pytorch/issues/135712). A rank that reads the address of
another before that one has written its new one calls a process that is gone, and waits for half an
hour. `common_token` gives all ranks of a start a name that no other start has, to write under.
"""

from __future__ import annotations

import json
import secrets
import time
from typing import Final, Protocol

_LONGEST_NAP: Final = 0.5


class Store(Protocol):
    """What is used of a store of torch.distributed."""

    def set(self, key: str, value: str) -> object: ...
    def get(self, key: str) -> bytes: ...
    def check(self, keys: list[str]) -> bool: ...


def common_token(store: Store, rank: int, count: int, *, timeout: float) -> str:
    """A text that all `count` ranks of this start get, and none of another on the same store.

    Each rank says hello by a random word. The first calls with a token and the words that it has
    read; a rank answers a call that has its own word in it, and the first begins when all have
    answered its newest call. timeout: seconds. Raises TimeoutError where not all are heard.
    """
    word = secrets.token_hex(8)
    store.set(f"hello/{rank}", word)
    turn = _First(store, count) if rank == 0 else _Other(store, rank, word)
    end, nap = time.monotonic() + timeout, 0.01
    while (token := turn.token()) is None:
        if time.monotonic() > end:
            raise TimeoutError(f"not all {count} ranks were heard in {timeout:g} s")
        time.sleep(nap)
        nap = min(1.5 * nap, _LONGEST_NAP)
    return token


class _First:
    """Rank 0: calls, and begins."""

    def __init__(self, store: Store, count: int) -> None:
        self.store = store
        self.hellos = [f"hello/{rank}" for rank in range(count)]
        self.answers = [f"answer/{rank}" for rank in range(1, count)]
        self.called: list[str] = []
        self.newest = ""

    def token(self) -> str | None:
        """The token, once all have answered the newest call."""
        if not self.store.check(self.hellos):
            return None
        words = [self.store.get(key).decode() for key in self.hellos]
        if words != self.called:
            self.called, self.newest = words, secrets.token_hex(8)
            self.store.set("call", json.dumps([self.newest, words]))
        if not self.store.check(self.answers):
            return None
        if any(self.store.get(key).decode() != self.newest for key in self.answers):
            return None
        self.store.set("begin", self.newest)
        return self.newest


class _Other:
    """Any other rank: answers, and waits for the beginning."""

    def __init__(self, store: Store, rank: int, word: str) -> None:
        self.store, self.rank, self.word = store, rank, word
        self.answered = ""

    def token(self) -> str | None:
        """The token of the call that this rank is in, once the first has begun with it."""
        if not self.store.check(["call"]):
            return None
        token, words = json.loads(self.store.get("call"))
        if words[self.rank : self.rank + 1] != [self.word]:
            return None
        if token != self.answered:
            self.answered = token
            self.store.set(f"answer/{self.rank}", token)
        begun = self.store.check(["begin"]) and self.store.get("begin").decode() == token
        return token if begun else None
