"""Names that columns have in a file, each its own."""

from __future__ import annotations

from collections.abc import Collection, Iterable


def free_names(
    columns: Iterable[str], taken: Collection[str] = (), *, slashes: bool = True
) -> dict[str, str]:
    """Name in the file of each column: its own, with `_` behind it while that is taken.

    taken: names that the file keeps for others. slashes: whether `/` may stand in a name; it is
    `_` otherwise, and a column without a name is `unnamed`.
    """
    found: dict[str, str] = {}
    for column in columns:
        name = column if slashes else column.replace("/", "_") or "unnamed"
        while name in taken or name in found.values():
            name += "_"
        found[column] = name
    return found
