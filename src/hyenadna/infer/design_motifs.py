"""Motifs in IUPAC letters, and the automaton that notices forbidden ones as bases come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hyenadna.alphabet import A, C, G, T, reverse_complement
from hyenadna.errors import InputError

# Sets of bases as four bits: A 1, C 2, G 4, T 8 (IUPAC-IUB, Nucleic Acids Res. 13, 1985, 3021).
IUPAC: Final = {
    "A": 1, "C": 2, "M": 3, "G": 4, "R": 5, "S": 6, "V": 7,
    "T": 8, "W": 9, "Y": 10, "H": 11, "K": 12, "D": 13, "B": 14, "N": 15,
}  # fmt: skip
LETTER_OF: Final = {mask: letter for letter, mask in IUPAC.items()}
FREE: Final = 15
"""The mask of N: any base."""
BASE_COUNT: Final = 4
OTHER: Final = 4
"""Symbol of whatever is no base; the bases are symbols 0 to 3."""
MAX_STATES: Final = 20_000

SYMBOL_OF_ID: Final = np.full(256, OTHER, dtype=np.intp)
"""Symbol of each token id."""
SYMBOL_OF_ID[[A, C, G, T]] = range(BASE_COUNT)

Masks = npt.NDArray[np.uint8]
Table = npt.NDArray[np.intp]


def new_base(position: int) -> str:
    """How error messages name a position: they count from 1."""
    return f"new base {position + 1:,}"


def plain_iupac(text: str, what: str) -> str:
    """The text in upper case, T for U.

    what: how the error message names it. Raises InputError at a letter that is not IUPAC, and for
    an empty text.
    """
    if not isinstance(text, str) or not text:
        raise InputError(f"design: {what} is {text!r}; give at least one IUPAC letter")
    plain = text.upper().replace("U", "T")
    for position, letter in enumerate(plain):
        if letter not in IUPAC:
            raise InputError(
                f"design: {what} has {text[position]!r} at letter {position + 1}; "
                f"use the IUPAC letters {''.join(sorted(IUPAC))}"
            )
    return plain


def masks_of(text: str) -> Masks:
    """Base sets of upper-case IUPAC letters: uint8 (L,), four bits each."""
    return np.array([IUPAC[letter] for letter in text], dtype=np.uint8)


@dataclass(frozen=True)
class Motif:
    """A motif that must not come up, and how messages name it."""

    text: str
    """Upper-case IUPAC letters."""
    name: str


def forbidden_motifs(texts: Sequence[str], max_homopolymer: int | None) -> list[Motif]:
    """The motifs of both strands and the runs that are one base too long, each text once."""
    named = {text: Motif(text, text) for text in texts}
    for text in texts:
        other = reverse_complement(text)
        named.setdefault(other, Motif(other, f"{other}, which is {text} on the other strand"))
    if max_homopolymer is not None:
        run = max_homopolymer + 1
        for base in "ACGT":
            named.setdefault(base * run, Motif(base * run, f"run of {run} {base}"))
    return list(named.values())


class Automaton:
    """Which motifs are under way after the bases so far, as one state.

    States 0 .. S - 1 are reached by reading; 0 is the start, where nothing is under way. State S,
    `sink`, stands for a step that is not allowed. Whatever is no base leads back to the start.
    """

    next: Table
    """Next state of (state, symbol) whether or not a motif ends there: (S + 1, 5)."""
    ending: Table
    """Index of a motif that (state, symbol) completes, -1 for none: (S + 1, 5)."""
    motifs: Sequence[Motif]

    def __init__(self, motifs: Sequence[Motif]) -> None:
        """Compile the motifs.

        The subset construction over the bit-parallel Shift-And matcher (Baeza-Yates and Gonnet,
        1992): a state is the set of motif beginnings that the read bases end with. On motifs
        without ambiguity codes these are the states of Aho and Corasick (1975); with codes they
        are never more than after writing every code out.

        Raises InputError where there would be more than MAX_STATES states.
        """
        self.motifs = motifs
        starts, ends, takes = _bits(motifs)
        last_places = sum(ends)
        number = {0: 0}
        found = [0]
        following: list[int] = []
        ending: list[int] = []
        for beginnings in found:  # grows as it is read
            for base in range(BASE_COUNT):
                reached = ((beginnings << 1) | starts) & takes[base]
                ended = reached & last_places
                ending.append(_which(ended, ends))
                reached &= ~ended  # a prompt may hold a whole motif and go on
                if reached not in number:
                    number[reached] = len(found)
                    found.append(reached)
                following.append(number[reached])
            following.append(0)
            ending.append(-1)
            if len(found) > MAX_STATES:
                raise InputError(
                    f"design: the forbidden motifs and runs need more than {MAX_STATES:,} states; "
                    "forbid fewer or shorter ones, or ones with fewer ambiguity codes"
                )
        shape = (len(found), BASE_COUNT + 1)
        sink = np.full((1, BASE_COUNT + 1), len(found))
        self.next = np.concatenate([np.array(following).reshape(shape), sink]).astype(np.intp)
        self.ending = np.concatenate([np.array(ending).reshape(shape), sink * 0 - 1]).astype(
            np.intp
        )
        self.longest = max((len(motif.text) for motif in motifs), default=0)

    @property
    def sink(self) -> int:
        """The state of a step that is not allowed; also the number of other states."""
        return len(self.next) - 1

    def after(self, prompts: Sequence[Masks]) -> Table:
        """State after each prompt, (B,): token ids, each (P,) of any length.

        Motifs that end inside the prompt do not matter.
        """
        width = max(self.longest - 1, 0)  # no motif that began before can still be under way
        tails = np.full((width, len(prompts)), OTHER, dtype=np.intp)
        for row, prompt in enumerate(prompts if width else ()):
            tail = SYMBOL_OF_ID[prompt[-width:]]
            tails[width - len(tail) :, row] = tail
        states = np.zeros(len(prompts), dtype=np.intp)
        for symbols in tails:
            states = self.next[states, symbols]
        return states

    def steps(self, mask: int, symbols: Table) -> Table:
        """Next state of (state, letter) where `mask` is asked for, sink if not allowed: (S + 1, K).

        symbols: that of each letter, (K,). No base may stand only where every base may.
        """
        fits = np.array([mask == FREE if s == OTHER else mask >> s & 1 for s in symbols], bool)
        return np.where(fits & (self.ending[:, symbols] < 0), self.next[:, symbols], self.sink)


def _bits(motifs: Sequence[Motif]) -> tuple[int, list[int], list[int]]:
    """All motifs in one row of bits: first places, last place of each, places of each base."""
    starts, at = 0, 0
    ends: list[int] = []
    rows: list[Masks] = []
    for motif in motifs:
        starts |= 1 << at
        at += len(motif.text)
        ends.append(1 << (at - 1))
        rows.append(masks_of(motif.text))
    masks = np.concatenate([*rows, np.zeros(0, np.uint8)])
    takes = [
        int.from_bytes(np.packbits(masks >> base & 1, bitorder="little").tobytes(), "little")
        for base in range(BASE_COUNT)
    ]
    return starts, ends, takes


def _which(ended: int, ends: Sequence[int]) -> int:
    """Index of the first motif whose last place is among the bits, -1 for none."""
    if not ended:
        return -1
    return next(index for index, end in enumerate(ends) if ended & end)
