"""The ledger: written, read back, validated, and made into tables."""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path

import pytest

from hyenadna.errors import InputError
from hyenadna.train.ledger import (
    LedgerEntry,
    Score,
    machine_text,
    make_table,
    read_ledger,
    versions,
    write_entry,
)


def entry(**changes) -> LedgerEntry:
    values = {
        "suite": "gue",
        "task": "H3",
        "model": "tiny-1k, yeast",
        "data_digest": "ab" * 32,
        "rows": {"train": 1347, "valid": 150, "test": 1497},
        "config": {"learning_rate": 6e-4, "epochs": 10},
        "seeds": (0, 1, 2),
        "metric": "mcc",
        "scores": {
            "mcc": Score.of([0.61, 0.63, 0.65], (0.60, 0.66)),
            "accuracy": Score.of([0.8, 0.81, 0.82]),
        },
        "baselines": {"kmer": {"mcc": 0.512, "accuracy": 0.75}, "majority": {"accuracy": 0.5}},
        "seconds": 90.0,
        "machine": "two cores",
        "versions": {"python": "3.11", "torch": "2.13"},
        "date": "2026-11-20",
    }
    return LedgerEntry(**values | changes)


def test_what_is_written_is_read_back(tmp_path):
    first, second = entry(), entry(task="H4/ac", model="random | weights", seeds=(0,), scores={
        "mcc": Score.of([0.5]),
    })  # fmt: skip
    for one in (first, second):
        path = write_entry(one, tmp_path / "ledger")
        assert path.parent == tmp_path / "ledger" and path.is_file()
    assert sorted(read_ledger(tmp_path / "ledger"), key=lambda e: e.task) == [first, second]
    assert not list((tmp_path / "ledger").glob("*.part"))


def test_the_same_run_replaces_its_file_and_another_does_not(tmp_path):
    write_entry(entry(seconds=1.0), tmp_path)
    write_entry(entry(seconds=2.0), tmp_path)
    assert [e.seconds for e in read_ledger(tmp_path)] == [2.0]
    for change in (
        {"config": {"learning_rate": 1e-3}},
        {"data_digest": "cd" * 32},
        {"protocol": "test"},
    ):
        write_entry(entry(**change), tmp_path)
    assert len(read_ledger(tmp_path)) == 4


def test_names_that_make_no_file_name_stay_apart_and_long_ones_fit(tmp_path):
    entries = [entry(model=name) for name in ("модель", "другая", "m" * 400, "m" * 401)]
    for one in entries:
        assert len(write_entry(one, tmp_path).name) < 255
    assert len(read_ledger(tmp_path)) == len(entries)


def test_a_table_keeps_its_cells():
    table = make_table([entry(task="a|b", model="c|d")], [("gue", "a|b")])
    assert [line.count("|") for line in table.splitlines()] == [table.count("|") // 3] * 3


def test_no_folder_is_no_entries(tmp_path):
    assert read_ledger(tmp_path / "none") == []


def test_score_is_mean_and_deviation_over_seeds():
    score = Score.of([0.2, 0.4, 0.9])
    assert score.mean == pytest.approx(0.5)
    assert score.sd == pytest.approx(statistics.stdev([0.2, 0.4, 0.9]))
    assert Score.of([0.25]).sd is None
    assert Score(0.8121, 0.0042, (0.79, 0.831)).text == "0.812 ± 0.004 [0.790, 0.831]"
    assert Score.of([0.25]).text == "0.250"
    with pytest.raises(InputError, match="at least one seed"):
        Score.of([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_digest": "xyz"}, "data_digest is 'xyz', not a SHA-256"),
        ({"seeds": ()}, "seeds is empty"),
        ({"metric": "auroc"}, "metric is 'auroc', which has no score; there are mcc, accuracy"),
        ({"scores": {"mcc": Score(float("nan"))}}, r"scores.mcc is .*finite"),
        ({"scores": {"mcc": Score.of([0.1, 0.2])}}, "2 values for 3 seeds"),
        ({"rows": {"train": 10}}, "test must have some"),
        ({"protocol": "luck"}, "protocol is 'luck'"),
        ({"seconds": -1.0}, "seconds is -1.0"),
        ({"date": "20.11.2026"}, "not YYYY-MM-DD"),
        ({"task": ""}, "empty"),
    ],
)
def test_an_entry_that_cannot_be_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        entry(**change)


def test_a_damaged_file_is_named(tmp_path):
    path = write_entry(entry(), tmp_path)
    good = json.loads(path.read_text())
    for text, message in (
        ("{", "is not JSON"),
        ("[]", "no ledger entry of version 1"),
        (json.dumps(good | {"version": 2}), "no ledger entry of version 1"),
        (json.dumps({k: v for k, v in good.items() if k != "seeds"}), "lacks seeds"),
        (json.dumps(good | {"extra": 1}), "has unknown extra"),
        (json.dumps(good | {"scores": {"mcc": {"mean": "high"}}}), "not of its type"),
        (json.dumps(good | {"seconds": "long"}), "not of its type"),
        (json.dumps(good | {"date": "soon"}), "YYYY-MM-DD"),
        (json.dumps(good | {"seeds": [5, 6, 7]}), "run the benchmark again"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message) as error:
            read_ledger(tmp_path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_the_table_has_a_row_for_each_run_and_an_empty_one_without(tmp_path):
    runs = [entry(), entry(model="random weights", scores={"mcc": Score(0.4)}, seeds=(0,))]
    other = dataclasses.replace(runs[0], suite="elsewhere")
    text = make_table(
        [*runs, other],
        [("gue", "H3"), ("gue", "H4")],
        {("gue", "H3"): [("HyenaDNA", "0.779")], ("gue", "H4"): [("HyenaDNA", "0.763")]},
    )
    lines = [[c.strip() for c in line.strip("|\n").split("|")] for line in text.splitlines()]
    head, rows = lines[0], lines[2:]
    assert {len(row) for row in rows} == {len(head)}
    table = [dict(zip(head, row, strict=True)) for row in rows]
    assert [row["task"] for row in table] == ["H3", "H3", "H4"]
    assert table[0]["score"] == "0.630 ± 0.020 [0.600, 0.660]"
    assert table[0]["kmer"] == "0.512" and table[0]["majority"] == ""
    assert table[0]["rows"] == "1347 / 150 / 1497" and table[0]["minutes"] == "1.5"
    assert table[0]["protocol"] == "chosen on valid, scored on test, 3 seeds"
    assert table[1]["score"] == "0.400" and table[1]["protocol"].endswith("1 seed")
    assert table[2]["HyenaDNA"] == "0.763"
    assert not any(value for name, value in table[2].items() if name not in ("task", "HyenaDNA"))


def test_machine_and_versions_are_said():
    assert "cores" in machine_text() and "\n" not in machine_text()
    found = versions()
    assert {"python", "torch", "numpy"} <= set(found) and all(found.values())


def test_the_ledger_of_this_repository_can_be_read():
    folder = Path(__file__).resolve().parents[2] / "ledger"
    assert len(read_ledger(folder)) == len(list(folder.glob("*.json")))
