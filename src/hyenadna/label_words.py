"""Classes spelled in letters of the alphabet, so that a language model can name them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Final

import numpy as np

from hyenadna.alphabet import TOKENS, A, Ids, encode
from hyenadna.errors import InputError

LETTERS: Final = "".join(TOKENS[A:])
PAPER_LETTERS: Final[Mapping[int, str]] = {2: "AN", 3: "AGN"}
"""The letters of two and of three classes in the original's in-context experiments."""


@dataclass(frozen=True)
class LabelWords:
    """A word for each class: all of one length, all different, upper-case letters of `ACGTN`.

    Raises InputError for words that are not so.
    """

    names: tuple[str, ...]
    """Of the classes, in the order of the model's outputs."""
    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.names) < 2 or len(self.names) != len(self.words):
            raise InputError(
                f"label words: {len(self.words)} words for {len(self.names)} classes; give one for "
                "each of two or more"
            )
        for name, word in zip(self.names, self.words, strict=True):
            if not word or set(word) - set(LETTERS):
                raise InputError(
                    f"label words: {name!r} is spelled {word!r}; give letters of {LETTERS}"
                )
            if len(word) != self.length:
                raise InputError(
                    f"label words: {word!r} and {self.words[0]!r} differ in length; give all words "
                    "the same number of letters, so that none has an advantage"
                )
            if self.words.count(word) > 1:
                raise InputError(f"label words: {word!r} stands for two classes")

    @property
    def length(self) -> int:
        """Letters of each word, W."""
        return len(self.words[0])

    @cached_property
    def ids(self) -> Ids:
        """Token ids of the words, uint8 (T, W)."""
        return np.stack([encode(word) for word in self.words])

    @cached_property
    def beginnings(self) -> Ids:
        """The words without their last letters, each once: uint8 (U, W - 1).

        After these a model is asked for the next letter; for words of one letter that is once,
        after nothing.
        """
        return np.unique(self.ids[:, :-1], axis=0) if self.length > 1 else self.ids[:1, :0]

    @cached_property
    def beginning_of(self) -> list[int]:
        """Which of the `beginnings` each word has, T numbers."""
        known = [row.tobytes() for row in self.beginnings]
        return [known.index(row[:-1].tobytes()) for row in self.ids]


def label_words(names: Sequence[str], spelling: str | None = None) -> LabelWords:
    """Words for classes.

    spelling: `NAME=WORD` of every class, separated by commas; where left out, the paper's letters
    for two and three classes (A/N, A/G/N), and for more the shortest words over A, C, G, T, N.

    Raises InputError for a spelling that misses a class, names another, or gives unfit words.
    """
    names = tuple(names)
    if spelling is not None:
        return LabelWords(names, _spelled(names, spelling))
    if len(names) in PAPER_LETTERS:
        return LabelWords(names, tuple(PAPER_LETTERS[len(names)]))
    length = 1
    while len(LETTERS) ** length < len(names):
        length += 1
    words = ("".join(letters) for letters in product(LETTERS, repeat=length))
    return LabelWords(names, tuple(word for word, _ in zip(words, names, strict=False)))


def spelled_words(spelling: str) -> LabelWords:
    """Words for the classes that a spelling names, in its order: `NAME=WORD`, by commas.

    Raises InputError for a spelling without names, and unfit words. Names cannot hold commas here.
    """
    names = tuple(part.rpartition("=")[0].strip() for part in spelling.split(","))
    if not all(names):
        raise InputError(
            f"--label-words: cannot use {spelling!r}; give NAME=WORD for each class, by commas "
            "(no name may hold a comma)"
        )
    return label_words(names, spelling)


def _spelled(names: tuple[str, ...], spelling: str) -> tuple[str, ...]:
    """Words in the order of the names, which may hold commas and equals signs themselves."""
    given: dict[str, str] = {}
    rest, comma = spelling, ","
    while comma:
        rest = rest.lstrip()
        begins = [n for n in names if rest.startswith(n) and rest[len(n) :].lstrip()[:1] == "="]
        name = max(begins, key=len, default=None)
        if name is None or name in given:
            part = rest.partition(",")[0].strip()
            raise InputError(
                f"--label-words: cannot use {part!r}; give NAME=WORD once for each of the classes "
                f"{', '.join(names)}"
            )
        word, comma, rest = rest[len(name) :].lstrip()[1:].partition(",")
        given[name] = word.strip().upper()
    missing = [name for name in names if name not in given]
    if missing:
        raise InputError(f"--label-words: gives no word for the class {missing[0]!r}")
    return tuple(given[name] for name in names)
