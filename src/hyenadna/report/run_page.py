"""The one-file report of a run of `embed`, `score`, `mutate` or `track`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hyenadna.errors import InputError
from hyenadna.infer.run_record import RunRecord
from hyenadna.report import embed_page, mutate_page, score_page, track_page
from hyenadna.report.page import (
    Block,
    Cell,
    caveat,
    details,
    heading,
    paragraph,
    table,
    write_page,
)

_OWN: Final[Mapping[str, Callable[[Path, RunRecord], list[Block]]]] = {
    "embed": embed_page.blocks,
    "score": score_page.blocks,
    "mutate": mutate_page.blocks,
    "track": track_page.blocks,
}
"""Pictures and tables of each verb, drawn from its output."""


def write_run_page(out: Path, record: RunRecord, path: Path) -> None:
    """Write the report of a run, whole or not at all.

    out: the output of the run. record: what stands beside it. path: of the page.

    Raises InputError where the output cannot be read or the page be written, and for a verb that
    has no report.
    """
    if record.verb not in _OWN:
        raise InputError(
            f"{out}: was made by {record.verb!r}, which has no report; those of "
            f"{', '.join(_OWN)} have one"
        )
    own = _OWN[record.verb](out, record)
    footer = f"Made by hyenadna {record.hyenadna}, {record.made}."
    write_page(path, f"{record.verb}: {out.name}", _frame(record, own), footer=footer)


def _frame(record: RunRecord, own: Sequence[Block]) -> Iterator[Block]:
    yield paragraph(record.command, soft=True)
    for text in record.caveats:
        yield caveat(text)
    yield heading("What was run, and on what")
    yield _pairs({"model": record.model.get("name"), **_without(record.model, "name", "weights")})
    yield from _nested(record.inputs, "Inputs")
    yield heading("Results")
    yield from own
    yield heading("Figures")
    yield from _nested(record.figures, "")
    yield details(
        "All settings",
        [
            *_nested(record.settings, "Settings"),
            _pairs(record.machine, "Machine"),
            _pairs({"weights (SHA-256)": record.model.get("weights")}),
        ],
    )


def _nested(values: Mapping[str, Any], caption: str) -> Iterator[Block]:
    """Plain values in one table, and each mapping in one of its own.

    Lists of mappings are left out: a verb that has such tables shows them itself.
    """
    plain = {k: v for k, v in values.items() if not isinstance(v, Mapping) and not _is_table(v)}
    if plain:
        yield _pairs(plain, caption)
    for name, inner in values.items():
        if isinstance(inner, Mapping):
            yield from _nested(inner, _words(name))


def _is_table(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(row, Mapping) for row in value)


def _pairs(values: Mapping[str, Any], caption: str = "") -> Block:
    return table(["", ""], [[_words(k), _cell(v)] for k, v in values.items()], caption=caption)


def _without(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {k: v for k, v in values.items() if k not in names}


def _words(name: str) -> str:
    return name.replace("_", " ")


def _cell(value: Any) -> Cell:
    """A plain value as a cell; sequences as text, the long ones cut."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple):
        shown = ", ".join(map(str, value[:10]))
        return shown + (f", … ({len(value)} in all)" if len(value) > 10 else "")
    return str(value)
