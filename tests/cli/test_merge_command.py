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


@pytest.mark.parametrize(
    ("words", "out"), RUNS, ids=lambda x: " ".join(x[3:]) if isinstance(x, list) else x
)
def test_merged_shards_are_the_output_of_one_process(place, words, out):
    (place / "one").mkdir()
    assert ran(words, f"one/{out}") == 0
    whole = bytes_of(place / "one" / out)
    for count in (1, 3, 50):
        folder = place / f"of{count}"
        folder.mkdir()
        for index in reversed(range(1, count + 1)) if count < 50 else range(1, count + 1):
            assert ran(words, f"of{count}/{out}", "--shard", f"{index}/{count}") == 0
        assert run(["merge", f"of{count}/{out}"]) == 0
        assert bytes_of(folder / out) == whole
        one, many = read_record(place / "one" / out), read_record(folder / out)
        assert one.settings == many.settings and one.inputs == many.inputs
        assert one.caveats == many.caveats and many.figures["shards"] == count
        left = {k: v for k, v in one.figures.items() if k in many.figures}
        for key in ("seconds", "peak_memory_bytes"):
            left.pop(key, None)
        assert {k: many.figures[k] for k in left} == left
        assert not list(folder.glob("*shard*")) and not list(folder.glob("*.part"))
