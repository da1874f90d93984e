"""Names and channel order of the published layouts <-> ours.

Our names are those of the standalone model (shared specification, section (c)):

    layout      names                                             channels of the filter, N > 2
    standalone  ours                                              (N-1, D)
    hf          `hyena.` in front of `backbone.`                  (N-1, D)
    training    `model.` in front; `.mixer.layer.`, `.mlp.layer.` (D, N-1)
                where a part was recomputed in the backward pass

For order N = 2 both channel orders coincide.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from torch import Tensor

from hyenadna.config import ModelConfig
from hyenadna.errors import InputError

Layout = Literal["hf", "training", "standalone"]

TABLES: Final = ("pos_emb.z", "pos_emb.t", "modulation.deltas")
"""Tables of a filter that follow from the configuration, by their names within `filter_fn`."""

HEAD: Final = "lm_head.weight"
EMBEDDINGS: Final = "backbone.embeddings.word_embeddings.weight"

_PREFIXES: Final[Mapping[Layout, str]] = {"hf": "hyena.", "training": "model.", "standalone": ""}
_WRAPPED: Final = re.compile(r"^(backbone\.layers\.\d+\.(?:mixer|mlp)\.)layer\.")
_COUNTER: Final = re.compile(r"^((train|val|test)_torchmetrics|training)\.")
_TASK_HEAD: Final = re.compile(r"^(score|decoder)\.")
_FREQ: Final = re.compile(r"\.implicit_filter\.(\d+)\.freq$")
_TABLE: Final = re.compile(r"\.filter_fn\.(pos_emb\.[zt]|modulation\.deltas)$")


@dataclass(frozen=True)
class Names:
    """How the names of a file map to ours.

    ours: our name -> name in the file. task_head: names of a classifier's or decoder's tensors.
    ignored: names that belong to the training and not to the model.
    """

    ours: dict[str, str] = field(default_factory=dict)
    task_head: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def detect_layout(keys: Iterable[str]) -> Layout:
    """The layout whose prefix the names of the file carry.

    Raises InputError when there is no `backbone.` in any of the three places, naming a few keys.
    """
    keys = list(keys)
    for layout, prefix in _PREFIXES.items():
        if any(key.startswith(f"{prefix}backbone.") for key in keys):
            return layout
    shown = ", ".join(keys[:3]) or "no tensors"
    raise InputError(
        f"this is no HyenaDNA checkpoint: its names ({shown}, ...) have no 'hyena.backbone.', "
        "'model.backbone.' or 'backbone.'"
    )


def our_names(keys: Iterable[str], layout: Layout) -> Names:
    """The map from our names to those of a file in this layout.

    Raises InputError when two names of the file mean the same tensor.
    """
    ours: dict[str, str] = {}
    task_head: list[str] = []
    ignored: list[str] = []
    for key in keys:
        if _COUNTER.match(key):
            ignored.append(key)
        elif _TASK_HEAD.match(key):
            task_head.append(key)
        else:
            name = _WRAPPED.sub(r"\1", key.removeprefix(_PREFIXES[layout]))
            if name in ours:
                raise InputError(f"checkpoint: {ours[name]!r} and {key!r} are the same tensor")
            ours[name] = key
    return Names(ours, tuple(task_head), tuple(ignored))


def file_name(name: str, layout: Layout) -> str:
    """The name in a file of this layout for one of ours (without the `.layer.` level)."""
    if layout == "hf" and not name.startswith("backbone."):
        return name
    return _PREFIXES[layout] + name


def is_freq_copy(name: str) -> bool:
    """Whether this is a second name of a filter's one shared sine frequency."""
    found = _FREQ.search(name)
    return found is not None and found[1] != "1"


def first_freq(name: str) -> str:
    """The name under which the shared sine frequency is stored once: `implicit_filter.1.freq`."""
    return _FREQ.sub(".implicit_filter.1.freq", name)


def channel_axis(name: str, config: ModelConfig) -> int | None:
    """The axis of this tensor that runs over filter channels, or None.

    Only the rows of the filter's last linear map, the skip and the decay rates have one.
    """
    last = 2 * (config.num_inner_mlps + 1)
    if name.endswith((f".filter_fn.implicit_filter.{last}.weight", ".filter_fn.bias")):
        return 0
    return 2 if name.endswith(".filter_fn.modulation.deltas") else None


def permute_channels(
    name: str, tensor: Tensor, config: ModelConfig, *, to: Literal["ours", "training"]
) -> Tensor:
    """The tensor with its filter channels in our order (N-1, D), or in the training order (D, N-1).

    A tensor without such an axis, or of a model of order 2, is given back as it is.
    """
    axis = channel_axis(name, config)
    rounds = config.hyena_order - 1
    if axis is None or rounds == 1 or config.mixer != "hyena":
        return tensor
    outer = (config.d_model, rounds) if to == "ours" else (rounds, config.d_model)
    split = tensor.unflatten(axis, outer).transpose(axis, axis + 1)
    return split.flatten(axis, axis + 1).contiguous()
