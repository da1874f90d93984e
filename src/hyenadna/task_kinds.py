"""The kinds of tasks that a model learns from labels: their one list."""

from __future__ import annotations

from typing import Final, Literal, get_args

TaskKind = Literal["classes", "labels", "values", "tokens"]
"""One of several classes; several yes/no labels each; numbers (regression); a class per base."""
TASK_KINDS: Final[tuple[TaskKind, ...]] = get_args(TaskKind)
