"""The file of measurements: one line of JSON each, appended as soon as it is made."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from hyenadna import __version__
from hyenadna.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Job(ABC):
    """What one process measures: base of the jobs of each benchmark, with plain fields."""

    @abstractmethod
    def title(self) -> str:
        """A few words, for progress."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values by field name."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The job of `to_dict`, also through JSON. Raises TypeError for other fields."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def key(self) -> str:
        """One line that is the same for the same measurement: all fields that are compared."""
        names = (field.name for field in dataclasses.fields(self) if field.compare)
        return json.dumps({name: getattr(self, name) for name in names}, sort_keys=True)


J = TypeVar("J", bound=Job)
K = TypeVar("K", bound=Hashable)


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
        "processor": _of_cpu("model name") or platform.processor(),
        "vectors": _vectors(),
        "cores": os.cpu_count(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}, {'-'.join(platform.libc_ver())}",
        "python": platform.python_version(),
        "torch": version("torch"),
        "hyenadna": __version__,
    }


def processor_of(host: Mapping[str, Any]) -> str:
    """The processor of `this_host` with its vectors, which older measurements do not say."""
    vectors = host.get("vectors")
    return f"{host['processor']} ({vectors})" if vectors else str(host["processor"])


def _of_cpu(field: str) -> str:
    """A field of the first processor in /proc/cpuinfo; empty where there is none."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    found = [line.partition(":")[2].strip() for line in lines if line.startswith(field)]
    return found[0] if found else ""


def _vectors() -> str:
    """The widest vectors that the processor has; empty where the system does not say."""
    flags = f"{_of_cpu('flags')} {_of_cpu('Features')}".split()  # x86 and ARM
    known = {"avx512f": "AVX-512", "avx2": "AVX2", "sve": "SVE", "asimd": "NEON"}
    return next((name for flag, name in known.items() if flag in flags), "")


def append(record: Record[J], path: Path) -> None:
    """Add one measurement to the file, which is made where there is none."""
    append_row(vars(record) | {"job": record.job.to_dict()}, path)


def append_row(row: Mapping[str, Any], path: Path) -> None:
    """Add one line of plain values to the file, which is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")
    with path.open("a") as file:
        # A line that was cut off stays a line of its own.
        file.write(("" if whole else "\n") + json.dumps(row) + "\n")


def read(path: Path, job: Callable[[dict[str, Any]], J]) -> list[Record[J]]:
    """All measurements of the file; none where it does not exist.

    job: makes one from the plain values of `Job.to_dict`.

    A line that was cut off, by a kill say, is passed over. Raises InputError for other lines that
    are no measurement.
    """
    records = []
    for number, fields in _rows(path):
        try:
            records.append(Record(**(fields | {"job": job(fields["job"])})))
        except (TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"{path}:{number}: not a measurement of this benchmark ({error}); "
                "give another --results, or move this one away"
            ) from error
    return records


def newest_rows(path: Path, key: Callable[[dict[str, Any]], K]) -> dict[K, dict[str, Any]]:
    """The last row of each key, in the order in which the keys first came; cut lines passed over.

    For benchmarks that keep plain rows of `append_row`. key: of what a row measures.
    """
    return {key(row): row for _, row in _rows(path)}


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Number and values of each whole line of JSON; none where there is no file."""
    for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], 1):
        try:
            yield number, json.loads(line)
        except json.JSONDecodeError:
            continue  # cut off


def on_host(
    records: Sequence[Record[J]], host: Mapping[str, Any], by: Sequence[str] | None = None
) -> list[Record[J]]:
    """The records of this host. by: the fields of `host` that must agree, by default all."""
    if by is None:
        return [r for r in records if r.host == host]
    return [r for r in records if all(r.host.get(name) == host.get(name) for name in by)]


def finished(
    records: Sequence[Record[J]], host: Mapping[str, Any], by: Sequence[str] | None = None
) -> set[str]:
    """Keys of the jobs that were measured on this host; a failed one is to be tried again.

    by: as in `on_host`.
    """
    return {r.job.key() for r in on_host(records, host, by) if not r.failed}


def newest(records: Sequence[Record[J]]) -> list[Record[J]]:
    """The last record of every job on the host of the last record, in the order of the file."""
    if not records:
        return []
    return list({r.job.key(): r for r in on_host(records, records[-1].host)}.values())
