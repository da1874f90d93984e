"""What an interrupted run leaves beside its output, and whether another may go on with it.

OUT.part/settings.json says what the results so far, in other files of that folder, were made with.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hyenadna.errors import InputError


def part_folder(path: Path) -> Path:
    """The folder beside an output that is not whole yet."""
    return path.with_name(path.name + ".part")


def require_free(path: Path, *, what: str, resume: bool) -> None:
    """Nothing, where `path` can be written. Raises InputError otherwise.

    what: the results of an interrupted run, for its message. resume: whether there may be some.
    """
    if path.exists():
        raise InputError(f"{path}: exists; remove it, or give another --out")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}; make it first")
    part = part_folder(path)
    if part.exists() and not resume:
        raise InputError(
            f"{part}: holds the {what} of an interrupted run; go on with --resume, or remove it"
        )


def stored_settings(path: Path) -> Mapping[str, Any]:
    """Settings of the interrupted run beside `path`; empty without one, or a damaged one."""
    try:
        stored = json.loads((part_folder(path) / "settings.json").read_text())
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


@contextmanager
def fresh_part(path: Path, settings: Mapping[str, Any]) -> Iterator[Path]:
    """An empty folder to write into while the block runs; then the settings are put beside.

    They come last, because without them there is nothing to resume. What an interrupted run left is
    dropped. Raises InputError where it cannot be written.
    """
    folder = part_folder(path)
    with write_errors(path):
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        yield folder
        (folder / "settings.json").write_text(json.dumps(dict(settings), indent=2) + "\n")


def why_not_resumed(path: Path, settings: Mapping[str, Any]) -> str:
    """Why there is nothing to go on with beside `path`, in a line; empty where there is.

    Raises InputError where the results there were made with other settings; they stay.
    """
    folder = part_folder(path)
    if not folder.exists():
        return f"{folder}: nothing to resume"
    stored = stored_settings(path)
    if not stored:
        return damaged(path)
    other = _difference(stored, settings)
    if other:
        raise InputError(
            f"{folder}: was made with {other}; resume with the same, or remove {folder} to start "
            "over"
        )
    return ""


def damaged(path: Path) -> str:
    """The line for results that cannot be read."""
    return f"{part_folder(path)}: damaged, starting over"


def _difference(stored: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """The first setting in which two runs differ, in words; empty where there is none.

    The model's name does not count: `weights` says whether it is the same.
    """
    now = json.loads(json.dumps(dict(settings)))  # where tuples are lists and keys are text
    for key in sorted({*stored, *now} - {"model"}):
        if stored.get(key) != now.get(key):
            old, new = str(stored.get(key)), str(now.get(key))
            return f"other {key}" if len(old + new) > 80 else f"{key} {old}, not {new}"
    return ""


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Errors of the disk as InputError while the block runs."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
