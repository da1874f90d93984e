"""`hyenadna benchmark`: suites are run, remembered, marked and laid out as tables."""

from __future__ import annotations

import dataclasses
import gzip
import json

import numpy as np
import pytest
import torch
from benchmarks.ledger_page import page

from hyenadna.alphabet import decode
from hyenadna.checkpoint.save import save
from hyenadna.cli import finetune_job
from hyenadna.cli.app import run
from hyenadna.cli.benchmark_data import BenchmarkDataOptions, choose_tasks, load_rows
from hyenadna.config import ModelConfig
from hyenadna.data.benchmarks.suites import suite
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA
from hyenadna.report.suite_table import cells, suite_section, suite_table
from hyenadna.train import code_version
from hyenadna.train.ledger import LedgerEntry, Score, read_ledger, write_entry

MOTIF = "TATAAAGGCC"
QUICK = [
    "--epochs",
    "2",
    "--batch-size",
    "16",
    "--threads",
    "1",
    "--precision",
    "float32",
    "--leaks",
    "none",
]
TASK = "dummy_mouse_enhancers_ensembl"


def planted(count: int, seed: int) -> list[tuple[str, int]]:
    """Sequences of 60 bases, every other one with the motif."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        text = decode(rng.integers(7, 11, 60))
        rows.append((text[:20] + MOTIF + text[30:] if i % 2 else text, i % 2))
    return rows


@pytest.fixture(autouse=True)
def copies_of_any_size(monkeypatch):
    """Tiny copies of suites are not marked for their size; tests/report has a test of that."""
    monkeypatch.setattr("hyenadna.report.suite_table._published_rows", lambda entry: None)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with data of GUE and GenomicBenchmarks and a checkpoint, to work in."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    shape = ModelConfig(d_model=16, n_layer=1, max_seq_len=66, filter_order=16)
    save(HyenaDNA(shape).eval(), tmp_path / "start")
    gue = tmp_path / "GUE" / "prom"
    gue.mkdir(parents=True)
    parts = ["train"] * 48 + ["dev"] * 16 + ["test"] * 24
    lines = [f"{s},{y},{p}" for (s, y), p in zip(planted(88, 1), parts, strict=True)]
    text = "\n".join(["sequence,label,split", *lines]) + "\n"
    (gue / "prom_core_tata.csv.gz").write_bytes(gzip.compress(text.encode()))
    for part, count in (("train", 60), ("test", 24)):
        for i, (sequence, label) in enumerate(planted(count, len(part))):
            folder = tmp_path / "GB" / TASK / part / ("positive" if label else "negative")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i}.txt").write_text(sequence)
    return tmp_path


def benchmark(*words: str, data: str = "GUE", name: str = "gue", model: str = "start") -> int:
    where = ["--data", data, "--model", model, "--out", "out"]
    return run(["benchmark", name, *where, *QUICK, *words])


def table(text: str) -> list[dict[str, str]]:
    head, *rows = cells("\n".join(line for line in text.splitlines() if line.startswith("|")))
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_the_list_says_what_there_is_and_where_from(capsys):
    assert run(["benchmark"]) == 0
    printed = capsys.readouterr().out
    for word in ("prom_core_tata", "human_ocr_ensembl", "splice_sites_all", "HepG2", "450,000"):
        assert word in printed
    assert run(["benchmark", "genomic_benchmarks"]) == 0
    printed = capsys.readouterr().out
    assert "download_dataset" in printed and "prom_core_tata" not in printed
    assert "0.851" in printed  # of the paper, on the mouse enhancers


def test_data_of_another_task_is_no_entry(place, capsys):
    lines = [f"{s},{i % 3},{p}" for i, (s, p) in enumerate(
        (s, p) for p in ("train", "dev", "test") for s, _ in planted(12, len(p))
    )]  # fmt: skip
    (place / "OTHER").mkdir()
    text = "\n".join(["sequence,label,split", *lines]) + "\n"
    (place / "OTHER" / "prom_core_tata.csv").write_text(text)
    assert benchmark(data="OTHER") == 2
    assert "the task has 2 classes, but the files have 3 (0, 1, 2)" in capsys.readouterr().err
    assert read_ledger(place / "ledger") == []
    (place / "ledger").mkdir(exist_ok=True)
    (place / "ledger" / "bad.json").write_bytes(b"\xff\xfe\x00")
    assert benchmark() == 2
    assert (
        "bad.json: is no ledger entry (it is no text); remove the file" in capsys.readouterr().err
    )


def test_a_run_is_an_entry_and_is_not_run_again(place, capsys):
    models = ["--model", "random:start"]
    assert benchmark(*models) == 0
    printed = capsys.readouterr().out
    assert "not here, or longer than the models read: H3, H4" in printed
    assert "the time is told after the first" in printed and "left, by the runs so far" in printed
    entries = read_ledger(place / "ledger")
    assert [e.model for e in entries] == ["start", "start, random weights"]
    first = entries[0]
    assert (first.task, first.metric, first.protocol, first.scored_on) == (
        "prom_core_tata", "mcc", "valid", "test",
    )  # fmt: skip
    assert first.rows == {"train": 48, "valid": 16, "test": 24}
    assert first.baselines["majority"]["mcc"] == 0 and first.baselines["kmer"]["mcc"] > 0.5
    assert first.config["finetune"]["metric"] == "mcc" and first.config["subset"] is None
    summaries = {}
    for folder in (place / "out" / "prom_core_tata").iterdir():
        summary = json.loads((folder / "metrics.json").read_text())
        summaries[summary["request"]["model"]] = summary["metrics"]["mcc"]["value"]
    assert summaries == {
        "start": first.scores["mcc"].mean, "random:start": entries[1].scores["mcc"].mean,
    }  # fmt: skip
    rows = table((place / "out" / "results.md").read_text())
    assert [row["model"] for row in rows] == ["start", "start, random weights"]
    assert rows[0]["score"] == first.scores["mcc"].text

    before = {path: path.read_bytes() for path in (place / "ledger").iterdir()}
    page_before = (place / "out" / "results.md").read_text()
    assert benchmark(*models) == 0
    printed = capsys.readouterr().out
    assert printed.count("done already") == 2 and "epoch 1" not in printed
    assert {path: path.read_bytes() for path in (place / "ledger").iterdir()} == before
    assert (place / "out" / "results.md").read_text() == page_before


def test_other_code_or_other_options_run_again(place, capsys, monkeypatch):
    words = ["--tasks", "prom_core_tata", "--baselines", "none"]
    assert benchmark(*words) == 0
    assert benchmark(*words, "--seeds", "5,") == 0
    assert "done already" not in capsys.readouterr().out
    assert len(read_ledger(place / "ledger")) == 2
    monkeypatch.setattr(code_version, "code_digest", lambda: "another")
    assert benchmark(*words) == 0
    assert "done already" not in capsys.readouterr().out
    versions = [e.versions["code"] for e in read_ledger(place / "ledger") if e.seeds == (0,)]
    assert versions == ["another"]  # the same run replaces its entry


def test_a_stopped_command_goes_on(place, capsys, monkeypatch):
    train = finetune_job._train

    def stop_at_random(job, source, *rest, **options):
        if source.weights is None:
            raise finetune_job.Interrupted(15)
        return train(job, source, *rest, **options)

    words = ["--model", "random:start", "--baselines", "none"]
    monkeypatch.setattr(finetune_job, "_train", stop_at_random)
    assert benchmark(*words) == 128 + 15
    assert "give the same command again" in capsys.readouterr().out
    assert len(read_ledger(place / "ledger")) == 1
    assert len(table((place / "out" / "results.md").read_text())) == 1
    monkeypatch.setattr(finetune_job, "_train", train)
    assert benchmark(*words) == 0
    printed = capsys.readouterr().out
    assert printed.count("done already") == 1 and "start, random weights: mcc" in printed
    assert len(table((place / "out" / "results.md").read_text())) == 2


def test_seeds_that_are_trained_are_not_trained_again(place, capsys):
    words = ["--baselines", "none", "--seeds", "2"]
    assert benchmark(*words) == 0
    whole = read_ledger(place / "ledger")[0]
    for path in (place / "ledger").iterdir():
        path.unlink()
    capsys.readouterr()
    assert benchmark(*words) == 0  # seeds are there, the entry is not
    assert "step 1/" not in capsys.readouterr().out
    assert read_ledger(place / "ledger")[0].scores == whole.scores


def test_folders_of_genomic_benchmarks_and_a_subset(place, capsys):
    words = ["--baselines", "majority"]
    options = {"data": "GB", "name": "genomic_benchmarks"}
    assert benchmark(*words, "--subset", "40", **options) == 0
    printed = capsys.readouterr().out
    assert (
        "[subset]" in printed
        and "0.851" not in printed.split(f"{TASK} (1 of 1)")[1].split("GenomicBenchmarks")[0]
    )
    rows = table((place / "out" / "results.md").read_text())
    assert [row["task"] for row in rows] == [TASK, f"{TASK} (subset)"]
    empty, subset = rows
    assert empty["HyenaDNA, paper"] == "0.851" and empty["score"] == ""
    assert subset["score"] and not subset["HyenaDNA, paper"] and not subset["best other"]
    entry = read_ledger(place / "ledger")[0]
    assert entry.config["subset"] == 40 and "a subset of 40 rows" in entry.note
    assert sum(entry.rows.values()) == 40 and entry.metric == "accuracy"
    assert "valid: " in entry.note  # held out of train, as the source has none

    assert benchmark(*words, **options) == 0
    rows = table((place / "out" / "results.md").read_text())
    assert rows[0]["score"] and rows[0]["HyenaDNA, paper"] == "0.851"
    assert len(read_ledger(place / "ledger")) == 2


def test_choosing_on_test_is_written_down(place, capsys):
    options = {"data": "GB", "name": "genomic_benchmarks"}
    assert benchmark("--choose-on-test", "--baselines", "none", **options) == 0
    assert "flatters" in capsys.readouterr().out
    entry = read_ledger(place / "ledger")[0]
    assert entry.protocol == "test" and entry.rows.get("valid", 0) == 0
    assert "chosen on test" in table((place / "out" / "results.md").read_text())[0]["protocol"]


def write_gue(place, parts: list[str], groups: list[str] | None = None) -> None:
    rows = planted(len(parts), 3)
    columns = zip(rows, parts, groups or [""] * len(parts), strict=True)
    lines = [f"{s},{y},{p},{g}" for (s, y), p, g in columns]
    (place / "GUE" / "H4.csv").write_text("\n".join(["sequence,label,split,chrom", *lines]) + "\n")


def test_a_source_without_test_is_split_here_by_group(place, capsys):
    groups = [f"chr{i // 10}" for i in range(100)]
    write_gue(place, ["dev"] * 100, groups)
    assert benchmark("--tasks", "H4", "--baselines", "none") == 0
    assert "the source holds valid only; 20% held out for test here by group" in (
        capsys.readouterr().out
    )
    entry = read_ledger(place / "ledger")[0]
    assert entry.rows["test"] == 20 and entry.rows["valid"] == 10
    assert "by group" in entry.note and "by group" in entry.config["split"]["own"]
    row = table((place / "out" / "results.md").read_text())[0]
    assert row["task"] == "H4 (own split)"


@pytest.mark.parametrize(
    ("parts", "own", "kept"),
    [
        (["train"] * 60 + ["dev"] * 10 + ["test"] * 30, "", {"train", "valid", "test"}),
        (["train"] * 60 + ["test"] * 40, "", {"train", "test"}),
        (["dev"] * 60 + ["test"] * 40, "its valid rows are learned from", {"train", "test"}),
        (["train"] * 60 + ["dev"] * 40, "the source holds train, valid only", {""}),
        (["test"] * 100, "the source holds test only", {""}),
        ([""] * 100, "the source holds no split only", {""}),
    ],
)
def test_parts_of_the_source_are_kept_where_they_can_be(place, parts, own, kept):
    write_gue(place, parts)
    task = load_rows(suite("gue"), "H4", place / "GUE", BenchmarkDataOptions())
    assert own in task.own_split and bool(task.own_split) == bool(own)
    assert set(task.data.splits.tolist()) == kept
    assert (task.splitting.test_fraction is None) == ("test" in kept)
    assert task.splitting.split_by == ("random" if "test" in kept else "similarity")


def test_a_subset_keeps_the_shares_of_the_parts(place):
    options = BenchmarkDataOptions(subset=44)
    task = load_rows(suite("gue"), "prom_core_tata", place / "GUE", options)
    counts = {part: int((task.data.splits == part).sum()) for part in ("train", "valid", "test")}
    assert counts == {"train": 24, "valid": 8, "test": 12}
    again = load_rows(suite("gue"), "prom_core_tata", place / "GUE", options)
    assert again.data.digest() == task.data.digest()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["benchmark", "glue"], "no benchmark suite 'glue'; there are genomic_benchmarks"),
        (["benchmark", "gue", "--data", "GUE", "--out", "o"], "no model given"),
        (["benchmark", "gue", "--data", "GUE", "--model", "start"], "no --out given"),
        (["benchmark", "gue", "--model", "start"], "no data given"),
        ("--tasks H5", "gue: no task 'H5'; there are H3"),
        ("--tasks H3", "holds no H3 or EMP/H3"),
        ("--length 4k", "--length: gue has tasks of fixed lengths"),
        ("--subset 2", "--subset is 2; it must be at least 10"),
        ("--test-fraction 1.5", "--test-fraction is 1.5"),
        ("--genome x.fa", "--genome x.fa: gue is read without a genome"),
        ("--baselines svm", "there is no 'svm'"),
        ("--model ./start", "two are called"),
        ("--model nowhere", "nowhere"),
        ("--seeds none", "--seeds is 'none'"),
    ],
)
def test_bad_words_are_one_line(words, message, place, capsys):
    code = run(words) if isinstance(words, list) else benchmark(*words.split())
    error = capsys.readouterr().err
    assert code == 2 and message in error and error.count("\n") == 1
    assert not (place / "ledger").exists() and not (place / "out").exists()


def test_bad_data_is_told_before_the_first_run(place, capsys):
    assert benchmark(data="nowhere") == 2
    assert "nowhere: no such folder" in capsys.readouterr().err
    assert benchmark(name="lentimpra") == 2
    assert "holds no task of lentimpra" in capsys.readouterr().err
    (place / "GUE" / "H4.csv").write_text("sequence,label,split\nACGX!,1,train\n")
    assert benchmark() == 2
    assert "H4.csv" in capsys.readouterr().err and not (place / "out").exists()
    long = "".join(f"{'ACGT' * 30},{i % 2},train\n" for i in range(20))
    (place / "GUE" / "H4.csv").write_text("sequence,label,split\n" + long)
    assert benchmark() == 2
    error = capsys.readouterr().err
    assert "sequences of 120 bases, but a model reads up to 66" in error and error.count("\n") == 1


def test_species_by_length(place, capsys):
    rng = np.random.default_rng(0)
    (place / "GENOMES").mkdir()
    for name, letters in (("at", "AATTACGT"), ("gc", "GGCCACGT")):
        text = "".join(np.array(list(letters))[rng.integers(0, 8, 4000)])
        (place / "GENOMES" / f"{name}.fa").write_text(f">c\n{text}\n")
    words = ["--windows", "60", "--length", "16,64"]
    assert benchmark(*words, data="GENOMES", name="species") == 0
    text = (place / "out" / "results.md").read_text()
    assert (place / "out" / "context.png").stat().st_size > 1000 and "context.png" in text
    assert "at 16 bases" in text and "at 64" in text and "- start: longer is" in text
    entries = {e.task: e for e in read_ledger(place / "ledger")}
    assert entries["64"].baselines["kmer"]["accuracy"] > entries["16"].baselines["kmer"]["accuracy"]
    assert benchmark("--length", "4x", data="GENOMES", name="species") == 2
    assert "--length: '4x' is none" in capsys.readouterr().err


def test_chromatin_gives_a_median_for_each_group(place, capsys):
    rng = np.random.default_rng(0)
    folder = place / "MARKS"
    folder.mkdir()
    (folder / "hg19.fa").write_text(f">chr1\n{decode(rng.integers(7, 11, 30_000))}\n")
    names = ["y_A|DNase|None", "y_A|CTCF|None", "y_A|H3K4me3|None"]
    for part, count in (("train", 40), ("val", 20), ("test", 20)):
        lines = [",".join(["Chr_No,Start,End", *names])]
        for start in rng.integers(0, 29_000, count).tolist():
            flags = rng.integers(0, 2, 3)
            lines.append(f"0,{start},{start + 1000},{','.join(map(str, flags))}")
        (folder / f"{part}_hg19_coords_targets.csv").write_text("\n".join(lines) + "\n")
    shape = ModelConfig(d_model=8, n_layer=1, max_seq_len=1026, filter_order=8)
    save(HyenaDNA(shape).eval(), place / "long")
    words = ["--length", "1k", "--baselines", "majority"]
    assert benchmark(*words, data="MARKS", name="chromatin", model="long") == 0
    entry = read_ledger(place / "ledger")[0]
    groups = {"auroc_median_DHS", "auroc_median_TF", "auroc_median_HM"}
    assert entry.metric == "auroc" and groups <= set(entry.scores)
    assert entry.rows == {"train": 40, "valid": 20, "test": 20}
    rows = table((place / "out" / "results.md").read_text())
    assert [row["task"] for row in rows] == ["1k DHS", "1k TF", "1k HM"]
    assert rows[1]["score"] == entry.scores["auroc_median_TF"].text


def test_lengths_have_the_names_of_the_paper_or_numbers(tmp_path):
    def names(length: str, longest: int = 40_000) -> tuple[str, ...]:
        options = BenchmarkDataOptions(length=length)
        return choose_tasks(suite("species"), tmp_path, options, longest).tasks

    assert names("1k,4k,32k, 450k ,512") == ("1k", "4096", "32k", "450k", "512")
    assert names("") == ("1k", "32k")
    with pytest.raises(InputError, match="less than each task"):
        names("", 100)


def entry(**changes) -> LedgerEntry:
    values = {
        "suite": "genomic_benchmarks",
        "task": TASK,
        "model": "m",
        "data_digest": "ab" * 32,
        "rows": {"train": 10, "valid": 2, "test": 4},
        "config": {"subset": None, "split": {"own": ""}},
        "seeds": (0,),
        "metric": "accuracy",
        "scores": {"accuracy": Score.of([0.75])},
        "seconds": 60.0,
        "machine": "two cores",
        "versions": {"python": "3.11"},
        "date": "2026-11-20",
    }
    return LedgerEntry(**values | changes)


def test_a_marked_run_never_stands_beside_published_figures():
    runs = [
        entry(),
        entry(model="a", config={"subset": 500, "split": {"own": ""}}),
        entry(model="b", config={"subset": None, "split": {"own": "held out here"}}),
        entry(model="c", config={"subset": 9, "split": {"own": "held out here"}}),
    ]
    tasks = {TASK: "accuracy", "human_ocr_ensembl": "accuracy"}
    text, notes = suite_table("genomic_benchmarks", tasks, runs)
    rows = table(text)
    assert [row["task"].removeprefix(TASK) for row in rows] == [
        "", " (subset)", " (own split)", " (subset, own split)", "human_ocr_ensembl",
    ]  # fmt: skip
    assert [bool(row["HyenaDNA, paper"]) for row in rows] == [True, False, False, False, True]
    assert [bool(row["score"]) for row in rows] == [True] * 4 + [False]
    assert [note.split(":")[0] for note in notes] == ["subset", "own split"]


def test_runs_of_one_model_are_told_apart_by_their_options():
    split = {"own": "", "split_seed": 0}
    runs = [
        entry(config={"subset": None, "split": split, "finetune": {"epochs": n, "lr": 0.1}})
        for n in (8, 20)
    ]
    rows = table(suite_table("genomic_benchmarks", {TASK: "accuracy"}, runs)[0])
    assert [row["model"] for row in rows] == ["m, epochs 8", "m, epochs 20"]
    rows = table(suite_table("genomic_benchmarks", {TASK: "accuracy"}, runs[:1])[0])
    assert [row["model"] for row in rows] == ["m"]


def test_the_page_says_where_a_baseline_is_not_beaten():
    baselines = {"kmer": {"accuracy": 0.8}, "majority": {"accuracy": 0.5}}
    lines = suite_section("genomic_benchmarks", {}, [entry(baselines=baselines)])
    told = [line for line in lines if line.startswith("Not above")]
    assert told == [f"Not above a baseline: {TASK}, m (0.750, kmer 0.800)."]
    baselines["kmer"]["accuracy"] = 0.7
    lines = suite_section("genomic_benchmarks", {}, [entry(baselines=baselines)])
    assert not any("Not above" in line for line in lines)


def test_chromatin_has_a_row_for_each_group():
    scores = {"auroc": Score.of([0.9])} | {
        f"auroc_median_{group}": Score.of([value])
        for group, value in (("TF", 0.95), ("DHS", 0.92), ("HM", 0.86))
    }
    run_ = entry(suite="chromatin", task="1k", metric="auroc", scores=scores)
    rows = table(suite_table("chromatin", {"1k": "auroc", "8k": "auroc"}, [run_])[0])
    assert [row["task"] for row in rows] == ["1k DHS", "1k TF", "1k HM", "8k DHS", "8k TF", "8k HM"]
    assert [row["score"] for row in rows] == ["0.920", "0.950", "0.860", "", "", ""]
    assert [row["HyenaDNA, paper"] for row in rows] == [
        "0.930", "0.964", "0.863", "0.917", "0.955", "0.893",
    ]  # fmt: skip


def test_the_page_is_made_of_the_ledger_alone(tmp_path):
    empty = page([], tmp_path)
    assert "0.851" in empty and "Machine" not in empty  # published figures, no run
    write_entry(entry(), tmp_path / "ledger")
    write_entry(dataclasses.replace(entry(), task="human_ocr_ensembl"), tmp_path / "ledger")
    rows = table(page(read_ledger(tmp_path / "ledger"), tmp_path).split("## Nucleotide")[0])
    scored = {row["task"]: row["score"] for row in rows if row["score"]}
    assert scored == {TASK: "0.750", "human_ocr_ensembl": "0.750"}
    assert len(rows) == 8
