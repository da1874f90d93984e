"""Whether two runs of a verb were given the same arguments, of which shard.json holds those of one.

Files are the same under any name that leads to them. What a result does not depend on does not
count: device, threads and memory, and how a run was spread or gone on with.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

_FREE: Final = {"out", "resume", "device", "threads", "max_memory"}


def other_option(told: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first option in which two shard.json differ, with both values; empty if there is none."""
    return _differing(told, now, ())


def other_words(told: Mapping[str, Any], now: Mapping[str, Any], known: Collection[str]) -> str:
    """As `other_option`, for shards of several machines, where the same words may do as well.

    known: names of settings, known to be the same, so that options of these names do not count.
    """
    if _options(told, known) == _options(now, known):
        return ""
    return _differing(told, now, known)


def names_relative(arguments: Mapping[str, Any]) -> bool:
    """Whether arguments, as in shard.json, name a file or the model from the present folder."""
    model = arguments.get("model")
    if isinstance(model, str) and Path(model).exists() and not Path(model).is_absolute():
        return True
    return any(_is_relative(value) for name, value in arguments.items() if name not in _FREE)


def _is_relative(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_is_relative, value))
    return isinstance(value, dict) and "path" in value and not Path(value["path"]).is_absolute()


def _options(told: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in told["arguments"].items():
        found |= value["on"] if isinstance(value, dict) and "on" in value else {name: value}
    return {name: value for name, value in found.items() if name not in _FREE and name not in known}


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


def _differing(told: Mapping[str, Any], now: Mapping[str, Any], known: Collection[str]) -> str:
    both = [(_options(each, known), each["folder"]) for each in (told, now)]
    old, new = (_located(options, folder) for options, folder in both)
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            typed = [_text(options.get(name)) for options, _ in both]
            if typed[0] == typed[1]:  # from other folders
                typed = [_text(old.get(name)), _text(new.get(name))]
            return f"{name} {typed[0]}, not {typed[1]}"
    return ""


def _text(value: Any) -> str:
    if value is None or value in ([], ""):
        return "left out"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    return str(value["path"] if isinstance(value, dict) and "path" in value else value)
