"""One part of the input of a run, and where its results stand until all parts are merged.

OUT.shard-3-of-8.part/   a shard in work: what OUT.part is of a whole run (see `interrupted`)
OUT.shard-3-of-8/        a complete one: the same results, and shard.json, which says what they are

A shard is made of whole units: the stretches of the input that a run puts through the model
together, and that depend on nothing before them. So its results are those of the whole run, bit for
bit. Why this way: docs/decisions/inference-shards.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from hyenadna.errors import InputError

_WRITTEN: Final = re.compile(r"(\d{1,6})/(\d{1,6})")


@dataclass(frozen=True, order=True)
class Shard:
    """Part `index`, from 1, of `count` parts."""

    count: int
    index: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """The shard of a text such as `3/8`. Raises InputError for another one."""
        found = _WRITTEN.fullmatch(text.strip())
        index, count = map(int, found.groups()) if found else (0, 0)
        if not 1 <= index <= count:
            of = count or 8
            raise InputError(
                f"--shard is {text!r}; write which part and of how many, from 1/{of} to {of}/{of}"
            )
        return cls(count, index)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def place(self, out: Path) -> Path:
        """The folder of the complete shard of this output."""
        return out.with_name(f"{out.name}.shard-{self.index}-of-{self.count}")

    def units(self, ends: Sequence[int]) -> range:
        """Which units are those of this shard, from 0; maybe none.

        ends: the work (tokens, records) of all units up to and with each of them. A unit belongs to
        the shard in whose equal share of all work its middle lies, so the shards follow each other
        without a gap, and each has its share up to half a unit at either end.
        """
        total = ends[-1] if ends else 0
        first = last = 0
        before = 0
        for end in ends:
            middle = (before + end) * self.count // (2 * total) if total else 0
            owner, before = min(middle, self.count - 1) + 1, end
            first += owner < self.index
            last += owner <= self.index
        return range(first, last)


@dataclass(frozen=True)
class FoundShard:
    """A shard beside an output, complete or not."""

    shard: Shard
    folder: Path
    complete: bool


def place_of(out: Path, shard: Shard | None) -> Path:
    """What a run makes: the output, or the folder of its shard."""
    return out if shard is None else shard.place(out)


def find_shards(out: Path) -> list[FoundShard]:
    """All shards beside an output, by count and index; one in work is told once, as complete if a
    complete one is there too.
    """
    pattern = re.compile(re.escape(out.name) + r"\.shard-([1-9]\d*)-of-([1-9]\d*)(\.part)?")
    found: dict[Shard, FoundShard] = {}
    for folder in sorted(out.parent.iterdir()) if out.parent.is_dir() else ():
        match = pattern.fullmatch(folder.name)
        if match is None or not folder.is_dir():
            continue
        shard = Shard(int(match[2]), int(match[1]))
        if shard.index > shard.count:
            continue
        if match[3] is None or shard not in found:
            found[shard] = FoundShard(shard, folder, match[3] is None)
    return [found[shard] for shard in sorted(found)]


def require_same_units(shards: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """The name of the first shard that does not begin where the one before ends; empty if all do.

    shards: name and `units` (first, last, of) of each, in order.
    """
    at, total = 0, shards[0][1]["of"] if shards else 0
    for name, units in shards:
        if units["first"] != at or units["of"] != total:
            return name
        at = units["last"]
    return "" if at == total else shards[-1][0]
