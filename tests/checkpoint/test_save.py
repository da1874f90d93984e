"""Saving is whole or not at all, and round trips lose nothing."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_examples import (
    all_tensors,
    lightning_value,
    logits,
    small_model,
    training_state,
    write_hf,
    write_lightning,
)
from safetensors import safe_open
from safetensors.torch import load_file

from hyenadna.checkpoint import convert, load, load_with_report, save
from hyenadna.checkpoint import folder as folder_module
from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.model.backbone import HyenaDNA


def test_hf_to_ours_to_hf_is_equal_bit_for_bit(tmp_path: Path) -> None:
    before = write_hf(tmp_path / "a", small_model(tie_word_embeddings=False))
    save(load(tmp_path / "a"), tmp_path / "b")
    after = load_file(tmp_path / "b" / "model.safetensors")
    assert set(after) == set(before)
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name


@pytest.mark.parametrize("case", ["base_o2", "deep_emb9", "order3"])
def test_golden_hf_to_ours_to_hf(shared: Path, tmp_path: Path, case: str) -> None:
    """Parameters bit for bit; tables too where they are kept, else to the rounding of cosines."""
    source = shared / "golden" / case
    _, report = load_with_report(source)
    save(load(source), tmp_path / "m")
    before = load_file(source / "model.safetensors")
    after = load_file(tmp_path / "m" / "model.safetensors")
    assert set(after) == set(before)
    for name, tensor in before.items():
        table = name.endswith(("pos_emb.z", "pos_emb.t", "deltas"))
        if table and name.removeprefix("hyena.") not in report.kept_tables:
            torch.testing.assert_close(after[name], tensor, atol=5e-6, rtol=0)
        else:
            assert torch.equal(after[name], tensor), name
    fields = json.loads((source / "config.json").read_text())
    saved = json.loads((tmp_path / "m" / "config.json").read_text())
    assert {name: saved[name] for name in fields} == fields  # every published field, same value


@pytest.mark.parametrize("case", ["lightning_ckpt", "extra_trainrepo_order3"])
def test_golden_lightning_to_ours_to_hf_and_back(shared: Path, tmp_path: Path, case: str) -> None:
    source = shared / "golden" / case / "weights_plain.ckpt"
    ids = load_file(shared / "golden" / case / "tokens.safetensors")["input_ids.1"]
    first = convert(source, tmp_path / "hf")
    assert first.layout == "training"
    second = convert(tmp_path / "hf", tmp_path / "back", layout="training")
    assert second.layout == "hf"
    with torch.no_grad():
        want = load(source)(ids)
        assert torch.equal(load(tmp_path / "hf")(ids), want)
        assert torch.equal(load(tmp_path / "back")(ids), want)
    theirs = torch.load(source, weights_only=True)
    back = torch.load(tmp_path / "back" / "weights.ckpt", weights_only=True)["state_dict"]
    for name, tensor in theirs.get("state_dict", theirs).items():
        plain = name.replace(".layer.", ".")
        if "torchmetrics" not in name:
            torch.testing.assert_close(back[plain], tensor, atol=5e-6, rtol=0)


@pytest.mark.parametrize("shape", [{}, {"hyena_order": 3}, {"train_freq": False}])
def test_ours_to_training_to_ours(tmp_path: Path, shape: dict[str, Any]) -> None:
    model = small_model(window_shift=0.0, **shape)
    save(model, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "training", layout="training")
    loaded, report = load_with_report(tmp_path / "training")
    assert report.layout == "training"
    assert loaded.config == model.config
    assert torch.equal(logits(loaded), logits(model))
    state = torch.load(tmp_path / "training" / "weights.ckpt", weights_only=True)["state_dict"]
    expected = training_state(model)
    assert set(state) == set(expected)  # every copy of freq, every table, the tied head
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name


def test_lightning_to_hf(tmp_path: Path) -> None:
    model = small_model()
    write_lightning(tmp_path / "l", model, lightning_value(model))
    convert(tmp_path / "l", tmp_path / "hf", window_shift=0.0)
    loaded = load(tmp_path / "hf")
    assert loaded.config == model.config.replace(window_shift=0.0)
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True)
    )


def test_the_training_layout_refuses_a_head_of_its_own(tmp_path: Path) -> None:
    save(small_model(tie_word_embeddings=False), tmp_path / "m")
    with pytest.raises(InputError, match="head differs from the token table"):
        convert(tmp_path / "m", tmp_path / "t", layout="training")
    assert not (tmp_path / "t").exists()
    with pytest.raises(InputError, match="'hf' or 'training'"):
        convert(tmp_path / "m", tmp_path / "t", layout="onnx")  # type: ignore[arg-type]


@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_model_is_the_same_model(tmp_path: Path, tied: bool) -> None:
    model = small_model(
        tie_word_embeddings=tied, window_shift=0.01, resid_dropout=0.3, hyena_order=3
    )
    save(model, tmp_path / "m")
    loaded = load(tmp_path / "m")
    assert loaded.config == model.config
    assert torch.equal(logits(loaded), logits(model))


def test_the_file_is_as_published_loaders_want_it(tmp_path: Path) -> None:
    save(small_model(), tmp_path / "m")
    with safe_open(tmp_path / "m" / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        names = set(file.keys())
    assert "lm_head.weight" in names  # also of a tied model
    assert all(n.startswith("hyena.backbone.") for n in names - {"lm_head.weight"})
    layer = "hyena.backbone.layers.0.mixer.filter_fn"
    assert {n for n in names if n.startswith(f"{layer}.implicit_filter") and "freq" in n} == {
        f"{layer}.implicit_filter.1.freq"
    }
    for table in ("pos_emb.z", "pos_emb.t", "modulation.deltas"):
        assert f"{layer}.{table}" in names


def test_without_tables_only_changed_ones_are_written(tmp_path: Path) -> None:
    model = small_model()
    save(model, tmp_path / "m", tables=False)
    names = load_file(tmp_path / "m" / "model.safetensors")
    assert not [name for name in names if name.endswith(("z", "t", "deltas")) and "emb" in name
                and "word" not in name]  # fmt: skip
    assert torch.equal(logits(load(tmp_path / "m")), logits(model))

    filter_fn = model.backbone.layers[0].mixer.filter_fn
    filter_fn.keep_table("pos_emb.z", filter_fn.tables()["pos_emb.z"] * 1.1)
    save(model, tmp_path / "m", tables=False)
    names = load_file(tmp_path / "m" / "model.safetensors")
    assert [n for n in names if n.endswith(".z")] == [
        "hyena.backbone.layers.0.mixer.filter_fn.pos_emb.z"
    ]
    assert torch.equal(logits(load(tmp_path / "m")), logits(model))


def test_a_training_model_is_saved_as_it_is(tmp_path: Path) -> None:
    model = small_model().train()
    save(model, tmp_path / "m")
    assert model.training
    assert torch.equal(logits(load(tmp_path / "m")), logits(model.eval()))


def test_a_bfloat16_model_says_so(tmp_path: Path) -> None:
    save(small_model().bfloat16(), tmp_path / "m")
    assert json.loads((tmp_path / "m" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    assert tensors["lm_head.weight"].dtype == torch.bfloat16
    z = tensors["hyena.backbone.layers.0.mixer.filter_fn.pos_emb.z"]
    assert z.dtype == torch.float32  # tables are never rounded


# -- whole or not at all --------------------------------------------------------------------------


def left_over(parent: Path) -> list[str]:
    return sorted(entry.name for entry in parent.iterdir() if entry.name.startswith("."))


def test_extra_files_are_written_and_a_replaced_folder_is_new(tmp_path: Path) -> None:
    save(small_model(1), tmp_path / "m", extra_files={"state.json": "{}", "rng.bin": b"\1\2"})
    assert (tmp_path / "m" / "state.json").read_text() == "{}"
    assert (tmp_path / "m" / "rng.bin").read_bytes() == b"\1\2"
    save(small_model(2), tmp_path / "m")
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    assert torch.equal(logits(load(tmp_path / "m")), logits(small_model(2)))
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("name", ["../x", "a/b", "config.json", "model.safetensors", "..", ""])
def test_extra_files_have_plain_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="plain file name"):
        save(small_model(), tmp_path / "m", extra_files={name: ""})
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("limit", [1, 1500, 4000])
def test_a_model_in_several_files(tmp_path: Path, limit: int) -> None:
    """None is longer than the limit but for a single tensor; nothing is lost, or twice there."""
    model = small_model(tie_word_embeddings=False)
    save(model, tmp_path / "one")
    whole = load_file(tmp_path / "one" / "model.safetensors")
    save(model, tmp_path / "m", shard_bytes=limit)
    index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())
    files = sorted((tmp_path / "m").glob("*.safetensors"))
    assert sorted(set(index["weight_map"].values())) == [path.name for path in files]
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in whole.values())
    found: dict[str, torch.Tensor] = {}
    for path in files:
        tensors = load_file(path)
        assert len(tensors) == 1 or sum(t.nbytes for t in tensors.values()) <= limit
        assert all(index["weight_map"][name] == path.name for name in tensors)
        assert not tensors.keys() & found.keys()
        found |= tensors
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in whole.items())
    assert torch.equal(logits(load(tmp_path / "m")), logits(model))
    convert(tmp_path / "m", tmp_path / "again")  # and one file again
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_are_written_as_they_are(tmp_path: Path, dtype: torch.dtype) -> None:
    model = small_model().to(dtype)
    save(model, tmp_path / "m", tables=False)
    file = load_file(tmp_path / "m" / "model.safetensors")
    for name, tensor in model.state_dict().items():
        if name.replace("backbone", "hyena.backbone") in file:
            assert torch.equal(file[name.replace("backbone", "hyena.backbone")], tensor)
    assert torch.equal(load(tmp_path / "m", dtype=dtype).head_weight, model.head_weight)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"),
                                   KeyboardInterrupt()])  # fmt: skip
@pytest.mark.parametrize("at", ["write_model", "write_json"])
def test_a_full_disk_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, at: str
) -> None:
    save(small_model(1), tmp_path / "m")

    def fail(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["hyenadna.checkpoint.save"], at, fail)
        if isinstance(error, OSError):
            with pytest.raises(InputError, match=r"No space left on device.*untouched") as caught:
                save(small_model(2), tmp_path / "m")
            assert "\n" not in str(caught.value)
        else:
            with pytest.raises(KeyboardInterrupt):
                save(small_model(2), tmp_path / "m")
    assert torch.equal(logits(load(tmp_path / "m")), logits(small_model(1)))
    assert left_over(tmp_path) == []


def test_a_real_write_limit_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    save(small_model(1), tmp_path / "m")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(InputError, match="File too large"):
            save(small_model(2), tmp_path / "m", extra_files={"big": b"x" * 4000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert torch.equal(logits(load(tmp_path / "m")), logits(small_model(1)))
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("crash_at", [1, 2])
def test_a_crash_between_the_renames_leaves_a_loadable_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    """The process dies before rename 1 or 2: nothing is tidied up, and still one loads."""
    target = tmp_path / "run" / "best"
    save(small_model(1), target)

    class Died(BaseException):
        pass

    calls = 0
    original = Path.rename

    def rename(self: Path, other: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= crash_at:
            raise Died
        return original(self, other)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        patch.setattr(folder_module, "_remove", lambda path: None)
        with pytest.raises(Died):
            save(small_model(2), target)
    assert target.exists() == (crash_at == 1)
    assert torch.equal(logits(load(target)), logits(small_model(1)))
    assert torch.equal(logits(load(tmp_path / "run")), logits(small_model(1)))

    save(small_model(3), target)  # the next save tidies up
    assert torch.equal(logits(load(target)), logits(small_model(3)))
    assert left_over(target.parent) == []


def test_a_crash_before_the_old_one_is_deleted(tmp_path: Path) -> None:
    target = tmp_path / "m"
    save(small_model(1), tmp_path / ".m.previous")
    save(small_model(2), target)
    assert torch.equal(logits(load(target)), logits(small_model(2)))
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("inside", ["file", "folder", "nested"])
def test_other_peoples_folders_are_not_replaced(tmp_path: Path, inside: str) -> None:
    target = tmp_path / "work"
    if inside == "file":
        target.write_text("precious")
    elif inside == "folder":
        target.mkdir()
        (target / "thesis.tex").write_text("precious")
    else:
        write_hf(target, small_model())
        (target / "data").mkdir()
    with pytest.raises(InputError, match="choose another"):
        save(small_model(), target)
    assert target.exists()
    assert left_over(tmp_path) == []


def test_an_empty_folder_and_missing_parents_will_do(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    save(small_model(), tmp_path / "empty")
    save(small_model(), tmp_path / "a" / "b" / "c")
    assert torch.equal(logits(load(tmp_path / "empty")), logits(load(tmp_path / "a/b/c")))


def test_a_link_to_a_checkpoint_stays_a_link(tmp_path: Path) -> None:
    save(small_model(1), tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    save(small_model(2), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert torch.equal(logits(load(tmp_path / "real")), logits(small_model(2)))


def test_all_tensors_of_the_examples_are_all_there_is() -> None:
    """The helper of these tests counts every parameter, so that comparing files compares models."""
    model = small_model(tie_word_embeddings=False)
    named = {n for n, _ in model.named_parameters(remove_duplicate=False)}
    assert named <= set(all_tensors(model))


def test_a_folder_with_files_of_somebody_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "project"
    save(HyenaDNA(ModelConfig(d_model=8, n_layer=1, max_seq_len=34)), target)
    (target / "thesis.docx").write_text("years of work")
    with pytest.raises(InputError, match=r"holds thesis\.docx, so it is not replaced"):
        save(HyenaDNA(ModelConfig(d_model=8, n_layer=1, max_seq_len=34)), target)
    assert (target / "thesis.docx").read_text() == "years of work"
