"""What `finetune`, `prompt-tune` and `fewshot` share: how a run begins, goes on and ends.

A file in the run folder says what the run is; it is made first, and read on `--resume`.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self, TypeVar

from rich.console import Console

from hyenadna import __version__
from hyenadna.cli.memory import peak_text
from hyenadna.cli.units import duration
from hyenadna.errors import InputError

_VERSION: Final = 1


def require_free(out: Path, description: str) -> None:
    """Nothing, where a new run can be made in a folder. Raises InputError otherwise.

    description: name of the file that says what the run is.
    """
    if (out / description).exists():
        raise InputError(
            f"{out}: there is a run already; go on with it by --resume, or give another --out"
        )
    unfinished = {f".{description}.part"}  # a start that was killed
    if out.exists() and (not out.is_dir() or {p.name for p in out.iterdir()} - unfinished):
        raise InputError(f"{out}: exists and is not empty; give another --out")
    from hyenadna.checkpoint.folder import require_place

    require_place(out)


def read_description(out: Path, description: str, what: str) -> dict[str, Any]:
    """What a run folder says of its run. Raises InputError where it holds none.

    what: the kind of run, for the message.
    """
    path = out / description
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{out}: no {what} here ({description} is missing)") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); start a new run") from error
    if not isinstance(found, dict) or found.get("version") != _VERSION or "request" not in found:
        raise InputError(f"{path}: is not of this version of hyenadna; start a new run")
    return found


class Request(Protocol):
    """What a command was asked for, in plain values; all its options have defaults."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From its plain values, also through JSON."""

    def flat(self) -> dict[str, Any]:
        """Value of each option by its flag."""


R = TypeVar("R", bound=Request)


def stored_request(given: R, stored: Mapping[str, Any]) -> R:
    """The request that a run was started with, from its description.

    given: with `--resume`; each of its options is the default, or as the run has it. Raises
    InputError otherwise, and for a description that cannot be read.
    """
    kind = type(given)
    own = kind.from_dict(stored["request"])
    default, as_run = kind().flat(), own.flat()
    for name, value in given.flat().items():
        if value not in (default[name], as_run[name]):
            raise InputError(
                f"{name} is {_shown(value)}, but the run was started with {_shown(as_run[name])}; "
                "resume with --resume alone, or start a new run"
            )
    return own


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "none"
    return str(value)


def write_description(
    out: Path, description: str, *, device: object, request: Mapping[str, Any], **others: Any
) -> None:
    """Make the run folder with its description: the request, others, and on what it runs.

    Raises InputError where that cannot be done.
    """
    import torch

    from hyenadna.cli.finetune_report import write_json

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot make the run folder ({error.strerror})") from error
    where = {
        "hyenadna": __version__,
        "torch": torch.__version__,
        "device": str(device),
        "threads": torch.get_num_threads(),
    }
    write_json(out / description, {"version": _VERSION, **where, **others, "request": request})


@dataclass(frozen=True)
class Machine:
    """On what a run is to run, as the command takes it."""

    device: str = "auto"
    threads: int | None = None
    max_memory: str | None = None

    def or_stored(self, stored: Mapping[str, Any]) -> Self:
        """The same, and where nothing was given as the description of the run has it."""
        return type(self)(
            device=str(stored.get("device", "auto")) if self.device == "auto" else self.device,
            threads=stored.get("threads") if self.threads is None else self.threads,
            max_memory=stored.get("max_memory") if self.max_memory is None else self.max_memory,
        )


def require_same_digest(stored: Mapping[str, Any], what: str, digest: str, name: str) -> None:
    """Nothing for a new run, or where the `what` of a run that goes on is the one it began with.

    stored: the description of the run, empty for a new one. name: for the message. Raises
    InputError otherwise.
    """
    if stored and stored.get(f"{what}_digest") != digest:
        raise InputError(
            f"{name}: is not the {what} that the run was started with; resume with the same, or "
            "start a new run"
        )


def say_complete(out: Path, console: Console, *, as_json: bool) -> bool:
    """Whether a run is complete; then it says so, and prints the figures where they are wanted."""
    figures = out / "metrics.json"
    if not figures.exists():
        return False
    console.print(f"{out}: the run is complete; its report is {out / 'report.html'}")
    if as_json:
        print(figures.read_text(encoding="utf-8"), end="")
    return True


def done_text(start: float) -> str:
    """How long a run took since a moment of the monotonic clock, and how much memory."""
    return f"done in {duration(time.monotonic() - start)}{peak_text()}"


def run_or_stop(work: Callable[[], None], command: str, out: Path, console: Console) -> int:
    """Do the work of a run; the exit code, after a signal with a line that says how to go on."""
    from hyenadna.cli.finetune_job import Interrupted

    go_on = f"stopped; go on: hyenadna {command} --out {shlex.quote(str(out))} --resume"
    try:
        work()
    except Interrupted as stop:
        console.print(go_on)
        return 128 + stop.signal
    except KeyboardInterrupt:
        console.print(go_on)
        raise
    return 0
