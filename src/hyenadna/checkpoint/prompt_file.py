"""A soft prompt on disk: one small safetensors file, which fits one model and says which.

    prompt               (P, D), the vectors
    prior                (T,), what is subtracted from the log-probability of each label word
    head.weight, head.bias, attention.query    where the answer is read by a head

The metadata hold, under `prompt`, what `SavedPrompt` says, as JSON. The file is written beside and
renamed. The layout of the package `peft` for prompt tuning: `export_peft` and `import_peft`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
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
_FORMAT: Final = 1
_KEY: Final = "prompt"
_AGAIN: Final = "fetch or tune it again"


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
        text = json.dumps({"format": _FORMAT, **asdict(saved)}, allow_nan=False)
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
        raise InputError(f"{path}: is no prompt file, or damaged ({error}); {_AGAIN}") from error
    if _KEY not in metadata:
        raise InputError(
            f"{path}: is no prompt file (it says nothing of a prompt); hyenadna prompt-tune makes "
            "one"
        )
    return _saved(metadata[_KEY], tensors, path), tensors


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
            f" belongs; {_AGAIN}"
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
    unused = ("model.", "head.") if prompted.words else ("model.",)
    return {
        name: value.detach().to("cpu", copy=True).contiguous()
        for name, value in prompted.state_dict().items()
        if not name.startswith(unused)
    }


def _saved(text: str, tensors: Mapping[str, Tensor], path: Path) -> SavedPrompt:
    def need(ok: bool, what: str) -> None:
        if not ok:
            raise InputError(f"{path}: {what}; {_AGAIN}")

    try:
        values = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: its description is no JSON ({error}); {_AGAIN}") from error
    need(isinstance(values, dict), "its description is no JSON object")
    if values.get("format") != _FORMAT:
        raise InputError(
            f"{path}: format is {values.get('format')!r}; this version of hyenadna reads {_FORMAT}"
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


_PEFT_CONFIG: Final = "adapter_config.json"
_PEFT_TENSORS: Final = "adapter_model.safetensors"
_PEFT_VECTORS: Final = "prompt_embeddings"
_PEFT_OURS: Final = "hyenadna_prompt.json"
_PRIOR: Final = "prior"


def export_peft(path: str | Path, folder: str | Path, *, base: str = "") -> None:
    """Write a prompt file as a folder of the package `peft`: prompt tuning of a causal model.

    `peft.PeftModel.from_pretrained(our transformers model, folder)` then puts the vectors in front
    of what it reads. base: the model's name or folder for peft; as the file says where left out.
    What peft has no word for (classes, words, their prior, the model's hash) goes into a file of
    its own, `hyenadna_prompt.json`, for the way back.

    Raises InputError for a prompt with a head, which that layout cannot hold, one without vectors,
    a folder that exists, and as `read_prompt` does.
    """
    saved, tensors = read_prompt(path)
    folder = Path(folder)
    vectors = tensors["prompt"]
    if saved.words is None:
        raise InputError(
            f"{path}: its answer is read by a head, for which peft's prompt tuning has no place; "
            "tune one with --readout label"
        )
    if not len(vectors):
        raise InputError(f"{path}: holds 0 soft tokens, so there is nothing to export")
    if folder.exists():
        raise InputError(f"{folder}: exists; give a new folder")
    beside = folder.with_name(f".{folder.name}.part")
    config = {
        "peft_type": "PROMPT_TUNING",
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "base_model_name_or_path": base or saved.base,
        "num_virtual_tokens": vectors.shape[0],
        "token_dim": vectors.shape[1],
        "num_transformer_submodules": 1,
        "num_attention_heads": 1,
        "num_layers": 1,
        "prompt_tuning_init": "RANDOM",
        "prompt_tuning_init_text": None,
        "tokenizer_name_or_path": None,
        "revision": None,
        "auto_mapping": None,
    }
    prior = tensors[_PRIOR].tolist() if _PRIOR in tensors else None
    ours = {"format": _FORMAT, **asdict(saved), _PRIOR: prior}
    try:
        beside.mkdir(parents=True)
        for name, values in ((_PEFT_CONFIG, config), (_PEFT_OURS, ours)):
            text = json.dumps(values, indent=2) + "\n"
            (beside / name).write_text(text, encoding="utf-8")
        save_file({_PEFT_VECTORS: vectors}, beside / _PEFT_TENSORS, metadata={"format": "pt"})
        beside.replace(folder)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise InputError(f"{folder}: cannot be written ({error.strerror or error})") from error


def import_peft(
    folder: str | Path,
    path: str | Path,
    model: HyenaDNA,
    *,
    words: LabelWords | None = None,
    base: str = "",
) -> None:
    """Write a prompt-tuning folder of the package `peft` as a prompt file for a model.

    words: of the classes; those that `export_peft` wrote where left out, with the prior that it
    wrote. model: the one that the vectors were tuned for; where the folder names its hash, it must
    be that one.

    Raises InputError for another kind of adapter, other sizes or another model, and where nobody
    says what the classes are.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / _PEFT_CONFIG).read_text(encoding="utf-8"))
        with safe_open(folder / _PEFT_TENSORS, framework="pt") as file:
            vectors = file.get_tensor(_PEFT_VECTORS)
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            f"{folder}: is no prompt-tuning folder of peft ({_PEFT_CONFIG}, {_PEFT_TENSORS}): "
            f"{error}"
        ) from error
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "PROMPT_TUNING":
        raise InputError(f"{folder}: peft_type is {kind!r}; only PROMPT_TUNING is a soft prompt")
    width = model.config.d_model
    if vectors.ndim != 2 or vectors.shape[1] != width:
        raise InputError(
            f"{folder}: vectors are {tuple(vectors.shape)}; this model has width {width}"
        )
    own = _read_own(folder / _PEFT_OURS)
    saved = (
        _saved(json.dumps(own), {"prompt": vectors}, folder / _PEFT_OURS) if own is not None
        else None
    )  # fmt: skip
    digest = function_digest(model)
    if saved and saved.base_digest != digest:
        raise InputError(f"{folder}: was tuned for another model: these weights differ")
    prior = None
    if own and saved and saved.words:
        known = LabelWords(saved.names, saved.words)
        if words is not None and (words.names, words.words) != (known.names, known.words):
            pairs = ",".join(f"{n}={w}" for n, w in zip(known.names, known.words, strict=True))
            raise InputError(f"{folder}: was tuned for the label words {pairs}; leave others out")
        words = known
        prior = _prior(own.get(_PRIOR), len(words.names), folder / _PEFT_OURS)
    if words is None:
        raise InputError(f"{folder}: does not say which classes it is for; give their label words")
    task = SavedPrompt(kind="classes", names=words.names) if saved is None else saved
    task = replace(task, names=words.names, words=words.words)
    with torch.random.fork_rng(devices=[]):
        prompted = PromptedModel(model, task, tokens=len(vectors), words=words)
    with torch.no_grad():
        prompted.prompt.copy_(vectors)
        if prior is not None:
            prompted.prior.copy_(prior)
    settings = dict(saved.settings) if saved else {"imported from": "peft"}
    save_prompt(
        prompted,
        path,
        base=base,
        base_digest=digest,
        max_length=saved.max_length if saved else None,
        settings=settings,
    )


def _prior(numbers: object, count: int, path: Path) -> Tensor | None:
    """What `export_peft` wrote of the prior of so many words; None where it wrote nothing."""
    if numbers is None:
        return None
    if (
        not isinstance(numbers, list)
        or len(numbers) != count
        or not all(isinstance(n, int | float) for n in numbers)
    ):
        raise InputError(f"{path}: prior is no list of {count} numbers; {_AGAIN}")
    return torch.tensor(numbers, dtype=torch.float64)


def _read_own(path: Path) -> dict[str, Any] | None:
    """What `export_peft` wrote beside peft's own files; None where it is another's folder."""
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {_AGAIN}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds no JSON object; {_AGAIN}")
    return values


def is_peft(folder: str | Path) -> bool:
    """Whether a folder is one of the package `peft`."""
    return (Path(folder) / _PEFT_CONFIG).is_file()


def is_prompt(path: str | Path) -> bool:
    """Whether a file is one of `save_prompt`."""
    try:
        with safe_open(path, framework="pt") as file:
            return _KEY in (file.metadata() or {})
    except (OSError, ValueError, SafetensorError):
        return False
