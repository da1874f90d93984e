"""Fine-tuned models on disk: round trips lose nothing, damage is told in one line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_examples import logits, small_model, tokens, write_hf
from safetensors.torch import load_file, save_file

from hyenadna.alphabet import PAD
from hyenadna.checkpoint import folder as folder_module
from hyenadna.checkpoint import load, save
from hyenadna.checkpoint.task import load_task, read_task, save_task
from hyenadna.errors import InputError
from hyenadna.model.adapters import add_lora, has_adapters
from hyenadna.model.digest import weights_digest
from hyenadna.model.heads import STRANDS, TaskModel
from hyenadna.model.pooling import POOLINGS


@dataclass(frozen=True)
class Task:
    kind: str = "classes"
    names: tuple[str, ...] = ("exon", "intron", "µRNA")

    @property
    def outputs(self) -> int:
        return len(self.names)


def small_task(pooling: str = "mean", strands: str = "forward", **options: Any) -> TaskModel:
    torch.manual_seed(7)
    task = options.pop("task", Task("tokens" if pooling == "token" else "classes"))
    model = options.pop("model", None) or small_model()
    made = TaskModel(model, task, pooling=pooling, strands=strands, **options)  # type: ignore[arg-type]
    for name, parameter in made.named_parameters():
        if not name.startswith("model."):
            torch.nn.init.normal_(parameter)
    return made.eval()


def outputs(made: TaskModel) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = made(tokens(30), torch.tensor([30, 12]))
    return out


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("strands", STRANDS)
def test_round_trip(tmp_path: Path, pooling: str, strands: str) -> None:
    made = small_task(pooling, strands, dropout=0.25)
    digest = weights_digest(made.model)
    settings = {"precision": "bf16", "seed": 3, "lr": 1e-4, "ids": None}
    save_task(made, tmp_path / "m", max_length=30, base_digest=digest, settings=settings)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    back = load_task(tmp_path / "m")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(outputs(back), outputs(made))
    assert not back.training and back.dropout.p == 0.25
    assert (back.pooling, back.strands) == (pooling, strands)
    assert back.task.names == made.task.names and back.task.kind == made.task.kind
    task = read_task(tmp_path / "m")
    assert task == back.task
    assert (task.max_length, task.base_digest, task.settings) == (30, digest, settings)
    assert set(task.versions) == {"hyenadna", "torch"}
    save_task(back, tmp_path / "again", max_length=30, base_digest=digest, settings=task.settings)
    for file in ("task.json", "head.safetensors", "config.json", "model.safetensors"):
        one, other = tmp_path / "m" / file, tmp_path / "again" / file
        assert one.read_bytes() == other.read_bytes(), file


def test_the_backbone_is_an_ordinary_checkpoint(tmp_path: Path) -> None:
    made = small_task()
    save_task(made, tmp_path)
    assert torch.equal(logits(load(tmp_path)), logits(made.model))
    assert weights_digest(load(tmp_path)) == weights_digest(made.model)


def test_a_task_in_a_run_folder_and_in_place_of_another(tmp_path: Path) -> None:
    save_task(small_task("last"), tmp_path / "best")
    made = small_task("attention")
    save_task(made, tmp_path / "best")
    assert torch.equal(outputs(load_task(tmp_path)), outputs(made))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best"]


def test_a_failed_write_leaves_the_old_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = small_task()
    save_task(made, tmp_path / "m")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "_sync", full)
        with pytest.raises(InputError, match="No space left on device"):
            save_task(small_task("last"), tmp_path / "m")
    assert torch.equal(outputs(load_task(tmp_path / "m")), outputs(made))


def test_adapters_are_merged_into_what_is_written(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    made = small_task()
    add_lora(made.model, rank=2)
    for name, parameter in made.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    made.eval()
    save_task(made, tmp_path)
    back = load_task(tmp_path)
    assert has_adapters(made) and not has_adapters(back)
    torch.testing.assert_close(outputs(back), outputs(made), atol=1e-5, rtol=1e-5)


def test_float64_and_half_precision_backbones(tmp_path: Path) -> None:
    made = small_task(model=small_model().bfloat16())
    save_task(made, tmp_path / "half")
    back = load_task(tmp_path / "half")
    assert back.head.weight.dtype == torch.float32
    assert torch.equal(back.head.weight, made.head.weight)
    made = small_task(model=small_model().double())
    save_task(made, tmp_path / "double")
    back = load_task(tmp_path / "double")  # in float32, as `load` does
    assert outputs(back).dtype == torch.float32
    torch.testing.assert_close(outputs(back).double(), outputs(made), atol=1e-4, rtol=1e-4)


# -- published classifiers -------------------------------------------------------------------------


def test_golden_sequence_classifier(shared: Path) -> None:
    folder = shared / "golden" / "extra_hf_seqcls"
    made = load_task(folder)
    assert (made.task.kind, made.task.names) == ("classes", ("LABEL_0", "LABEL_1", "LABEL_2"))
    assert made.pooling == "last" and (made.head.bias == 0).all()
    ids = load_file(folder / "tokens.safetensors")
    expected = load_file(folder / "expected.safetensors")
    for case in ("nopad", "right"):
        lengths = (ids[f"input_ids.{case}"] != PAD).sum(1)
        with torch.no_grad():
            out = made(ids[f"input_ids.{case}"], lengths)
        torch.testing.assert_close(out, expected[f"logits.{case}"], atol=2e-4, rtol=0)


@pytest.mark.parametrize(
    ("fields", "rows", "kind"),
    [
        ({}, 1, "values"),
        ({}, 2, "classes"),
        ({"problem_type": "multi_label_classification"}, 2, "labels"),
        ({"problem_type": "regression"}, 2, "values"),
    ],
)
def test_a_published_classifier(
    tmp_path: Path, fields: dict[str, Any], rows: int, kind: str
) -> None:
    model = small_model()
    tensors = write_hf(tmp_path, model, id2label={"1": "yes", "0": "no"}, **fields)
    del tensors["lm_head.weight"]
    tensors["score.weight"] = torch.randn(rows, 8, generator=torch.Generator().manual_seed(0))
    save_file(tensors, tmp_path / "model.safetensors")
    made = load_task(tmp_path)
    assert made.task.kind == kind and made.task.names == ("no", "yes")[:rows]
    states = model.embed(tokens(30))
    wanted = torch.stack([states[0, 29], states[1, 11]]) @ tensors["score.weight"].T
    torch.testing.assert_close(outputs(made), wanted.detach(), atol=1e-5, rtol=1e-5)
    with pytest.raises(InputError, match=r"has no task\.json"):
        read_task(tmp_path)


def test_a_published_classifier_of_an_unknown_kind(tmp_path: Path) -> None:
    tensors = write_hf(tmp_path, small_model(), problem_type="ranking")
    tensors["score.weight"] = torch.zeros(2, 8)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="problem_type is 'ranking'; it is one of regression"):
        load_task(tmp_path)


# -- damage ----------------------------------------------------------------------------------------


def test_a_model_without_a_task(tmp_path: Path) -> None:
    save(small_model(), tmp_path)
    for read in (load_task, read_task):
        with pytest.raises(InputError, match=r"has no task\.json, .* fine-tune it first"):
            read(tmp_path)
    with pytest.raises(InputError, match="nowhere"):
        load_task(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "ranks"}, r"task\.json: kind is 'ranks'; it is one of classes"),
        ({"kind": None}, "kind is None"),
        ({"names": "abc"}, "names is 'abc'; it is a list of texts"),
        ({"names": [1, 2, 3]}, r"names is \[1, 2, 3\]"),
        ({"names": []}, "no names of outputs"),
        ({"names": ["a", "b", "a"]}, "output 'a' stands twice"),
        ({"names": ["a", "b"]}, r"head.bias is \(3,\), but task.json .* make it \(2,\)"),
        ({"pooling": "max"}, "pooling is 'max'; it is one of mean"),
        ({"pooling": "token"}, "pooling is 'token'; it is for a class at each base"),
        ({"pooling": "attention"}, "attention.query is missing, but task.json"),
        ({"strands": "both"}, "strands is 'both'; it is one of forward"),
        ({"strands": "concatenate"}, r"head.weight is \(3, 8\), .* make it \(3, 16\)"),
        ({"dropout": True}, "dropout is True; it is a number"),
        ({"max_length": 0}, "max_length is 0; it is a number of tokens, or null"),
        ({"base_digest": 5}, "base_digest is 5"),
        ({"settings": []}, r"settings is \[\]; it is a JSON object"),
        ({"format": 2}, "format is 2; this version of hyenadna reads 1"),
    ],
)
def test_damaged_task_json(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    save_task(small_task(), tmp_path)
    file = tmp_path / "task.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InputError, match=message) as caught:
        load_task(tmp_path)
    assert str(tmp_path) in str(caught.value) or "task head" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fields_of_later_versions_are_passed_over_and_early_ones_may_lack_some(
    tmp_path: Path,
) -> None:
    made = small_task()
    save_task(made, tmp_path)
    file = tmp_path / "task.json"
    values = json.loads(file.read_text()) | {"more": 1}
    for name in ("strands", "dropout", "max_length", "base_digest", "settings", "versions"):
        del values[name]
    file.write_text(json.dumps(values))
    assert torch.equal(outputs(load_task(tmp_path)), outputs(made))
    del values["kind"]
    file.write_text(json.dumps(values))
    with pytest.raises(InputError, match="kind is missing; it is one of"):
        load_task(tmp_path)


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    save_task(small_task(), tmp_path)
    task, head = tmp_path / "task.json", tmp_path / "head.safetensors"
    whole = head.read_bytes()
    head.write_bytes(whole[:-5])
    with pytest.raises(InputError, match=r"head\.safetensors: damaged or incomplete"):
        load_task(tmp_path)
    head.unlink()
    with pytest.raises(InputError, match=r"head\.safetensors: is missing, but task\.json stands"):
        load_task(tmp_path)
    head.write_bytes(whole)
    save_file(load_file(head) | {"extra": torch.zeros(2)}, head)
    with pytest.raises(InputError, match=r"extra is \(2,\), .* no part of this head"):
        load_task(tmp_path)
    head.write_bytes(whole)
    for text, message in (("{", "cannot be read"), ("[]", "holds a list, where a JSON object")):
        task.write_text(text)
        with pytest.raises(InputError, match=message):
            load_task(tmp_path)


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="settings hold something that JSON cannot"):
        save_task(small_task(), tmp_path / "m", settings={"x": {1, 2}})
    with pytest.raises(InputError, match="settings hold something that JSON cannot"):
        save_task(small_task(), tmp_path / "m", settings={"x": float("nan")})
    with pytest.raises(InputError, match="output 'a' stands twice in the names"):
        save_task(small_task(task=Task(names=("a", "a"))), tmp_path / "m")
    made = small_task()
    made.task = Task(names=("a", "b"))  # type: ignore[assignment]
    with pytest.raises(InputError, match="2 names for 3 outputs"):
        save_task(made, tmp_path / "m")
    assert not (tmp_path / "m").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.doc").write_text("")
    with pytest.raises(InputError, match=r"exists and holds thesis\.doc"):
        save_task(small_task(), tmp_path / "mine")
