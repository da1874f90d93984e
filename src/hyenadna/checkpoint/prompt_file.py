"""A soft prompt on disk: one small safetensors file, which fits one model and says which.

    prompt               (P, D), the vectors
    prior                (T,), what is subtracted from the log-probability of each label word
    head.weight, head.bias, attention.query    where the answer is read by a head

The metadata hold, under `prompt`, what `SavedPrompt` says, as JSON. The file is written beside and
renamed. `hyenadna.checkpoint.prompt_peft` has the layout of the package `peft`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hyenadna.checkpoint.task import own_version
from hyenadna.errors import InputError
from hyenadna.label_words import LabelWords
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.digest import function_digest
from hyenadna.model.heads import STRANDS, Strands
from hyenadna.model.pooling import POOLINGS, Pooling
from hyenadna.model.prompting.prompted import PromptedModel
from hyenadna.task_kinds import TASK_KINDS, TaskKind

PROMPT_FILE: Final = "prompt.safetensors"
"""What a prompt is called in the folder of a run."""
FORMAT: Final = 1
"""Of the description of a prompt."""
_KEY: Final = "prompt"
AGAIN: Final = "fetch or tune it again"


@dataclass(frozen=True, kw_only=True)
class SavedPrompt:
    """What a prompt is for. It serves as the task of a `PromptedModel`."""

    kind: TaskKind
    names: tuple[str, ...]
    """Of the classes, labels or values, in the order of the outputs."""
    words: tuple[str, ...] | None = None
    """Label words in the same order, where the answer is read in them."""
    pooling: Pooling = "mean"
    strands: Strands = "forward"
    base: str = ""
    """What the model was called where the prompt was tuned; a hint for people."""
    base_digest: str = ""
    """`function_digest` of the model that it was tuned for, and fits."""
    max_length: int | None = None
    """Longest sequence in tokens that it was tuned on."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Plain values of whoever tuned it."""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def outputs(self) -> int:
        """Numbers for each sequence, for tokens for each base."""
        return len(self.names)


def save_prompt(
    prompted: PromptedModel,
    path: str | Path,
    *,
    base: str = "",
    base_digest: str | None = None,
    max_length: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write the vectors, and the head where there is one, whole or not at all.

    base_digest: of the model, where it is known already. The other arguments: see `SavedPrompt`;
    settings must be plain JSON values.

    Raises InputError where the file cannot be written, or settings are no JSON.
    """
    path = Path(path)
    saved = SavedPrompt(
        kind=prompted.task.kind,
        names=tuple(map(str, prompted.task.names)),
        words=prompted.words.words if prompted.words else None,
        pooling=prompted.pooling,
        strands=prompted.strands,
        base=base,
        base_digest=base_digest or function_digest(prompted.model),
        max_length=max_length,
        settings=dict(settings or {}),
        versions={"hyenadna": own_version(), "torch": str(torch.__version__)},
    )
    try:
        text = json.dumps({"format": FORMAT, **asdict(saved)}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: settings hold something that JSON cannot ({error})") from error
    beside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(_own_tensors(prompted), beside, metadata={_KEY: text, "format": "pt"})
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except (OSError, SafetensorError) as error:
        beside.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error})") from error


def read_prompt(path: str | Path) -> tuple[SavedPrompt, dict[str, Tensor]]:
    """What a file of `save_prompt` holds.

    Raises InputError where it is missing, damaged, or no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such prompt file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{path}: is no prompt file, or damaged ({error}); {AGAIN}") from error
    if _KEY not in metadata:
        raise InputError(
            f"{path}: is no prompt file (it says nothing of a prompt); hyenadna prompt-tune makes "
            "one"
        )
    return prompt_of(metadata[_KEY], tensors, path), tensors


def load_prompt(path: str | Path, model: HyenaDNA) -> PromptedModel:
    """The model behind the prompt of a file, in evaluation mode; its `task` is a `SavedPrompt`.

    model: the one that the prompt was tuned for, in any layout; it is frozen, its weights stay
    those given. Raises InputError for another model, and as `read_prompt` does.
    """
    saved, tensors = read_prompt(path)
    if function_digest(model) != saved.base_digest:
        called = f" ({saved.base})" if saved.base else ""
        raise InputError(
            f"{path}: was tuned for another model{called}: these weights differ. Give that model"
        )
    words = LabelWords(saved.names, saved.words) if saved.words else None
    with torch.random.fork_rng(devices=[]):  # what is drawn is overwritten
        prompted = PromptedModel(
            model,
            saved,
            tokens=len(tensors["prompt"]),
            words=words,
            pooling=None if words else saved.pooling,
            strands=saved.strands,
        )
    expected = {name: tuple(t.shape) for name, t in _own_tensors(prompted).items()}
    found = {name: tuple(t.shape) for name, t in tensors.items()}
    if expected != found:
        name = min(n for n in expected | found if expected.get(n) != found.get(n))
        raise InputError(
            f"{path}: {name} is {found.get(name, 'missing')}, where {expected.get(name, 'nothing')}"
            f" belongs; {AGAIN}"
        )
    prompted.load_state_dict(tensors, strict=False)
    return prompted.eval()


def prompt_digest(prompted: PromptedModel) -> str:
    """SHA-256 (hex) of what a prompt adds to its model: the same wherever its file lies.

    Of the vectors, of the head where there is one, and of the label words.
    """
    words = prompted.words.words if prompted.words else None
    total = hashlib.sha256(repr((prompted.pooling, words)).encode())
    for name, tensor in sorted(_own_tensors(prompted).items()):
        total.update(f"{name}{tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _own_tensors(prompted: PromptedModel) -> dict[str, Tensor]:
    """What a prompted model holds beside its base, by name, in memory of their own."""
    return {
        name: value.detach().to("cpu", copy=True).contiguous()
        for name, value in prompted.state_dict().items()
        if not name.startswith("model.")
    }


def prompt_of(text: str, tensors: Mapping[str, Tensor], path: Path) -> SavedPrompt:
    """What the description of a prompt says, a JSON text, of the tensors beside it.

    path: for messages. Raises InputError where it is damaged, or says too little.
    """

    def need(ok: bool, what: str) -> None:
        if not ok:
            raise InputError(f"{path}: {what}; {AGAIN}")

    try:
        values = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: its description is no JSON ({error}); {AGAIN}") from error
    need(isinstance(values, dict), "its description is no JSON object")
    if values.get("format") != FORMAT:
        raise InputError(
            f"{path}: format is {values.get('format')!r}; this version of hyenadna reads {FORMAT}"
        )
    texts = all(
        values.get(name) is None
        or (isinstance(values[name], list) and all(isinstance(n, str) for n in values[name]))
        for name in ("names", "words")
    )
    need(bool(values.get("names")) and texts, "it names no classes")
    need(values.get("kind") in TASK_KINDS, f"kind is {values.get('kind')!r}")
    need(values.get("pooling") in POOLINGS, f"pooling is {values.get('pooling')!r}")
    need(values.get("strands") in STRANDS, f"strands is {values.get('strands')!r}")
    need(isinstance(values.get("base_digest"), str), "it does not say for which model it is")
    need(isinstance(values.get("settings", {}), dict), "settings are no JSON object")
    prompt = tensors.get("prompt")
    need(prompt is not None and prompt.ndim == 2, "it holds no vectors")
    known = {name: values[name] for name in SavedPrompt.__dataclass_fields__ if name in values}
    words = values.get("words")
    return SavedPrompt(
        **known | {"names": tuple(values["names"]), "words": tuple(words) if words else None}
    )


def is_prompt(path: str | Path) -> bool:
    """Whether a file is one of `save_prompt`."""
    try:
        with safe_open(path, framework="pt") as file:
            return _KEY in (file.metadata() or {})
    except (OSError, ValueError, SafetensorError):
        return False
