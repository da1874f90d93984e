"""`--prompt-file` and soft prompts in `convert`: the base model behind learned vectors."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from hyenadna.alphabet import decode, encode
from hyenadna.checkpoint.load import load
from hyenadna.checkpoint.prompt_file import load_prompt, read_prompt, save_prompt
from hyenadna.checkpoint.save import save
from hyenadna.cli import predict as command
from hyenadna.cli.app import run
from hyenadna.config import ModelConfig
from hyenadna.data.labelled_data import Task
from hyenadna.data.records import ContigRecords
from hyenadna.genome.fasta import Genome
from hyenadna.infer.embed import embed
from hyenadna.infer.generate import generate
from hyenadna.infer.predict import predict
from hyenadna.infer.reading import make_reading
from hyenadna.infer.rows_file import RowsFile
from hyenadna.label_words import label_words
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.prompting.prompted import PromptedModel

SHAPE = ModelConfig(d_model=8, n_layer=1, max_seq_len=66, filter_order=8)
TASK = Task("classes", ("no", "yes"))
ONE = ["--threads", "1"]


def loud(seed: int) -> HyenaDNA:
    torch.manual_seed(seed)
    model = HyenaDNA(SHAPE)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return model.eval()


def tune(path: Path, model: HyenaDNA, *, task=TASK, spell=True, settings=None, **options) -> None:
    """A prompt of 6 tokens that nobody has trained."""
    torch.manual_seed(5)
    words = label_words(task.names) if spell else None
    prompted = PromptedModel(model, task, tokens=6, words=words, **options)
    torch.nn.init.normal_(prompted.prompt)
    if not spell:
        torch.nn.init.normal_(prompted.head.weight)
    prompted.prior.copy_(torch.randn(len(prompted.prior)) * bool(spell))
    save_prompt(prompted, path, base="model", settings=settings)


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A model, another, prompts of the first, sequences, a genome; the command runs there."""
    monkeypatch.chdir(tmp_path)
    model = loud(0)
    save(model, tmp_path / "model")
    save(loud(1), tmp_path / "other")
    tune(tmp_path / "p.safetensors", model)
    tune(tmp_path / "head.safetensors", model, spell=False, pooling="mean")
    rng = np.random.default_rng(0)
    texts = [decode(rng.integers(7, 12, n)) for n in rng.integers(5, 59, 40)]
    (tmp_path / "s.csv").write_text(
        "id,sequence\n" + "".join(f"s{i},{text}\n" for i, text in enumerate(texts))
    )
    (tmp_path / "g.fa").write_text(f">a\n{decode(rng.integers(7, 11, 300))}\n>b\nACGTTGCA\n")
    (tmp_path / "starts.fa").write_text(">x\nACGTA\n>y\nGG\n>z\nTTGCA\n")
    return tmp_path


def rows(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as text:
        return list(csv.DictReader(text))


PREDICT = ["predict", "model", "s.csv", *ONE]


@pytest.mark.parametrize("name", ["p", "head"])
def test_predictions_are_those_of_the_prompted_model(place, capsys, name):
    assert run([*PREDICT, "-o", "p.csv", "--prompt-file", f"{name}.safetensors"]) == 0
    said = capsys.readouterr().out
    assert "strands forward, behind 6 soft tokens" in said
    assert ("and before a word of 1" in said) == (name == "p")
    assert "of memory" in said
    prompted = load_prompt(f"{name}.safetensors", load("model"))
    for row, given in zip(rows("p.csv"), rows("s.csv"), strict=True):
        want = next(predict(prompted, [encode(given["sequence"])]))
        got = [float(row["p_no"]), float(row["p_yes"])]
        assert got == pytest.approx(want.tolist(), abs=1e-6)
        assert row["predicted"] == TASK.names[int(want.argmax())]
    if name == "head":
        words = ["--prompt-file", "head.safetensors", "--strands", "average"]
        assert run([*PREDICT, "-o", "both.csv", *words]) == 0
        prompted.read_strands("average")
        want = next(predict(prompted, [encode(rows("s.csv")[0]["sequence"])]))
        assert float(rows("both.csv")[0]["p_no"]) == pytest.approx(float(want[0]), abs=1e-6)
        assert Path("both.csv").read_text() != Path("p.csv").read_text()


def test_sequences_are_read_as_in_the_tuning(place):
    reading = {"sequence": "dna", "pair": None, "window": None, "outside": "refuse"}
    settings = {"reading": reading, "finetune": {"max_length": 10}}
    tune(place / "q.safetensors", load("model"), settings=settings)
    (place / "t.csv").write_text("sequence,dna\nAAAA,ACGTTGCATTGGCA\n")
    words = ["predict", "model", "t.csv", *ONE, "-o", "p.csv", "--prompt-file", "q.safetensors"]
    assert run(words) == 0
    prompted = load_prompt("q.safetensors", load("model"))
    want = next(predict(prompted, [encode("GTTGCATTGG")]))
    assert float(rows("p.csv")[0]["p_no"]) == pytest.approx(float(want[0]), abs=1e-6)


def outputs(file: str) -> list[bytes]:
    """What the commands write with this prompt."""
    found = []
    for words in (
        ["predict", "model", "s.csv", "-o", "o.csv"],
        ["predict", "model", "s.csv", "-o", "o.parquet"],
        ["embed", "model", "g.fa", "-o", "o.npz", "--bin", "10"],
        ["generate", "model", "-o", "o.fa", "--prompts", "starts.fa", "--length", "20", "-n", "2"],
    ):
        assert run([*words, "--prompt-file", file, *ONE]) == 0
        found.append(Path(words[words.index("-o") + 1]).read_bytes())
        Path(words[words.index("-o") + 1]).unlink()
    return found


def test_a_prompt_moved_elsewhere_gives_the_same_bytes(place):
    before = outputs("p.safetensors")
    (place / "far").mkdir()
    shutil.move(place / "p.safetensors", place / "far" / "q.safetensors")
    assert outputs("far/q.safetensors") == before


def test_embeddings_behind_a_prompt(place, capsys):
    words = ["embed", "model", "g.fa", *ONE, "--prompt-file", "p.safetensors"]
    assert run([*words, "-o", "e.npz", "--bin", "9"]) == 0
    assert "each window behind 6 soft tokens of p.safetensors" in capsys.readouterr().out
    prompted = load_prompt("p.safetensors", load("model"))
    genome = Genome.open("g.fa")
    reading = make_reading(SHAPE, per="bin", bin=9, soft_tokens=6)
    assert reading.length == 54
    want = [each.embeddings for each in embed(prompted, ContigRecords(genome), reading)]
    with np.load("e.npz") as found:
        np.testing.assert_allclose(found["embeddings"], np.concatenate(want), atol=1e-5)
        settings = json.loads(str(found["settings"]))
    assert settings["soft_tokens"] == 6 and len(settings["soft_prompt"]) == 64
    assert run(["embed", "model", "g.fa", *ONE, "-o", "plain.npz", "--bin", "9"]) == 0
    with np.load("plain.npz") as plain:
        assert "soft_prompt" not in json.loads(str(plain["settings"]))


def test_new_bases_behind_a_prompt(place, capsys):
    words = ["generate", "model", *ONE, "--prompts", "starts.fa", "--length", "30", "-n", "2"]
    assert run([*words, "--prompt-file", "p.safetensors", "-o", "n.fa"]) == 0
    assert "3 prompts of up to 5 bp behind 6 soft tokens" in capsys.readouterr().out
    prompted = load_prompt("p.safetensors", load("model"))
    texts = ["ACGTA", "GG", "TTGCA"]
    want = list(generate(load("model"), texts, 30, count=2, soft_prompt=prompted.prompt))
    records = [part.splitlines() for part in Path("n.fa").read_text().split(">")[1:]]
    assert ["".join(lines) for _, *lines in records] == [each.sequence for each in want]
    assert all("soft_tokens=6" in header for header, *_ in records)
    assert run([*words, "-o", "plain.fa"]) == 0
    assert "soft" not in Path("plain.fa").read_text() + capsys.readouterr().out


@pytest.mark.parametrize("verb", ["predict", "embed", "generate"])
def test_a_run_is_not_gone_on_with_by_another_prompt(place, capsys, monkeypatch, verb):
    words = {
        "predict": ["predict", "model", "s.csv", "-o", "o.csv"],
        "embed": ["embed", "model", "g.fa", "-o", "o.npz"],
        "generate": ["generate", "model", "-o", "o.fa", "--prompt", "AC", "--length", "9"],
    }[verb]
    words += [*ONE, "--prompt-file"]
    from hyenadna.infer import interrupted

    def full(part, whole):
        raise OSError(28, "No space left on device", str(whole))

    with monkeypatch.context() as patch:
        patch.setattr(interrupted.Part, "finish", full)
        assert run([*words, "p.safetensors"]) == 2
    assert "the disk is full" in capsys.readouterr().err
    assert run([*words, "head.safetensors", "--resume"]) == 2
    assert "was made with other soft_prompt" in capsys.readouterr().err
    assert run([*words[:-1], "--resume"]) == 2  # none
    shutil.copy("p.safetensors", "copy.safetensors")
    assert run([*words, "copy.safetensors", "--resume"]) == 0


def test_interrupted_predictions_go_on(place, monkeypatch):
    words = [*PREDICT, "--prompt-file", "p.safetensors"]
    assert run([*words, "-o", "whole.csv"]) == 0
    monkeypatch.setattr(command, "_CHUNK_ROWS", 7)
    append, calls = RowsFile.append, []

    def interrupted(file, rows, sequences):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(sequences)
        append(file, rows, sequences)

    with monkeypatch.context() as patch:
        patch.setattr(RowsFile, "append", interrupted)
        assert run([*words, "-o", "p.csv"]) == 130
    assert run([*words, "-o", "p.csv", "--resume"]) == 0
    got, want = (
        np.array([[float(row["p_no"]) for row in rows(name)]]) for name in ("p.csv", "whole.csv")
    )
    np.testing.assert_allclose(got, want, atol=1e-6)


NEW = ["generate", "model", "--prompt", "ACGT", "-o", "n.fa", "--length"]
P = ["--prompt-file", "p.safetensors"]
WRONG = [
    (["predict", "other", "s.csv", "-o", "o.csv", *P], "was tuned for another model (model)"),
    (["embed", "other", "g.fa", "-o", "o.npz", *P], "was tuned for another model (model)"),
    (["generate", "other", *NEW[2:], "9", *P], "was tuned for another model (model)"),
    (["predict", "model", "s.csv", "-o", "o.csv", "--prompt-file", "gone"], "no such prompt file"),
    (["embed", "model", "g.fa", "-o", "o.npz", "--prompt-file", "s.csv"], "is no prompt file"),
    (
        [*NEW, "9", "--prompt-file", "model/model.safetensors"],
        "is no prompt file (it says nothing of a prompt)",
    ),
    (["predict", "gone", "s.csv", "-o", "o.csv", *P], "gone"),
    (
        ["predict", "model", "long.fa", "-o", "o.csv", *P],
        "long.fa:1: 'a' has 60 tokens, but this model reads up to 59, behind 6 soft tokens and "
        "before a word of 1; crop to the middle with --max-length 59",
    ),
    (
        ["predict", "model", "s.csv", "-o", "o.csv", "--max-length", "60", *P],
        "--max-length is 60; this model reads 1 to 59 tokens, behind 6 soft tokens",
    ),
    (["predict", "model", "s.csv", "-o", "o.csv", "--strands", "average", *P], "as it is given"),
    (["predict", "model", "s.csv", "-o", "o.csv", "--max-memory", "1MiB", *P], "behind 6 soft tok"),
    (["predict", "model", "s.csv", "-o", "o.csv", "--long", *P], "--long is for a class of each"),
    (["embed", "model", "g.fa", "-o", "o.npz", "--length", "61", *P], "reads 1 to 60 bases behind"),
    ([*NEW, "58", *P], "4 bases and 58 new ones behind 6 soft tokens are more than this model"),
    (["convert", "p.safetensors", "new"], "is a soft prompt; write it as a folder of peft"),
    (["convert", "p.safetensors", "model", "--layout", "peft"], "model: exists"),
    (["convert", "head.safetensors", "new", "--layout", "peft"], "is read by a head"),
    (["convert", "model", "new", "--layout", "peft"], "model: there is no such prompt file"),
    (["convert", "model", "new", "--label-words", "a=A"], "--label-words has no meaning"),
    (["convert", "model", "new", "--model", "model"], "--model has no meaning"),
    (["convert", "peft", "q.safetensors"], "give the model it is for with --model"),
    (["convert", "peft", "q.safetensors", "--model", "other"], "was tuned for another model"),
    (["convert", "peft", "p.safetensors", "--model", "model"], "p.safetensors: exists"),
    (["convert", "peft", "q.safetensors", "--model", "model", "--layout", "hf"], "--layout has no"),
    (
        ["convert", "peft", "q.safetensors", "--model", "model", "--label-words", "A"],
        "--label-words: cannot use 'A'; give NAME=WORD",
    ),
]


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_bad_use_is_one_line_before_anything_is_written(place, capsys, words, message):
    (place / "long.fa").write_text(f">a\n{'A' * 60}\n")
    assert run(["convert", "p.safetensors", "peft", "--layout", "peft"]) == 0
    capsys.readouterr()
    before = {p.name for p in place.rglob("*")} | {"g.fa.fai"}
    assert run([*words, *(ONE if words[0] != "convert" else [])]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(error) == 1 and message in error[0]
    assert {p.name for p in place.rglob("*")} | {"g.fa.fai"} == before


def test_there_and_back_through_peft(place, capsys):
    assert run(["convert", "p.safetensors", "peft", "--layout", "peft", "--model", "model"]) == 0
    assert "6 soft tokens for model written to peft (peft layout)" in capsys.readouterr().out
    assert json.loads(Path("peft/adapter_config.json").read_text())["base_model_name_or_path"] == (
        "model"
    )
    assert run(["convert", "peft", "back.safetensors", "--model", "model"]) == 0
    assert "classes no, yes in words A N, written to back.safetensors" in capsys.readouterr().out
    assert outputs("back.safetensors") == outputs("p.safetensors")
    Path("peft/hyenadna_prompt.json").unlink()  # as peft itself writes a folder
    assert run(["convert", "peft", "x.safetensors", "--model", "model"]) == 2
    assert "does not say which classes it is for; give their label words" in capsys.readouterr().err
    words = ["--model", "model", "--label-words", "yes = GT, no=AC"]
    assert run(["convert", "peft", "named.safetensors", *words]) == 0
    saved, tensors = read_prompt("named.safetensors")
    assert (saved.names, saved.words) == (("yes", "no"), ("GT", "AC"))
    assert torch.equal(tensors["prompt"], read_prompt("p.safetensors")[1]["prompt"])
