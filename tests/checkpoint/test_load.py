"""Every published layout loads, with the right numbers, and nothing is passed over silently."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_examples import (
    all_tensors,
    lightning_value,
    logits,
    original_config,
    small_model,
    training_state,
    write_hf,
    write_lightning,
)
from safetensors.torch import load_file, save_file

from hyenadna.checkpoint import load, load_with_report, save
from hyenadna.errors import InputError

GOLDEN = [
    ("base_o2", "", "logits"),
    ("deep_emb9", "", "logits"),
    ("order3", "", "logits"),
    ("lightning_ckpt", "weights.ckpt", "logits"),
    ("lightning_ckpt", "weights_plain.ckpt", "logits"),
    ("extra_trainrepo_order3", "weights_plain.ckpt", "logits.shift0.05"),
]
LAYER0 = "backbone.layers.0.mixer.filter_fn"


@pytest.mark.parametrize(("case", "file", "kind"), GOLDEN)
def test_golden_logits(shared: Path, case: str, file: str, kind: str) -> None:
    folder = shared / "golden" / case
    model, report = load_with_report(folder / file)
    expected = load_file(folder / "expected.safetensors")
    assert not model.training
    assert report.missing == report.unexpected == ()
    compared = 0
    for name, ids in load_file(folder / "tokens.safetensors").items():
        want = expected[f"{kind}.{name.removeprefix('input_ids.')}"]
        with torch.no_grad():
            torch.testing.assert_close(model(ids), want, atol=2e-4, rtol=0)
        compared += 1
    assert compared >= 2


def test_golden_shift_of_the_training_code(shared: Path) -> None:
    folder = shared / "golden" / "extra_trainrepo_order3"
    model = load(folder / "weights_plain.ckpt", window_shift=0.0)
    expected = load_file(folder / "expected.safetensors")
    ids = load_file(folder / "tokens.safetensors")["input_ids.0"]
    with torch.no_grad():
        torch.testing.assert_close(model(ids), expected["logits.shift0.0"], atol=2e-4, rtol=0)


def test_golden_stored_z_is_kept_and_equal_tables_are_not(shared: Path) -> None:
    _, report = load_with_report(shared / "golden" / "deep_emb9")
    assert report.kept_tables == tuple(
        f"backbone.layers.{i}.mixer.filter_fn.pos_emb.z" for i in range(3)
    )
    _, report = load_with_report(shared / "golden" / "base_o2")
    assert report.kept_tables == ()


def test_golden_classifier_keeps_its_head_in_the_report(shared: Path) -> None:
    folder = shared / "golden" / "extra_hf_seqcls"
    model, report = load_with_report(folder)
    stored = load_file(folder / "model.safetensors")["score.weight"]
    assert torch.equal(report.task_head["score.weight"], stored)
    ids = load_file(folder / "tokens.safetensors")["input_ids.nopad"]
    want = load_file(folder / "expected.safetensors")["hidden.nopad"]
    with torch.no_grad():
        torch.testing.assert_close(model.embed(ids), want, atol=2e-4, rtol=0)


# -- the same, with files made here ---------------------------------------------------------------

SHAPES = [{}, {"hyena_order": 3}, {"hyena_order": 4, "num_inner_mlps": 1}, {"train_freq": False}]


@pytest.mark.parametrize("shape", SHAPES)
def test_hf_folder(tmp_path: Path, shape: dict[str, Any]) -> None:
    model = small_model(tie_word_embeddings=False, **shape)
    write_hf(tmp_path, model)
    loaded, report = load_with_report(tmp_path)
    assert report.layout == "hf"
    assert report.permuted == report.kept_tables == ()
    assert loaded.config == model.config
    assert torch.equal(logits(loaded), logits(model))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("wrapped", [(), ("mixer",), ("mlp",), ("mixer", "mlp")])
def test_training_folder(tmp_path: Path, shape: dict[str, Any], wrapped: tuple[str, ...]) -> None:
    model = small_model(**shape)
    layer = {
        "order": model.config.hyena_order,
        "num_inner_mlps": model.config.num_inner_mlps,
        "train_freq": model.config.train_freq,
    }
    state = {"state_dict": training_state(model, wrapped=wrapped)}
    write_lightning(tmp_path, model, state, **layer)
    loaded, report = load_with_report(tmp_path)
    assert report.layout == "training"
    assert bool(report.permuted) == (model.config.hyena_order > 2)
    assert loaded.config == model.config
    assert torch.equal(logits(loaded), logits(model))


def test_training_folder_without_stored_deltas(tmp_path: Path) -> None:
    """The formula runs over channels in the file's own order: it must be permuted too."""
    model = small_model(hyena_order=3)
    filter_fn = model.backbone.layers[0].mixer.filter_fn
    natural = filter_fn.tables()["modulation.deltas"]
    rounds, width = 2, 8
    ours = [c * rounds + o for o in range(rounds) for c in range(width)]
    for layer in model.backbone.layers:
        layer.mixer.filter_fn.keep_table("modulation.deltas", natural[..., ours])
    state = training_state(model)
    for name in [n for n in state if n.endswith("deltas")]:
        torch.testing.assert_close(state.pop(name), natural)
    write_lightning(tmp_path, model, state, order=3)
    assert torch.equal(logits(load(tmp_path)), logits(model))


def test_lightning_file_with_omegaconf(tmp_path: Path) -> None:
    omegaconf = pytest.importorskip("omegaconf")
    model = small_model()
    conf = omegaconf.OmegaConf.create({"model": original_config(model.config, shift=0.0), "s": [1]})
    folder = write_lightning(tmp_path, model, lightning_value(model, conf))
    with pytest.raises(Exception, match="weights_only"):
        torch.load(folder / "weights.ckpt", weights_only=True)
    loaded, report = load_with_report(folder)
    assert torch.equal(logits(loaded), logits(model))
    assert report.ignored == ("train_torchmetrics.num_tokens.count",)

    (folder / "config.json").unlink()  # its own record of the configuration will do
    loaded = load(folder / "weights.ckpt")
    assert loaded.config == model.config.replace(window_shift=0.0)


def test_an_unresolved_configuration_inside_is_not_used(tmp_path: Path) -> None:
    omegaconf = pytest.importorskip("omegaconf")
    model = small_model()
    block = original_config(model.config, l_max="${dataset.max_length}")
    conf = omegaconf.OmegaConf.create({"model": block})
    folder = write_lightning(tmp_path, model, lightning_value(model, conf))
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"no config\.json beside it"):
        load(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors", "weights.ckpt", "w.pt"])
def test_bare_standalone_state_dict(tmp_path: Path, name: str) -> None:
    model = small_model(hyena_order=3)
    (tmp_path / "config.json").write_text(json.dumps(original_config(model.config, order=3)))
    tensors = all_tensors(model)
    if name.endswith(".safetensors"):
        save_file(tensors, tmp_path / name)
    else:
        torch.save(tensors, tmp_path / name)
    loaded, report = load_with_report(tmp_path / name)
    assert report.layout == "standalone"
    assert report.permuted == ()
    assert torch.equal(logits(loaded), logits(model))


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_sharded_folder(tmp_path: Path, kind: str) -> None:
    model = small_model(tie_word_embeddings=False)
    tensors = write_hf(tmp_path, model)
    (tmp_path / "model.safetensors").unlink()
    stem = {"safetensors": "model", "bin": "pytorch_model"}[kind]
    names, where = sorted(tensors), {}
    for shard in range(2):
        part = {name: tensors[name] for name in names[shard::2]}
        file = f"{stem}-0000{shard + 1}-of-00002.{kind}"
        if kind == "safetensors":
            save_file(part, tmp_path / file)
        else:
            torch.save(part, tmp_path / file)
        where |= dict.fromkeys(part, file)
    index = tmp_path / f"{stem}.{kind}.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    assert torch.equal(logits(load(tmp_path)), logits(model))

    index.write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))
    with pytest.raises(InputError, match="must lie beside the index"):
        load(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    with pytest.raises(InputError, match="which is missing"):
        load(tmp_path)


def test_run_folder_prefers_best(tmp_path: Path) -> None:
    save(small_model(1), tmp_path / "run" / "last")
    assert torch.equal(logits(load(tmp_path / "run")), logits(small_model(1)))
    save(small_model(2), tmp_path / "run" / "best")
    assert torch.equal(logits(load(tmp_path / "run")), logits(small_model(2)))


def test_attention_model(tmp_path: Path) -> None:
    model = small_model(mixer="attention", num_heads=2)
    save(model, tmp_path / "m")
    loaded, report = load_with_report(tmp_path / "m")
    assert torch.equal(logits(loaded), logits(model))
    assert "attention" in report.summary()


# -- heads, frequencies, tables ---------------------------------------------------------------


def test_a_missing_head_is_tied_and_an_equal_one_follows_the_configuration(tmp_path: Path) -> None:
    write_hf(tmp_path / "none", small_model(), drop="lm_head.weight")
    write_hf(tmp_path / "equal", small_model())
    write_hf(tmp_path / "equal_tied", small_model(), tie_word_embeddings=True)
    tied = {
        name: load(tmp_path / name).config.tie_word_embeddings
        for name in ("none", "equal", "equal_tied")
    }
    assert tied == {"none": True, "equal": False, "equal_tied": True}


def test_a_stored_head_that_differs_is_never_lost(tmp_path: Path) -> None:
    model = small_model(tie_word_embeddings=False)
    write_hf(tmp_path, model, tie_word_embeddings=True)
    loaded, report = load_with_report(tmp_path)
    assert not report.tied
    assert torch.equal(logits(loaded), logits(model))


def test_frequencies_that_differ_are_refused(tmp_path: Path) -> None:
    model = small_model()
    tensors = all_tensors(model)
    tensors[f"{LAYER0}.implicit_filter.3.freq"] += 1
    (tmp_path / "config.json").write_text(json.dumps(original_config(model.config)))
    torch.save(tensors, tmp_path / "w.pt")
    with pytest.raises(InputError, match="share one frequency"):
        load(tmp_path / "w.pt")


def test_any_copy_of_the_frequency_will_do(tmp_path: Path) -> None:
    model = small_model()
    tensors = {n: t for n, t in all_tensors(model).items() if not n.endswith(("1.freq", "3.freq"))}
    (tmp_path / "config.json").write_text(json.dumps(original_config(model.config)))
    torch.save(tensors, tmp_path / "w.pt")
    assert torch.equal(logits(load(tmp_path / "w.pt")), logits(model))


def test_the_frequency_stays_one_parameter(tmp_path: Path) -> None:
    write_hf(tmp_path, small_model(tie_word_embeddings=False))
    model = load(tmp_path)
    assert sum(p.numel() for p in model.parameters()) == model.config.num_parameters()
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("drop", ["pos_emb.z", "pos_emb.t", "deltas"])
def test_tables_need_not_be_stored(tmp_path: Path, drop: str) -> None:
    model = small_model()
    write_hf(tmp_path, model, drop=drop)
    assert torch.equal(logits(load(tmp_path)), logits(model))


@pytest.mark.parametrize("table", ["pos_emb.z", "pos_emb.t", "modulation.deltas"])
def test_a_changed_table_is_kept_in_its_layer_alone(tmp_path: Path, table: str) -> None:
    model = small_model(tie_word_embeddings=False)
    filter_fn = model.backbone.layers[1].mixer.filter_fn
    filter_fn.keep_table(table, filter_fn.tables()[table] * 1.01)
    write_hf(tmp_path, model)
    loaded, report = load_with_report(tmp_path, dtype=torch.bfloat16)
    name = f"backbone.layers.1.mixer.filter_fn.{table}"
    assert report.kept_tables == (name,)
    assert loaded.state_dict()[name].dtype == torch.float32  # also in a bfloat16 model
    assert torch.equal(logits(load(tmp_path)), logits(model))
    assert not torch.equal(logits(load(tmp_path)), logits(small_model(tie_word_embeddings=False)))


@pytest.mark.parametrize(("change", "kept"), [("half", True), ("step", True), ("rounding", False)])
@pytest.mark.parametrize("max_seq_len", [34, 160002])
def test_rounding_of_tables_is_told_from_change(
    tmp_path: Path, change: str, kept: bool, max_seq_len: int
) -> None:
    """Half precision and one optimizer step at 1e-5 are changes; float32 arithmetic is none."""
    model = small_model(n_layer=1, max_seq_len=max_seq_len, tie_word_embeddings=False)
    filter_fn = model.backbone.layers[0].mixer.filter_fn
    z = filter_fn.tables()["pos_emb.z"]
    lag = torch.linspace(0, max_seq_len - 1, max_seq_len)
    angle = torch.linspace(1e-4, 1, 2) * (2 * torch.pi * lag[:, None] / max_seq_len)
    t = torch.linspace(0, 1, max_seq_len)[:, None]
    values = {
        "half": z.half().float(),
        "step": z + 1e-5,
        "rounding": torch.cat([t, angle.cos(), -angle.sin()], dim=1)[None],
    }
    assert not torch.equal(values[change], z)
    filter_fn.keep_table("pos_emb.z", values[change])
    write_hf(tmp_path, model)
    _, report = load_with_report(tmp_path)
    assert bool(report.kept_tables) == kept


# -- what must not pass silently ----------------------------------------------------------------


def test_a_missing_parameter_is_an_error_that_names_it(tmp_path: Path) -> None:
    write_hf(tmp_path, small_model(), drop="layers.1.mlp.fc1.weight")
    with pytest.raises(
        InputError, match=r"1 parameters are missing: backbone\.layers\.1\.mlp\.fc1"
    ):
        load(tmp_path)
    model, report = load_with_report(tmp_path, strict=False)
    assert report.missing == ("backbone.layers.1.mlp.fc1.weight",)
    assert "left at random: backbone.layers.1.mlp.fc1.weight" in report.summary()
    assert torch.isfinite(logits(model)).all()
    assert model.backbone.layers[1].mlp.fc1.weight.std() > 0
    same = small_model().backbone.layers[0].mlp.fc1.weight
    assert torch.equal(model.backbone.layers[0].mlp.fc1.weight, same)


def test_a_missing_frequency_is_an_error(tmp_path: Path) -> None:
    write_hf(tmp_path, small_model(), drop="freq")
    with pytest.raises(InputError, match=r"2 parameters are missing.*1\.freq"):
        load(tmp_path)


def test_a_tensor_without_a_place_is_an_error(tmp_path: Path) -> None:
    write_hf(tmp_path, small_model(n_layer=3), n_layer=2)
    with pytest.raises(InputError, match=r"have no place .*hyena\.backbone\.layers\.2"):
        load(tmp_path)
    _, report = load_with_report(tmp_path, strict=False)
    assert report.unexpected
    assert all(name.startswith("hyena.backbone.layers.2.") for name in report.unexpected)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"d_model": 16}, r"word_embeddings\.weight is \(16, 8\) but .* \(16, 16\)"),
        ({"max_seq_len": 66}, r"pos_emb\.[zt] is \(1, 34, \d\) but .*\(1, 66, \d\)"),
        ({"pad_vocab_size_multiple": 1}, r"\(16, 8\) but .*\(12, 8\)"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_another_shape_is_always_an_error(
    tmp_path: Path, fields: dict[str, int], says: str, strict: bool
) -> None:
    write_hf(tmp_path, small_model(), **fields)
    with pytest.raises(InputError, match=says):
        load(tmp_path, strict=strict)


def test_whole_numbers_where_weights_belong_are_refused(tmp_path: Path) -> None:
    tensors = write_hf(tmp_path, small_model())
    tensors["hyena.backbone.ln_f.weight"] = torch.ones(8, dtype=torch.int64)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"ln_f\.weight holds torch\.int64"):
        load(tmp_path)


def test_damaged_safetensors_are_named(tmp_path: Path) -> None:
    write_hf(tmp_path, small_model())
    raw = (tmp_path / "model.safetensors").read_bytes()
    for length in (0, 7, 100, len(raw) - 1):
        (tmp_path / "model.safetensors").write_bytes(raw[:length])
        with pytest.raises(InputError, match=r"model\.safetensors: damaged or incomplete"):
            load(tmp_path)


def test_no_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint in this folder; looked for model"):
        load(tmp_path)
    torch.save({"epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(InputError, match="holds no tensors by name"):
        load(tmp_path / "w.pt")
    torch.save([torch.ones(2)], tmp_path / "w.pt")
    with pytest.raises(InputError, match="holds no tensors by name"):
        load(tmp_path / "w.pt")
    write_hf(tmp_path / "m", small_model())
    (tmp_path / "m" / "config.json").unlink()
    with pytest.raises(InputError, match=r"no config\.json beside it"):
        load(tmp_path / "m")


# -- options -------------------------------------------------------------------------------------


def test_loading_draws_no_random_numbers(tmp_path: Path) -> None:
    write_hf(tmp_path, small_model())
    torch.manual_seed(5)
    before = torch.get_rng_state()
    load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("train_freq", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_dtype(tmp_path: Path, dtype: torch.dtype, train_freq: bool) -> None:
    model = small_model(train_freq=train_freq, activation_freq=1.0)
    write_hf(tmp_path, model)
    loaded = load(tmp_path, dtype=dtype)
    assert {p.dtype for p in loaded.parameters()} == {dtype}
    tolerance = 1e-4 if dtype == torch.float64 else 0.3
    diff = (logits(loaded).double() - logits(model).double()).abs().max()
    assert diff < tolerance


def test_half_precision_files_load_as_float32(tmp_path: Path) -> None:
    tensors = write_hf(tmp_path, small_model())
    halves = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    save_file(halves, tmp_path / "model.safetensors")
    model, report = load_with_report(tmp_path)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert any(name.endswith("pos_emb.z") for name in report.kept_tables)


def test_the_loaded_model_does_not_hang_on_its_file(tmp_path: Path) -> None:
    write_hf(tmp_path, small_model())
    model = load(tmp_path)
    before = logits(model)
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\0" * path.stat().st_size)
    assert torch.equal(logits(model), before)


def test_summary_reads_well(tmp_path: Path) -> None:
    model = small_model(hyena_order=3)
    value = {
        "state_dict": training_state(model)
        | {"decoder.0.output_transform.weight": torch.ones(2, 8)}
    }
    write_lightning(tmp_path, model, value, order=3)
    _, report = load_with_report(tmp_path, window_shift=0.0)
    text = report.summary()
    assert f"{tmp_path / 'weights.ckpt'} (training layout)" in text
    assert "2 layers of width 8, order 3, up to 34 tokens, window shift 0" in text
    assert "head tied to the token table" in text
    assert "permuted to our channel order: backbone.layers.0.mixer.filter_fn" in text
    assert "task head, not in this model: decoder.0.output_transform.weight" in text
    assert len(text.splitlines()) <= 9
