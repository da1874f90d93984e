"""Targets from the texts of label columns, and the task where it is not said.

The rule where it is not said: several columns of 0 and 1 are `labels`, other numbers in several
columns are `values`. In one column, texts as long as their sequences are `tokens`; words are
`classes`; whole numbers are `classes` where there are at most 50 different ones, and no more than
half of the rows, and numbers otherwise are `values`. Classes that are whole numbers are in the
order of the numbers, words in that of the alphabet.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from hyenadna.alphabet import IGNORED
from hyenadna.data.labelled_data import Targets, Task, missing_targets
from hyenadna.errors import InputError
from hyenadna.task_kinds import TASK_KINDS, TaskKind

Missing = Literal["refuse", "mask"]

MOST_NUMBERED_CLASSES: Final = 50
MASKED_BASE: Final = "."
"""Letter of a label per base that does not count."""

_MISSING: Final = frozenset(("", "na", "nan", "n/a", "#n/a", "<na>"))
_MISSING_NUMBER: Final = frozenset(("none", "null"))  # where all else are numbers; else words
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_YES_NO: Final = {"true": "1", "false": "0", "yes": "1", "no": "0"}
_FEW: Final = 4  # so many different classes are believed whatever the number of rows
_LONGEST_WORD: Final = 40  # letters; no class has a longer name by chance
_LONGEST_WHOLE: Final = 18  # digits of a whole number that can be a class
_LARGEST: Final = float(np.finfo(np.float32).max)
_SHORTEST_TOLD: Final = 10  # a text as long as a sequence of so many bases is no accident


@dataclass(frozen=True)
class LabelColumns:
    """Texts of the label columns of all rows, and where each row stands."""

    where: str
    texts: Mapping[str, Sequence[str]]
    lengths: npt.NDArray[np.int64]
    """Bases of each sequence, (n,)."""
    places: Sequence[str]
    found: str = ""
    """Columns that there are, for messages."""


def make_targets(
    columns: LabelColumns, task: TaskKind | Task | None = None, missing: Missing = "refuse"
) -> tuple[Task, Targets]:
    """The task and the targets of all rows.

    task: a kind, or a whole task whose names are then those that count (a trained model's, say).
    missing: a row without a class is an error, or masked; missing labels and values are always
    masked. With a whole task and `mask` there may be no label column at all.

    Raises InputError, naming the row, for a label that is not what the task needs.
    """
    known = task if isinstance(task, Task) else None
    if known is None and task is not None and task not in TASK_KINDS:
        raise InputError(f"task {task!r} is not known; it is {', '.join(TASK_KINDS)}")
    columns = _plain(columns, known)
    if not columns.texts:
        if known is not None and missing == "mask":
            return known, missing_targets(known, columns.lengths)
        raise InputError(
            f"{columns.where}: has no labels; name the column that holds them (--label)"
            + f"; it has {columns.found}" * bool(columns.found)
        )
    kind = known.kind if known else task or infer_kind(columns)
    assert not isinstance(kind, Task)
    if kind in ("labels", "values"):
        return _number_targets(columns, kind, known)
    if len(columns.texts) > 1:
        raise InputError(
            f"{columns.where}: task {kind} has one label column, not {len(columns.texts)} "
            f"({', '.join(list(columns.texts)[:5])}); name one"
        )
    column, texts = next(iter(columns.texts.items()))
    if kind == "tokens":
        return _base_targets(columns, texts, known)
    return _class_targets(columns, column, texts, known, missing)


def infer_kind(columns: LabelColumns) -> TaskKind:
    """The task that the labels look like, by the rule above.

    Raises InputError where several columns are not all numbers, and for words that are nearly all
    different (names, not classes).
    """
    if len(columns.texts) > 1:
        distinct = {text for texts in columns.texts.values() for text in set(texts)}
        plain = {_YES_NO.get(text.casefold(), text) for text in distinct if not is_missing(text)}
        return "labels" if all(_whole(text) in ("0", "1") for text in plain) else "values"
    column, texts = next(iter(columns.texts.items()))
    if _one_for_each_base(columns.lengths, texts):
        return "tokens"
    distinct = {text for text in set(texts) if not is_missing(text)}
    most = max(_FEW, len(texts) // 2)  # classes; where there are more, they are names, or values
    if all(_NUMBER.fullmatch(text) for text in distinct):
        whole = all(_whole(text) is not None for text in distinct)
        few = len(distinct) <= min(MOST_NUMBERED_CLASSES, most)
        return "classes" if whole and few else "values"
    if len(distinct) > most:
        raise InputError(
            f"{columns.where}: column {column!r} holds {len(distinct)} different words in "
            f"{len(texts)} rows, such as {min(distinct)[:30]!r}; name the column of the labels "
            "(--label), or say that they are classes (--task classes)"
        )
    return "classes"


def label_warnings(columns: LabelColumns, task: Task) -> list[str]:
    """What looks wrong with labels that can be read, one line each: one word among numbers."""
    if task.kind != "classes" or len(columns.texts) != 1:
        return []
    words = [name for name in task.names if _whole(name) is None]
    texts = next(iter(columns.texts.values()))
    if len(words) != 1 or task.outputs < 3 or words[0] not in texts:
        return []
    at = columns.places[texts.index(words[0])]
    return [
        f"warning: all classes are numbers but {words[0]!r} ({texts.count(words[0])} rows, the "
        f"first at {at}); it is a class of its own - empty the cell if it stands for nothing"
    ]


def _one_for_each_base(lengths: npt.NDArray[np.int64], texts: Sequence[str]) -> bool:
    """Whether labels are a letter for each base: all of them, or most (the others are mistakes)."""
    if not (lengths >= _SHORTEST_TOLD).any():
        return False
    fits = sum(len(text) == n for text, n in zip(texts, lengths.tolist(), strict=True))
    if fits == len(texts):
        return True
    numbers = all("." in text and _NUMBER.fullmatch(text) for text in texts)
    told = len(set(texts)) > _FEW or int(lengths.min()) >= _LONGEST_WORD
    return 2 * fits > len(texts) and told and not numbers


def _plain(columns: LabelColumns, known: Task | None) -> LabelColumns:
    """The columns with one writing for `true`, and without `none` among numbers.

    yes and no stay words where they are the two classes of a column.
    """
    folded = {}
    for column, texts in columns.texts.items():
        distinct = {text for text in set(texts) if not is_missing(text)}
        lower = {text.casefold() for text in distinct}
        change: dict[str, str] = {}
        numbers = {text for text in distinct if _NUMBER.fullmatch(text)}
        if numbers and lower - {text.casefold() for text in numbers} <= _MISSING_NUMBER:
            change = dict.fromkeys(distinct - numbers, "")
        elif known is None or set(known.names) <= {"0", "1"} or known.kind != "classes":
            switches = all(_whole(_YES_NO.get(text, text)) in ("0", "1") for text in lower)
            if switches and (len(distinct) > 2 or not lower <= {"yes", "no"}):
                change = {text: _YES_NO.get(text.casefold(), text) for text in distinct}
        folded[column] = [change.get(text, text) for text in texts] if change else texts
    return replace(columns, texts=folded)


def is_missing(text: str) -> bool:
    """Whether a cell stands for no value: empty, NA or NaN."""
    return text.casefold() in _MISSING


def require_seen(
    where: str, task: Task, targets: Targets, splits: npt.NDArray[np.str_], places: Sequence[str]
) -> None:
    """Nothing, where every class of `valid` and `test` is in `train` as well, or none is `train`.

    Raises InputError otherwise, naming the class and a row.
    """
    if task.kind not in ("classes", "tokens") or not (splits == "train").any():
        return
    present = np.zeros((len(splits), task.outputs), dtype=bool)
    for i, row in enumerate(targets):
        present[i, np.unique(row[row >= 0]) if isinstance(targets, tuple) else row[row >= 0]] = True
    seen = present[splits == "train"].any(0)
    for split in ("valid", "test"):
        rows = np.flatnonzero((splits == split) & (present & ~seen).any(1))
        if len(rows):
            name = task.names[int((present[rows[0]] & ~seen).argmax())]
            raise InputError(
                f"{where}: {split} holds {len(rows)} rows of a class that train lacks: {name!r} at "
                f"{places[int(rows[0])]}; take them out, or give the task with all its classes"
            )


def _whole(text: str) -> str | None:
    """A whole number in plain writing (`1` for `1.0`), None for any other text."""
    if not _NUMBER.fullmatch(text):
        return None
    if (digits := text.lstrip("+-")).isdigit():
        return str(int(text)) if len(digits) <= _LONGEST_WHOLE else None
    value = float(text)
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else None


def _class_targets(
    columns: LabelColumns, column: str, texts: Sequence[str], known: Task | None, missing: Missing
) -> tuple[Task, Targets]:
    counts = Counter(texts)
    distinct = [text for text in counts if not is_missing(text)]
    if missing == "refuse" and len(distinct) < len(counts):
        at = next(i for i, text in enumerate(texts) if is_missing(text))
        raise InputError(
            f"{columns.places[at]}: no class in column {column!r} "
            f"({sum(map(is_missing, texts))} rows have none); take the rows out, or mask them "
            "(--missing mask)"
        )
    numbered = all(_whole(text) is not None for text in (known.names if known else distinct))
    plain = {text: (_whole(text) or text) if numbered else text for text in distinct}
    names = known.names if known else tuple(sorted(set(plain.values()), key=_class_order))
    if len(names) < 2 and known is None:
        raise InputError(
            f"{columns.where}: column {column!r} holds {len(names)} class"
            f"{'es' * (not names)} ({', '.join(names) or 'all are missing'}); at least 2 are needed"
        )
    place = {name: i for i, name in enumerate(names)}
    if numbered and known:
        place |= {str(_whole(name)): i for i, name in enumerate(names)}
    for text, name in plain.items():
        if name not in place:
            at = texts.index(text)
            raise InputError(
                f"{columns.places[at]}: class {text!r} in column {column!r} is not one of the task"
                f": {', '.join(names[:12])}; correct it, or take the row out"
            )
    number = {text: place[name] for text, name in plain.items()}
    targets = np.array([number.get(text, IGNORED) for text in texts], dtype=np.int64)
    return known or Task("classes", names), targets


def _class_order(name: str) -> tuple[int, int, str]:
    whole = _whole(name)
    return (0, int(whole), name) if whole is not None else (1, 0, name)


def _number_targets(
    columns: LabelColumns, kind: TaskKind, known: Task | None
) -> tuple[Task, Targets]:
    names = tuple(columns.texts)
    if known is not None and len(names) != known.outputs:
        raise InputError(
            f"{columns.where}: {len(names)} label columns ({', '.join(names[:5])}), but the task "
            f"has {known.outputs} ({', '.join(known.names[:5])}); name the columns"
        )
    if known is not None and set(names) == set(known.names):
        names = known.names
    targets = np.empty((len(columns.places), len(names)), dtype=np.float32)
    for j, name in enumerate(names):
        targets[:, j] = _numbers(columns, name, kind)
    return known or Task(kind, names), targets


def _numbers(columns: LabelColumns, column: str, kind: TaskKind) -> npt.NDArray[np.float32]:
    """float32 (n,), NaN where missing."""
    texts = columns.texts[column]
    value_of: dict[str, float] = {}
    for text in set(texts):
        plain = _YES_NO.get(text.casefold(), text) if kind == "labels" else text
        if is_missing(text):
            value_of[text] = np.nan
            continue
        value = float(plain) if _NUMBER.fullmatch(plain) else np.inf
        fits = value in (0, 1) if kind == "labels" else abs(value) <= _LARGEST
        if not fits:
            _refuse_number(columns, column, text, kind)
        value_of[text] = value
    return np.fromiter((value_of[text] for text in texts), np.float32, count=len(texts))


def _refuse_number(columns: LabelColumns, column: str, text: str, kind: TaskKind) -> None:
    at = columns.places[columns.texts[column].index(text)]
    rule = "0, 1 or nothing" if kind == "labels" else "a finite number or nothing"
    raise InputError(
        f"{at}: column {column!r} is {text[:30]!r}; task {kind} needs {rule}; correct it, or give "
        "another task"
    )


def _base_targets(
    columns: LabelColumns, texts: Sequence[str], known: Task | None
) -> tuple[Task, Targets]:
    for i, (text, length) in enumerate(zip(texts, columns.lengths.tolist(), strict=True)):
        if len(text) != length:
            raise InputError(
                f"{columns.places[i]}: {len(text)} labels for {length} bases; there must be one "
                f"letter for each base ({MASKED_BASE!r} where there is none); correct it, or say "
                "what else the labels are (--task)"
            )
    letters = {letter for text in texts for letter in set(text)} - {MASKED_BASE}
    if known is None and len(letters) < 2:
        raise InputError(
            f"{columns.where}: the bases have {len(letters)} classes; at least 2 are needed"
        )
    task = known or Task("tokens", tuple(sorted(letters)))
    strange = sorted(letters - set(task.names))
    if strange:
        at = next(i for i, text in enumerate(texts) if strange[0] in text)
        raise InputError(
            f"{columns.places[at]}: label {strange[0]!r} is not one of the task: "
            f"{', '.join(task.names)}; correct it"
        )
    if any(ord(letter) > 127 for letter in letters):
        raise InputError(f"{columns.where}: labels of bases must be plain letters (ASCII)")
    table = np.full(256, IGNORED, dtype=np.int64)
    for i, name in enumerate(task.names):
        if len(name) == 1 and ord(name) < 128:
            table[ord(name)] = i
    raw = (np.frombuffer(text.encode("ascii"), dtype=np.uint8) for text in texts)
    return task, tuple(table[letters_of] for letters_of in raw)
