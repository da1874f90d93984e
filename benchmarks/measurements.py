"""The file of measurements: one line of JSON each, appended as soon as it is made."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from hyenadna import __version__
from hyenadna.errors import InputError


class Job(Protocol):
    """What one process measures."""

    def key(self) -> str:
        """Text that tells it from all others."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Plain values by field name."""
        ...

    def title(self) -> str:
        """A few words."""
        ...


J = TypeVar("J", bound=Job)


@dataclass(frozen=True)
class Record(Generic[J]):
    """A job that has been tried, where, and what came out: `result` has `error` if it failed."""

    job: J
    host: dict[str, Any]
    result: dict[str, Any]
    seconds: float
    """Wall time of the whole process."""

    @property
    def failed(self) -> bool:
        """Whether there is no measurement."""
        return "error" in self.result


def this_host(threads: int) -> dict[str, Any]:
    """What a measurement depends on besides the job."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}, {'-'.join(platform.libc_ver())}",
        "python": platform.python_version(),
        "torch": version("torch"),
        "hyenadna": __version__,
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def append(record: Record[J], path: Path) -> None:
    """Add one measurement to the file, which is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")
    line = json.dumps(vars(record) | {"job": record.job.to_dict()})
    with path.open("a") as file:
        # A line that was cut off stays a line of its own.
        file.write(("" if whole else "\n") + line + "\n")


def read(path: Path, job: Callable[[dict[str, Any]], J]) -> list[Record[J]]:
    """All measurements of the file; none where it does not exist.

    job: makes one from the plain values of `Job.to_dict`.

    A last line that was cut off, by a kill say, is passed over. Raises InputError for other lines
    that are no measurement.
    """
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    records = []
    for number, line in enumerate(lines, 1):
        try:
            fields = json.loads(line)
            records.append(Record(**(fields | {"job": job(fields["job"])})))
        except json.JSONDecodeError:
            continue  # cut off
        except (TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"{path}:{number}: not a measurement of this benchmark ({error}); "
                "give another --results, or move this one away"
            ) from error
    return records


def finished(records: Sequence[Record[J]], host: dict[str, Any]) -> set[str]:
    """Keys of the jobs that were measured on this host; a failed one is to be tried again."""
    return {r.job.key() for r in records if r.host == host and not r.failed}


def newest(records: Sequence[Record[J]]) -> list[Record[J]]:
    """The last record of every job on the host of the last record, in the order of the file."""
    if not records:
        return []
    host = records[-1].host
    last = {r.job.key(): r for r in records if r.host == host}
    return list(last.values())
