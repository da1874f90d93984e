"""`hyenadna track`: a FASTA in, tracks out; one line for what is wrong."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch

from hyenadna.alphabet import decode
from hyenadna.checkpoint.save import save
from hyenadna.cli.app import run
from hyenadna.config import ModelConfig
from hyenadna.genome.fasta import Genome
from hyenadna.genome.intervals import Interval
from hyenadna.infer.run_record import read_record
from hyenadna.infer.track import track_interval
from hyenadna.infer.track_spill import TrackSpill
from hyenadna.model.backbone import HyenaDNA

pyBigWig = pytest.importorskip("pyBigWig")
CONFIG = ModelConfig(d_model=8, n_layer=1, max_seq_len=34, filter_order=8)
WORDS = ["track", "model", "g.fa", "--threads", "1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model and a genome: contigs out of the order of their names, with N, lower case, an end."""
    folder = tmp_path_factory.mktemp("made")
    torch.manual_seed(0)
    save(HyenaDNA(CONFIG), folder / "model")
    rng = np.random.default_rng(0)
    text = decode(rng.integers(7, 11, 900))
    text = text[:400] + "N" * 90 + text[490:600] + text[600:700].lower() + text[700:]
    short = decode(rng.integers(7, 11, 100))
    (folder / "g.fa").write_text(f">chrb one more word\n{text}\n>chra\n{short}\n>chrc\nG\n")
    return folder


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    """A folder of its own to write into."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(made / "model")
    (tmp_path / "g.fa").write_bytes((made / "g.fa").read_bytes())
    return tmp_path


def expected(values=("surprisal",), **windows) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """By contig, strand and channel, from the Python side."""
    from hyenadna.checkpoint.load import load

    genome, model = Genome.open("g.fa"), load("model")
    return {
        contig: track_interval(model, genome, Interval(contig, 0, size), values=values, **windows)
        for contig, size in genome.contigs.items()
    }


def average(found, channel="surprisal") -> np.ndarray:
    return (found["forward"][channel] + found["reverse"][channel]) / 2


def bigwig(path, contig: str) -> np.ndarray:
    bw = pyBigWig.open(str(path))
    return np.array(bw.values(contig, 0, bw.chroms()[contig]))


def same(found, wanted) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5)


def test_a_bigwig_holds_the_mean_of_both_strands(place, capsys):
    assert run([*WORDS, "-o", "x.bw"]) == 0
    printed = capsys.readouterr().out
    assert "1.0 kb in 3 regions, forward and reverse" in printed
    assert "each base behind at least 16" in printed and "x.bw:" in printed
    bw = pyBigWig.open("x.bw")
    assert list(bw.chroms().items()) == [("chrb", 900), ("chra", 100), ("chrc", 1)]
    for contig, found in expected().items():
        same(bigwig("x.bw", contig), average(found))
    names = {p.name for p in place.iterdir()}
    assert names == {"model", "g.fa", "g.fa.fai", "x.bw", "x.bw.run.json"}


def test_several_tracks_are_several_files(place):
    words = ["--values", "probabilities,surprisal", "--strands", "each", "--length", "20"]
    assert run([*WORDS, "-o", "x.bw", *words]) == 0
    wanted = expected(("surprisal", "probabilities"), length=20)
    channels = ["surprisal", *(f"probability_{letter}" for letter in "ACGT")]
    files = [f"x.{channel}.{s}.bw" for channel in channels for s in ("forward", "reverse")]
    assert {p.name for p in place.glob("*.bw")} == set(files)
    for channel in channels:
        for strand in ("forward", "reverse"):
            for contig, found in wanted.items():
                same(bigwig(f"x.{channel}.{strand}.bw", contig), found[strand][channel])
    record = read_record(place / "x.bw")
    assert list(record.figures["files"].values()) == files
    means = {row["track"]: row["mean"] for row in record.figures["tracks"]}
    together = np.concatenate([found["forward"]["surprisal"] for found in wanted.values()])
    assert means["surprisal.forward"] == pytest.approx(np.nanmean(together), abs=1e-4)
    rows = {row["track"]: row for row in record.figures["tracks"]}
    assert rows["surprisal.forward"]["50% below"] == pytest.approx(
        np.nanmedian(together), abs=1 / 128
    )


def test_only_one_strand_is_read_where_one_is_asked_for(place, monkeypatch):
    embed, read = HyenaDNA.embed, []

    def watched(model, tokens):
        read.append(tokens.numel())
        return embed(model, tokens)

    monkeypatch.setattr(HyenaDNA, "embed", watched)
    assert run([*WORDS, "-o", "x.bw", "--strands", "reverse"]) == 0
    once = sum(read)
    same(bigwig("x.bw", "chrb"), expected()["chrb"]["reverse"]["surprisal"])
    read.clear()
    assert run([*WORDS, "-o", "y.bw"]) == 0
    assert sum(read) > 1.7 * once


@pytest.mark.parametrize("name", ["x.bedgraph", "x.bedgraph.gz", "X.BDG"])
def test_bedgraph(place, name):
    assert run([*WORDS, "-o", name, "--contigs", "chra"]) == 0
    raw = (place / name).read_bytes()
    if name.endswith(".gz"):
        assert raw[12:16] == b"BC\x02\x00"  # bgzip, which can be indexed
        raw = gzip.decompress(raw)
    rows = [line.split("\t") for line in raw.decode().splitlines()]
    assert [(r[0], int(r[1]), int(r[2])) for r in rows] == [
        ("chra", i, i + 1) for i in range(1, 99)
    ]
    same([float(r[3]) for r in rows], average(expected()["chra"])[1:99])


@pytest.mark.parametrize("name", ["x.parquet", "x.tsv"])
def test_a_table_holds_all_tracks(place, name):
    assert run([*WORDS, "-o", name, "--values", "surprisal,entropy", "--strands", "each"]) == 0
    if name.endswith(".tsv"):
        options = pyarrow.csv.ParseOptions(delimiter="\t")
        table = pyarrow.csv.read_csv(name, parse_options=options)
    else:
        table = pyarrow.parquet.read_table(name)
    columns = ["surprisal_forward", "surprisal_reverse", "entropy_forward", "entropy_reverse"]
    assert table.column_names == ["contig", "start", "stop", *columns]
    wanted = expected(("surprisal", "entropy"))
    assert table["contig"].to_pylist() == ["chrb"] * 900 + ["chra"] * 100 + ["chrc"]
    assert table["start"].to_pylist() == [*range(900), *range(100), 0]
    for column in columns:
        channel, strand = column.split("_")
        together = np.concatenate([found[strand][channel] for found in wanted.values()])
        found = np.array([np.nan if v is None else v for v in table[column].to_pylist()])
        same(found, together)


def test_bins_are_means(place):
    (place / "r.bed").write_text("chrb\t13\t47\nchrb\t395\t412\nchra\t50\t52\n")
    assert run([*WORDS, "-o", "x.bedgraph", "--bin", "10", "--bed", "r.bed"]) == 0
    rows = [line.split("\t") for line in (place / "x.bedgraph").read_text().splitlines()]
    found = {(r[0], int(r[1]), int(r[2])): float(r[3]) for r in rows}
    assert list(found) == [
        ("chrb", 13, 20), ("chrb", 20, 30), ("chrb", 30, 40), ("chrb", 40, 47),
        ("chrb", 395, 400), ("chra", 50, 52),
    ]  # fmt: skip
    wanted = {contig: average(each) for contig, each in expected().items()}
    for (contig, start, stop), value in found.items():
        assert value == pytest.approx(np.nanmean(wanted[contig][start:stop]), abs=1e-4)
    assert run([*WORDS, "-o", "x.bw", "--bin", "10", "--bed", "r.bed"]) == 0
    values = bigwig("x.bw", "chrb")
    assert values[25] == pytest.approx(found["chrb", 20, 30], abs=1e-5)
    assert np.isnan(values[[12, 47, 402]]).all()


def test_regions_keep_their_context(place, capsys):
    """A base has the value that it has in the track of the whole genome; other bases have none."""
    (place / "r.bed").write_text("a\t90\t100\nb\t500\t500\nb\t300\t380\nb\t350\t420\n")
    assert run([*WORDS, "-o", "x.bw", "--bed", "r.bed", "--region", "chrb:5-9"]) == 0
    said = capsys.readouterr().out
    assert "r.bed: contig b is taken for chrb" in said
    assert "1 rows of no bases are passed over" in said and "1 rows overlap or touch" in said
    wanted = {contig: average(each) for contig, each in expected().items()}
    inside = {"chrb": [*range(4, 9), *range(300, 420)], "chra": range(90, 100), "chrc": []}
    for contig, at in inside.items():
        values = np.full(len(wanted[contig]), np.nan)
        values[list(at)] = wanted[contig][list(at)]
        same(bigwig("x.bw", contig), values)


def test_the_other_name_of_a_contig(place, capsys):
    assert run([*WORDS, "-o", "x.bw", "--contigs", "a", "--region", "c:1-1"]) == 0
    said = capsys.readouterr().out
    assert "note: contig a is taken for chra of g.fa" in said and "c is taken for chrc" in said
    same(bigwig("x.bw", "chra"), average(expected()["chra"]))


def test_kinds_of_bases(place, capsys):
    rows = [
        'chrb\tx\texon\t101\t200\t.\t+\t.\tgene_id "g"; transcript_id "t";',
        'chrb\tx\texon\t301\t350\t.\t+\t.\tgene_id "g"; transcript_id "t";',
    ]
    (place / "a.gtf").write_text("\n".join(rows) + "\n")
    (place / "peaks.bed").write_text("chra\t0\t50\n")
    words = ["--annotation", "a.gtf", "--annotation", "peaks.bed"]
    assert run([*WORDS, "-o", "x.bw", *words]) == 0
    values = average(expected()["chrb"])
    other = average(expected()["chra"])
    kinds = {r["kind"]: r for r in read_record(place / "x.bw").figures["kinds"]}
    assert kinds["exon"]["bases"] == 150
    assert kinds["exon"]["mean"] == pytest.approx(
        values[[*range(100, 200), *range(300, 350)]].mean()
    )
    assert kinds["intron"]["mean"] == pytest.approx(values[200:300].mean())
    between = np.concatenate([values[:100], values[350:]])
    assert kinds["between genes"]["mean"] == pytest.approx(np.nanmean(between), abs=1e-5)
    assert kinds["lower case"]["mean"] == pytest.approx(values[600:700].mean())
    assert kinds["peaks"]["mean"] == pytest.approx(np.nanmean(other[:50]))
    assert kinds["outside peaks"]["bases"] == 49
    assert "exon" in capsys.readouterr().out


def test_lowest_and_highest_stretches(place):
    assert run([*WORDS, "-o", "x.bw"]) == 0
    values = average(expected()["chrb"])
    means = {f"chrb:{s + 1}-{s + 200}": values[s : s + 200].mean() for s in (200, 600)}
    figures = read_record(place / "x.bw").figures
    lowest = {row["stretch"]: row["mean"] for row in figures["lowest"]}
    assert set(lowest) <= {"chrb:1-200", "chrb:201-400", "chrb:601-800"}  # the others have N
    ordered = [row["mean"] for row in figures["lowest"]]
    assert ordered == sorted(ordered) and ordered == [r["mean"] for r in figures["highest"]][::-1]
    assert lowest["chrb:601-800"] == pytest.approx(means["chrb:601-800"], abs=1e-5)


@pytest.mark.parametrize("out", ["x.bw", "x.parquet"])
def test_an_interrupted_run_goes_on_to_the_same_bytes(place, capsys, monkeypatch, out):
    words = [*WORDS, "--length", "20", "--strands", "each", "--values", "surprisal,entropy"]
    monkeypatch.setattr("hyenadna.data.batches.BATCH_TOKENS", 200)
    assert run([*words, "-o", out]) == 0
    whole = {p.name: p.read_bytes() for p in place.glob("x.*") if "run.json" not in p.name}
    for name in whole:
        (place / name).unlink()
    append, calls = TrackSpill.append, []

    def interrupted(spill, batch):
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(batch)
        append(spill, batch)

    with monkeypatch.context() as patch:
        patch.setattr(TrackSpill, "append", interrupted)
        assert run([*words, "-o", out]) == 130
    assert "go on with --resume" in capsys.readouterr().out
    assert not [p for p in place.glob("x.*") if p.is_file() and "run.json" not in p.name]
    assert run([*words, "-o", out]) == 2
    assert "holds the values of an interrupted run; go on with --resume" in capsys.readouterr().err
    assert run([*words, "-o", out, "--resume", "--context", "3"]) == 2
    assert "was made with context 10, not 3" in capsys.readouterr().err
    assert run([*words, "-o", out, "--resume"]) == 0
    assert "resuming behind" in capsys.readouterr().out
    assert {n: (place / n).read_bytes() for n in whole} == whole
    assert not (place / f"{out}.part").exists()
    assert run([*words, "-o", out, "--resume"]) == 2
    assert "exists; remove it" in capsys.readouterr().err


def test_a_killed_process_is_resumed(place):
    """Also where it dies while the files are written: the values are all there."""
    words = [*WORDS, "-o", "x.bw", "--length", "20"]
    kill = (
        "import os, signal, sys; from hyenadna.genome.bigwig import BigWigWriter\n"
        "BigWigWriter.add = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from hyenadna.cli.app import run; run(sys.argv[1:])"
    )
    done = subprocess.run([sys.executable, "-c", kill, *words], capture_output=True, check=False)
    assert done.returncode == -9 and not (place / "x.bw").exists()
    assert run([*words, "--resume"]) == 0
    assert run([*words[:-4], "-o", "y.bw", "--length", "20"]) == 0
    assert (place / "x.bw").read_bytes() == (place / "y.bw").read_bytes()


def test_a_full_disk_is_one_line(place, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "x.bw.part/track0")

    with monkeypatch.context() as patch:
        patch.setattr("hyenadna.genome.bigwig.BigWigWriter.add", full)
        assert run([*WORDS, "-o", "x.bw"]) == 2
    assert "the disk is full" in capsys.readouterr().err
    assert not (place / "x.bw").exists()
    assert run([*WORDS, "-o", "x.bw", "--resume"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "x.wig"], "x.wig: tracks are written as .bw, .bigwig, .bedgraph"),
        (["-o", "no/x.bw"], "there is no folder no"),
        (["--values", "surprise"], "--values has 'surprise'; it takes surprisal, entropy, prob"),
        (["--values", ""], "--values names nothing"),
        (["--strands", "both"], "--strands"),
        (["--length", "35"], "window length is 35; this model reads 1 to 34"),
        (["--length", "20", "--context", "20"], "context is 20; it must be in 0 .. 19"),
        (["--bin", "0"], "--bin is 0; it must be at least 1 base"),
        (["--contigs", "z"], "g.fa has no contig 'z'; it has chrb, chra, chrc"),
        (["--region", "chra"], "is not written as contig:first-last"),
        (["--region", "chra:1-101"], "chra:1-101 runs past the end of chra in g.fa, which has 100"),
        (["--region", "chrz:1-9"], "g.fa has no contig 'chrz'"),
        (["--bed", "no.bed"], "no.bed: no such BED file"),
        (["--bed", "past.bed"], "past.bed:2: chra:96-101 runs past the end of chra"),
        (["--bed", "other.bed"], "other.bed:1: g.fa has no contig 'chrX'"),
        (["--bed", "empty.bed"], "empty.bed: no base to make a track of"),
        (["--bed", "none.bed"], "none.bed: holds no rows"),
        (["--annotation", "other.bed"], "other.bed: its contigs are chrX, but g.fa has chrb"),
        (["--annotation", "no.gff"], "no.gff: no such file"),
        (["--browser", "page.txt"], "a browser page is HTML"),
        (["--browser-region", "chra:1-9"], "give --browser as well"),
        (["--browser", "p.html", "--browser-region", "chra:1-999"], "runs past the end of chra"),
        (
            ["--contigs", "chrb", "--browser", "p.html", "--browser-region", "chra:1-9"],
            "no base of it is in the regions",
        ),
        (["--max-memory", "1MiB"], "max_memory is 1 MiB, but"),
        (["--threads", "0"], "--threads is 0"),
    ],
)
def test_bad_words_are_one_line(place, capsys, words, message):
    (place / "past.bed").write_text("chra\t0\t9\nchra\t95\t101\n")
    (place / "other.bed").write_text("chrX\t0\t9\n")
    (place / "empty.bed").write_text("chra\t5\t5\n")
    (place / "none.bed").write_text("# nothing\n")
    out = [] if "-o" in words else ["-o", "x.bw"]
    assert run(["track", "model", "g.fa", *out, *words]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(error) == 1 and message in error[0]
    assert not list(place.glob("x.*"))


def test_a_bad_letter_is_told_before_the_first_window(place, capsys):
    (place / "bad.fa").write_text(">a\nACGT\n>p\nACGTACEL\n")
    assert run(["track", "model", "bad.fa", "-o", "x.bw"]) == 2
    assert "bad.fa: p: letter 'E' at position 7 is not DNA" in capsys.readouterr().err
    assert not list(place.glob("x.*"))
    assert run(["track", "model", "bad.fa", "-o", "x.bw", "--contigs", "a"]) == 0


def test_gzip_and_many_contigs(place):
    rng = np.random.default_rng(0)
    texts = {f"s{i}": decode(rng.integers(7, 11, 12)) for i in range(2000)}
    records = "".join(f">{name} of 2000\r\n{text}\r\n" for name, text in texts.items())
    (place / "many.fa.gz").write_bytes(gzip.compress((records + ">void\r\n").encode()))
    assert run(["track", "model", "many.fa.gz", "-o", "x.bw", "--strands", "forward"]) == 0
    bw = pyBigWig.open("x.bw")
    assert list(bw.chroms()) == list(texts)
    wanted = track_interval_of(place, "s1234", texts["s1234"])
    same(bigwig("x.bw", "s1234"), wanted)


def track_interval_of(place, name: str, text: str) -> np.ndarray:
    from hyenadna.checkpoint.load import load

    (place / "one.fa").write_text(f">{name}\n{text}\n")
    genome = Genome.open("one.fa")
    found = track_interval(load("model"), genome, Interval(name, 0, len(text)))
    return found["forward"]["surprisal"]


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/status").is_file(), reason="no /proc to read the peak from"
)
def test_memory_stays_where_it_is(place):
    """A genome 100 times as long takes no more, from values to files."""
    torch.manual_seed(0)
    save(HyenaDNA(CONFIG.replace(max_seq_len=1026)), place / "long")
    code = (
        "import sys; from hyenadna.cli.app import run\n"
        "from hyenadna.infer import track_files\n"
        "track_files.CHUNK = 1 << 16\n"  # the buffers of larger pieces would hide a leak
        "assert run(sys.argv[1:]) == 0\n"
        # not ru_maxrss, which a process has from the one that started it
        "print('PEAK', open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    peaks = {}
    for size in (20_000, 2_000_000):
        text = decode(np.random.default_rng(0).integers(7, 11, size))
        (place / f"g{size}.fa").write_text(f">a\n{text}\n")
        words = ["track", "long", f"g{size}.fa", "-o", f"x{size}.bw", "--threads", "1"]
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
        )
        peaks[size] = int(done.stdout.split("PEAK")[1])
    # KiB; the values of both strands alone are 16 MB
    assert peaks[2_000_000] < peaks[20_000] + 10_000, peaks


def test_the_record_can_be_read(place):
    assert run([*WORDS, "-o", "x.bw", "--length", "20", "--context", "15"]) == 0
    record = read_record(place / "x.bw")
    assert record.verb == "track" and record.settings["context"] == 15
    assert record.figures["bases"] == 1001 and record.figures["bases_per_second"] > 0
    assert any("no sign of function" in text for text in record.caveats)
    assert json.loads((place / "x.bw.run.json").read_text())["inputs"]["genome"] == str(
        place / "g.fa"
    )
