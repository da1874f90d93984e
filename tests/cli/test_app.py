"""The door: exit codes, one line of error, units."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from hyenadna import __version__
from hyenadna.checkpoint.load import load
from hyenadna.checkpoint.save import save
from hyenadna.cli import units
from hyenadna.cli.app import COMMANDS, app, run
from hyenadna.config import PRESETS, ModelConfig
from hyenadna.model.backbone import HyenaDNA


def test_help_lists_every_command(capsys):
    assert run(["--help"]) == 0
    printed = capsys.readouterr().out
    for name in COMMANDS:
        assert name in printed
        assert run([name, "--help"]) == 0


def test_every_option_has_a_help_text():
    text = app.generate_docs(output_format="markdown")
    bare = [line for line in text.splitlines() if line.startswith("* `--") and "`:" not in line]
    assert not bare


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pretrian"], "pretrian"),
        (["pretrain", "x.fa"], "--out"),
        (["pretrain", "--out", "x"], "no FASTA file given"),
        (["pretrain", "x.fa", "--out", "x", "--steps", "many"], "--steps"),
        (["pretrain", "x.fa", "--out", "x", "--stepps", "3"], "--stepps"),
        (["evaluate", "nowhere"], "nowhere: no such file or folder"),
        (["convert", "nowhere", "target"], "nowhere"),
        (["convert", "xlarge-1m", "target"], "xlarge-1m: a shape without published weights"),
        (["convert", "a", "b", "--max-shard-size", "many"], "--max-shard-size is 'many'"),
        (["convert", "a", "b", "--layout", "training", "--max-shard-size", "1GB"], "is one file"),
    ],
)
def test_bad_words_are_one_line_and_exit_2(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_models_lists_all_shapes(capsys):
    assert run(["models"]) == 0
    printed = capsys.readouterr().out
    for name, config in PRESETS.items():
        assert name in printed and f"{config.max_seq_len:,}" in printed


def test_convert_there_and_back(tmp_path, capsys):
    torch.manual_seed(0)
    model = HyenaDNA(ModelConfig(d_model=8, n_layer=1, max_seq_len=34, filter_order=8)).eval()
    save(model, tmp_path / "a")
    assert run(["convert", str(tmp_path / "a"), str(tmp_path / "b"), "--layout", "training"]) == 0
    assert "written to" in capsys.readouterr().out
    assert "layer" in json.loads((tmp_path / "b" / "config.json").read_text())
    assert run(["convert", str(tmp_path / "b"), str(tmp_path / "c"), "--no-tables"]) == 0
    tokens = torch.randint(7, 11, (1, 30))
    torch.testing.assert_close(load(tmp_path / "c")(tokens), model(tokens))


def test_units():
    assert [units.size(n) for n in (0, 999, 2048, 3 << 20, 5 << 30)] == [
        "0 B", "999 B", "2 KiB", "3 MiB", "5.0 GiB",
    ]  # fmt: skip
    assert [units.duration(s) for s in (0.4, 59, 61, 3725)] == [
        "0 s", "59 s", "1 min 01 s", "1 h 02 min",
    ]  # fmt: skip
    assert [units.bases(n) for n in (999, 1500, 12_157_105, 3.1e9)] == [
        "999 bp", "1.5 kb", "12.2 Mb", "3.10 Gb",
    ]  # fmt: skip


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m hyenadna pretrain --help | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr
