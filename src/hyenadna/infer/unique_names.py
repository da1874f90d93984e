"""A name for each row that no other row has, as AnnData wants them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from hyenadna.infer.embeddings_spill import FinishedRows


class UniqueNames:
    """Names of rows: the id, with the bases that the row is of (from 1) where it is of a part.

    An id that comes again is `id-1`, `id-2` and so on, as `AnnData.obs_names_make_unique` does.
    Eight bytes are held for each sequence, and the ids that come more than once.
    """

    def __init__(self, rows: FinishedRows) -> None:
        self.rows = rows
        self.renamed = 0
        """Sequences that got another name; known when all blocks are read."""
        self._ids = rows.layout.id
        keys = np.array([_key(id) for id, _, _ in rows.sequences()], dtype=np.uint64)
        keys.sort()
        self._again = set(keys[1:][keys[1:] == keys[:-1]].tolist())
        self._taken = keys

    def blocks(self) -> Iterator[npt.NDArray[Any]]:
        """Names of the rows, a block at a time."""
        layout = self.rows.layout
        sequences = self._sequences()
        name, left, at, length = "", 0, 0, 0
        for block in self.rows.blocks([self._ids]):
            names: list[str] = []
            for _ in range(len(block)):
                while not left:
                    name, length = next(sequences)
                    left, at = layout.rows_of(length), 0
                names.append(name + _where(at, length, layout.bin))
                left, at = left - 1, at + 1
            yield np.array(names, dtype=object)

    def notes(self) -> list[str]:
        """What was done, in a line, where something was."""
        if not self.renamed:
            return []
        return [
            f"{self.renamed:,} sequences have an id that another has; their rows are named id-1, "
            f"id-2, … (column {self._ids} keeps the id)"
        ]

    def _sequences(self) -> Iterator[tuple[str, int]]:
        """Name and length of each sequence."""
        seen: dict[str, int] = {}
        given: set[str] = set()
        self.renamed = 0
        for id, length, _ in self.rows.sequences():
            name = id
            if _key(id) in self._again:
                number = seen.get(id, -1) + 1
                name = f"{id}-{number}" if number else id
                while number and (name in given or self._is_taken(name)):
                    number += 1
                    name = f"{id}-{number}"
                seen[id] = number
                self.renamed += bool(number)
                if number:
                    given.add(name)
            yield name, length

    def _is_taken(self, name: str) -> bool:
        key = np.uint64(_key(name))
        at = int(np.searchsorted(self._taken, key))
        return at < len(self._taken) and bool(self._taken[at] == key)


def _key(id: str) -> int:
    return int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest(), "little")


def _where(at: int, length: int, bin: int | None) -> str:
    if bin is None:
        return ""
    if bin == 1:
        return f":{at + 1}"
    return f":{at * bin + 1}-{min((at + 1) * bin, length)}"
