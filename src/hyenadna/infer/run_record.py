"""What a run was, in a small file beside its output, so that a report can tell of it later.

OUT            the output
OUT.run.json   a `RunRecord`: verb, command, model, inputs, settings, figures, caveats
"""

from __future__ import annotations

import dataclasses
import glob
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hyenadna.errors import InputError

_VERSION: Final = 1
_SUFFIX: Final = ".run.json"


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """All values are plain, for JSON."""

    verb: str
    """The command: `embed`, `score`, …"""
    command: str
    """The whole command line, as it can be typed again."""
    hyenadna: str
    """Version of this package."""
    made: str
    """When the run ended: date and time with the zone, ISO 8601."""
    model: Mapping[str, Any]
    """name, weights (digest), parameters, max_seq_len, …"""
    inputs: Mapping[str, Any]
    """Files by what they are, with what is known of them (counts, digests)."""
    settings: Mapping[str, Any]
    """What the results depend on."""
    figures: Mapping[str, Any]
    """Numbers of the run: rows, seconds, rows a second, peak memory, summaries of the results."""
    caveats: tuple[str, ...] = ()
    """What a reader must know, a sentence or two each."""
    machine: Mapping[str, Any] = field(default_factory=dict)
    """device, threads, precision, torch."""


def record_path(out: Path) -> Path:
    """Where the record of an output stands."""
    return out.with_name(out.name + _SUFFIX)


def write_record(out: Path, record: RunRecord) -> None:
    """Write it beside the output, under another name first.

    Raises InputError where it cannot be written.
    """
    path = record_path(out)
    beside = path.with_name(f".{path.name}.part")
    text = json.dumps({"version": _VERSION, **dataclasses.asdict(record)}, indent=2) + "\n"
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error


def _way_out(out: Path) -> str:
    """Which name the output has gone by, where it is one of several files of a run."""
    first = out.name.partition(".")[0]
    for path in sorted(out.parent.glob(f"{glob.escape(first)}.*{_SUFFIX}")):
        name = path.name.removesuffix(_SUFFIX)
        stem, dot, suffix = name.partition(".")
        if dot and out.name.startswith(f"{stem}.") and out.name.endswith(f".{suffix}"):
            return f"it is of a run that wrote several files, called {path.with_name(name)}"
    return "run the command again"


def read_record(out: Path) -> RunRecord:
    """The record of an output. Raises InputError where there is none, or a damaged one."""
    path = record_path(out)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{out}: {path.name} is not beside it, which says what was run; {_way_out(out)}"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run the command again") from error
    try:
        if found.pop("version") != _VERSION:
            raise ValueError("another version")
        return RunRecord(**found | {"caveats": tuple(found["caveats"])})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: is no record of this version of hyenadna ({error}); run the command again"
        ) from error
