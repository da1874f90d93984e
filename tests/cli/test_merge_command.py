"""`--shard i/n` and `hyenadna merge`: the output is that of one process, byte for byte."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from hyenadna.alphabet import decode
from hyenadna.checkpoint.save import save
from hyenadna.checkpoint.task import save_task
from hyenadna.cli import predict as predict_command
from hyenadna.cli import score as score_command
from hyenadna.cli.app import run
from hyenadna.config import ModelConfig
from hyenadna.data.labelled_data import Task
from hyenadna.infer.run_record import read_record
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
    text = decode(rng.integers(7, 11, 1500))
    text = text[:600] + "N" * 70 + text[670:]
    (folder / "g.fa").write_text(f">chr1 one\n{text}\n>chr2\n{text[100:333]}\n>chr3\nG\n")
    places = sorted(rng.choice([i for i in range(1500) if text[i] != "N"], 60, replace=False))
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
    (folder / "r.bed").write_text("chr1\t100\t400\nchr1\t450\t1200\nchr2\t3\t90\n")
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
    monkeypatch.setattr("hyenadna.infer.embed._AHEAD_UNITS", 5)
    monkeypatch.setattr("hyenadna.infer.track_windows._STRETCH_WINDOWS", 4)
    monkeypatch.setattr(predict_command, "_CHUNK_ROWS", 6)
    monkeypatch.setattr(score_command, "_FIRST_CHUNK", 4)
    monkeypatch.setattr(score_command, "_CHUNK", 9)
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
