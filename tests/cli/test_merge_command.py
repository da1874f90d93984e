"""`--shard i/n` and `hyenadna merge`: the output is that of one process, byte for byte."""

from __future__ import annotations

import contextlib
import json
import os
import pkgutil
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hyenadna.alphabet import decode
from hyenadna.checkpoint.save import save
from hyenadna.checkpoint.task import save_task
from hyenadna.cli import predict as predict_command
from hyenadna.cli import ray_engine
from hyenadna.cli import score as score_command
from hyenadna.cli.app import run
from hyenadna.config import ModelConfig
from hyenadna.data.labelled_data import Task
from hyenadna.infer import rows_file
from hyenadna.infer.embeddings_file import EmbeddingsFile
from hyenadna.infer.interrupted import Part
from hyenadna.infer.rows_file import RowsFile
from hyenadna.infer.run_record import read_record
from hyenadna.infer.track_spill import FILES, TrackSpill
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.heads import TaskModel

CONFIG = ModelConfig(d_model=8, n_layer=1, max_seq_len=66, filter_order=8)
OTHER = {"A": "C", "C": "G", "G": "T", "T": "A"}
HEAD = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Models and inputs of all verbs."""
    folder = tmp_path_factory.mktemp("made")
    torch.manual_seed(0)
    save(HyenaDNA(CONFIG), folder / "model")
    for name, task in (("task", Task("classes", ("a", "b"))), ("bases", Task("tokens", "EI"))):
        network = TaskModel(HyenaDNA(CONFIG), task)
        torch.nn.init.normal_(network.head.weight)
        save_task(network, folder / name)
    rng = np.random.default_rng(0)
    text = decode(rng.integers(7, 11, 900))
    text = text[:600] + "N" * 70 + text[670:]
    (folder / "g.fa").write_text(f">chr1 one\n{text}\n>chr2\n{text[100:333]}\n>chr3\nG\n")
    places = sorted(rng.choice([i for i in range(900) if text[i] != "N"], 25, replace=False))
    rows = [f"chr1\t{i + 1}\trs{i}\t{text[i]}\t{OTHER[text[i]]}\t.\tPASS\tDP=3\n" for i in places]
    rows[7] = rows[7].replace("DP=3", "DP=4;HDNA_LLR=9")
    rows += [f"chr2\t{i}\t.\t{text[99 + i]}\t{text[99 + i]}AC,<DEL>\t.\t.\t.\n" for i in (5, 50)]
    (folder / "v.vcf").write_text(HEAD + "".join(rows))
    (folder / "none.vcf").write_text(HEAD)
    names = [f"s{i},x" for i in range(40)]
    seqs = [decode(rng.integers(7, 12, n)) for n in rng.integers(5, 64, 40)]
    lines = [
        f'"{name}",{i % 3},{seq}' for i, (name, seq) in enumerate(zip(names, seqs, strict=True))
    ]
    (folder / "s.csv").write_text("\n".join(["id,label,sequence", *lines]) + "\n")
    (folder / "r.bed").write_text("chr1\t100\t400\nchr1\t450\t880\nchr2\t3\t90\n")
    return folder


@pytest.fixture
def place(made, tmp_path, monkeypatch) -> Path:
    """A folder of its own, in which the units of work are small."""
    monkeypatch.chdir(tmp_path)
    for path in made.iterdir():
        (tmp_path / path.name).symlink_to(path)
    for name in ("g.fa", "s.csv", "v.vcf"):
        (tmp_path / name).unlink()
        shutil.copy(made / name, tmp_path / name)
    monkeypatch.setattr("hyenadna.infer.embed._AHEAD_UNITS", 3)
    monkeypatch.setattr("hyenadna.infer.track_windows._STRETCH_WINDOWS", 4)
    monkeypatch.setattr(predict_command, "_CHUNK_ROWS", 6)
    monkeypatch.setattr(score_command, "_FIRST_CHUNK", 4)
    monkeypatch.setattr(score_command, "_CHUNK", 5)
    monkeypatch.setattr("hyenadna.infer.score_shards.PIECE", 7)
    return tmp_path


EMBED = ["embed", "model", "g.fa", "--per", "bin", "--bin", "7"]
ROWS = ["embed", "model", "s.csv", "--length", "20", "--overlap", "6"]
SCORE = ["score", "model", "v.vcf", "--genome", "g.fa"]
TRACK = ["track", "model", "g.fa", "--length", "30", "--context", "11"]
PREDICT = ["predict", "task", "s.csv"]
RUNS = [
    (EMBED, "x.npz"),
    (EMBED, "x.parquet"),
    (EMBED, "x.h5ad"),
    (EMBED, "x.zarr"),
    (ROWS, "x.npz"),
    (ROWS, "x.h5ad"),
    ([*ROWS, "--dtype", "float16", "--pool", "last"], "x.parquet"),
    (["embed", "model", "g.fa", "--per", "base", "--contigs", "chr2,chr1"], "x.npz"),
    (["embed", "model", "r.bed", "--genome", "g.fa"], "x.npz"),
    (SCORE, "x.vcf"),
    (SCORE, "x.vcf.gz"),
    (SCORE, "x.bcf"),
    (SCORE, "x.tsv"),
    (SCORE, "x.csv"),
    (SCORE, "x.parquet"),
    ([*SCORE, "--background", "20"], "x.vcf.gz"),
    ([*SCORE, "--background", "20", "--strands", "reverse"], "x.parquet"),
    (["score", "model", "none.vcf", "--genome", "g.fa", "--background", "9"], "x.vcf"),
    (TRACK, "x.bw"),
    ([*TRACK, "--bin", "8"], "x.bw"),
    ([*TRACK, "--values", "surprisal,probabilities", "--strands", "each"], "x.bedgraph.gz"),
    ([*TRACK, "--bed", "r.bed", "--values", "entropy"], "x.bedgraph"),
    ([*TRACK, "--bed", "r.bed", "--values", "surprisal,entropy"], "x.parquet"),
    ([*TRACK, "--region", "chr1:500-800", "--strands", "reverse"], "x.tsv"),
    (PREDICT, "x.csv"),
    (PREDICT, "x.tsv"),
    (PREDICT, "x.parquet"),
    (["predict", "bases", "s.csv", "--long"], "x.parquet"),
]  # fmt: skip


def ran(words: list[str], out: str, *more: str) -> int:
    return run([*words, "-o", out, "--threads", "1", *more])


def bytes_of(out: Path) -> dict[str, bytes]:
    """All files that a run wrote, without what tells of the time."""
    stem = out.name.split(".")[0]
    found = {}
    for top in out.parent.glob(f"{stem}.*"):
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file() and not path.name.endswith(".run.json"):
                found[str(path.relative_to(out.parent))] = path.read_bytes()
    return found


def name_of(value: object) -> str | None:
    return "_".join(value) if isinstance(value, list) else None


def sharded(words: list[str], out: str, count: int, *more: str) -> None:
    """Run all shards, the last first."""
    for index in reversed(range(1, count + 1)):
        assert ran(words, out, "--shard", f"{index}/{count}", *more) == 0


@pytest.mark.parametrize(("words", "out"), RUNS, ids=name_of)
def test_merged_shards_are_the_output_of_one_process(place, words, out):
    (place / "one").mkdir()
    (place / "three").mkdir()
    assert ran(words, f"one/{out}") == 0
    sharded(words, f"three/{out}", 3)
    assert run(["merge", f"three/{out}"]) == 0
    assert bytes_of(place / "three" / out) == bytes_of(place / "one" / out)
    one, many = (read_record(place / folder / out) for folder in ("one", "three"))
    assert (one.settings, one.inputs, one.caveats) == (many.settings, many.inputs, many.caveats)
    assert many.figures["shards"] == 3 and len(many.figures["each_shard"]) == 3
    timed = {"seconds", "peak_memory_bytes"}
    same = [k for k in one.figures if k in many.figures and k not in timed]
    assert [one.figures[k] for k in same] == [many.figures[k] for k in same]
    assert not list((place / "three").glob("*shard*")) and not list(place.rglob("*.part"))


@pytest.mark.parametrize(
    ("words", "out"),
    [(EMBED, "x.npz"), (SCORE, "x.vcf.gz"), (TRACK, "x.bw"), (PREDICT, "x.csv")],
    ids=name_of,
)
def test_any_number_of_shards(place, words, out):
    (place / "one").mkdir()
    assert ran(words, f"one/{out}") == 0
    for count in (1, 2, 40):  # more than there are units of work: most are empty
        (place / f"of{count}").mkdir()
        sharded(words, f"of{count}/{out}", count)
        assert run(["merge", f"of{count}/{out}"]) == 0
        assert bytes_of(place / f"of{count}" / out) == bytes_of(place / "one" / out)


def stopped_at(monkeypatch, target: type, calls: int) -> None:
    """The run is interrupted when results are added for the so-manieth time."""
    append, made = target.append, []

    def interrupted(*arguments):
        made.append(1)
        if len(made) == calls:
            raise KeyboardInterrupt
        append(*arguments)

    monkeypatch.setattr(target, "append", interrupted)


@pytest.mark.parametrize(
    ("words", "out", "target"),
    [
        (EMBED, "x.npz", EmbeddingsFile),
        (ROWS, "x.parquet", EmbeddingsFile),
        ([*SCORE, "--background", "9"], "x.vcf.gz", RowsFile),
        (TRACK, "x.bw", TrackSpill),
        (PREDICT, "x.csv", RowsFile),
    ],
    ids=name_of,
)
def test_an_interrupted_shard_goes_on(place, words, out, target, monkeypatch, capsys):
    (place / "one").mkdir()
    assert ran(words, f"one/{out}") == 0
    assert ran(words, out, "--shard", "2/2") == 0
    with monkeypatch.context() as patch:
        stopped_at(patch, target, 2)
        assert ran(words, out, "--shard", "1/2") == 130
    assert "go on with --resume" in capsys.readouterr().out
    assert run(["merge", out]) == 2
    wanted = f"{out}: 1 of 2 shards is not complete; run --shard 1/2 with --resume"
    assert wanted in capsys.readouterr().err
    assert ran(words, out, "--shard", "1/2") == 2
    assert f"{out}.shard-1-of-2.part: holds" in capsys.readouterr().err
    assert ran(words, out, "--shard", "1/2", "--resume") == 0
    assert "resuming" in capsys.readouterr().out
    assert run(["merge", out]) == 0
    assert bytes_of(place / out) == bytes_of(place / "one" / out)


def test_a_shard_runs_the_model_on_its_own_alone(place, monkeypatch):
    """Work is counted where the model is called: in all shards together it is that of one run."""
    read: dict[str, int] = {}

    def counting(name, original, size):
        def counted(*arguments, **options):
            read[name] = read.get(name, 0) + size(arguments)
            return original(*arguments, **options)

        return counted

    for target, name, size in (
        ("hyenadna.infer.embed._states", "embed", lambda a: len(a[1])),
        ("hyenadna.infer.score.Scorer.scores", "score", lambda a: len(a[1])),
        ("hyenadna.infer.track._hidden", "track", lambda a: len(a[1])),
        ("hyenadna.infer.predict._run", "predict", lambda a: len(a[1])),
    ):
        module, _, attribute = target.rpartition(".")
        original = pkgutil.resolve_name(module.replace("score.Scorer", "score:Scorer"))
        monkeypatch.setattr(target, counting(name, getattr(original, attribute), size))
    runs = [(EMBED, "x.npz"), ([*SCORE, "--background", "9"], "x.vcf"), (TRACK, "x.bw"),
            (PREDICT, "x.csv")]  # fmt: skip
    for words, out in runs:
        read.clear()
        assert ran(words, f"whole.{out}") == 0
        whole, own = sum(read.values()), []
        for index in (1, 2, 3):
            read.clear()
            assert ran(words, out, "--shard", f"{index}/3") == 0
            own.append(sum(read.values()))
        assert sum(own) == whole and max(own) < 0.6 * whole, (words, own)
        read.clear()
        assert run(["merge", out]) == 0
        assert not sum(read.values())


def refused(capsys, *words: str) -> str:
    """The one line of a command that is refused."""
    capsys.readouterr()
    assert run([*words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize("text", ["0/8", "5/4", "0/4", "3", "a/b", "1/0", "-1/2"])
def test_shards_count_from_1(place, text, capsys):
    error = refused(capsys, *PREDICT, "-o", "x.csv", f"--shard={text}")
    of = int(text[-1]) if text[-1] in "48" else 8
    wanted = f"--shard is '{text}'; write which part and of how many, from 1/{of} to {of}/{of}\n"
    assert wanted in error
    assert not list(place.glob("x.csv*"))


def test_options_that_exclude_each_other(place, capsys):
    words = [*PREDICT, "-o", "x.csv"]
    assert "--shards is for --engine ray" in refused(capsys, *words, "--shards", "3")
    both = refused(capsys, *words, "--shard", "1/2", "--engine", "ray")
    assert "--shard is one part alone" in both


def test_what_cannot_be_merged_says_which_shard_to_run(place, capsys):
    words = [*PREDICT, "-o", "x.csv", "--threads", "1"]
    assert "x.csv: has no shards beside it" in refused(capsys, "merge", "x.csv")
    for index in (2, 4, 5):
        assert run([*words, "--shard", f"{index}/5"]) == 0
    error = refused(capsys, "merge", "x.csv")
    assert "x.csv: 2 of 5 shards are not complete; run --shard 1/5, 3/5\n" in error
    assert run([*words, "--shard", "1/5"]) == 0
    other = [*words, "--strands", "average", "--shard", "3/5"]
    assert run(other) == 0
    error = refused(capsys, "merge", "x.csv")
    assert (
        "x.csv.shard-3-of-5: was made with strands average, not forward as shard 1/5 and others; "
        "remove it and run --shard 3/5 again" in error
    )
    error = refused(capsys, *words, "--shard", "3/5")
    assert "x.csv.shard-3-of-5: this shard is complete; merge it" in error
    assert run([*other, "--resume"]) == 0
    assert "shard 3/5 is complete" in capsys.readouterr().out
    shutil.rmtree("x.csv.shard-3-of-5")
    assert run([*words, "--shard", "3/5"]) == 0
    (place / "x.csv.shard-2-of-3").mkdir()
    assert "x.csv: has shards of 3 and of 5 beside it" in refused(capsys, "merge", "x.csv")
    (place / "x.csv.shard-2-of-3").rmdir()
    told = place / "x.csv.shard-4-of-5" / "shard.json"
    good = told.read_text()
    told.write_text(good[: len(good) // 2])
    error = refused(capsys, "merge", "x.csv")
    assert "x.csv.shard-4-of-5: is damaged" in error and "run --shard 4/5 again" in error
    told.write_text(json.dumps(json.loads(good) | {"units": {"first": 0, "last": 1, "of": 9}}))
    assert "x.csv: shard 4/5 does not begin where" in refused(capsys, "merge", "x.csv")
    told.write_text(good)
    rows = place / "x.csv.shard-4-of-5" / "rows"
    kept = rows.read_bytes()
    rows.write_bytes(kept[:-3])
    assert "x.csv.shard-4-of-5: is damaged (rows has" in refused(capsys, "merge", "x.csv")
    rows.write_bytes(kept)
    (place / "x.csv.part").mkdir(exist_ok=True)
    (place / "x.csv.part" / "merged").unlink(missing_ok=True)
    (place / "x.csv.part" / "rows").write_text("of another run")
    assert "x.csv.part: holds the results of an interrupted run of" in refused(
        capsys, "merge", "x.csv"
    )
    shutil.rmtree("x.csv.part")
    assert run(["merge", "x.csv", "--keep-shards"]) == 0
    assert len(list(place.glob("x.csv.shard-*-of-5"))) == 5
    assert "x.csv: exists" in refused(capsys, "merge", "x.csv", "--keep-shards")
    assert "x.csv: exists" in refused(capsys, *words, "--shard", "1/5", "--resume")


def test_what_has_changed_since_is_not_merged(place, capsys):
    sharded(SCORE, "x.vcf", 2)
    text = (place / "v.vcf").read_text()
    (place / "v.vcf").write_text(text.replace("DP=3", "DP=2", 1))
    error = refused(capsys, "merge", "x.vcf")
    assert "x.vcf: the shards were made with other variants" in error
    assert "has changed since" in error
    (place / "v.vcf").unlink()
    assert "v.vcf: no such file" in refused(capsys, "merge", "x.vcf")
    assert not list(place.glob("x.vcf.part")) and not (place / "x.vcf").exists()
    (place / "v.vcf").write_text(text)
    assert run(["merge", "x.vcf"]) == 0


def test_a_merge_is_done_from_any_folder(place, monkeypatch, capsys):
    assert ran(PREDICT, "whole.csv") == 0
    (place / "out").mkdir()
    sharded(PREDICT, "out/x.csv", 2)
    monkeypatch.chdir(place / "out")
    assert run(["merge", "x.csv"]) == 0
    assert (place / "out/x.csv").read_bytes() == (place / "whole.csv").read_bytes()


def test_an_interrupted_merge_is_done_again(place, capsys, monkeypatch):
    assert ran(TRACK, "whole.bw") == 0
    sharded(TRACK, "x.bw", 2)

    def full(*_):
        raise OSError(28, "No space left on device", "x.bw")

    with monkeypatch.context() as patch:
        patch.setattr(TrackSpill, "finish", full)
        assert "the disk is full" in refused(capsys, "merge", "x.bw")
    assert len(list(place.glob("x.bw.shard-*"))) == 2 and not (place / "x.bw").exists()
    assert run(["merge", "x.bw"]) == 0
    assert (place / "x.bw").read_bytes() == (place / "whole.bw").read_bytes()
    assert not list(place.glob("x.bw.*shard*")) and not list(place.glob("*.part"))


def test_two_processes_do_not_spoil_a_shard(place, capsys):
    """The first to end wins; the results of the other, which are the same, go."""
    words = [*PREDICT, "-o", "x.csv", "--threads", "1", "--shard", "1/1"]
    assert run(words) == 0
    first = place / "x.csv.shard-1-of-1"
    first.rename(place / "aside")

    def again() -> None:
        (place / "aside").rename(first)

    seal = RowsFile.seal
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RowsFile, "seal", lambda self, about: (again(), seal(self, about)))
        assert run(words) == 0
    assert not list(place.glob("*.part")) and run(["merge", "x.csv"]) == 0
    held = Part(place / "y.csv.shard-1-of-1", rows_file.FILES)
    error = refused(capsys, *PREDICT, "-o", "y.csv", "--shard", "1/1", "--resume")
    assert "another run is writing it" in error
    held.release()


def test_a_complete_shard_that_was_asked_for_otherwise_is_refused(place, capsys):
    words = [*TRACK, "-o", "x.bw", "--threads", "1", "--shard", "1/2"]
    assert run(words) == 0
    again = [*words, "--resume"]
    for option, value, said in (
        ("--strands", "reverse", "strands average, not reverse"),
        ("--context", "12", "context 11, not 12"),
        ("--annotation", "r.bed", "annotation left out, not "),
        ("--precision", "bf16", "precision float32, not bf16"),
    ):
        mine = [w for w in again if option != "--context" or w not in ("--context", "11")]
        error = refused(capsys, *mine, option, value)
        assert f"x.bw.shard-1-of-2: this shard is complete, made with {said}" in error
    save(HyenaDNA(CONFIG), place / "model2")
    assert "model2" in refused(capsys, *("model2" if w == "model" else w for w in again))
    free = [*again, "--device", "cpu", "--max-memory", "1GiB"]
    assert run([str(place / w) if w in ("model", "g.fa") else w for w in free]) == 0
    (place / "x.bw.shard-1-of-2" / "shard.json").unlink()
    assert "this shard is damaged (" in refused(capsys, *again)
    assert "this shard is damaged (" in refused(capsys, *words)


def test_ray_refuses_a_complete_shard_that_was_asked_for_otherwise(place, capsys):
    pytest.importorskip("ray", reason="needs hyenadna[ray]")
    words = [*PREDICT, "-o", "x.csv"]
    assert run([*words, "--shard", "1/2"]) == 0
    words += ["--engine", "ray", "--resume", "--strands", "average"]
    assert "made with strands left out, not average" in refused(capsys, *words)


@pytest.mark.parametrize(
    ("words", "out", "file"),
    [(EMBED, "x.npz", "sequences"), (SCORE, "x.vcf", "rows"), (TRACK, "x.bw", "values"),
     (TRACK, "x.bw", "places"), (EMBED, "x.npz", "rows")],
    ids=name_of,
)  # fmt: skip
def test_a_damaged_shard_is_named_and_blocks_nothing(place, words, out, file, capsys):
    sharded(words, out, 2)
    folder = place / f"{out}.shard-2-of-2"
    whole, state = (folder / file).read_bytes(), json.loads((folder / "done.json").read_text())
    begin, way = f"{out}.shard-2-of-2: is damaged (", "); remove it and run --shard 2/2 again"
    for wrong in (whole[:-1], whole + b"x"):
        (folder / file).write_bytes(wrong)
        error = refused(capsys, "merge", out)
        assert f"{begin}{file} has {len(wrong):,} bytes, not {len(whole):,}{way}" in error
    (folder / file).unlink()
    assert f"{begin}no {file}{way}" in refused(capsys, "merge", out)
    (folder / file).write_bytes(whole)
    key = next(key for key in ("inputs", "windows", "rows") if key in state)
    (folder / "done.json").write_text(json.dumps(state | {key: state[key] - 1}))
    assert begin in refused(capsys, "merge", out)
    (folder / "done.json").write_text("")
    assert begin in refused(capsys, "merge", out)
    (folder / "done.json").write_text(json.dumps(state))
    assert not list(place.glob("*.part")) and run(["merge", out]) == 0


def test_without_locks_the_later_process_takes_a_shard_over(place, monkeypatch, capsys):
    assert ran(PREDICT, "whole.csv") == 0
    monkeypatch.setattr("hyenadna.infer.interrupted.hold", lambda _: True)
    words = [*PREDICT, "-o", "x.csv", "--threads", "1", "--shard", "1/1"]
    append, calls = RowsFile.append, []

    def taken_over(self, *arguments):
        calls.append(1)
        append(self, *arguments)
        if len(calls) == 2:
            assert run([*words, "--resume"]) == 0  # the other process, from there to the end

    def begun(self, *arguments):
        append(self, *arguments)
        monkeypatch.setattr(RowsFile, "append", append)
        Part(place / "y.csv.shard-1-of-1", rows_file.FILES)

    monkeypatch.setattr(RowsFile, "append", taken_over)
    assert "was taken over by another process" in refused(capsys, *words)
    assert run(["merge", "x.csv"]) == 0
    assert (place / "x.csv").read_bytes() == (place / "whole.csv").read_bytes()
    monkeypatch.setattr(RowsFile, "append", begun)
    words[words.index("x.csv")] = "y.csv"
    assert "y.csv.shard-1-of-1.part: was taken over by process " in refused(capsys, *words)
    assert run([*words, "--resume"]) == 0 and run(["merge", "y.csv"]) == 0
    assert (place / "y.csv").read_bytes() == (place / "whole.csv").read_bytes()


def test_a_shard_whose_files_another_has_written_to_is_not_completed(place, monkeypatch, capsys):
    words = [*PREDICT, "-o", "x.csv", "--shard", "1/1"]
    with monkeypatch.context() as patch:
        mark = RowsFile._mark
        rows = place / "x.csv.shard-1-of-1.part" / "rows"

        def spoilt(self):
            mark(self)
            with rows.open("a") as out:
                out.write("s0,1\n")

        patch.setattr(RowsFile, "_mark", spoilt)
        assert "is damaged (rows has " in refused(capsys, *words)
    assert not (place / "x.csv.shard-1-of-1").exists()


def test_two_merges_at_once(place, monkeypatch, capsys):
    """The second is refused; without locks it takes over, and the first leaves what it made."""
    assert ran(PREDICT, "whole.csv") == 0
    sharded(PREDICT, "x.csv", 2)
    resume, said = RowsFile.resume, []

    def second(*arguments):
        monkeypatch.setattr(RowsFile, "resume", resume)
        said.append(refused(capsys, "merge", "x.csv"))
        return resume(*arguments)

    monkeypatch.setattr(RowsFile, "resume", second)
    assert run(["merge", "x.csv", "--keep-shards"]) == 0
    assert "x.csv.shard-1-of-2: another merge is at work on it" in said[0]
    assert (place / "x.csv").read_bytes() == (place / "whole.csv").read_bytes()
    (place / "x.csv").unlink()
    monkeypatch.setattr("hyenadna.infer.interrupted.hold", lambda _: True)
    finish = RowsFile.finish

    def taken_over(self):
        monkeypatch.setattr(RowsFile, "finish", finish)
        Part(place / "x.csv", rows_file.FILES)
        (place / "x.csv.part" / "merged").write_text("of the other")
        finish(self)

    monkeypatch.setattr(RowsFile, "finish", taken_over)
    assert "x.csv.part: was taken over by process " in refused(capsys, "merge", "x.csv")
    assert (place / "x.csv.part" / "rows").exists() and not (place / "x.csv").exists()


def test_a_merge_leaves_foreign_files_and_no_part_of_its_own(place, capsys):
    sharded(PREDICT, "x.csv", 2)
    (place / "x.csv.part").mkdir()
    (place / "x.csv.part" / "mine.txt").write_text("")
    error = refused(capsys, "merge", "x.csv")
    assert "x.csv.part: holds mine.txt" in error and error.endswith("move it away\n")
    assert (place / "x.csv.part" / "mine.txt").exists()
    (place / "x.csv.part" / "mine.txt").unlink()
    assert run(["merge", "x.csv"]) == 0


def test_a_merge_that_was_killed_at_the_end_is_finished(place, monkeypatch, capsys):
    """Its record is that of all shards from the first, so the merge knows its own output again."""
    for words, out in ((PREDICT, "x.csv"), ([*TRACK, "--strands", "each"], "y.bw")):
        sharded(words, out, 3)

        def killed(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("hyenadna.infer.shard_merge.remove_shards", killed)
            assert run(["merge", out]) == 130
        assert read_record(place / out).figures["shards"] == 3
        (place / f"{out}.shard-2-of-3" / "shard.json").unlink()  # half removed
        shutil.rmtree(place / f"{out}.shard-3-of-3")
        before = bytes_of(place / out)
        assert run(["merge", out]) == 0
        assert not list(place.glob("*shard*"))
        assert bytes_of(place / out) == {k: v for k, v in before.items() if "shard" not in k}
    # shards of another run than that of the output stay
    sharded(PREDICT, "z.csv", 2)
    shutil.copy("x.csv", "z.csv")
    shutil.copy("x.csv.run.json", "z.csv.run.json")
    assert "z.csv: exists" in refused(capsys, "merge", "z.csv")
    assert len(list(place.glob("z.csv.shard-*"))) == 2


def test_whole_paths_need_no_folder(place, monkeypatch, capsys):
    assert ran(PREDICT, "whole.csv") == 0
    names = ["predict", str(place / "task"), str(place / "s.csv")]
    for words, out in ((names, "x.csv"), (PREDICT, "y.csv")):
        (place / "gone").mkdir()
        for name in ("task", "s.csv"):
            (place / "gone" / name).symlink_to(place / name)
        monkeypatch.chdir(place / "gone")
        sharded(words, str(place / out), 2)
        monkeypatch.chdir(place)
        shutil.rmtree(place / "gone")
    assert run(["merge", "x.csv"]) == 0
    assert (place / "x.csv").read_bytes() == (place / "whole.csv").read_bytes()
    assert "or give the shards whole paths" in refused(capsys, "merge", "y.csv")


def test_options_of_the_output_are_the_same_for_all_shards(place, capsys):
    words = [*TRACK, "-o", "x.bw", "--annotation", "r.bed"]
    assert run([*words, "--shard", "1/2", "--threads", "1"]) == 0
    assert run([*TRACK, "-o", "x.bw", "--shard", "2/2"]) == 0
    error = refused(capsys, "merge", "x.bw")
    assert "x.bw.shard-2-of-2: was made with annotation left out, not r.bed as shard 1/2" in error
    shutil.rmtree("x.bw.shard-2-of-2")
    same = [str(place / word) if word in ("r.bed", "model", "g.fa") else word for word in words]
    assert run([*same, "--shard", "2/2", "--threads", "2"]) == 0
    shutil.copytree("x.bw.shard-2-of-2", "x.bw.shard-2-of-2.part")  # begun a second time, and left
    assert run(["merge", "x.bw"]) == 0
    assert not list(place.glob("*shard*"))
    record = read_record(place / "x.bw")
    assert [each["machine"]["threads"] for each in record.figures["each_shard"]] == [1, 2]


def test_the_record_has_the_command_of_the_whole_run(place, monkeypatch):
    for index in (1, 2):
        words = ["predict", "task", "s.csv", "-o", "x.csv", "--shard", f"{index}/2", "--resume"]
        monkeypatch.setattr("sys.argv", ["hyenadna", *words])
        assert run(words) == 0
    monkeypatch.setattr("sys.argv", ["hyenadna", "merge", "x.csv"])
    assert run(["merge", "x.csv"]) == 0
    assert read_record(place / "x.csv").command == "hyenadna predict task s.csv -o x.csv"


def test_folders_that_are_no_shards_are_left_alone(place, capsys):
    for name in ("x.csv.shard-3-of-2", "x.csv.shard-0-of-2", "x.csv.shard-01-of-2"):
        (place / name).mkdir()
    assert "x.csv: has no shards beside it" in refused(capsys, "merge", "x.csv")


def test_an_input_that_is_read_once_alone_is_refused(place, capsys):
    words = ["predict", "task", "pipe.csv", "-o", "x.csv"]
    os.mkfifo("pipe.csv")
    for more in (["--shard", "1/2"], ["--engine", "ray"]):
        assert "pipe.csv: is no file; every shard reads" in refused(capsys, *words, *more)


def test_damaged_settings_are_no_results(place, capsys, monkeypatch):
    words = [*PREDICT, "-o", "x.csv", "--shard", "1/1"]
    with monkeypatch.context() as patch:
        stopped_at(patch, RowsFile, 2)
        assert run(words) == 130
    settings = place / "x.csv.shard-1-of-1.part" / "settings.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"batch_tokens": "many"}))
    assert "batch_tokens many, not " in refused(capsys, *words, "--resume")


def test_a_shard_that_is_held_comes_again_later(place, monkeypatch, capsys):
    """A stand-in for Ray that runs tasks at once: one waits for no other."""
    assert ran(PREDICT, "whole.csv") == 0
    monkeypatch.setattr(ray_engine, "_WAIT", 0)
    held, order = Part(place / "x.csv.shard-1-of-2", rows_file.FILES), []

    class Ray:
        exceptions = SimpleNamespace(RayTaskError=ZeroDivisionError, RayError=ConnectionError)

        def remote(self, function):
            def submitted(verb, own, where, folder):
                order.append(own["spread"].shard)
                if len(order) == 4:
                    held.release()
                return len(order), function(verb, own, where, folder)

            return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=submitted))

        def wait(self, tasks, **_):
            return tasks[:1], []

        def get(self, task):
            return task[1]

        def cancel(self, *_, **__):
            pass

    ours = contextlib.nullcontext()
    monkeypatch.setattr(ray_engine, "_ray", Ray)
    monkeypatch.setattr(ray_engine, "_cluster", lambda *_: ours)
    monkeypatch.setattr(ray_engine, "_tasks", lambda *_: ray_engine._Tasks(1, 0, 2))
    words = [*PREDICT, "-o", "x.csv", "--engine", "ray", "--shards", "2", "--resume"]
    monkeypatch.setattr(ray_engine, "_TURNS", 1)
    assert "shard 1/2: another process is at work on it" in refused(capsys, *words)
    assert order == ["1/2", "2/2", "1/2"]
    assert run(words) == 0
    assert (place / "x.csv").read_bytes() == (place / "whole.csv").read_bytes()

    def lost(*_):
        raise ConnectionError("the head is gone")

    monkeypatch.setattr(Ray, "get", lost)
    words[words.index("x.csv")] = "y.csv"
    assert "Ray has lost its task (the head is gone); is" in refused(capsys, *words)


def test_a_merge_advises_what_it_has(place, capsys):
    sharded([*TRACK, "--strands", "each"], "x.bw", 2)
    there = place / "x.surprisal.forward.bw"
    there.write_text("")
    error = refused(capsys, "merge", "x.bw")
    assert "x.surprisal.forward.bw: exists; remove it\n" in error
    there.unlink()
    held = Part(place / "x.bw", FILES)
    error = refused(capsys, "merge", "x.bw")
    assert "another run is writing it; wait for it, and merge again\n" in error
    held.release()
    assert run(["merge", "x.bw"]) == 0


def test_a_shard_without_its_part_of_the_background_is_named(place, capsys):
    sharded([*SCORE, "--background", "9"], "x.vcf", 2)
    kept = place / "x.vcf.shard-2-of-2" / "kept.json"
    text = kept.read_text()
    for wrong, said in (("", "is damaged ("), ("{}", "is damaged ('of_this_shard'")):
        kept.write_text(wrong)
        assert f"x.vcf.shard-2-of-2: {said}" in refused(capsys, "merge", "x.vcf")
    kept.unlink()
    assert "x.vcf.shard-2-of-2: is damaged (no kept.json)" in refused(capsys, "merge", "x.vcf")
    kept.write_text(text)
    assert run(["merge", "x.vcf"]) == 0
