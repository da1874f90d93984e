"""The models that come with the package: small, trained by us, found without a network.

    NAME/config.json, model.safetensors    a checkpoint folder as `hyenadna.checkpoint` writes it
    NAME/card.json, README.md              what it was trained on, and how good it is

`benchmarks/shipped_models.py` makes them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from hyenadna.errors import InputError

SHIPPED: Final = Path(__file__).resolve().parent


def shipped_names() -> tuple[str, ...]:
    """Names that `load` takes for the models of the package, in order."""
    return tuple(sorted(p.name for p in SHIPPED.iterdir() if (p / "config.json").is_file()))


def shipped_folder(name: str) -> Path:
    """The folder of a model of the package. Raises InputError for another name."""
    if name not in shipped_names():
        raise InputError(
            f"{name}: no model of this package; there are {', '.join(shipped_names())}"
        )
    return SHIPPED / name


def card(name: str) -> dict[str, Any]:
    """What `card.json` says of a model of the package; bits are per base.

    Raises InputError for another name.
    """
    values: dict[str, Any] = json.loads((shipped_folder(name) / "card.json").read_text())
    return values
