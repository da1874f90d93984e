"""`hyenadna plan` as people call it: what it prints, JSON, and one-line refusals."""

from __future__ import annotations

import json

import pytest

from hyenadna.cli.app import run
from hyenadna.cli.plan import model_config
from hyenadna.config import ModelConfig, preset


def test_a_gpu_plan_says_memory_time_and_price(capsys):
    words = ["plan", "large-1m", "--length", "1000000", "--device", "h100"]
    assert run([*words, "--batch", "8"]) == 0
    said = capsys.readouterr().out
    assert "6,550,528 parameters" in said and "kept activations" in said
    assert "does not fit" in said and "it fits with --at-once 4" in said
    assert "bases a second" in said and "dollars" in said and "Not measured on GPUs" in said
    assert "3 dollars an hour of a device is one too" in said
    assert run(words) == 0 and "GiB: fits" in capsys.readouterr().out


def test_rows_that_do_not_count_are_told(capsys):
    assert run(["plan", "tiny-1k", "--ranks", "4", "--batch", "6", "--device", "a100"]) == 0
    assert "2 of 8 rows will not count (--batch 8)" in capsys.readouterr().out


def test_json_has_the_same(capsys):
    words = "--length 1000000 --ranks 8 --context-ranks 8 --fsdp --device h200 --precision bf16"
    price = ["--price-per-hour", "2", "--bases", "1e9", "--epochs", "3", "--json"]
    assert run(["plan", "large-1m", *words.split(), *price]) == 0
    found = json.loads(capsys.readouterr().out)
    parts = dict(found["memory"])
    assert parts.pop("total") == pytest.approx(sum(parts.values()))
    assert found["fits"] and found["change"] is None
    first = found["budgets"][0]
    assert first["bases"] == 3e9
    assert first["dollars"] == pytest.approx(first["days"] * 24 * 8 * 2)
    assert found["sent"]["exchanges"] > 0 and found["setup"]["context"] == 8
    assert found["model"]["parameters"] == 6_550_528


def test_models_by_preset_file_and_folder(tmp_path):
    config = ModelConfig(d_model=16, n_layer=1, max_seq_len=34)
    assert model_config("tiny-1k") == model_config("hyenadna-tiny-1k-seqlen") == preset("tiny-1k")
    for place in (tmp_path / "config.json", tmp_path / "run" / "best" / "config.json"):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(config.to_dict()))
    assert model_config(str(tmp_path / "config.json")) == config
    assert model_config(str(tmp_path)) == model_config(str(tmp_path / "run")) == config
    assert model_config("starter-16k").max_seq_len == 16386
    original = {"d_model": 16, "n_layer": 1, "layer": {"l_max": 34}}
    (tmp_path / "config.json").write_text(json.dumps(original))
    assert model_config(str(tmp_path)).max_seq_len == 34


def test_this_machine_is_probed(capsys, monkeypatch):
    monkeypatch.setattr("hyenadna.model.planning.probe._LENGTHS", (64, 128))
    monkeypatch.setattr("hyenadna.model.planning.probe._TOKENS", 128)
    for task in ("train", "infer"):
        words = ["tiny-1k", "--length", "100", "--threads", "1", "--task", task, "--json"]
        assert run(["plan", *words]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["device"]["name"] == "cpu" and found["fits"]
        assert 0 < found["seconds"]["total"] < 60
        assert found["budgets"][0]["dollars"] is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["large"], "large: no preset, JSON file or folder with a config.json; there are tiny-1k"),
        (["large-1m", "--context-ranks", "3", "--ranks", "6"], "256 channels over 3 ranks"),
        (["large-1m", "--context-ranks", "2"], "--context-ranks is 2 of 1 ranks"),
        (["tiny-1k", "--length", "4096"], "--length 4096: the model reads at most 1026"),
        (["tiny-1k", "--fsdp"], "--fsdp needs several ranks; give --ranks"),
        (["tiny-1k", "--bases", "-1"], "--bases is -1"),
        (["tiny-1k", "--device", "b200"], "b200"),
    ],
)
def test_refusals_are_one_line(capsys, words, told):
    device = [] if "--device" in words else ["--device", "h100"]
    assert run(["plan", *words, *device]) == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1


def test_a_broken_file_is_told(capsys, tmp_path):
    path = tmp_path / "model.json"
    for text, told in (
        ("{", "cannot be read as JSON"),
        ("[1]", "model.json"),
        ('{"d_model": "wide"}', "d_model is 'wide'"),
        ('{"n_layer": 2}', "model.json"),
    ):
        path.write_text(text)
        assert run(["plan", str(path), "--device", "h100"]) == 2
        said = capsys.readouterr().err
        assert told in said and said.count("\n") == 1
