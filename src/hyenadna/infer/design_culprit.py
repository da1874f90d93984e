"""Why a design cannot be met, in words that name a position, a motif or a number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hyenadna.alphabet import A
from hyenadna.infer.design_motifs import (
    FREE,
    LETTER_OF,
    SYMBOL_OF_ID,
    Automaton,
    Masks,
    Motif,
    Table,
    masks_of,
    new_base,
)

_NAMED = 3

Placed = Sequence[tuple[int, str]]


def motif_culprit(
    automaton: Automaton,
    steps: Sequence[Table],
    masks: Masks,
    placed: Placed,
    letters: Sequence[int],
    state: int,
) -> str:
    """The first position that no sequence gets past, and the forbidden motifs that are to blame.

    steps: next states (S + 1, K) at each position; masks: bases that may stand there; placed: the
    fixed motifs; letters: token ids of the K letters; state: the one to start from, which has no
    completion.
    """
    position, reached = _furthest(steps, automaton.sink, state)
    mask = int(masks[position])
    fitting = [letter for letter in letters if letter - A < 4 and mask >> (letter - A) & 1]
    found = automaton.ending[np.ix_(reached, SYMBOL_OF_ID[fitting])]
    motifs = [automaton.motifs[index] for index in np.unique(found[found >= 0]).tolist()]
    for motif in motifs:
        start = position - len(motif.text) + 1
        if start >= 0 and not (masks[start : position + 1] & ~masks_of(motif.text)).any():
            return _required_motif(motif, start, masks, placed)
    named = "; ".join(motif.name for motif in motifs[:_NAMED])
    more = f" and {len(motifs) - _NAMED} more" if len(motifs) > _NAMED else ""
    shown = "".join("ACGT"[letter - A] for letter in fitting)
    each = f"each of {shown}" if len(shown) > 1 else shown
    asked = f", where {LETTER_OF[mask]} is asked for" if mask != FREE else ""
    return (
        f"no base can stand at {new_base(position)}{asked}: {each} ends a forbidden motif "
        f"({named}{more}); ask for less there or before, or forbid less"
    )


def _furthest(steps: Sequence[Table], sink: int, state: int) -> tuple[int, Table]:
    """The last position that can be reached from a state, and the states to be in there."""
    reached = np.array([state])
    for position, table in enumerate(steps):
        following = np.unique(table[reached])
        following = following[following != sink]
        if not len(following):
            return position, reached
        reached = following
    return len(steps), reached


def _required_motif(motif: Motif, start: int, masks: Masks, placed: Placed) -> str:
    """Words for a forbidden motif that the fixed letters spell out by themselves."""
    end = start + len(motif.text)
    inside = [(p, text) for p, text in placed if p < end and p + len(text) > start]
    covered = {position for p, text in inside for position in range(p, p + len(text))}
    whole = [(p, text) for p, text in inside if p <= start and p + len(text) >= end]
    parts = [f"fixed motif {text} at {new_base(p)}" for p, text in whole[:1] or inside]
    if any(masks[p] != FREE and p not in covered for p in range(start, end)):
        parts.append("the template")
    if not parts:
        return f"forbidden motif {motif.name} forbids every sequence"
    verb = "contains" if len(parts) == 1 else "together contain"
    return f"{' and '.join(parts)} {verb} the forbidden motif {motif.name}, at {new_base(start)}"


def gc_culprit(
    gc: tuple[float, float],
    wanted: tuple[int, int],
    attainable: tuple[int, int],
    length: int,
    exact: bool,
) -> str:
    """The GC range that is asked for beside what the rest of the design leaves.

    wanted, attainable: numbers of bases, both ends included; exact: whether there are no others.
    """
    low, high = attainable
    sure = "leaves" if exact else "leaves for certain"
    return (
        f"gc {gc[0]:g} to {gc[1]:g} of {length:,} new bases is {wanted[0]:,} to {wanted[1]:,} "
        f"G and C, but the rest of the design {sure} {low:,} to {high:,} "
        f"({low / length:.4g} to {high / length:.4g})"
    )
