"""Rows of a labelled source while it is read: sequences are tokens, labels are still text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from hyenadna.alphabet import Ids
from hyenadna.data.cuts import Cut
from hyenadna.data.labelled_data import SPLIT_WORDS, split_named
from hyenadna.errors import InputError

Empty = Literal["refuse", "drop"]

_UNDECODED: Final = "\N{REPLACEMENT CHARACTER}"


@dataclass
class LabelledRows:
    """What the files of one source hold, row by row."""

    empty: Empty = "refuse"
    """Whether an empty sequence is an error, or passed over and counted."""
    sequences: list[Ids] = field(default_factory=list)
    labels: dict[str, list[str]] = field(default_factory=dict)
    """Text of each row by column; an empty text where there is none."""
    splits: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    """`file:line` of each row, for messages."""
    cuts: list[Cut | None] = field(default_factory=list)
    dropped: int = 0
    """Empty sequences passed over."""
    example: str = ""
    """An id that was made unique."""
    columns: str = ""
    """Those of the first table, for messages."""
    remarks: list[str] = field(default_factory=list)
    """What else there is to say of the files."""

    def __len__(self) -> int:
        return len(self.sequences)

    def add(
        self,
        place: str,
        sequence: Ids,
        *,
        labels: Mapping[str, str],
        split: str = "",
        id: str = "",
        group: str = "",
        cut: Cut | None = None,
    ) -> None:
        """Add a row; `split` is as the source writes it, an empty `id` gets the place for a name.

        Raises InputError for an empty sequence (unless they are dropped), an unknown split, and a
        row whose label columns are not those of the first.
        """
        if not len(sequence):
            if self.empty == "refuse":
                raise InputError(
                    f"{place}: the sequence is empty; take the row out, or drop empty ones "
                    "(--empty drop)"
                )
            self.dropped += 1
            return
        known = split_named(split)
        if known is None:
            raise InputError(
                f"{place}: split is {split!r}; it must be train, valid or test (or {SPLIT_WORDS}); "
                "--split names another column, --split none says that there is none"
            )
        if not self.sequences:
            self.labels = {column: [] for column in labels}
        if self.labels.keys() != labels.keys():
            raise InputError(
                f"{place}: labels are {', '.join(labels) or 'none'}, but "
                f"{', '.join(self.labels) or 'none'} at {self.places[0]}; use the same names"
            )
        for column, text in labels.items():
            if _UNDECODED in text:
                raise InputError(
                    f"{place}: {column} {text[:30]!r} has letters that are not UTF-8; save the "
                    "file as UTF-8"
                )
            self.labels[column].append(text)
        self.sequences.append(sequence)
        self.splits.append(known)
        self.ids.append(id or place)
        self.groups.append(group)
        self.places.append(place)
        self.cuts.append(cut)

    def notes(self) -> list[str]:
        """What was changed while reading, one line each; makes the ids unique."""
        renamed = self._make_ids_unique()
        found = list(dict.fromkeys(self.remarks))
        if self.dropped:
            found.append(f"{self.dropped} rows with an empty sequence dropped")
        if renamed:
            found.append(f"{renamed} ids that come again got a number behind: '{self.example}'")
        lacking = sum(not group for group in self.groups)
        if 0 < lacking < len(self):
            found.append(
                f"groups are not known: {lacking} rows have none, the first at "
                f"{self.places[self.groups.index('')]}"
            )
        return found

    def _make_ids_unique(self) -> int:
        """How many ids had to be changed: the second `x` becomes `x#2`, and so on."""
        taken, seen, renamed = set(self.ids), dict.fromkeys(self.ids, 0), 0
        for i, id in enumerate(self.ids):
            seen[id] += 1
            if seen[id] == 1:
                continue
            while (new := f"{id}#{seen[id]}") in taken:
                seen[id] += 1
            taken.add(new)
            self.ids[i] = self.example = new
            renamed += 1
        return renamed
