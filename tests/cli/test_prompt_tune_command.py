"""`hyenadna prompt-tune`: a table in, one small prompt file out; the model stays as it is."""

from __future__ import annotations

import csv
import json
import shutil
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from hyenadna.alphabet import encode
from hyenadna.checkpoint.load import load
from hyenadna.checkpoint.prompt_file import load_prompt, read_prompt
from hyenadna.checkpoint.save import save
from hyenadna.cli import finetune_job
from hyenadna.cli.app import run
from hyenadna.cli.prompt_options import PromptRequest
from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.infer.predict import predict
from hyenadna.model.backbone import HyenaDNA, rescale_filters
from hyenadna.model.digest import weights_digest
from hyenadna.training_config import PromptConfig

SHAPE = ModelConfig(d_model=16, n_layer=2, max_seq_len=130, filter_order=16)
QUICK = ["--threads", "1", "--epochs", "2", "--batch-size", "32", "--compare", "none"]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A model, and a table whose classes differ in their share of G and C."""
    folder = tmp_path_factory.mktemp("prompts")
    torch.manual_seed(0)
    model = HyenaDNA(SHAPE)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    rescale_filters(model)
    save(model, folder / "model")
    rng = np.random.default_rng(0)
    with (folder / "gc.csv").open("w", newline="") as text:
        writer = csv.writer(text)
        writer.writerow(["id", "sequence", "label", "split"])
        for i in range(300):
            p = [0.1, 0.4, 0.4, 0.1] if i % 2 else [0.4, 0.1, 0.1, 0.4]
            letters = "".join(rng.choice(list("ACGT"), int(rng.integers(20, 41)), p=p))
            part = "train" if i < 200 else "valid" if i < 240 else "test"
            writer.writerow([f"s{i}", letters, "gc" if i % 2 else "at", part])
    return folder


@pytest.fixture
def place(home, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("model", "gc.csv"):
        (tmp_path / name).symlink_to(home / name)
    return tmp_path


def tune(*words: str) -> int:
    return run(["prompt-tune", *words, *QUICK])


def metrics(out: str = "RUN") -> dict:
    return json.loads(Path(out, "metrics.json").read_text())


def test_prompts_learn_are_chosen_measured_and_reported(place, capsys):
    before = weights_digest(load("model"))
    words = ["model", "gc.csv", "--out", "RUN", "--tokens", "0,8", "--readout", "head"]
    more = ["--epochs", "6", "--batch-size", "16", "--compare", "linear,kmer,majority"]
    assert run(["prompt-tune", *words, *more, "--threads", "1", "--pooling", "mean"]) == 0
    printed = capsys.readouterr().out
    for text in ("all of them frozen", "soft tokens: 0, 8",
                 "8 soft tokens: epoch 1", "test part, 60 sequences", "linear probe",
                 "--prompt-file RUN/best/prompt.safetensors"):  # fmt: skip
        assert text in printed
    found = metrics()
    assert found["rows"] == {"train": 200, "valid": 40, "test": 60}
    assert found["chosen"] in ("tokens-0", "tokens-8")
    arms = found["arms"]
    assert list(arms) == ["tokens-0", "tokens-8", "linear", "kmer", "majority"]
    assert arms["tokens-8"]["trained"] == 8 * 16 + 34 and arms["linear"]["trained"] == 34
    assert arms["tokens-8"]["metrics"]["accuracy"]["value"] > 0.8
    assert arms["kmer"]["metrics"]["accuracy"]["value"] > 0.9
    assert found["chance"] == {"accuracy": 0.5, "mcc": 0.0}
    page = Path("RUN/report.html").read_text()
    for text in ("Number of soft tokens", "chance", "linear probe", " soft tokens (chosen)"):
        assert text in page
    assert Path("RUN/curve.png").stat().st_size > 5_000
    assert weights_digest(load("model")) == before
    size = sum(f.stat().st_size for f in Path("RUN/best").iterdir())
    assert size < 10_000  # no weights of the model


def test_words_of_a_skewed_task_become_likelier(place, capsys):
    words = ["model", "gc.csv", "--out", "RUN", "--tokens", "0,4", "--readout", "label"]
    more = ["--calibrate", "none", "--lr", "0.1", "--label-words", "at=N,gc=A"]
    assert tune(*words, *more) == 0
    assert "label words: at = N, gc = A" in capsys.readouterr().out
    found = metrics()
    arms = found["arms"]
    assert found["label_words"] == ["N", "A"]
    assert arms["tokens-0"]["trained"] == 0 and not arms["tokens-0"]["valid"]
    untuned, tuned = (arms[f"tokens-{n}"]["metrics"]["log_loss"]["value"] for n in (0, 4))
    assert tuned < untuned


def test_the_file_moved_elsewhere_predicts_the_same(place):
    assert tune("model", "gc.csv", "--out", "RUN", "--tokens", "4", "--readout", "label") == 0
    Path("far").mkdir()
    moved = shutil.move("RUN/best/prompt.safetensors", "far/mine.safetensors")
    shutil.copytree("model", "copy")
    tuned = load_prompt(moved, load("copy"))
    with Path("gc.csv").open() as text:
        rows = [row for row in csv.DictReader(text) if row["split"] == "test"]
    said = list(predict(tuned, [encode(row["sequence"]) for row in rows]))
    with Path("RUN/predictions.csv").open() as text:
        written = list(csv.DictReader(text))
    np.testing.assert_allclose([p[0] for p in said], [float(r["p_at"]) for r in written], atol=1e-6)
    saved, tensors = read_prompt(moved)
    assert saved.base == "model" and saved.settings["prompt"]["tokens"] == "4"
    assert tensors["prompt"].shape == (4, 16)


def test_a_head_reads_numbers_behind_soft_tokens(place):
    with Path("gc.csv").open() as text:
        rows = list(csv.DictReader(text))
    with Path("values.csv").open("w") as text:
        text.write("sequence,label,split\n")
        for row in rows:
            share = sum(letter in "GC" for letter in row["sequence"]) / len(row["sequence"])
            text.write(f"{row['sequence']},{share:.3f},{row['split']}\n")
    words = ["model", "values.csv", "--out", "RUN", "--readout", "head", "--tokens", "0,3"]
    assert tune(*words, "--pooling", "mean") == 0
    found = metrics()
    assert found["arms"]["tokens-0"]["trained"] == 17
    assert found["arms"]["tokens-3"]["trained"] == 3 * 16 + 17
    assert found["label_words"] is None and found["main_metric"] == "pearson"


def test_a_stopped_and_resumed_run_equals_an_unbroken_one(place, monkeypatch, capsys):
    words = ["model", "gc.csv", "--tokens", "2,5", "--seeds", "2", "--readout", "label"]
    assert tune(*words, "--out", "WHOLE") == 0
    assert tune(*words, "--out", "WHOLE") == 2
    assert "there is a run already" in capsys.readouterr().err
    for stop_after in (9, 11):
        with monkeypatch.context() as patch:
            calls = count(1)

            @contextmanager
            def stop_on_signals(calls=calls, stop_after=stop_after):
                yield lambda: 2 if next(calls) >= stop_after else None

            patch.setattr(finetune_job, "stop_on_signals", stop_on_signals)
            more = [*words, *QUICK] if stop_after == 9 else ["--resume"]
            assert run(["prompt-tune", *more, "--out", "RUN"]) == 130
        assert "go on: hyenadna prompt-tune --out RUN --resume" in capsys.readouterr().out
        assert not Path("RUN/metrics.json").exists()
    assert run(["prompt-tune", "--out", "RUN", "--resume", "--tokens", "7"]) == 2
    assert "--tokens is 7, but the run was started with 2,5" in capsys.readouterr().err
    assert run(["prompt-tune", "--out", "RUN", "--resume"]) == 0
    one, two = metrics("WHOLE"), metrics("RUN")
    for found in (one, two):
        for arm in found["arms"].values():
            del arm["seconds"]
        del found["seconds"]
    assert one == two
    files = [Path(out, "predictions.csv").read_text() for out in ("WHOLE", "RUN")]
    assert files[0] == files[1]
    assert run(["prompt-tune", "--out", "RUN", "--resume"]) == 0
    assert "the run is complete" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model", "gc.csv", "--tokens", "many"], "--tokens is 'many'"),
        (["model", "gc.csv", "--tokens", "-1"], "--tokens"),
        (["model", "gc.csv", "--tokens", "130"], "reads 130 tokens in all"),
        (["model", "gc.csv", "--tokens", "100"], "or --max-length 30"),
        (
            ["model", "gc.csv", "--readout", "label", "--label-words", "at=A"],
            "no word for the class 'gc'",
        ),
        (["model", "gc.csv", "--pooling", "mean", "--readout", "label"], "are of a head"),
        (["model", "gc.csv", "--label-words", "at=A,gc=C"], "give --readout label"),
        (["model", "values.csv", "--readout", "label"], "give --readout head"),
        (["model", "gc.csv", "--compare", "cnn"], "no 'cnn'"),
        (["model", "gc.csv", "--metric", "colour"], "--metric is colour"),
        (["model", "gc.csv", "--calibrate", "none"], "give --readout label"),
        (["random:tiny-1k", "gc.csv"], "nothing to adapt"),
        (["model"], "no data given"),
        ([], "no model given"),
        (["model", "gc.csv", "--prompt-dropout", "1"], "--prompt-dropout is 1"),
        (["model", "gc.csv", "--epochs", "0"], "--epochs is 0"),
        (["--resume"], "no prompt-tuning run here"),
    ],
)
def test_bad_use_is_one_line(place, capsys, words, message):
    rows = "".join(f"ACGTACGT{'ACGT'[i % 4] * (i + 1)},{i / 7}\n" for i in range(40))
    Path("values.csv").write_text("sequence,label\n" + rows)
    assert run(["prompt-tune", *words, "--out", "RUN"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not Path("RUN").exists()


def test_the_originals_settings_are_one_switch_away():
    found = PromptConfig(tokens="7", epochs=3).resolved(published=True)
    assert found.label_loss == "vocabulary" and found.calibrate == "none" and found.lr == 1e-3
    assert (found.tokens, found.epochs, found.batch_size) == ("7", 3, 16)
    given = PromptConfig(
        readout="label", batch_size=32, calibrate="train", ema=0.98, reverse_complement=False
    ).resolved(published=True)  # our defaults, where they are asked for
    assert (given.batch_size, given.calibrate, given.ema) == (32, "train", 0.98)
    assert given.reverse_complement is False and given.label_loss == "vocabulary"
    tuning = found.finetune()
    assert (tuning.mode, tuning.ema, tuning.weight_decay) == ("frozen", None, 0)
    request = PromptRequest(options=found, compare=("full",))
    assert PromptRequest.from_dict(json.loads(json.dumps(request.to_dict()))) == request
    with pytest.raises(InputError, match="cannot be read"):
        PromptRequest.from_dict({})


def test_the_model_as_it_is_may_be_the_best(place):
    words = ["model", "gc.csv", "--out", "RUN", "--tokens", "0,2", "--readout", "label"]
    assert tune(*words, "--metric", "accuracy", "--lr", "1e-9") == 0
    found = metrics()
    arms = found["arms"]
    best = max(arms["tokens-0"]["valid_mean"], arms["tokens-2"]["valid_mean"])
    assert arms[found["chosen"]]["valid_mean"] == best
    assert Path("RUN/best/prompt.safetensors").exists() == (found["chosen"] == "tokens-2")
