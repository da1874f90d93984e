"""`hyenadna benchmark --download`: fetched, said, and read by the reader; leaks are shown."""

from __future__ import annotations

import functools
import gzip

import numpy as np
import pytest
import torch
from tests.public_server import public_server

from hyenadna.alphabet import decode
from hyenadna.checkpoint.save import save
from hyenadna.cli.app import run
from hyenadna.config import ModelConfig
from hyenadna.data.benchmarks import download, gue, promoters
from hyenadna.data.benchmarks import nucleotide_transformer as nt
from hyenadna.data.benchmarks.remote import of_tasks
from hyenadna.model.backbone import HyenaDNA
from hyenadna.train.ledger import read_ledger

QUICK = [
    *("--epochs", "1", "--batch-size", "64", "--threads", "1", "--precision", "float32"),
    *("--baselines", "majority"),
]


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server that is asked in place of the public ones; the folder to work in has a model."""
    monkeypatch.chdir(tmp_path)
    with public_server() as running:
        local = functools.partial(download.fetch, mirrors=running.mirrors)
        monkeypatch.setattr(download, "fetch", local)
        yield running


@pytest.fixture
def start(tmp_path):
    torch.manual_seed(0)
    shape = ModelConfig(d_model=16, n_layer=1, max_seq_len=66, filter_order=16)
    save(HyenaDNA(shape).eval(), tmp_path / "start")


def bases(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [decode(rng.integers(7, 11, 60)) for _ in range(count)]


def test_data_are_fetched_once_and_the_benchmark_goes_on_with_them(server, start, tmp_path, capsys):
    for file in of_tasks(promoters.remote_files(), ["bacillus"]):
        rows = bases(40, len(file.path))
        server.serve(file, "".join(f">{i}\n{text}\n" for i, text in enumerate(rows)).encode())
    words = ["benchmark", "promoters", "--data", "DATA", "--tasks", "bacillus", "--download"]
    assert run(words) == 0
    printed = capsys.readouterr().out
    assert "1 of 2: Bacillus_prom.fa (2.6 kB): fetched, checksum recorded" in printed
    assert "DATA: 2 files fetched, 0 there already" in printed
    assert "no checksum is published for 2 of them" in printed and "checksums.json" in printed
    assert "no stable public address" not in printed
    assert run([*words, "--model", "start", "--out", "out", *QUICK]) == 0
    printed = capsys.readouterr().out
    assert "there, and right" in printed and "0 files fetched, 2 there already" in printed
    assert len(server.fetched) == 2 and "no checksum is published" not in printed
    (entry,) = read_ledger(tmp_path / "ledger")
    assert (entry.suite, entry.task, entry.metric) == ("promoters", "bacillus", "mcc")
    assert sum(entry.rows.values()) == 80


def test_what_has_no_address_is_told_with_the_steps(server, tmp_path, capsys):
    assert run(["benchmark", "gue", "--data", "GUE", "--tasks", "covid", "--download"]) == 0
    printed = capsys.readouterr().out
    assert "no stable public address: covid\nThe steps for the rest" in printed
    assert "\n1. " in printed
    assert server.fetched == []
    for file in of_tasks(gue.remote_files(), ["tf0"]):
        server.serve(file, b"sequence,label\nACGT,0\n")
    words = ["benchmark", "gue", "--data", "GUE", "--tasks", "tf0,covid", "--download"]
    assert run(words) == 0
    printed = capsys.readouterr().out
    assert "GUE: 3 files fetched" in printed and "no stable public address: covid" in printed
    assert (tmp_path / "GUE" / "tf" / "0" / "dev.csv").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--download", "--download: name a suite, and by --data the folder"),
        ("gue --download", "--download: name a suite, and by --data the folder"),
        ("nosuite --data D --download", "no benchmark suite 'nosuite'"),
        ("gue --data D --tasks H9 --download", "gue: no task 'H9'"),
        ("gue --data D --tasks tf0 --download", "train.csv: the server answered 404"),
    ],
)
def test_bad_words_and_absent_files_are_one_line(words, message, server, capsys):
    assert run(["benchmark", *words.split()]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_leaks_of_the_enhancers_are_shown_before_training_and_can_be_dropped(
    server, start, tmp_path, capsys
):
    """The flaw of the published benchmark in small: half of the test enhancers stand in train."""
    enhancers, others = bases(40, 1), bases(60, 2)
    rows = [(text, 1, "train") for text in enhancers] + [(t, 0, "train") for t in others[:40]]
    rows += [(text, 1, "test") for text in (*enhancers[:10], *bases(10, 3))]
    rows += [(text, 0, "test") for text in others[40:]]
    text = "sequence,label,split\n" + "".join(f"{s},{y},{p}\n" for s, y, p in rows)
    folder = tmp_path / "iEnhancer"
    folder.mkdir()
    (folder / "enhancers.csv.gz").write_bytes(gzip.compress(text.encode()))
    assert nt.load("enhancer", folder).splits.tolist().count("test") == 40
    words = ["benchmark", "nucleotide_transformer", "--data", "iEnhancer", "--model", "start"]
    assert run([*words, "--out", "with", *QUICK]) == 0
    printed = capsys.readouterr().out
    assert "rows leak into a part that is chosen by or measured on" in printed
    assert printed.index("rows leak into") < printed.index("epoch 1")
    assert run([*words, "--out", "without", "--drop-leaks", *QUICK]) == 0
    printed = capsys.readouterr().out
    assert "leaks dropped: " in printed and "rows leak into" not in printed
    counts = [entry.rows for entry in read_ledger(tmp_path / "ledger")]
    assert sorted(rows["train"] + rows["valid"] for rows in counts) == [70, 80]
    assert [rows["test"] for rows in counts] == [40, 40]


def test_a_task_of_one_class_is_left_out_unless_it_is_named(server, start, tmp_path, capsys):
    folder = tmp_path / "part"
    folder.mkdir()
    rows = [f"{text},{i % 2},train" for i, text in enumerate(bases(40, 5))]
    head = "sequence,label,split\n"
    (folder / "human_enhancers_cohn.csv").write_text(head + "\n".join(rows) + "\n")
    (folder / "human_nontata_promoters.csv").write_text(head + "ACGT,1,train\nAACC,1,test\n")
    words = ["benchmark", "genomic_benchmarks", "--data", "part", "--model", "start", *QUICK]
    assert run([*words, "--out", "out"]) == 0
    printed = capsys.readouterr().out
    assert "left out: human_nontata_promoters: column 'label' holds 1 class" in printed
    assert run([*words, "--out", "out2", "--tasks", "human_nontata_promoters"]) == 2
    assert "holds 1 class" in capsys.readouterr().err
    (folder / "human_enhancers_cohn.csv").unlink()
    assert run([*words, "--out", "out3"]) == 2
    assert "no task here has rows of two classes" in capsys.readouterr().err


def test_names_that_there_are_not_fetch_nothing(server, capsys):
    words = ["benchmark", "gue", "--data", "GUE", "--download"]
    for more in (["--tasks", "typo"], ["--length", "4k"], ["--tasks", "tf0", "--length", "4k"]):
        assert run([*words, *more]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert server.fetched == []


def test_what_has_an_address_in_part_is_told_with_the_steps(server, capsys, monkeypatch):
    monkeypatch.setattr(download, "fetch", lambda files, folder, progress: iter(()))
    assert run(["benchmark", "chromatin", "--data", "C", "--tasks", "8k", "--download"]) == 0
    assert "not everything has a stable public address: 8k" in capsys.readouterr().out
