"""The browser page, opened from the disk by a real browser that then tells what it holds."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from hyenadna.alphabet import decode
from hyenadna.checkpoint.save import save
from hyenadna.cli.app import run
from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.genome.fasta import Genome
from hyenadna.genome.intervals import Interval
from hyenadna.model.backbone import HyenaDNA
from hyenadna.report import browser_page
from hyenadna.report.browser_page import Shown, browser_html, lower_case, running_mean, signals
from hyenadna.report.browser_tracks import annotated

CONFIG = ModelConfig(d_model=8, n_layer=1, max_seq_len=34, filter_order=8)
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to open the page with")


@pytest.fixture(autouse=True)
def igv():
    pytest.importorskip(
        "igv_notebook", reason="igv-notebook, which brings igv.js, is not installed"
    )


def opened(page: Path, tmp_path: Path, *more: str) -> tuple[str, dict[str, object]]:
    """The page's document after a browser has run it, and what its body says."""
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=30000", "--dump-dom",
        *more, page.absolute().as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    said = re.search(r"<body([^>]*)>", done.stdout.split("</style></head>", 1)[1])
    assert said is not None
    facts = {k: html.unescape(v) for k, v in re.findall(r'data-(\w+)="([^"]*)"', said[1])}
    loaded = re.search(r'<output id="loaded"[^>]*>(.*?)</output>', done.stdout, re.DOTALL)
    assert loaded is not None
    return done.stdout, {**facts, "loaded": html.unescape(loaded[1])}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save(HyenaDNA(CONFIG), tmp_path / "model")
    text = decode(np.random.default_rng(0).integers(7, 11, 3000))
    text = text[:1200] + text[1200:1260].lower() + text[1260:]
    (tmp_path / "g.fa").write_text(f">chr1\nACGT\n>HLA-A*01:01\n{text}\n>chr9\n{text}\n")
    rows = ("1101\t1150", "1301\t1350", "2001\t2050")
    (tmp_path / "a.gtf").write_text(
        "".join(
            f'9\tx\texon\t{ends}\t.\t+\t.\tgene_id "g</script>"; transcript_id "t";\n'
            for ends in rows
        )
    )
    (tmp_path / "b.bed").write_text("track name=x\nchr9\t1210\t1220\tpeak\nchr9\t0\t10\tfar\n")
    return tmp_path


@needs_chromium
def test_a_browser_shows_the_tracks_with_real_positions(place, tmp_path):
    words = ["track", "model", "g.fa", "-o", "x.bedgraph", "--threads", "1", "--contigs", "chr9"]
    words += ["--browser", "p.html", "--browser-region", "9:1,101-1,500"]
    words += [
        "--values",
        "surprisal,probabilities",
        "--annotation",
        "a.gtf",
        "--annotation",
        "b.bed",
    ]
    assert run(words) == 0
    document, said = opened(place / "p.html", tmp_path)
    assert said["state"] == "ready", document[-2000:]
    assert "blocked" not in said
    loaded = json.loads(str(said["loaded"]))
    assert loaded["locus"] == "chr9:1101-1500" and loaded["length"] == 3000
    names = [name for kind, name in loaded["tracks"] if kind in ("wig", "annotation")]
    assert [kind for kind, _ in loaded["tracks"]].count("sequence") == 1
    assert names == [
        "surprisal, mean of 100 bases (bits), mean of both strands",
        "surprisal (bits), mean of both strands",
        *(f"p({letter}), mean of both strands" for letter in "ACGT"),
        "a.gtf", "b.bed", "lower case (repeats)",
    ]  # fmt: skip
    bases = Genome.open("g.fa").letters("chr9", 1100, 1140).decode()
    assert loaded["sequence"] == bases
    rows = (line.split("\t") for line in (place / "x.surprisal.average.bedgraph").open())
    wanted = {int(start): float(value) for _, start, _, value in rows}
    found = loaded["values"]["surprisal (bits), mean of both strands"]
    assert [(start, stop) for start, stop, _ in found] == [(b, b + 1) for b in range(1100, 1140)]
    for start, _, value in found:
        assert value == pytest.approx(wanted[start], rel=1e-3)
    around = np.array([wanted[base] for base in range(1100, 1500)], dtype=np.float32)
    smooth = loaded["values"]["surprisal, mean of 100 bases (bits), mean of both strands"]
    assert [start for start, _, _ in smooth] == list(range(1100, 1140))
    wanted_means = running_mean(around, 100)[:40]
    np.testing.assert_allclose([value for _, _, value in smooth], wanted_means, rtol=1e-3)
    for letter in "ACGT":
        assert len(loaded["values"][f"p({letter}), mean of both strands"]) == 40
    assert loaded["values"]["b.bed"] == [[1210, 1220, "peak"]]
    assert loaded["values"]["a.gtf"][0][:2] == [1100, 2050]  # the transcript, drawn whole
    assert [row[:2] for row in loaded["values"]["lower case (repeats)"]] == [[1200, 1260]]


@needs_chromium
@pytest.mark.parametrize("contig, shown_as", [
    ("HLA-A*01:01", "HLA-A*01_01"), ("gi|1|gb|U.3", "gi_1_gb_U.3"), ("all", "all_"),
])  # fmt: skip
def test_a_contig_that_igv_cannot_name(place, tmp_path, contig, shown_as):
    text = Path("g.fa").read_text().replace("HLA-A*01:01", contig)
    Path("n.fa").write_text(text)
    words = ["track", "model", "n.fa", "-o", "x.bw", "--threads", "1", "--browser", "p.html"]
    assert run([*words, "--region", f"{contig}:101-400"]) == 0
    _, said = opened(place / "p.html", tmp_path)
    loaded = json.loads(str(said["loaded"]))
    assert said["state"] == "ready" and loaded["locus"] == f"{shown_as}:101-400"
    assert loaded["sequence"] == Genome.open("n.fa").letters(contig, 100, 140).decode()


@needs_chromium
def test_the_network_is_forbidden(place, tmp_path):
    """A page that would fetch something says so: the policy and its watcher work."""
    page = browser_html("t", shown(), signals("surprisal.average", np.ones(50, np.float32)))
    fetched = page.replace("data:application/gzip;base64", "https://example.org/x?", 1)
    (place / "p.html").write_text(fetched)
    _, said = opened(place / "p.html", tmp_path)
    assert said["state"] == "failed"
    assert "connect-src https://example.org" in str(said["blocked"])


@pytest.mark.parametrize("out", ["x.bw", "x.parquet"])
def test_a_page_made_later_is_the_page_made_then(place, out):
    """From the files of the run, with another time at its foot."""
    words = ["track", "model", "g.fa", "-o", out, "--threads", "1", "--browser", "p.html"]
    words += ["--browser-region", "chr9:11-90", "--strands", "each", "--annotation", "b.bed"]
    assert run([*words, "--contigs", "chr9"]) == 0
    if out == "x.bw":
        pytest.importorskip("pyBigWig")
    later = ["report", out, "--browser-region", "9:11-90", "--annotation", "b.bed"]
    assert run(later) == 0
    made = (place / "p.html", place / f"{out}.browser.html")
    pages = [re.sub("<footer>.*</footer>", "", page.read_text()) for page in made]
    assert pages[0] == pages[1]
    assert run([*later, "-o", "later.html"]) == 0
    assert made[1].read_bytes() == (place / "later.html").read_bytes()
    assert run([*words, "--contigs", "chr9"]) == 2  # the page exists, as the tracks do


def test_no_page_of_what_was_not_written_by_track_or_not_read(place, capsys):
    words = ["track", "model", "g.fa", "--threads", "1", "--contigs", "chr9", "-o"]
    assert run([*words, "x.parquet"]) == run([*words, "x.tsv"]) == 0
    assert run(["embed", "model", "g.fa", "-o", "x.npz", "--threads", "1"]) == 0
    others = [name for name in Genome.open("g.fa").contigs if name != "chr9"]
    for words, said in (
        (["x.tsv", "--browser-region", "9:11-90"], "read back from bigWig and .parquet"),
        (["x.npz", "--browser-region", "9:11-90"], "of hyenadna embed; a browser page shows track"),
        (["x.parquet", "--browser-region", f"{others[0]}:1-4"], "has a value; give a region that"),
        (["x.parquet", "--annotation", "b.bed"], "give --browser-region as well"),
    ):
        capsys.readouterr()
        assert run(["report", *words]) == 2
        assert said in " ".join(capsys.readouterr().err.split())


def shown(length: int = 50) -> Shown:
    return Shown(Interval("c", 10, 10 + length), 1000, "ACGTn" * (length // 5))


def test_the_page_holds_everything(place):
    page = browser_html(
        "a <b> title", shown(), signals("surprisal.forward", np.ones(50, np.float32))
    )
    assert "a &lt;b&gt; title" in page and "<b> title" not in page
    assert not re.search(
        r"""<(script|link|img|iframe)[^>]*(src|href)=""", page.split("<script>")[0]
    )
    assert "default-src 'none'" in page and "unsafe-eval" not in page
    assert "script-src 'sha256-" in page and "Permission is hereby granted, free of charge" in page
    assert page.count("</script>") == 3  # data, igv.js, ours


def test_names_that_would_end_the_script(place):
    """Text of a file cannot leave the data of the page."""
    genome = Genome.open("g.fa")
    (place / "evil.bed").write_text("chr9\t15\t20\t</script><script>alert(1)</script>\n")
    track = annotated(place / "evil.bed", Interval("chr9", 10, 60), genome)
    assert len(track.lines) == 1
    track = type(track)("</script><script>alert(1)", track.format, track.lines)
    page = browser_html("t", shown(), signals("entropy.forward", np.ones(50, np.float32)), [track])
    assert page.count("</script>") == 3 and "alert(1)" not in page.split("<script>")[-1]


def test_without_igv(place, capsys, monkeypatch):
    monkeypatch.setattr(browser_page.importlib.util, "find_spec", lambda name: None)
    assert run(["track", "model", "g.fa", "-o", "x.bw", "--browser", "p.html"]) == 2
    error = capsys.readouterr().err
    assert "pip install 'hyenadna[browser]'" in error and error.count("\n") == 1
    assert not list(place.glob("x.bw*"))


def test_a_region_that_is_too_long():
    with pytest.raises(InputError, match="it shows 1 to 200,000"):
        browser_html("t", Shown(Interval("c", 0, 200_001), 300_000, "A"), [])


def test_the_first_bases_are_shown_where_nothing_is_asked_for(place):
    text = "N" * 500 + decode(np.random.default_rng(1).integers(7, 11, 300))
    (place / "n.fa").write_text(f">a\n{text}\n")
    words = ["track", "model", "n.fa", "-o", "x.bw", "--threads", "1", "--browser", "p.html"]
    assert run(words) == 0
    assert '"locus": "a:501-800"' in (place / "p.html").read_text()


def test_running_means():
    values = np.random.default_rng(0).normal(size=60).astype(np.float32)
    values[20:24] = np.nan
    found = running_mean(values, 10)
    for base in range(60):
        if np.isnan(values[base]):
            assert np.isnan(found[base])
        else:
            near = values[max(0, base - 5) : base + 5]
            assert found[base] == pytest.approx(np.nanmean(near), abs=1e-6)


def test_lower_case_stretches():
    letters = "acgtAAAAaGGGt"
    track = lower_case(Shown(Interval("c", 10, 23), 40, letters))
    assert track.lines == ("c\t10\t14", "c\t18\t19", "c\t22\t23")


def test_axes():
    low = np.full(1000, 1.5, np.float32)
    smooth, plain = signals("surprisal.forward", low)
    assert (plain.least, plain.most) == (0, 4) and smooth.least < 1.5 < 2 < smooth.most
    assert signals("probability_G.forward", low)[0].most == 1
    assert signals("entropy.average", low)[0].most == 2
    assert all(s.most > s.least for s in signals("surprisal.average", low * np.nan))
