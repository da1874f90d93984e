"""Labelled sequences in memory, and the task that their labels set."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt

from hyenadna.alphabet import IGNORED, SEP, Ids, reverse_complement_ids
from hyenadna.errors import InputError
from hyenadna.task_kinds import TASK_KINDS, TaskKind, strand_twins

TooLong = Literal["refuse", "centre"]

Targets = npt.NDArray[Any] | tuple[npt.NDArray[np.int64], ...]
Index = npt.NDArray[np.int64] | npt.NDArray[np.bool_]

_ROWS_AT_ONCE: Final = 1 << 14

_SPLIT_NAMES: Final = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation", "dev", "eval"),
    "test": ("test", "testing"),
    "": ("", "all", "none", "na", "nan", "unspecified"),
}
SPLIT_WORDS: Final = ", ".join(
    word for name in ("train", "valid", "test") for word in _SPLIT_NAMES[name] if word != name
)
"""What splits are called beside train, valid and test, for messages."""
_SPLIT_OF: Final = {name: split for split, names in _SPLIT_NAMES.items() for name in names}


@dataclass(frozen=True)
class Task:
    """What a model has to say about a sequence.

    Raises InputError for an unknown kind, and for names that are missing or come twice.
    """

    kind: TaskKind
    names: tuple[str, ...]
    """Classes (sorted), labels, or targets, in the order of the model's outputs."""

    def __post_init__(self) -> None:
        if self.kind not in TASK_KINDS:
            raise InputError(f"task {self.kind!r} is not known; it is {', '.join(TASK_KINDS)}")
        if not self.names or len(set(self.names)) < len(self.names):
            raise InputError(f"task {self.kind}: names {self.names} are none, or not all different")
        for name in self.names:
            if any(letter < " " for letter in name):
                raise InputError(
                    f"task {self.kind}: the name {name!r} holds a control character, which tables "
                    "of predictions cannot; clean the labels"
                )

    @property
    def outputs(self) -> int:
        """Numbers that a model gives for each sequence (each base where kind is `tokens`), T."""
        return len(self.names)

    @property
    def twins(self) -> tuple[int, ...] | None:
        """Each class of bases on the other strand; None where no class has a strand."""
        return strand_twins(self.kind, self.names)


@dataclass(frozen=True, eq=False)
class LabelledData:
    """Sequences with their targets; row i of every field belongs together.

    Raises InputError where the fields are not all of one length.
    """

    name: str
    sequences: tuple[Ids, ...]
    """Token ids (L,), uint8, without special tokens but [SEP] between two sequences of a pair."""
    targets: Targets
    """classes: int64 (n,), IGNORED where missing. labels and values: float32 (n, T), NaN where
    missing; labels also bool, where none is missing. tokens: a tuple of int64 (L,), IGNORED where
    masked."""
    task: Task
    splits: npt.NDArray[np.str_]
    """`train`, `valid`, `test`, or an empty text where the source does not say, (n,)."""
    ids: tuple[str, ...]
    """A name for each row; no two are the same."""
    groups: tuple[str, ...] | None = None
    """Chromosome, or another group whose rows belong on one side of a split, where known."""
    notes: tuple[str, ...] = ()
    """What was taken for granted or changed while reading, one line each."""

    def __post_init__(self) -> None:
        n = len(self.sequences)
        fields = {"targets": self.targets, "splits": self.splits, "ids": self.ids}
        for field, values in (fields | ({"groups": self.groups} if self.groups else {})).items():
            if len(values) != n:
                raise InputError(f"{self.name}: {len(values)} {field} for {n} sequences")

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each sequence, (n,)."""
        return np.array([len(ids) for ids in self.sequences], dtype=np.int64)

    def select(self, index: Index) -> LabelledData:
        """The rows of an index (integers, or a bool for each row), in its order."""
        rows = np.flatnonzero(index) if index.dtype == np.bool_ else np.asarray(index)
        chosen = rows.tolist()
        targets = self.targets
        return dataclasses.replace(
            self,
            sequences=tuple(self.sequences[i] for i in chosen),
            targets=tuple(targets[i] for i in chosen)
            if isinstance(targets, tuple)
            else targets[rows],
            splits=self.splits[rows],
            ids=tuple(self.ids[i] for i in chosen),
            groups=tuple(self.groups[i] for i in chosen) if self.groups is not None else None,
        )

    def middle(self, most: int) -> Self:
        """The same with the middle `most` tokens of each longer sequence, and of its targets.

        Raises InputError for a pair that is longer: it is never cut.
        """
        sequences, targets = list(self.sequences), self.targets
        per_base = list(targets) if isinstance(targets, tuple) else None
        long = np.flatnonzero(self.lengths > most).tolist()
        for i in long:
            if (sequences[i] == SEP).any():
                raise _too_long(self, i, len(long), most)
            kept = slice((len(sequences[i]) - most) // 2, (len(sequences[i]) - most) // 2 + most)
            sequences[i] = sequences[i][kept]
            if per_base is not None:
                per_base[i] = per_base[i][kept]
        return dataclasses.replace(
            self,
            sequences=tuple(sequences),
            targets=targets if per_base is None else tuple(per_base),
        )

    def part(self, split: str) -> LabelledData:
        """The rows of one split: `train`, `valid`, `test`, or an empty text for those of none.

        Raises InputError for another name.
        """
        if split not in _SPLIT_NAMES:
            raise InputError(f"split {split!r} is not known; it is train, valid or test")
        return self.select(self.splits == split)

    def with_notes(self, *notes: str) -> LabelledData:
        """The same data with notes added."""
        return dataclasses.replace(self, notes=(*self.notes, *notes))

    def digest(self) -> str:
        """SHA-256 (hex) over task, sequences, targets and splits, in order; ids do not count."""
        total = hashlib.sha256()
        for text in (self.task.kind, *self.task.names, *self.splits.tolist()):
            total.update(text.encode() + b"\0")
        total.update(self.lengths.tobytes())
        for ids in self.sequences:
            total.update(ids.tobytes())
        targets = self.targets
        for array in targets if isinstance(targets, tuple) else (targets,):
            for start in range(0, len(array), _ROWS_AT_ONCE):
                total.update(_plain(array[start : start + _ROWS_AT_ONCE]).tobytes())
        return total.hexdigest()


def _plain(targets: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Targets with the same bytes for the same meaning, however they are held."""
    if targets.dtype == np.bool_:
        return targets.astype(np.float32)
    if targets.dtype.kind == "f":
        # one NaN for all: its bits may differ from source to source
        return np.where(np.isnan(targets), np.float32(np.nan), targets)
    return targets


def split_named(text: str) -> str | None:
    """`train`, `valid`, `test` or an empty text for the name of a split, None for another word.

    `val`, `validation`, `dev` and `eval` are valid; `all` and missing values are no split.
    """
    return _SPLIT_OF.get(text.strip().casefold())


def missing_targets(task: Task, lengths: npt.NDArray[np.int64]) -> Targets:
    """Targets of which none is known, for sequences of these lengths, (n,)."""
    n = len(lengths)
    if task.kind == "classes":
        return np.full(n, IGNORED, dtype=np.int64)
    if task.kind == "tokens":
        return tuple(np.full(length, IGNORED, dtype=np.int64) for length in lengths.tolist())
    return np.full((n, task.outputs), np.nan, dtype=np.float32)


def other_strand(ids: Ids) -> Ids:
    """Token ids (L,) read on the other strand; of a pair each sequence, in the same order."""
    cuts = np.flatnonzero(ids == SEP)
    if not len(cuts):
        return reverse_complement_ids(ids)
    parts = np.split(ids, cuts)
    pieces = [reverse_complement_ids(parts[0])]
    for part in parts[1:]:
        pieces += [part[:1], reverse_complement_ids(part[1:])]
    return np.concatenate(pieces)


def turned_classes(targets: npt.NDArray[np.int64], task: Task) -> npt.NDArray[np.int64]:
    """Classes of bases (L,) when the other strand is read: back to front, `+1` is then `-1`."""
    twins = task.twins
    turned = targets[::-1]
    if twins is None:
        return turned.copy()
    return np.where(turned == IGNORED, IGNORED, np.array(twins)[np.maximum(turned, 0)])


def fit_length(
    data: LabelledData, max_length: int | None, too_long: TooLong = "refuse"
) -> LabelledData:
    """The data with no sequence over `max_length` tokens.

    too_long: `refuse` raises at the first one that is longer; `centre` keeps its middle, and a note
    says how many were cut. A pair is never cut. None for `max_length` changes nothing.

    Raises InputError for a sequence that is too long and may not be cut.
    """
    if max_length is None:
        return data
    if max_length < 1:
        raise InputError(f"max_length is {max_length}; it must be at least 1")
    long = np.flatnonzero(data.lengths > max_length)
    if not len(long):
        return data
    if too_long == "refuse":
        raise _too_long(data, int(long[0]), len(long), max_length)
    cut = data.middle(max_length)
    note = f"{len(long)} sequences cut to their middle {max_length} bases"
    return dataclasses.replace(cut, notes=(*cut.notes, note))


def _too_long(data: LabelledData, row: int, many: int, max_length: int) -> InputError:
    sequence = data.sequences[row]
    way_out = "shorten it" if (sequence == SEP).any() else "cut it with too_long 'centre'"
    return InputError(
        f"{data.name}: sequence {data.ids[row]!r} has {len(sequence)} tokens, over the limit of "
        f"{max_length} ({many} sequences are); {way_out}, or take a model that reads more"
    )
