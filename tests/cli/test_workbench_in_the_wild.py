"""embed, score, mutate and track on inputs as users have them, and a report of each."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hyenadna.alphabet import decode
from hyenadna.checkpoint.save import save
from hyenadna.cli.app import run
from hyenadna.config import ModelConfig
from hyenadna.model.backbone import HyenaDNA

HEADER = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with a model, where the commands run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYENADNA_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    config = ModelConfig(d_model=8, n_layer=1, max_seq_len=66, filter_order=8)
    save(HyenaDNA(config), tmp_path / "m")
    return tmp_path


def dna(length: int, seed: int) -> str:
    return decode(np.random.default_rng(seed).integers(7, 11, length))


def commands(genome: str, contig: str, base: str) -> dict[str, list[str]]:
    """One of each verb about the 20th base of a contig."""
    Path("v.vcf").write_text(f"{HEADER}{contig}\t20\t.\t{base}\t<DEL>,A,C,G,T\t.\t.\t.\n")
    Path("r.bed").write_text(f"{contig}\t10\t30\tplace\n")
    where = ["--genome", genome]
    return {
        "embed": ["embed", "m", "r.bed", *where, "-o", "e.parquet"],
        "score": ["score", "m", "v.vcf", *where, "-o", "s.vcf.gz"],
        "mutate": ["mutate", "m", "r.bed", *where, "-o", "m.csv"],
        "track": ["track", "m", genome, "--bed", "r.bed", "-o", "t.bw"],
    }


def output(words: list[str]) -> str:
    return words[words.index("-o") + 1]


def test_ten_thousand_contigs_with_blanks_in_their_headers(place):
    records = {f"scaffold_{i}": dna(40, i) for i in range(10_000)}
    text = "".join(f">{name} len=40 whatever else\n{s}\n" for name, s in records.items())
    Path("g.fa").write_text(text)
    last = "scaffold_9999"
    for words in commands("g.fa", last, records[last][19]).values():
        assert run([*words, "--threads", "1"]) == 0, words
        record = json.loads(Path(output(words) + ".run.json").read_text())
        assert record["verb"] == words[0] and record["caveats"] and record["figures"]


@pytest.mark.parametrize("verb", ["embed", "score", "mutate", "track"])
def test_a_report_of_each(place, verb, capsys):
    sequence = dna(200, 3)
    Path("g.fa").write_text(f">c<1>\n{sequence}\n")
    words = commands("g.fa", "c<1>", sequence[19])[verb]
    assert run([*words, "--threads", "1"]) == 0
    out = output(words)
    assert run(["report", out]) == 0
    page = Path(out + ".html").read_text()
    assert f"<h1>{verb}: {out}</h1>" in page and "What was run, and on what" in page
    assert "<svg" in page and 'class="caveat"' in page
    # nothing is fetched, and no name becomes markup
    assert not re.search(r'(src|href)="(?!#|data:)', page) and "c<1>" not in page
    assert run(["report", out, "-o", "other.html"]) == 0 and Path("other.html").exists()
    assert not list(place.glob(".*.part"))


def test_what_has_no_report_is_told(place, capsys):
    Path("x.csv").write_text("a\n1\n")
    Path("RUN").mkdir()
    Path("RUN/report.html").write_text("")
    told = {
        ("report", "x.csv"): "x.csv.run.json is not beside it",
        ("report", "none.bw"): "is not beside it",
        ("report", "RUN"): "its page already: RUN/report.html",
        ("report", "x.csv", "-o", "x.txt"): "ends in .html",
    }
    for words, text in told.items():
        assert run(list(words)) == 2
        error = capsys.readouterr().err
        assert text in error and error.count("\n") == 1


def peak_of(words: list[str]) -> float:
    """MiB that a command takes at most, in a process of its own."""
    code = (
        "import resource, sys\nfrom hyenadna.cli.app import run\ncode = run(sys.argv[1:])\n"
        "print('PEAK', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\nsys.exit(code)"
    )
    command = [sys.executable, "-c", code, *words, "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.rsplit("PEAK", 1)[1]) / 1024


@pytest.mark.slow
def test_a_gigabyte_of_genome(place):
    """Random access: memory does not follow the genome."""
    rng = np.random.default_rng(0)
    letters = np.frombuffer(b"ACGT", dtype=np.uint8)
    with Path("big.fa").open("wb") as stream:
        for contig in range(10):
            stream.write(b">chr%d\n" % contig)
            lines = np.full((1_640_000, 61), ord("\n"), dtype=np.uint8)
            lines[:, :60] = letters[rng.integers(0, 4, (1_640_000, 60), np.uint8)]
            stream.write(lines.tobytes())
    assert Path("big.fa").stat().st_size > 1e9
    lines[:, :60] = letters[0]
    with Path("small.fa").open("wb") as stream:
        stream.write(b">chr9\n" + lines[:100].tobytes())
    for genome, letter in (("small.fa", "A"), ("big.fa", letter_at("big.fa", "chr9", 19))):
        peaks = {
            verb: peak_of([*words[:-1], f"{genome}.{words[-1]}"])
            for verb, words in commands(genome, "chr9", letter).items()
        }
        if genome == "small.fa":
            small = peaks
    for verb, peak in peaks.items():
        assert peak < small[verb] + 60, (verb, peak, small[verb])


def letter_at(genome: str, contig: str, at: int) -> str:
    from hyenadna.genome.fasta import Genome

    return Genome.open(genome).letters(contig, at, at + 1).decode()


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["score", "mutate"])
def test_memory_does_not_grow_with_the_input(place, verb):
    sequence = dna(60_000, 5)
    Path("g.fa").write_text(f">c\n{sequence}\n")
    peaks = []
    for count in (100, 10_000):
        rows = [
            f"c\t{p}\t.\t{sequence[p - 1]}\t{'ACGT'.replace(sequence[p - 1], '')[0]}\t.\t.\t.\n"
            for p in range(2, 2 * count + 2, 2)
        ]
        Path("v.vcf").write_text(HEADER + "".join(rows))
        Path("s.fa").write_text("".join(f">r{i}\n{sequence[i : i + 20]}\n" for i in range(count)))
        words = {
            "score": ["score", "m", "v.vcf", "--genome", "g.fa", "-o", f"{count}.vcf.gz"],
            "mutate": ["mutate", "m", "s.fa", "-o", f"{count}.csv", "--strands", "forward"],
        }[verb]
        peaks.append(peak_of(words))
    assert peaks[1] < peaks[0] + 60, peaks
