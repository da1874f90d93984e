"""The published `config.json` files <-> `ModelConfig`.

Two shapes exist (shared specification, (d) and (e)): the flat one of Hugging Face, which is also
ours, and the original one, with a nested `layer` block.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hyenadna.alphabet import PAD
from hyenadna.checkpoint.unpickle import Inert
from hyenadna.config import ModelConfig
from hyenadna.errors import InputError

# Options of the original operator that change the function, and the only value that we compute.
_FIXED_LAYER_OPTIONS: Final[Mapping[str, Any]] = {
    "modulate": True,
    "bidirectional": False,
    "num_heads": 1,
    "num_blocks": 1,
    "inner_factor": 1,
    "outer_mixing": False,
    "post_order_ffn": False,
    "normalized": False,
    "linear_mixer": False,
    "activation": "id",
    "fast_decay_pct": 0.3,
    "slow_decay_pct": 1.5,
    "target": 1e-2,
}
# The original's own defaults where its layer block leaves a field out.
_LAYER_DEFAULTS: Final[Mapping[str, Any]] = {"emb_dim": 3, "w": 1, "filter_order": 64}


def read_config(path: Path, *, window_shift: float | None = None) -> ModelConfig:
    """The configuration in a `config.json` of either shape.

    window_shift overrides what the file says (or, as a rule, does not say).

    Raises InputError for a file that cannot be read, is no JSON object or is of another model.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise InputError(f"{path}: no valid JSON ({error}); fetch the file again") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds a {type(values).__name__}, where a JSON object belongs")
    return model_config(values, source=str(path), window_shift=window_shift)


def model_config(
    values: Mapping[str, Any], *, source: str, window_shift: float | None = None
) -> ModelConfig:
    """The configuration of either shape, as a mapping; arguments and errors of `read_config`."""
    try:
        if "layer" in values:
            config = _from_original(values)
        else:
            config = _from_flat(values)
        if window_shift is not None:
            config = config.replace(window_shift=window_shift)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    except (TypeError, AttributeError) as error:
        raise InputError(f"{source}: a field has a value of the wrong type ({error})") from error
    return config


def _from_flat(values: Mapping[str, Any]) -> ModelConfig:
    kind = values.get("model_type", "hyenadna")
    if not str(kind).startswith("hyenadna") or "d_model" not in values:
        raise InputError(
            f"model_type is {kind!r} and d_model is {values.get('d_model')!r}; this is no "
            "configuration of a HyenaDNA model"
        )
    return ModelConfig.from_dict({k: v for k, v in values.items() if v is not None})


def _from_original(values: Mapping[str, Any]) -> ModelConfig:
    layer = values["layer"]
    needed = {"d_model", "n_layer"} <= set(values)
    if not isinstance(layer, Mapping) or "l_max" not in layer or not needed:
        raise InputError(
            "no d_model, n_layer and layer.l_max; this is no configuration of the original"
        )
    if layer.get("_name_", "hyena") != "hyena":
        raise InputError(f"layer._name_ is {layer['_name_']!r}; only 'hyena' can be read")
    if values.get("attn_layer_idx"):
        raise InputError("attn_layer_idx names attention layers; only pure Hyena can be read")
    for name, only in _FIXED_LAYER_OPTIONS.items():
        if layer.get(name, only) != only:
            raise InputError(f"layer.{name} is {layer[name]!r}; only {only!r} can be computed")
    chosen = {
        "d_model": values["d_model"],
        "n_layer": values["n_layer"],
        "d_inner": values.get("d_inner"),
        "vocab_size": values.get("vocab_size", 12),
        # the training repository pads only when told to
        "pad_vocab_size_multiple": values.get("pad_vocab_size_multiple", 1),
        "max_seq_len": layer["l_max"],
        "hyena_order": layer.get("order", 2),
        # `local_order` is an old name that the original reads past: it always used 3 taps then
        "short_filter_order": layer.get("short_filter_order", 3),
        "emb_dim": layer.get("emb_dim", _LAYER_DEFAULTS["emb_dim"]),
        "filter_order": layer.get("filter_order", _LAYER_DEFAULTS["filter_order"]),
        "num_inner_mlps": layer.get("num_inner_mlps", 2),
        "activation_freq": layer.get("w", _LAYER_DEFAULTS["w"]),
        "train_freq": layer.get("train_freq", True),
        "embed_dropout": values.get("embed_dropout", 0.1),
        "resid_dropout": values.get("resid_dropout", 0.0),
        "hyena_dropout": layer.get("dropout", 0.0),
        "layer_norm_epsilon": values.get("layer_norm_epsilon", 1e-5),
        "tie_word_embeddings": True,
    }
    if "shift" in layer:
        chosen["window_shift"] = layer["shift"]
    return ModelConfig(**chosen)


def flat_values(config: ModelConfig, *, torch_dtype: str) -> dict[str, Any]:
    """The flat `config.json` of a model: every published field, then ours.

    The published code knows no `window_shift` (it computes with 0.05 whatever the file says), no
    `lag_scale` (it reads the tables of the filters instead) and no attention mixer; for the latter
    no `architectures` is named, so that it does not try.
    """
    own = ("mixer", "window_shift", "num_heads", "resid_dropout", "lag_scale")
    values = config.to_dict()
    published = {name: value for name, value in values.items() if name not in own}
    hyena = config.mixer == "hyena"
    return {
        **({"architectures": ["HyenaDNAForCausalLM"]} if hyena else {}),
        "model_type": "hyenadna" if hyena else "hyenadna_attention",
        **published,
        "d_inner": config.inner_width,
        "use_bias": True,
        "hyena_filter_dropout": 0.0,
        "pad_token_id": PAD,
        "torch_dtype": torch_dtype,
        **{name: values[name] for name in own if values[name] is not None},
    }


def original_values(config: ModelConfig) -> dict[str, Any]:
    """The original, nested `config.json` of a model, fields in the published order.

    `layer.shift` is always written, because the training code would otherwise take 0.0.

    Raises InputError for an attention model, which that layout cannot describe.
    """
    if config.mixer != "hyena":
        raise InputError("the training layout cannot hold an attention model; convert to 'hf'")
    layer: dict[str, Any] = {
        "_name_": "hyena",
        "emb_dim": config.emb_dim,
        "filter_order": config.filter_order,
        "short_filter_order": config.short_filter_order,
        "l_max": config.max_seq_len,
        "modulate": True,
        "w": config.activation_freq,
        "lr": 6e-4,
        "wd": 0.0,
        "lr_pos_emb": 0.0,
        "order": config.hyena_order,
        "num_inner_mlps": config.num_inner_mlps,
        "shift": config.window_shift,
    }
    if not config.train_freq:
        layer["train_freq"] = False
    if config.hyena_dropout:
        layer["dropout"] = config.hyena_dropout
    return {
        "d_model": config.d_model,
        "n_layer": config.n_layer,
        "d_inner": config.inner_width,
        "vocab_size": config.vocab_size,
        "resid_dropout": config.resid_dropout,
        "embed_dropout": config.embed_dropout,
        "layer_norm_epsilon": config.layer_norm_epsilon,
        "fused_mlp": False,
        "fused_dropout_add_ln": False,
        "residual_in_fp32": True,
        "pad_vocab_size_multiple": config.pad_vocab_size_multiple,
        "return_hidden_state": True,
        "layer": layer,
    }


def model_block(hyper_parameters: Any) -> Mapping[str, Any] | None:
    """The model's configuration inside a Lightning file's `hyper_parameters`, if it is complete.

    Values that refer to other values (`${...}`) are not resolved; with one of them in the way there
    is no answer.
    """
    block = _unwrap(hyper_parameters)
    model = _unwrap(block.get("model")) if isinstance(block, dict) else None
    layer = _unwrap(model.get("layer")) if isinstance(model, dict) else None
    if not isinstance(model, dict) or not isinstance(layer, dict):
        return None
    values = {name: _unwrap(value) for name, value in model.items() if name != "layer"}
    values["layer"] = {name: _unwrap(value) for name, value in layer.items()}
    held = [*values.values(), *values["layer"].values()]
    if any(isinstance(value, str) and "${" in value for value in held):
        return None
    return values


def _unwrap(value: Any) -> Any:
    """What an OmegaConf stand-in holds, one level deep: a dict, a list or a plain value."""
    if isinstance(value, Inert) and isinstance(value.state, dict):
        return value.state.get("_content", value.state.get("_val"))
    return value
