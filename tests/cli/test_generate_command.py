"""`hyenadna generate`: prompts in, FASTA out; one line for what is wrong."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from hyenadna.alphabet import decode, encode
from hyenadna.checkpoint.load import load
from hyenadna.checkpoint.save import save
from hyenadna.cli.app import run
from hyenadna.config import ModelConfig
from hyenadna.genome.fasta import Genome
from hyenadna.infer.generate import generate
from hyenadna.infer.generated_file import GeneratedFile
from hyenadna.infer.sampling import Sampling
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.likelihood import target_nats

CONFIG = ModelConfig(d_model=8, n_layer=1, max_seq_len=210, filter_order=8)
PROMPT_LENGTHS = {"first": 30, "second": 7, "third": 95}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a model and prompts, where the command runs."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = HyenaDNA(CONFIG)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    save(model, tmp_path / "model")
    rng = np.random.default_rng(0)
    texts = {name: decode(rng.integers(7, 11, n)) for name, n in PROMPT_LENGTHS.items()}
    (tmp_path / "p.fa").write_text(
        "".join(f">{name} a prompt\n{text.lower()}\n" for name, text in texts.items())
    )
    return tmp_path


WORDS = ["generate", "model", "--threads", "1", "-o", "out.fa"]
ONE = [*WORDS, "--prompt", "ACGTACGT", "--length", "100"]
MANY = [*WORDS, "--prompts", "p.fa", "--length", "90", "-n", "5", "--batch-size", "2"]


def records(text):
    """(name, fields of the header, sequence) of each record."""
    found = []
    for part in text.split(">")[1:]:
        header, *lines = part.splitlines()
        name, *fields = header.split()
        assert all(len(line) == 80 for line in lines[:-1]) and 1 <= len(lines[-1]) <= 80
        found.append((name, dict(field.split("=") for field in fields), "".join(lines)))
    return found


def test_one_sequence_and_what_is_said(place, capsys):
    assert run([*ONE, "--seed", "4", "--temperature", "0.8", "--top-k", "3"]) == 0
    printed = capsys.readouterr().out
    assert "1 sequence of 100 bp after 1 prompt of up to 8 bp, 1 at a time; about" in printed
    assert "of memory" in printed and re.search(r"1 sequence of 100 bp in .* a second", printed)
    assert printed.splitlines()[-1].endswith(": out.fa")
    ((name, fields, sequence),) = records((place / "out.fa").read_text())
    assert (name, fields["sample"], fields["length"]) == ("prompt", "1", "100")
    assert (fields["temperature"], fields["top_k"], fields["seed"]) == ("0.8", "3", "4")
    assert "top_p" not in fields and "prompt_length" not in fields
    model = load("model")
    sampling = Sampling(temperature=0.8, top_k=3, seed=4)
    (row,) = generate(model, ["ACGTACGT"], 100, sampling=sampling)
    assert sequence == row.sequence
    whole = torch.tensor(encode("ACGTACGT" + sequence).astype(np.int64))[None]
    with torch.no_grad():
        nats = target_nats(model, whole[:, :-1], whole[:, 1:])[0, 7:]
    assert float(fields["log_likelihood"]) == pytest.approx(-float(nats.sum()), rel=1e-4)
    bits = float(nats.mean()) / np.log(2)
    assert float(fields["bits_per_base"]) == pytest.approx(bits, abs=2e-4)
    assert {p.name for p in place.iterdir()} == {"model", "p.fa", "out.fa"}


def test_prompts_from_a_fasta(place):
    assert run([*MANY, "--with-prompt"]) == 0
    found = records((place / "out.fa").read_text())
    assert [name for name, _, _ in found] == [
        f"{p}_{j}" for p in PROMPT_LENGTHS for j in range(1, 6)
    ]
    genome = Genome.open(place / "p.fa")
    for name, fields, sequence in found:
        prompt = name.split("_")[0]
        long = PROMPT_LENGTHS[prompt]
        assert fields["prompt_length"] == str(long) and fields["length"] == "90"
        assert sequence[:long] == genome.letters(prompt, 0, long).decode()  # case and all
        assert len(sequence) == long + 90 and set(sequence[long:]) <= set("ACGT")
        assert fields["sample"] == name.split("_")[1]
    (place / "out.fa").unlink()
    assert run(MANY) == 0
    bare = records((place / "out.fa").read_text())
    assert [sequence for _, _, sequence in bare] == [sequence[-90:] for _, _, sequence in found]


def test_to_standard_output(place, capsys):
    assert run(ONE) == 0
    capsys.readouterr()
    words = [*ONE[:4], "--out", "-", *ONE[6:]]
    assert run(words) == 0
    printed = capsys.readouterr()
    assert printed.out == (place / "out.fa").read_text()
    assert "a second" in printed.err
    assert run([*ONE[:4], "-o", "-", *ONE[6:]]) == 0
    assert capsys.readouterr().out == printed.out
    assert run([*words, "--resume"]) == 2
    assert "--resume goes on with a file" in capsys.readouterr().err


@pytest.mark.parametrize("cut", [0, 1, 4, 7, 12])
@pytest.mark.parametrize("more", [[], ["--with-prompt", "--forbid", "GAATTC"]])
def test_an_interrupted_run_goes_on(place, capsys, monkeypatch, cut, more):
    assert run([*MANY, *more]) == 0
    whole = (place / "out.fa").read_bytes()
    (place / "out.fa").unlink()
    append = GeneratedFile.append

    def interrupted(file, text):
        if file.records_done == cut:
            append(file, text[: len(text) - 3 * cut])  # part of a record has reached the disk
            raise KeyboardInterrupt
        append(file, text)

    with monkeypatch.context() as patch:
        patch.setattr(GeneratedFile, "append", interrupted)
        assert run([*MANY, *more]) == 130
    assert f"stopped after {cut} of 15 sequences; go on with --resume" in capsys.readouterr().out
    assert not (place / "out.fa").exists()
    assert run([*MANY, *more]) == 2
    assert "go on with --resume, or remove it" in capsys.readouterr().err
    # the batches are those of the first run, though none is asked for now
    words = [word for word in MANY if word not in ("--batch-size", "2")]
    assert run([*words, *more, "--resume"]) == 0
    assert (place / "out.fa").read_bytes() == whole
    done = cut or 1  # where nothing was cut off, the record was whole
    assert f"resuming after {done} sequence" in capsys.readouterr().out
    assert not (place / "out.fa.part").exists()
    assert run([*MANY, *more, "--resume"]) == 2
    assert "out.fa: exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seed", "1"], "made with seed 0, not 1"),
        (["-n", "6"], "made with count 5, not 6"),
        (["--with-prompt"], "made with with_prompt False, not True"),
        (["--fix", "3:ACGT"], "made with other design"),
        (["--prompts", "q.fa"], "made with other prompts"),
    ],
)
def test_other_settings_are_refused(place, capsys, monkeypatch, words, message):
    def interrupted(file, text):
        raise KeyboardInterrupt

    (place / "q.fa").write_text((place / "p.fa").read_text().replace(">second", ">2nd"))
    with monkeypatch.context() as patch:
        patch.setattr(GeneratedFile, "append", interrupted)
        assert run(MANY) == 130
    kept = MANY
    for option in words[:1] if len(words) == 2 and words[0] in MANY else []:
        at = MANY.index(option)
        kept = MANY[:at] + MANY[at + 2 :]
    capsys.readouterr()
    assert run([*kept, *words, "--resume"]) == 2
    error = capsys.readouterr().err
    assert message in error and "remove out.fa.part to start over" in error
    assert error.count("\n") == 1 and (place / "out.fa.part").exists()


def test_resume_without_a_run_starts_one(place, capsys):
    assert run([*ONE, "--resume"]) == 0
    assert "note: out.fa.part: nothing to resume" in capsys.readouterr().out
    whole = (place / "out.fa").read_bytes()
    (place / "out.fa").unlink()
    (place / "out.fa.part").mkdir()
    (place / "out.fa.part" / "settings.json").write_text("{")
    assert run([*ONE, "--resume"]) == 0
    assert "damaged, starting over" in capsys.readouterr().out
    assert (place / "out.fa").read_bytes() == whole


def test_designs(place):
    words = [*WORDS, "--prompt", "GAATT", "-n", "6", "--template", "CNRTA" + "N" * 35]
    words += ["--fix", "11:GATTACA", "--fix", "21:TTS", "--forbid", "GAATTC", "--forbid", "GGN"]
    assert run([*words, "--gc", "0.3:0.5", "--max-homopolymer", "2"]) == 2  # GAATT + C
    words[words.index("GAATT")] = "GAAT"
    assert run([*words, "--gc", "0.3:0.5", "--max-homopolymer", "2"]) == 0
    for _, _, sequence in records((place / "out.fa").read_text()):
        assert len(sequence) == 40
        assert re.match("C[ACGT][AG]TA", sequence)
        assert sequence[10:17] == "GATTACA" and re.match("TT[GC]", sequence[20:])
        assert 12 <= sum(sequence.count(base) for base in "GC") <= 20
        # GGN and its other strand, NCC, whose N may be the last base of the prompt
        whole = "GAAT" + sequence
        assert not re.search(r"GAATTC|GG[ACGT]|[ACGT]CC|AAA|CCC|GGG|TTT", whole)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prompts", "p.fa"], "give either --prompt with bases, or --prompts with a FASTA"),
        (["--length", "300"], "prompt: 8 bases and 300 new ones are more than this model reads"),
        (["--length", "300"], "203 new bases would fit"),
        (["--length", "0"], "length is 0"),
        (["-n", "0"], "count is 0"),
        (["--temperature", "-1"], "temperature is -1.0"),
        (["--top-k", "0"], "top_k is 0"),
        (["--top-p", "2"], "top_p is 2.0"),
        (["--seed", "-3"], "seed is -3"),
        (["--fix", "GAATTC"], "--fix GAATTC: give POSITION:MOTIF"),
        (["--fix", "0:GA"], "--fix 0:GA: give POSITION:MOTIF, such as 12:GAATTC"),
        (["--fix", "4:"], "--fix 4:: give"),
        (["--fix", "4:A", "--fix", "4:C"], "--fix 4:C: there is one at position 4 already"),
        (["--fix", "99:GAT"], "design"),
        (["--gc", "half"], "--gc half: give LOW:HIGH, such as 0.4:0.6"),
        (["--gc", "0.6:0.4"], "design"),
        (["--template", "ACGT"], "template"),
        (["--forbid", "GAX"], "GAX"),
        (["--max-homopolymer", "0"], "homopolymer"),
        (["--batch-size", "0"], "batch_size is 0"),
        (["--max-memory", "lots"], "lots"),
        (["--threads", "0"], "--threads is 0"),
        (["--prompt", ""], "prompt: has no base"),
        (["--prompt", "ACQ"], "--prompt: letter 'Q' at position 3 is not DNA"),
        (["-o", "no/out.fa"], "no/out.fa: there is no folder no"),
        (["-o", "out.fa.gz"], "out.fa.gz: FASTA is written as plain text; leave out .gz"),
    ],
)
def test_bad_words_are_one_line(place, capsys, words, message):
    pairs = {"--prompt": "ACGTACGT", "--length": "100", "-o": "out.fa"}
    given = [x for key, value in pairs.items() if key not in words for x in (key, value)]
    assert run(["generate", "model", *given, *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(place.glob("out.fa*"))


def test_a_length_or_a_template_is_needed(place, capsys):
    assert run([*WORDS, "--prompt", "ACGT"]) == 2
    assert "no --length given, and no --template" in capsys.readouterr().err


def test_an_empty_prompt_of_a_fasta_is_told_by_name(place, capsys):
    (place / "q.fa").write_text(">a\nACGT\n>b\n>c\nAC\n")
    assert run([*WORDS, "--prompts", "q.fa", "--length", "9"]) == 2
    assert "b: has no base" in capsys.readouterr().err


def test_a_budget_makes_batches_smaller(place, capsys, monkeypatch):
    assert run([*WORDS, "--prompts", "p.fa", "--length", "90", "-n", "5"]) == 0
    assert "after 3 prompts of up to 95 bp, 15 at a time" in capsys.readouterr().out
    whole = (place / "out.fa").read_bytes()
    (place / "out.fa").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("hyenadna.cli.generate._state_bytes", lambda network, max_memory: 1)
        assert run([*WORDS, "--prompts", "p.fa", "--length", "90", "-n", "5"]) == 0
    assert ", 1 at a time" in capsys.readouterr().out
    assert [r[2] for r in records((place / "out.fa").read_text())] == [
        r[2] for r in records(whole.decode())
    ]


def test_one_run_at_a_time(place, capsys):
    """A second process on the same output is refused, and the first one's records stay."""
    held = place / "out.fa.part"
    held.mkdir()
    code = (
        f"import fcntl, sys\nf = open({str(held / 'lock')!r}, 'a')\n"
        "fcntl.flock(f, fcntl.LOCK_EX)\nprint('held', flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        assert run([*MANY, "--resume"]) == 2
        assert "another run is writing it" in capsys.readouterr().err
        other.stdin.close()
    assert run([*MANY, "--resume"]) == 0


def test_a_folder_that_is_not_ours_stays(place, capsys):
    mine = place / "out.fa.part"
    mine.mkdir()
    (mine / "thesis.txt").write_text("precious")
    assert run([*MANY, "--resume"]) == 2
    assert "holds thesis.txt, which is not of an interrupted run" in capsys.readouterr().err
    assert (mine / "thesis.txt").read_text() == "precious"
