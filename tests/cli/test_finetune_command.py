"""`hyenadna finetune`: a table in, a measured model out; the test rows are met once, at the end."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

import hyenadna
from hyenadna.alphabet import decode, encode
from hyenadna.checkpoint.save import save
from hyenadna.checkpoint.task import load_task
from hyenadna.cli import finetune_options as options
from hyenadna.cli.app import run
from hyenadna.cli.finetune_options import FinetuneRequest, named_files, seed_list
from hyenadna.config import ModelConfig
from hyenadna.data.cuts import Outside
from hyenadna.data.labelled_fasta import HeaderLabel
from hyenadna.data.labelled_rows import Empty
from hyenadna.data.splits import By
from hyenadna.data.targets import Missing
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA, rescale_filters
from hyenadna.model.heads import Strands
from hyenadna.model.pooling import Pooling
from hyenadna.train.metrics import metrics

SHAPE = ModelConfig(d_model=16, n_layer=1, max_seq_len=66, filter_order=16)
MOTIF = "GGGCGG"
COMMON = ["--threads", "1", "--precision", "float32", "--embed-dropout", "0"]
LEARN = ["--epochs", "10", "--lr", "0.02", "--batch-size", "16", "--pooling", "sum"]
QUICK = ["--epochs", "2", "--batch-size", "64", "--baselines", "majority"]


def draw(rng: np.random.Generator, n: int) -> str:
    return "".join(rng.choice(list("ACGT"), n))


def motif_rows(rows: int = 400, seed: int = 0) -> list[list[str]]:
    """(id, sequence, label, split); half of the sequences hold the motif, and are `motif`."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(rows):
        text, has = draw(rng, int(rng.integers(30, 41))), i % 2 == 0
        if has:
            at = int(rng.integers(0, len(text) - len(MOTIF)))
            text = text[:at] + MOTIF + text[at + len(MOTIF) :]
        part = "train" if i < 0.7 * rows else "valid" if i < 0.8 * rows else "test"
        found.append([f"s{i}", text, "motif" if MOTIF in text else "none", part])
    return found


def write(path: Path, header: str, rows: list[list[object]]) -> Path:
    with path.open("w", newline="") as text:
        csv.writer(text).writerows([header.split(","), *rows])
    return path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as text:
        return list(csv.DictReader(text))


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with a model and a table, and one run of two seeds on it."""
    folder = tmp_path_factory.mktemp("finetune")
    torch.manual_seed(0)
    model = HyenaDNA(SHAPE)
    rescale_filters(model)
    save(model, folder / "model")
    write(folder / "motif.csv", "id,sequence,label,split", motif_rows())
    return folder


@pytest.fixture
def place(home, tmp_path, monkeypatch) -> Path:
    """An empty folder with links to the model and the table, where the command runs."""
    monkeypatch.chdir(tmp_path)
    for name in ("model", "motif.csv"):
        (tmp_path / name).symlink_to(home / name)
    return tmp_path


def finetune(*words: str) -> int:
    return run(["finetune", *words, *COMMON])


# -- the whole way ---------------------------------------------------------------------------------


def test_a_motif_is_learnt_measured_and_reported(place, capsys):
    words = ["model", "motif.csv", "--out", "RUN", *LEARN, "--seeds", "2"]
    assert finetune(*words) == 0
    printed = capsys.readouterr().out
    order = ["motif: classes, 2 (motif, none)", "Sequences that the splits have in common",
             "of memory", "epoch 1", "baseline kmer", "test part, 80 sequences",
             "report.html"]  # fmt: skip
    places = [printed.index(text) for text in order]
    assert places == sorted(places)
    assert "warning" not in printed
    found = json.loads(Path("RUN/metrics.json").read_text())
    assert found["rows"] == {"train": 280, "valid": 40, "test": 80}
    assert (found["part"], found["chosen_on"], found["caveat"]) == ("test", "valid", "")
    auroc = found["metrics"]["auroc"]
    assert auroc["value"] > 0.8 and auroc["low"] < auroc["value"] < auroc["high"]
    assert auroc["sd"] == pytest.approx(np.std([s["auroc"] for s in found["per_seed"]], ddof=1))
    kmer = found["baselines"]["kmer"]
    assert kmer["metrics"]["auroc"]["value"] > 0.8
    assert found["baselines"]["majority"]["metrics"]["auroc"]["value"] == 0.5
    gap = kmer["model_less_this"]["auroc"]
    assert gap["value"] == pytest.approx(auroc["value"] - kmer["metrics"]["auroc"]["value"])
    assert gap["low"] < gap["value"] < gap["high"]
    page = Path("RUN/report.html").read_text()
    assert "motif: model, fine-tuned" in page and "k-mers, linear" in page
    assert "too good" not in page and "One seed only" not in page
    kept = max(found["valid"], key=lambda each: each["value"])
    assert found["kept_seed"] == kept["seed"]

    rows = read(Path("RUN/predictions.csv"))
    assert [row["id"] for row in rows] == [f"s{i}" for i in range(320, 400)]
    said = np.array([[float(row["p_motif"]), float(row["p_none"])] for row in rows])
    true = [["motif", "none"].index(row["target"]) for row in rows]
    assert [row["predicted"] for row in rows] == [["motif", "none"][c] for c in said.argmax(1)]
    again = metrics("classes", np.array(true), said)
    assert again == pytest.approx(found["per_seed"][found["seeds"].index(kept["seed"])])

    assert run(["predict", "RUN", "motif.csv", "-o", "all.csv", "--threads", "1"]) == 0
    told = {row["id"]: row["p_motif"] for row in read(Path("all.csv"))}
    assert len(told) == 400
    for row in rows:
        assert float(told[row["id"]]) == pytest.approx(float(row["p_motif"]), abs=1e-6)
    assert hyenadna.load("RUN").embed(encode("ACGT")).shape == (1, 4, 16)
    settings = load_task("RUN").task.settings
    assert settings["data_digest"] == found["data_digest"] and settings["model"] == "model"


def kind_rows(kind: str, rows: int = 160) -> tuple[str, list[list[object]]]:
    """A table whose targets follow from the sequences, with missing ones; header and rows."""
    rng = np.random.default_rng(1)
    found: list[list[object]] = []
    for i in range(rows):
        rich = float(rng.random())
        p = [rich / 2, (1 - rich) / 2, (1 - rich) / 2, rich / 2]
        text = "".join(rng.choice(list("ACGT"), int(rng.integers(20, 40)), p=p))
        share = sum(base in "AT" for base in text) / len(text)
        part = ["train", "train", "train", "valid", "test"][i % 5]
        if kind == "values":
            found.append([text, 100 + share, "" if i % 7 == 0 else -0.01 * share, part])
        elif kind == "labels":
            found.append([text, int(share > 0.5), "" if i % 7 == 0 else int(share < 0.6), part])
        else:
            labels = "".join("S" if base in "CG" else "W" for base in text)
            found.append([text, ".." + labels[2:], part])
    columns = {"values": "y_share,y_other", "labels": "y_rich,y_poor", "tokens": "label"}
    return f"sequence,{columns[kind]},split", found


@pytest.mark.parametrize(
    ("kind", "metric", "columns"),
    [
        ("values", "pearson", ["target_y_share", "predicted_y_share"]),
        ("labels", "auroc", ["target_y_rich", "p_y_rich"]),
        ("tokens", "accuracy", ["target", "predicted"]),
    ],
)
def test_each_kind_of_task(place, capsys, kind, metric, columns):
    write(place / "t.csv", *kind_rows(kind))
    words = ["--epochs", "6", "--lr", "0.02", "--batch-size", "16"]
    assert finetune("model", "t.csv", "--out", "RUN", *words) == 0
    found = json.loads(Path("RUN/metrics.json").read_text())
    assert found["task"]["kind"] == kind
    assert found["metrics"][metric]["value"] > 0.8
    assert {"majority", "kmer"} == set(found["baselines"])
    rows = read(Path("RUN/predictions.csv"))
    assert len(rows) == 32 and all(column in rows[0] for column in columns)
    if kind == "values":
        assert "" in {row["target_y_other"] for row in rows}
        assert all(90 < float(row["predicted_y_share"]) < 110 for row in rows)
    if kind == "tokens":
        assert all(len(row["target"]) == len(row["predicted"]) for row in rows)
        assert rows[0]["target"].startswith("..")
        hits = [t == p for row in rows for t, p in zip(row["target"], row["predicted"], strict=True)
                if t != "."]  # fmt: skip
        assert np.mean(hits) == pytest.approx(found["metrics"]["accuracy"]["value"])
    assert run(["predict", "RUN", "t.csv", "-o", "p.tsv", "--threads", "1"]) == 0
    assert len(Path("p.tsv").read_text().splitlines()) == 161


# -- the test rows ---------------------------------------------------------------------------------


def test_the_test_rows_are_met_once_after_all_training(place, monkeypatch):
    from hyenadna.cli import finetune_job
    from hyenadna.train import baselines, finetune_loop

    test = {row[1] for row in motif_rows() if row[3] == "test"}
    events: list[str] = []

    def letters(data) -> set[str]:
        return {decode(ids) for ids in data.sequences}

    make, fit, predict_rows = (
        finetune_loop.Finetuner.__init__, baselines.fit_baseline, finetune_job.predict_rows,
    )  # fmt: skip
    step = finetune_loop.Finetuner.step

    def watched_make(self, model, data, *args, **kwargs):
        assert not letters(data) & test
        make(self, model, data, *args, **kwargs)

    def watched_step(self):
        events.append("step")
        return step(self)

    def watched_fit(name, data, *args, **kwargs):
        assert not letters(data) & test
        events.append("fit")
        return fit(name, data, *args, **kwargs)

    def watched_predict(model, rows, **kwargs):
        assert letters(rows) == test
        events.append("measure")
        return predict_rows(model, rows, **kwargs)

    monkeypatch.setattr(finetune_loop.Finetuner, "__init__", watched_make)
    monkeypatch.setattr(finetune_loop.Finetuner, "step", watched_step)
    monkeypatch.setattr(baselines, "fit_baseline", watched_fit)
    monkeypatch.setattr(finetune_job, "predict_rows", watched_predict)
    words = [*QUICK[:-2], "--seeds", "2", "--baselines", "majority,random"]
    assert finetune("model", "motif.csv", "--out", "RUN", *words) == 0
    assert events.count("measure") == 4 and events.count("fit") == 1  # two models of two seeds
    first = events.index("measure")
    assert set(events[first:]) == {"measure"} and "step" in events[:first]


def test_the_papers_protocol_is_marked(place, capsys):
    words = [*QUICK, "--choose-on-test"]
    assert finetune("model", "motif.csv", "--out", "RUN", *words) == 0
    printed = capsys.readouterr().out
    assert "warning: --choose-on-test: the model will be chosen on the test part" in printed
    assert "warning: the model was chosen on the test part" in printed
    assert "note: --choose-on-test: the 40 valid rows are not used" in printed
    found = json.loads(Path("RUN/metrics.json").read_text())
    assert found["chosen_on"] == found["part"] == "test" and "too good" in found["caveat"]
    best = found["valid"][0]["metrics"]["auroc"]
    assert best == pytest.approx(found["metrics"]["auroc"]["value"], abs=0.01)
    assert (
        "chosen on the test part, the one it is measured on" in Path("RUN/report.html").read_text()
    )


def test_without_a_test_part_the_valid_part_is_measured_and_it_says_so(place, capsys):
    rows = [row[:3] for row in motif_rows(100)]
    write(place / "t.csv", "id,sequence,label", rows)
    assert finetune("model", "t.csv", "--out", "RUN", *QUICK) == 0
    printed = capsys.readouterr().out
    assert "valid: 10 of 100 training rows held out by random, seed 0" in printed
    assert "warning: there is no test part" in printed
    found = json.loads(Path("RUN/metrics.json").read_text())
    assert found["part"] == "valid" and "no test part" in found["caveat"]
    assert (
        "chosen on the valid part, the one it is measured on" in Path("RUN/report.html").read_text()
    )
    more = ["--test-fraction", "0.2", "--valid-fraction", "0.25", "--split-seed", "3"]
    assert finetune("model", "t.csv", "--out", "NEXT", *QUICK, *more) == 0
    found = json.loads(Path("NEXT/metrics.json").read_text())
    assert found["rows"] == {"train": 60, "valid": 20, "test": 20} and found["part"] == "test"


def test_leaks_are_shown_before_training_and_dropped_on_demand(place, capsys):
    rows = motif_rows(200)
    turned = hyenadna.reverse_complement(rows[190][1])
    rows[0][1], rows[1][1:3] = turned, rows[191][1:3]
    rows[0][2] = rows[190][2]
    write(place / "t.csv", "id,sequence,label,split", rows)
    assert finetune("model", "t.csv", "--out", "RUN", *QUICK) == 0
    printed = capsys.readouterr().out
    assert "warning: 2 rows leak" in printed and "--drop-leaks" in printed
    assert printed.index("rows leak") < printed.index("epoch 1")
    found = json.loads(Path("RUN/metrics.json").read_text())
    (row,) = [each for each in found["leaks"] if each["splits"] == "train and test"]
    assert (row["identical"], row["other strand"], row["rows"]) == (1, 1, 2)
    assert "train and test: 1 identical" in Path("RUN/report.html").read_text()
    assert finetune("model", "t.csv", "--out", "NEXT", *QUICK, "--drop-leaks") == 0
    printed = capsys.readouterr().out
    assert "leaks dropped: 2 of train, 0 of valid" in printed
    assert "looked again: no leak is left" in printed
    found = json.loads(Path("NEXT/metrics.json").read_text())
    assert found["rows"] == {"train": 138, "valid": 20, "test": 40}
    assert all(each["rows"] == 0 for each in found["leaks"])


# -- the same again --------------------------------------------------------------------------------


def comparable(folder: str) -> dict[str, object]:
    """The figures of a run, without times."""

    def clean(value):
        if isinstance(value, dict):
            return {k: clean(v) for k, v in value.items() if k != "seconds"}
        return [clean(v) for v in value] if isinstance(value, list) else value

    return clean(json.loads((Path(folder) / "metrics.json").read_text()))


def test_an_interrupted_run_goes_on_to_the_same_figures(place, capsys, monkeypatch):
    from hyenadna.cli import finetune_job

    words = ["model", "motif.csv", *QUICK[2:], "--seeds", "4,9", "--epochs", "3"]
    assert finetune(*words, "--out", "WHOLE") == 0
    calls = []

    @contextmanager
    def stopping():
        yield lambda: calls.append(1) or (signal.SIGINT if len(calls) > stop_after else None)

    for stop_after in (7, 18):  # in the second epoch of the first seed; in the second seed
        calls.clear()
        with monkeypatch.context() as patch:
            patch.setattr(finetune_job, "stop_on_signals", stopping)
            more = [*words, *COMMON] if stop_after == 7 else ["--resume"]
            assert run(["finetune", "--out", "RUN", *more]) == 130
        assert "hyenadna finetune --out RUN --resume" in capsys.readouterr().out
        assert not Path("RUN/metrics.json").exists()
        assert run(["finetune", *words, *COMMON, "--out", "RUN"]) == 2
        assert "go on with it by --resume" in capsys.readouterr().err
    assert run(["finetune", "--out", "RUN", "--resume", "--epochs", "5"]) == 2
    assert "--epochs is 5, but the run was started with 3" in capsys.readouterr().err
    assert run(["finetune", "--out", "RUN", "--resume"]) == 0
    assert comparable("RUN") == comparable("WHOLE")
    assert Path("RUN/predictions.csv").read_text() == Path("WHOLE/predictions.csv").read_text()
    for name in ("model", "head"):
        one, other = (Path(f, "best", f"{name}.safetensors").read_bytes() for f in ("RUN", "WHOLE"))
        assert one == other
    capsys.readouterr()
    before = Path("RUN/metrics.json").stat().st_mtime_ns
    assert run(["finetune", "--out", "RUN", "--resume"]) == 0
    assert "the run is complete" in capsys.readouterr().out
    assert Path("RUN/metrics.json").stat().st_mtime_ns == before


def test_a_stop_while_baselines_are_fitted_costs_no_training(place, capsys, monkeypatch):
    from hyenadna.train import baselines, finetune_loop

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    words = ["model", "motif.csv", "--out", "RUN", *QUICK]
    with monkeypatch.context() as patch:
        patch.setattr(baselines, "fit_baseline", interrupted)
        assert finetune(*words) == 130
    assert "go on: hyenadna finetune --out RUN --resume" in capsys.readouterr().out
    monkeypatch.setattr(finetune_loop.Finetuner, "step", interrupted)
    assert run(["finetune", "--out", "RUN", "--resume"]) == 0
    assert Path("RUN/report.html").exists()


def test_a_resumed_run_needs_the_same_data(place, capsys, monkeypatch):
    from hyenadna.train import baselines

    rows = motif_rows(100)
    write(place / "t.csv", "id,sequence,label,split", rows)
    with monkeypatch.context() as patch:
        patch.setattr(
            baselines, "fit_baseline", lambda *a, **k: (_ for _ in ()).throw(InputError("x"))
        )
        assert finetune("model", "t.csv", "--out", "RUN", *QUICK) == 2
    rows[0][2] = "none" if rows[0][2] == "motif" else "motif"
    write(place / "t.csv", "id,sequence,label,split", rows)
    assert run(["finetune", "--out", "RUN", "--resume"]) == 2
    assert "t: is not the data that the run was started with" in capsys.readouterr().err


# -- models, baselines, sources --------------------------------------------------------------------


def test_random_weights_and_trained_baselines(place, capsys):
    words = [*QUICK[:-2], "--baselines", "random,transformer,cnn", "--mode", "frozen", "--json"]
    assert finetune("model", "motif.csv", "--out", "RUN", *words) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)  # nothing else on standard output
    assert found == json.loads(Path("RUN/metrics.json").read_text())
    assert {"cnn", "random", "transformer"} == set(found["baselines"])
    assert found["baselines"]["transformer"]["name"] == "Transformer, random weights"
    twin = hyenadna.load("RUN/baselines/transformer/seed-0/best").config
    assert twin.mixer == "attention" and twin.d_model == SHAPE.d_model
    base = hyenadna.load("model").state_dict()
    frozen = hyenadna.load("RUN").state_dict()
    assert all(torch.equal(frozen[name], value) for name, value in base.items())
    other = hyenadna.load("RUN/baselines/random/seed-0/best").state_dict()
    assert not any(torch.equal(other[n], v) for n, v in base.items() if n.endswith("fc1.weight"))

    assert finetune("random:model", "motif.csv", "--out", "NEXT", *QUICK, "--seeds", "2") == 0
    printed = capsys.readouterr().out
    assert "nothing is pretrained here" in printed
    assert "random weights (nothing pretrained)" in Path("NEXT/report.html").read_text()
    assert "test part" in printed and "model, random weights" in printed
    one, two = (load_task(f"NEXT/seed-{seed}/best") for seed in (0, 1))
    assert one.task.base_digest != two.task.base_digest


def test_files_by_split_folders_and_intervals(place, capsys):
    parts: dict[str, list[list[str]]] = {}
    for row in motif_rows(200):
        parts.setdefault(row[3], []).append(row)
    words = []
    for part, rows in parts.items():
        write(place / f"{part}.csv", "id,sequence,label", [row[:3] for row in rows])
        words += [f"--{part}", f"{part}.csv"]
        for name in ("motif", "none"):
            folder = place / "tree" / part
            folder.mkdir(parents=True, exist_ok=True)
            text = "".join(f">{r[0]}\n{r[1]}\n" for r in rows if r[2] == name)
            (folder / f"{name}.fa").write_text(text)
    assert finetune("model", "--out", "ONE", *words, *QUICK) == 0
    assert finetune("model", "tree", "--out", "TWO", *QUICK) == 0
    one, two = (json.loads(Path(f, "metrics.json").read_text()) for f in ("ONE", "TWO"))
    assert one["rows"] == two["rows"] == {"train": 140, "valid": 20, "test": 40}
    assert finetune("model", "tree", "--out", "X", *words, *QUICK) == 2
    assert "give either DATA, or files by --train" in capsys.readouterr().err

    genome = draw(np.random.default_rng(5), 4000)
    (place / "g.fa").write_text(f">c\n{genome}\n")
    lines = [f"c\t{i * 40}\t{i * 40 + 20}\t{'ab'[i % 2]}\n" for i in range(1, 98)]
    (place / "i.bed").write_text("".join(lines))
    words = ["--genome", "g.fa", "--window", "50", "--leaks", "none"]
    assert finetune("model", "i.bed", "--out", "BED", *words, *QUICK) == 0
    found = json.loads(Path("BED/metrics.json").read_text())
    assert found["counts"]["train"]["longest"] == 50 and found["leaks"] is None
    assert "were not looked for" in Path("BED/report.html").read_text()
    predict = ["predict", "BED", "i.bed", "--genome", "g.fa", "-o", "p.csv", "--threads", "1"]
    assert run(predict) == 0  # the window is that of the fine-tuning
    assert "the longest 50" in capsys.readouterr().out


def test_passes_shrink_to_the_memory_and_long_sequences_are_cropped(place, capsys):
    words = ["model", "motif.csv", *QUICK, "--max-length", "24"]
    assert finetune(*words, "--out", "RUN", "--max-memory", "4GiB") == 0
    printed = capsys.readouterr().out
    assert "of memory" in printed and "has no effect" not in printed
    found = json.loads(Path("RUN/metrics.json").read_text())
    assert load_task("RUN").task.max_length == 24
    rows = read(Path("RUN/predictions.csv"))
    assert len(rows) == 80 and found["metrics"]["accuracy"]["value"] >= 0
    assert run(["predict", "RUN", "motif.csv", "-o", "p.csv", "--threads", "1"]) == 0
    told = {row["id"]: float(row["p_motif"]) for row in read(Path("p.csv"))}
    for row in rows:
        assert told[row["id"]] == pytest.approx(float(row["p_motif"]), abs=1e-6)
    assert finetune(*words, "--out", "X", "--max-memory", "1MiB") == 2
    error = capsys.readouterr().err
    assert "max_memory is 1 MiB, but" in error and not Path("X").exists()


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "motif.csv"], "nowhere"),
        (["model"], "no data given"),
        ([], "no model given"),
        (["random:huge", "motif.csv"], "no preset 'huge'"),
        (["model", "gone.csv"], "gone.csv: no such file"),
        (["model", "motif.csv", "--label", "lab"], "motif.csv: has no column 'lab'"),
        (["model", "motif.csv", "--task", "values"], "task values needs a finite number"),
        (["model", "motif.csv", "--seeds", "0"], "--seeds is 0"),
        (["model", "motif.csv", "--seeds", "1,1"], "one comes twice"),
        (["model", "motif.csv", "--baselines", "svm"], "--baselines: there is no 'svm'"),
        (["random:model", "motif.csv", "--baselines", "random"], "random weights itself"),
        (["model", "motif.csv", "--metric", "pearson"], "--metric is pearson; this task has loss"),
        (["model", "motif.csv", "--pooling", "token"], "pooling is 'token'"),
        (["model", "motif.csv", "--max-length", "80"], "--max-length is 80, but this model"),
        (["model", "motif.csv", "--mode", "last", "--last-blocks", "2"], "2 last blocks"),
        (["model", "motif.csv", "--valid-fraction", "1.5"], "--valid-fraction is 1.5"),
        (["model", "motif.csv", "--test-fraction", "0.1"], "has a test part already"),
        (["model", "motif.csv", "--leaks", "none", "--drop-leaks"], "--drop-leaks with --leaks"),
        (["model", "motif.csv", "--lr", "0"], "--lr is 0"),
        (["random:model", "absent.csv", "--baselines", "random"], "starts from random weights"),
        (["model", "motif.csv", "--window", "9"], "a window cannot be laid (--window)"),
        (["model", "motif.csv", "--track", "exon"], "--track exon: give NAME=FILE"),
        (["model", "long.csv"], "'b' has 67 tokens (1 are too long), but this model"),
        (["model", "flat.csv"], "holds 1 class"),
        (["model", "alone.csv"], "a class that train lacks: 'b'"),
        (["model", "empty.csv"], "the sequence is empty"),
        (["model", "only_test.csv"], "has no training rows"),
        (["model", "no_test.csv", "--choose-on-test"], "--choose-on-test, but there is no test"),
        (["model", "motif.csv", "--max-memory", "lots"], "lots"),
        (["model", "motif.csv", "--resume"], "no fine-tuning run here"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_before_anything_is_made(place, capsys, words, message):
    tables = {
        "long": [["a", "ACGT", "x", "train"], ["b", "A" * 67, "y", "train"]],
        "flat": [["a", "ACGT", "x", "train"], ["b", "AACC", "x", "train"]],
        "alone": [["a", "ACGT", "a", "train"], ["b", "AACC", "b", "test"]],
        "empty": [["a", "ACGT", "a", "train"], ["b", "", "b", "train"]],
        "only_test": [["a", "ACGT", "a", "test"], ["b", "AACC", "b", "test"]],
        "no_test": [["a", "ACGT", "a", "train"], ["b", "AACC", "b", "train"],
                    ["c", "GATT", "a", "valid"], ["d", "TTAC", "b", "valid"]],
    }  # fmt: skip
    for name, rows in tables.items():
        write(place / f"{name}.csv", "id,sequence,label,split", rows)
    if "long.csv" in words:
        write(place / "long.csv", "id,sequence,label,split", tables["long"] + tables["no_test"])
    assert finetune(*words, "--out", "RUN") == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(error) == 1 and message in error[0]
    assert not Path("RUN").exists()


def test_a_full_folder_is_not_touched(place, capsys):
    (place / "RUN").mkdir()
    (place / "RUN" / "thesis.txt").write_text("x")
    assert finetune("model", "motif.csv", "--out", "RUN", *QUICK) == 2
    assert "RUN: exists and is not empty" in capsys.readouterr().err
    assert [p.name for p in (place / "RUN").iterdir()] == ["thesis.txt"]


# -- options ---------------------------------------------------------------------------------------


def test_words_of_options_are_those_of_the_modules():
    for ours, theirs in (
        (options.HeaderLabel, HeaderLabel), (options.Outside, Outside), (options.Empty, Empty),
        (options.Missing, Missing), (options.SplitBy, By), (options.Pooling, Pooling),
        (options.Strands, Strands),
    ):  # fmt: skip
        assert get_args(ours) == get_args(theirs)


def test_a_request_survives_json():
    request = FinetuneRequest(
        model="m",
        parts={"train": "a.csv"},
        reading=options.ReadingOptions(label=("x", "y"), track=("a=b",)),
        seeds=(3, 5),
    )
    assert FinetuneRequest.from_dict(json.loads(json.dumps(request.to_dict()))) == request
    with pytest.raises(InputError, match="cannot be read"):
        FinetuneRequest.from_dict({"model": "m"})


def test_seeds_and_named_files():
    assert seed_list("3") == (0, 1, 2) and seed_list("7,") == (7,) and seed_list("3, 5") == (3, 5)
    assert named_files("--track", ()) is None
    assert named_files("--track", ("a=x.bed", "b=y=z.bed")) == {"a": "x.bed", "b": "y=z.bed"}
    for text in ("", "x", "-1", "1,x"):
        with pytest.raises(InputError, match="--seeds"):
            seed_list(text)


def test_help_does_not_load_torch():
    code = (
        "import sys; from hyenadna.cli.app import run; run(['finetune', '--help']); "
        "run(['predict', '--help']); print(sorted({'torch', 'pysam', 'sklearn', 'matplotlib'} "
        "& set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]" and "--choose-on-test" in done.stdout
