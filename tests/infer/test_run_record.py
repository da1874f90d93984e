"""The record beside an output."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyenadna.errors import InputError
from hyenadna.infer.run_record import RunRecord, read_record, record_path, write_record

RECORD = RunRecord(
    verb="embed",
    command="hyenadna embed RUN x.fa",
    hyenadna="0",
    made="2026-01-01T00:00:00+00:00",
    model={"name": "RUN"},
    inputs={"genome": {"path": "x.fa", "bases": 3}},
    settings={"length": 4},
    figures={"rows": 1},
    caveats=("small",),
)


def test_round_trip(tmp_path):
    out = tmp_path / "a.npz"
    write_record(out, RECORD)
    assert read_record(out) == RECORD
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz.run.json"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2}', '{"version": 1, "verb": 1}'])
def test_what_is_wrong_is_told(tmp_path, text):
    out = tmp_path / "a.npz"
    with pytest.raises(InputError, match="is not beside it"):
        read_record(out)
    record_path(out).write_text(text)
    with pytest.raises(InputError, match="run the command again"):
        read_record(out)


def test_one_of_several_files_is_told_by_the_name_that_it_has_gone_by(tmp_path):
    write_record(tmp_path / "x.bw", RECORD)
    with pytest.raises(InputError, match=r"wrote several files, called .*x\.bw$"):
        read_record(tmp_path / "x.surprisal.forward.bw")
    with pytest.raises(InputError, match="run the command again"):
        read_record(tmp_path / "y.surprisal.bw")


def test_a_folder_that_is_not_there():
    with pytest.raises(InputError, match="cannot be written"):
        write_record(Path("/nonexistent/a.npz"), RECORD)
