"""The kinds of tasks that a model learns from labels: their one list, and which have strands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, get_args

TaskKind = Literal["classes", "labels", "values", "tokens"]
"""One of several classes; several yes/no labels each; numbers (regression); a class per base."""
TASK_KINDS: Final[tuple[TaskKind, ...]] = get_args(TaskKind)


def strand_twins(kind: TaskKind, names: Sequence[str]) -> tuple[int, ...] | None:
    """Number of each class of bases on the other strand, None where no class has a strand.

    The class `+NAME` lies on the strand that is read, `-NAME` on the other one, where there are
    both; a class without a strand is its own twin. `+` and `-` alone are names like others.
    """
    if kind != "tokens":
        return None
    number = {name: i for i, name in enumerate(names)}
    signed = [name for name in names if len(name) > 1]
    other = {f"{a}{name[1:]}": name for a, b in ("+-", "-+") for name in signed if name[0] == b}
    twins = tuple(number[other.get(name, name)] for name in names)
    return twins if twins != tuple(range(len(names))) else None
