"""What the pages of the benchmarks share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.long_context.cells import cells, table_head
from benchmarks.measurements import J, Record


def write_sections(path: Path, sections: Iterable[Sequence[str]]) -> None:
    """Write the sections, each some lines, empty ones left out; beside first, then renamed."""
    text = "\n".join(line for section in sections if section for line in [*section, ""])
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(text.rstrip("\n") + "\n")
    beside.replace(path)


def not_measured(records: Sequence[Record[J]]) -> list[str]:
    """The section on what could not be measured, and why; empty where all was."""
    failed = [r for r in records if r.failed]
    if not failed:
        return []
    lines = ["## Not measured", "", *table_head(["measurement", "why"])]
    return [*lines, *(cells([r.job.title(), str(r.result["error"])]) for r in failed)]
