"""What a designer of DNA asks of new bases, kept so that generation never runs into a dead end.

A plan looks ahead: before each base it knows after which letters everything that is asked for can
still be met, so a model that draws among those never has to go back.

    walk = Design(forbidden=("GAATTC",), gc=(0.4, 0.6)).plan(100).start([prompt])
    for _ in range(100):
        walk.take(draw_among(walk.allowed()))
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hyenadna.alphabet import BASES, A, N
from hyenadna.errors import InputError
from hyenadna.infer.design_culprit import gc_culprit, motif_culprit
from hyenadna.infer.design_motifs import (
    BASE_COUNT,
    FREE,
    IUPAC,
    LETTER_OF,
    SYMBOL_OF_ID,
    Automaton,
    Masks,
    Table,
    forbidden_motifs,
    masks_of,
    new_base,
    plain_iupac,
)
from hyenadna.infer.design_tables import Feasible, GcCounts

_ROUNDING: Final = 1e-9
"""Slack for products such as 0.1 × 30, which are not whole in binary."""

GC_SLACK: Final = 25
"""Bases by which the number of G and C may leave its range on the way."""

Allowed = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Design:
    """What is asked of new bases; they follow a prompt, and positions count from 0 after it.

    A forbidden motif or a run that is too long must not end inside the new bases; it may begin in
    the prompt. What lies wholly in the prompt is the user's own.

    Error messages count from 1, as people do: `new base 1` is position 0.

    Raises InputError for a letter that is not IUPAC, an empty motif, a position below 0, a GC
    range that is not 0 <= low <= high <= 1, and a longest run below 1.
    """

    template: str | None = None
    """IUPAC letters, one for each new base; N is free. Lower case is the same, U is T."""
    fixed: Mapping[int, str] | Iterable[tuple[int, str]] = ()
    """Motifs (IUPAC) by position; pairs of position and motif once made. Where several, or one and
    the template, meet, a base must suit all."""
    forbidden: Sequence[str] = ()
    """Motifs (IUPAC) that must come up on neither strand."""
    gc: tuple[float, float] | None = None
    """Lowest and highest fraction of G and C among all new bases; an N counts as neither. On the
    way the count stays within 25 bases of the range wherever it can, since a model that likes
    another content would otherwise make up for it at the very end."""
    max_homopolymer: int | None = None
    """Longest run of one base."""

    def __post_init__(self) -> None:
        if self.template is not None:
            _set(self, "template", plain_iupac(self.template, "the template"))
        _set(self, "fixed", _read_fixed(self.fixed))
        if isinstance(self.forbidden, str) or not isinstance(self.forbidden, Sequence):
            what = "one text, " if isinstance(self.forbidden, str) else ""
            raise InputError(
                f"design: forbidden is {what}{self.forbidden!r}; give a sequence of motifs"
            )
        texts = [plain_iupac(text, f"forbidden motif {text!r}") for text in self.forbidden]
        _set(self, "forbidden", tuple(texts))
        if self.gc is not None:
            _set(self, "gc", _read_gc(self.gc))
        if self.max_homopolymer is not None:
            run = _whole(self.max_homopolymer, "max_homopolymer")
            if run < 1:
                raise InputError(f"design: max_homopolymer is {run}; it must be at least 1")
            _set(self, "max_homopolymer", run)

    @property
    def placed(self) -> tuple[tuple[int, str], ...]:
        """The fixed motifs as pairs of position and upper-case letters, by position."""
        return tuple(self.fixed)  # type: ignore[arg-type] # pairs since __post_init__

    def plan(self, length: int, letters: Sequence[int] = BASES) -> DesignPlan:
        """The design compiled for so many new bases.

        length: at least 1. letters: token ids that may come, of A, C, G, T and N. An N matches no
        forbidden motif, ends a run, and stands only where every base may.

        Raises InputError for a length below 1, letters that are none or no bases, a template of
        another length, a fixed motif that goes beyond the end or meets another requirement at no
        common base, more states or memory than we allow, and where no sequence meets the design:
        the message names the first position or the motif that makes it impossible.
        """
        return DesignPlan(self, length, letters)


class DesignPlan:
    """A design for a number of new bases, with the tables that look ahead.

    With a GC range, planning takes about 10 microseconds for each new base and 8 bytes for each
    new base and state. A sequence of GC counts with a gap is cut to its longest piece
    (`design_tables.GcCounts`): then, rarely, a design that could be met is refused, but one that
    is accepted never ends in a dead end.
    """

    design: Design
    length: int
    """Number of new bases."""
    letters: tuple[int, ...]
    """Token ids that may come, as given."""
    free: bool
    """Whether nothing constrains the new bases."""
    exact: bool
    """Whether every sequence that meets the design can come."""

    def __init__(self, design: Design, length: int, letters: Sequence[int] = BASES) -> None:
        """Compile; see `Design.plan`."""
        self.design = design
        self.length = _whole(length, "the length")
        if self.length < 1:
            raise InputError(f"design: {self.length} new bases; there must be at least 1")
        self.letters = _read_letters(letters)
        self.exact = True
        masks = _required(design, self.length, self.letters)
        self._range = _gc_range(design.gc, self.length)
        motifs = forbidden_motifs(design.forbidden, design.max_homopolymer)
        self.free = not motifs and self._range is None and bool((masks == FREE).all())
        self._counts: GcCounts | None = None
        if self.free:
            return
        symbols = SYMBOL_OF_ID[list(self.letters)]
        self._automaton = Automaton(motifs)
        by_mask = {mask: self._automaton.steps(mask, symbols) for mask in np.unique(masks).tolist()}
        self._masks = masks
        self._steps: list[Table] = [by_mask[mask] for mask in masks.tolist()]
        self._gained = np.isin(symbols, (1, 2)).astype(np.int32)
        self._feasible = Feasible(by_mask, masks, self._automaton.sink)
        start = np.zeros(1, dtype=np.intp)
        # A motif under way never helps: what is impossible after no prompt is after every one.
        self._require_feasible(start, [""])
        if self._range is not None:
            self._counts = GcCounts(by_mask, masks, self._gained, self._automaton.sink)
            self.exact = self._counts.exact
            self._require_gc(start, [""])

    def start(
        self, prompts: Sequence[npt.ArrayLike], names: Sequence[str] | None = None
    ) -> DesignWalk:
        """A walk with one row for each prompt.

        prompts: token ids, each (P,) of any length, 0 included. names: of the prompts, for error
        messages; `prompt 1` and so on when left out.

        Raises InputError where there is no prompt, for one that is no row of token ids, and where
        the design cannot be met after one.
        """
        called = names or [f"prompt {row + 1}" for row in range(len(prompts))]
        rows = [_read_prompt(prompt, name) for prompt, name in zip(prompts, called, strict=True)]
        if not rows:
            raise InputError("design: no prompt; give at least one, which may be empty")
        states = np.zeros(len(rows), dtype=np.intp)
        if not self.free:
            states = self._automaton.after(rows)
            after = [_after(name, row) for name, row in zip(called, rows, strict=True)]
            self._require_feasible(states, after)
            self._require_gc(states, after)
        return DesignWalk(self, 0, states, np.zeros(len(rows), dtype=np.int32))

    def _require_feasible(self, states: Table, after: Sequence[str]) -> None:
        """Raise InputError for the first state that cannot lead to the end; after: where it is."""
        fits = self._feasible[0][states]
        if not fits.all():
            row = int(fits.argmin())
            why = motif_culprit(
                self._automaton,
                self._steps,
                self._masks,
                self.design.placed,
                self.letters,
                int(states[row]),
            )
            raise InputError(f"design: {after[row]}{why}")

    def _require_gc(self, states: Table, after: Sequence[str]) -> None:
        """Raise InputError for the first state with no completion in the GC range."""
        if self._counts is None or self._range is None or self.design.gc is None:
            return
        low, high = self._counts.low[0][states], self._counts.high[0][states]
        fits = (low <= self._range[1]) & (high >= self._range[0])
        if not fits.all():
            row = int(fits.argmin())
            attainable = int(low[row]), int(high[row])
            why = gc_culprit(self.design.gc, self._range, attainable, self.length, self.exact)
            raise InputError(f"design: {after[row]}{why}")

    def _next(self, position: int, states: Table) -> Table:
        """State after each letter, (B, K)."""
        return self._steps[position][states]

    def _allowed(self, position: int, following: Table, gc: npt.NDArray[np.int32]) -> Allowed:
        """Letters after which there is a completion: next states (B, K), G and C so far (B,)."""
        if self._counts is None or self._range is None:
            return self._feasible[position + 1][following]
        lowest, highest = self._range
        count = gc[:, None] + self._gained
        low = self._counts.low[position + 1][following]
        low += count
        high = self._counts.high[position + 1][following]
        high += count
        allowed: Allowed = low <= highest
        allowed &= high >= lowest
        return allowed

    def _near(self, taken: int, gc: npt.NDArray[np.int32]) -> Allowed:
        """Letters with which G and C of so many bases are near the range, gc (B,) before them."""
        assert self.design.gc is not None
        low, high = self.design.gc
        count = gc[:, None] + self._gained
        near: Allowed = (count >= low * taken - GC_SLACK) & (count <= high * taken + GC_SLACK)
        return near


class DesignWalk:
    """Where each of B rows stands; all are at the same position."""

    def __init__(
        self, plan: DesignPlan, position: int, states: Table, gc: npt.NDArray[np.int32]
    ) -> None:
        """Stand at a position; use `DesignPlan.start` and `select`."""
        self.plan = plan
        self.position = position
        """Bases taken so far."""
        self._states = states
        self._gc = gc
        self._rows = np.arange(len(states))
        self._following: Table | None = None
        self._allowed: Allowed | None = None

    @property
    def batch(self) -> int:
        """Number of rows, B."""
        return len(self._states)

    def allowed(self) -> Allowed:
        """Letters after which the rest can still be completed: (B, K), never all False in a row.

        With a GC range, of these the ones that keep the count near it, if there are any. Raises
        InputError where all new bases have been taken.
        """
        allowed = self._look()
        if self.plan._range is None or self.plan.free:
            return allowed.copy()
        near = allowed & self.plan._near(self.position + 1, self._gc)
        return np.where(near.any(axis=1, keepdims=True), near, allowed)

    def take(self, choice: npt.ArrayLike) -> None:
        """Go on by one base in each row.

        choice: indices into the plan's letters, (B,).

        Raises InputError for a choice that is not allowed, of another shape or no integer, and
        where all new bases have been taken.
        """
        allowed = self._look()
        index = np.asarray(choice)
        if index.shape != self._rows.shape or index.dtype.kind not in "iu":
            raise InputError(
                f"design: choice is {index.dtype} {index.shape}; give integers ({self.batch},)"
            )
        try:
            fits = allowed[self._rows, index]
        except IndexError:
            fits = (index >= 0) & (index < allowed.shape[1])
        if not fits.all() or (index < 0).any():
            row = int((fits & (index >= 0)).argmin())
            raise InputError(
                f"design: row {row} took letter {int(index[row])} at {new_base(self.position)}, "
                "which allowed() does not offer"
            )
        if self._following is not None:
            self._states = self._following[self._rows, index]
            if self.plan._counts is not None:
                self._gc = self._gc + self.plan._gained[index]
        self._following = self._allowed = None
        self.position += 1

    def select(self, rows: Sequence[int] | npt.NDArray[np.integer]) -> DesignWalk:
        """A new walk of those rows, each as often as it is named; this one stays as it is.

        Raises InputError for a row that there is not.
        """
        index = np.asarray(rows, dtype=np.intp)
        if index.ndim != 1 or (index < 0).any() or (index >= self.batch).any():
            raise InputError(f"design: rows are {rows}; give numbers from 0 to {self.batch - 1}")
        return DesignWalk(self.plan, self.position, self._states[index], self._gc[index])

    def _look(self) -> Allowed:
        """`allowed` without the copy, worked out once for each position."""
        if self._allowed is None:
            plan = self.plan
            if self.position >= plan.length:
                raise InputError(f"design: all {plan.length} new bases have been taken")
            if plan.free:
                self._allowed = np.ones((len(self._states), len(plan.letters)), dtype=bool)
            else:
                self._following = plan._next(self.position, self._states)
                self._allowed = plan._allowed(self.position, self._following, self._gc)
        return self._allowed


def _set(design: Design, name: str, value: object) -> None:
    object.__setattr__(design, name, value)  # frozen: only while it is made


def _whole(value: object, what: str) -> int:
    try:
        return operator.index(value)  # type: ignore[arg-type] # the error is the check
    except TypeError as error:
        raise InputError(f"design: {what} is {value!r}; give a whole number") from error


def _read_fixed(fixed: Mapping[int, str] | Iterable[tuple[int, str]]) -> tuple[object, ...]:
    try:
        pairs = [(p, m) for p, m in (fixed.items() if isinstance(fixed, Mapping) else fixed)]
    except (TypeError, ValueError) as error:
        raise InputError(
            f"design: fixed is {fixed!r}; give motifs by position, such as {{12: 'GAATTC'}}"
        ) from error
    placed = []
    for given, motif in pairs:
        position = _whole(given, f"the position of fixed motif {motif!r}")
        if position < 0:
            raise InputError(
                f"design: fixed motif {motif!r} is at position {position}; the first new base is 0"
            )
        placed.append((position, plain_iupac(motif, f"fixed motif {motif!r}")))
    return tuple(sorted(placed))


def _read_gc(gc: tuple[float, float]) -> tuple[float, float]:
    try:
        low, high = (float(bound) for bound in gc)
    except (TypeError, ValueError) as error:
        raise InputError(f"design: gc is {gc!r}; give two fractions, such as (0.4, 0.6)") from error
    if not 0 <= low <= high <= 1:  # NaN fails too
        raise InputError(f"design: gc is {low:g} to {high:g}; it must be 0 <= low <= high <= 1")
    return low, high


def _read_letters(letters: Sequence[int]) -> tuple[int, ...]:
    ids = tuple(_whole(letter, "a letter") for letter in letters)
    if not ids or len(set(ids)) < len(ids) or not set(ids) <= {*BASES, N}:
        raise InputError(
            f"design: letters are {ids}; give token ids of A, C, G, T or N ({A} to {N}), each once"
        )
    return ids


def _read_prompt(prompt: npt.ArrayLike, name: str) -> Masks:
    ids = np.asarray(prompt)
    if ids.size == 0 and ids.ndim == 1:
        return np.zeros(0, dtype=np.uint8)
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() > 255:
        raise InputError(f"design: {name} is {ids.dtype} {ids.shape}; give token ids of shape (P,)")
    return ids.astype(np.uint8)


def _required(design: Design, length: int, letters: Sequence[int]) -> Masks:
    """Bases that each position may have, (L,), where template and fixed motifs all agree."""
    if design.template is not None and len(design.template) != length:
        raise InputError(
            f"design: the template has {len(design.template):,} letters for {length:,} new bases; "
            "give one letter for each, N where any base may stand"
        )
    masks = masks_of(design.template) if design.template else np.full(length, FREE, np.uint8)
    so_far = dict.fromkeys(range(length), "the template") if design.template else {}
    for start, motif in design.placed:
        what = f"fixed motif {motif} at {new_base(start)}"
        if start + len(motif) > length:
            raise InputError(
                f"design: {what} ends at new base {start + len(motif):,}, but there are only "
                f"{length:,}"
            )
        for position, letter in enumerate(motif, start):
            both = int(masks[position]) & IUPAC[letter]
            if not both:
                raise InputError(
                    f"design: {what} does not agree with {so_far[position]}: {letter} against "
                    f"{LETTER_OF[int(masks[position])]} at {new_base(position)}"
                )
            masks[position] = both
            if letter != "N":
                so_far[position] = what
    _require_letters(masks, letters)
    return masks


def _require_letters(masks: Masks, letters: Sequence[int]) -> None:
    """Raise InputError at the first position where no letter that may come fits."""
    may_come = sum(1 << (letter - A) for letter in letters if letter != N)
    fits = (masks & may_come) > 0
    if N in letters:
        fits |= masks == FREE
    if not fits.all():
        position = int(fits.argmin())
        shown = "".join("ACGTN"[letter - A] for letter in letters)
        raise InputError(
            f"design: {LETTER_OF[int(masks[position])]} is asked for at {new_base(position)}, but "
            f"only {shown} may come"
        )


def _gc_range(gc: tuple[float, float] | None, length: int) -> tuple[int, int] | None:
    """Lowest and highest number of G and C, None where every number will do."""
    if gc is None:
        return None
    lowest = max(math.ceil(gc[0] * length - _ROUNDING * length), 0)
    highest = min(math.floor(gc[1] * length + _ROUNDING * length), length)
    if lowest > highest:
        raise InputError(
            f"design: gc {gc[0]:g} to {gc[1]:g} of {length:,} new bases holds no whole number of "
            f"bases; {highest / length:g} or {lowest / length:g} would"
        )
    return None if (lowest, highest) == (0, length) else (lowest, highest)


def _after(name: str, prompt: Masks) -> str:
    """Words for a message about a prompt."""
    tail = "".join("ACGT"[symbol] if symbol < BASE_COUNT else "N" for symbol in _tail(prompt))
    return f"after {name} (which ends in {tail}), "


def _tail(prompt: Masks) -> list[int]:
    return SYMBOL_OF_ID[prompt[-10:]].tolist()
