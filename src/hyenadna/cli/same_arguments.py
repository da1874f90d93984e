"""Whether two runs of a verb were given the same arguments, of which shard.json holds those of one.

Files are the same under any name that leads to them. What a result does not depend on does not
count: device, threads and memory, and how a run was spread or gone on with.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_FREE: Final = {"out", "resume", "device", "threads", "max_memory"}


def other_option(told: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first option in which two shard.json differ, with both values; empty if there is none."""
    old, new = _options(told), _options(now)
    return _difference(_located(old, told["folder"]), _located(new, now["folder"]))


def other_words(told: Mapping[str, Any], now: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """As `other_option`, for shards of several machines, where the same words may do as well.

    known: settings, which are known to be the same, so that options of their names do not count.
    """
    old, new = ({k: v for k, v in _options(e).items() if k not in known} for e in (told, now))
    return _difference(old, new) and _difference(
        _located(old, told["folder"]), _located(new, now["folder"])
    )


def _options(told: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in told["arguments"].items():
        found |= value["on"] if isinstance(value, dict) and "on" in value else {name: value}
    return {name: value for name, value in found.items() if name not in _FREE}


def _located(options: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """The options with whole paths for names of files."""
    found = {name: _place(value, folder) for name, value in options.items()}
    model = found.get("model")
    if isinstance(model, str) and (place := Path(folder, model)).exists():
        found["model"] = str(place.resolve())
    return found


def _place(value: Any, folder: str) -> Any:
    if isinstance(value, (list, tuple)):
        return [_place(each, folder) for each in value]
    if isinstance(value, dict) and "path" in value:
        return {"path": str(Path(folder, value["path"]).resolve())}
    return value


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            return f"{name} {_text(old.get(name))}, not {_text(new.get(name))}"
    return ""


def _text(value: Any) -> str:
    if value is None or value in ([], ""):
        return "left out"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    return str(value["path"] if isinstance(value, dict) and "path" in value else value)
