"""Names, channel order and configuration files of the published layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_examples import original_config, small_config
from hypothesis import given
from hypothesis import strategies as st

from hyenadna.checkpoint.config_file import (
    flat_values,
    model_config,
    original_values,
    read_config,
)
from hyenadna.checkpoint.layouts import (
    channel_axis,
    detect_layout,
    file_name,
    our_names,
    permute_channels,
)
from hyenadna.config import PRESETS
from hyenadna.errors import InputError

EMBEDDINGS = "backbone.embeddings.word_embeddings.weight"
LAST = "backbone.layers.0.mixer.filter_fn.implicit_filter.6.weight"


@pytest.mark.parametrize(
    ("prefix", "layout"), [("hyena.", "hf"), ("model.", "training"), ("", "standalone")]
)
def test_the_prefix_tells_the_layout(prefix: str, layout: Any) -> None:
    assert detect_layout([f"{prefix}{EMBEDDINGS}", "lm_head.weight"]) == layout
    assert our_names([f"{prefix}{EMBEDDINGS}"], layout).ours == {
        EMBEDDINGS: f"{prefix}{EMBEDDINGS}"
    }


def test_other_models_are_named() -> None:
    with pytest.raises(InputError, match=r"no HyenaDNA checkpoint.*bert\.encoder"):
        detect_layout(["bert.encoder.weight"])


def test_wrapped_parts_are_found_one_by_one() -> None:
    keys = [
        "model.backbone.layers.0.mixer.layer.out_proj.weight",
        "model.backbone.layers.0.mlp.fc1.weight",
        "model.backbone.layers.10.mlp.layer.fc1.weight",
        "model.lm_head.weight",
    ]
    assert list(our_names(keys, "training").ours) == [
        "backbone.layers.0.mixer.out_proj.weight",
        "backbone.layers.0.mlp.fc1.weight",
        "backbone.layers.10.mlp.fc1.weight",
        "lm_head.weight",
    ]


def test_counters_and_task_heads_stand_apart() -> None:
    names = our_names(
        [
            f"model.{EMBEDDINGS}",
            "val_torchmetrics.num_tokens.count",
            "decoder.0.output_transform.weight",
        ],
        "training",
    )
    assert list(names.ours) == [EMBEDDINGS]
    assert names.ignored == ("val_torchmetrics.num_tokens.count",)
    assert names.task_head == ("decoder.0.output_transform.weight",)
    assert our_names(["score.weight"], "hf").task_head == ("score.weight",)


def test_one_tensor_under_two_names_is_an_error() -> None:
    twice = [
        "model.backbone.layers.0.mlp.fc1.bias",
        "model.backbone.layers.0.mlp.layer.fc1.bias",
    ]
    with pytest.raises(InputError, match="are the same tensor"):
        our_names(twice, "training")


@pytest.mark.parametrize("layout", ["hf", "training", "standalone"])
@pytest.mark.parametrize("name", [EMBEDDINGS, LAST, "lm_head.weight"])
def test_names_there_and_back(layout: Any, name: str) -> None:
    theirs = file_name(name, layout)
    assert our_names([theirs], layout).ours == {name: theirs}


def test_training_channels_are_interleaved() -> None:
    """Row c * (N-1) + o of the training repository is row o * D + c here."""
    config = small_config(d_model=3, hyena_order=3)
    theirs = torch.tensor([0.0, 10.0, 1.0, 11.0, 2.0, 12.0])  # value: 10 * o + c
    name = "backbone.layers.0.mixer.filter_fn.bias"
    ours = permute_channels(name, theirs, config, to="ours")
    assert ours.tolist() == [0.0, 1.0, 2.0, 10.0, 11.0, 12.0]


@given(
    order=st.integers(2, 5),
    width=st.integers(1, 6),
    name=st.sampled_from([LAST, "x.filter_fn.bias", "x.filter_fn.modulation.deltas", EMBEDDINGS]),
)
def test_permuting_there_and_back_is_nothing(order: int, width: int, name: str) -> None:
    config = small_config(d_model=width, hyena_order=order)
    channels = width * (order - 1)
    axis = channel_axis(name, config)
    shape = [2, 2, 2]
    if axis is not None:
        shape[axis] = channels
    tensor = torch.arange(float(torch.tensor(shape).prod())).reshape(shape)
    there = permute_channels(name, tensor, config, to="training")
    assert torch.equal(permute_channels(name, there, config, to="ours"), tensor)
    if axis is None or order == 2:
        assert there is tensor


def test_only_three_tensors_have_channels() -> None:
    config = small_config(num_inner_mlps=1)
    prefix = "backbone.layers.0.mixer."
    with_axis = {
        f"{prefix}filter_fn.implicit_filter.4.weight": 0,
        f"{prefix}filter_fn.bias": 0,
        f"{prefix}filter_fn.modulation.deltas": 2,
        f"{prefix}filter_fn.implicit_filter.2.weight": None,
        f"{prefix}filter_fn.pos_emb.z": None,
        f"{prefix}out_proj.bias": None,
    }
    assert {name: channel_axis(name, config) for name in with_axis} == with_axis


# -- configuration files ------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_flat_configuration_there_and_back(name: str) -> None:
    config = PRESETS[name].replace(window_shift=0.0, resid_dropout=0.2)
    values = json.loads(json.dumps(flat_values(config, torch_dtype="float32")))
    assert model_config(values, source="x") == config.replace(d_inner=config.inner_width)


@pytest.mark.parametrize("order", [2, 3])
def test_original_configuration_there_and_back(order: int) -> None:
    config = small_config(
        hyena_order=order,
        num_inner_mlps=1,
        short_filter_order=5,
        window_shift=0.0,
        train_freq=False,
        hyena_dropout=0.1,
        emb_dim=7,
    )
    values = json.loads(json.dumps(original_values(config)))
    assert model_config(values, source="x") == config


def test_the_flat_file_has_every_published_field() -> None:
    values = flat_values(small_config(), torch_dtype="float32")
    published = {
        "model_type": "hyenadna",
        "architectures": ["HyenaDNAForCausalLM"],
        "use_bias": True,
        "train_freq": True,
        "hyena_filter_dropout": 0.0,
        "torch_dtype": "float32",
        "pad_token_id": 4,
        "vocab_size": 12,
        "hyena_order": 2,
        "d_inner": 12,
    }
    assert {name: values[name] for name in published} == published
    assert "auto_map" not in values  # we ship no code to run


def test_an_attention_model_does_not_pose_as_the_published_class() -> None:
    values = flat_values(small_config(mixer="attention", num_heads=2), torch_dtype="float32")
    assert "architectures" not in values
    assert model_config(values, source="x").mixer == "attention"
    with pytest.raises(InputError, match="cannot hold an attention model"):
        original_values(small_config(mixer="attention", num_heads=2))


def test_the_published_original_is_read() -> None:
    config = model_config(original_config(small_config()), source="x")
    assert config == small_config()
    assert config.window_shift == 0.05
    assert config.tie_word_embeddings


def test_a_shift_in_the_layer_block_counts_and_an_argument_counts_more() -> None:
    values = original_config(small_config(), shift=0.0)
    assert model_config(values, source="x").window_shift == 0.0
    assert model_config(values, source="x", window_shift=0.1).window_shift == 0.1


def test_local_order_is_an_old_name_that_the_original_reads_past() -> None:
    values = original_config(small_config(), local_order=5)
    assert model_config(values, source="x").short_filter_order == 3
    values["layer"]["short_filter_order"] = 5
    assert model_config(values, source="x").short_filter_order == 5


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ({"_name_": "mha"}, "layer._name_ is 'mha'"),
        ({"bidirectional": True}, "layer.bidirectional is True; only False"),
        ({"modulate": False}, "layer.modulate is False; only True"),
        ({"emb_dim": 4}, "emb_dim is 4"),
        ({"order": "2"}, "must be of type int"),
    ],
)
def test_what_we_cannot_compute_is_refused(layer: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        model_config(original_config(small_config(), **layer), source="its/config.json")
    assert str(error.value).startswith("its/config.json: ")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "no valid JSON"),
        ("[]", "holds a list"),
        ('{"model_type": "bert", "d_model": 8}', "'bert'"),
        ('{"hidden_size": 8}', "no configuration of a HyenaDNA model"),
        ('{"d_model": "8"}', "must be of type int"),
        ('{"layer": {"_name_": "hyena"}}', "no d_model, n_layer and layer.l_max"),
        ('{"layer": 3}', "no d_model, n_layer and layer.l_max"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(InputError, match=says) as error:
        read_config(path)
    assert str(path) in str(error.value)


def test_class_defaults_stand_where_a_published_file_is_silent() -> None:
    config = model_config({"d_model": 8, "model_type": "hyenadna"}, source="x")
    assert (config.n_layer, config.emb_dim, config.activation_freq) == (12, 3, 1.0)
