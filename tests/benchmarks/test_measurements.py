"""Rows of plain values, ranks of a job, and jobs as lines of JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
from benchmarks.measurements import (
    Job,
    Record,
    append,
    append_row,
    finished,
    newest_rows,
    processor_of,
    read,
    this_host,
)
from benchmarks.ranks import joined, on_ranks

from benchmarks import measurements


@dataclass(frozen=True, kw_only=True)
class Trial(Job):
    """A job with a field of each kind."""

    names: tuple[str, ...] = ()
    guess: float = field(default=1.0, compare=False)

    def title(self) -> str:
        return " ".join(self.names)


def test_a_job_is_the_same_after_json_and_its_key_has_what_is_compared():
    job = Trial(names=("a", "b"), guess=7.0)
    again = Trial.from_dict(json.loads(json.dumps(job.to_dict())))
    assert again == job and again.guess == 7.0
    assert again.key() == Trial(names=("a", "b")).key() == '{"names": ["a", "b"]}'


def test_a_host_says_how_wide_its_vectors_are(monkeypatch):
    for fields, name, vectors in (
        ({"model name": "AMD EPYC", "flags": "fpu avx avx2"}, "AMD EPYC (AVX2)", "AVX2"),
        ({"model name": "Xeon", "flags": "avx2 avx512f"}, "Xeon (AVX-512)", "AVX-512"),
        ({"model name": "N1", "Features": "fp asimd"}, "N1 (NEON)", "NEON"),
        ({"model name": "P4"}, "P4", ""),
    ):
        monkeypatch.setattr(measurements, "_of_cpu", lambda field, of=fields: of.get(field, ""))
        host = this_host(1)
        assert host["vectors"] == vectors and processor_of(host) == name
    assert processor_of({"processor": "older"}) == "older"


def test_the_newest_row_of_each_key_survives_a_kill(tmp_path):
    path = tmp_path / "folder" / "rows.jsonl"
    assert newest_rows(path, lambda row: row["n"]) == {}
    for row in ({"n": 2, "s": 1.0}, {"n": 1, "s": 2.0}):
        append_row(row, path)
    with path.open("a") as file:
        file.write('{"n": 1, "s"')
    append_row({"n": 2, "s": 3.0}, path)
    assert list(newest_rows(path, lambda row: row["n"]).values()) == [
        {"n": 2, "s": 3.0}, {"n": 1, "s": 2.0},
    ]  # fmt: skip


def test_finished_by_some_fields_of_the_host(tmp_path):
    job = Trial(names=("a",))
    records = [Record(job, {"device": "X", "python": "3.11"}, {}, 1.0)]
    other = {"device": "X", "python": "3.12"}
    assert finished(records, other) == set()
    assert finished(records, other, by=("device",)) == {job.key()}
    assert finished(records, {"device": "Y"}, by=("device",)) == set()
    append(records[0], tmp_path / "records.jsonl")
    assert read(tmp_path / "records.jsonl", Trial.from_dict) == records


def summed(rank: int, ranks: int, meeting: Path, first: int) -> list[float]:
    with joined(rank, ranks, meeting):
        value = torch.tensor([float(first + rank)])
        dist.all_reduce(value)
        return [rank, value.item()]


def test_ranks_meet_and_each_tells_its_result():
    assert on_ranks(2, summed, 10) == [[0, 21.0], [1, 21.0]]
