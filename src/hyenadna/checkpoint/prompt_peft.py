"""Soft prompts in the layout of the package `peft` (prompt tuning of a causal model), in and out.

FOLDER/adapter_config.json          what kind of adapter it is, of how many tokens
FOLDER/adapter_model.safetensors    prompt_embeddings, (P, D)
FOLDER/hyenadna_prompt.json         ours: classes, words, their prior, the model's hash
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hyenadna.checkpoint.prompt_file import (
    AGAIN,
    FORMAT,
    SavedPrompt,
    prompt_of,
    read_prompt,
    save_prompt,
)
from hyenadna.errors import InputError
from hyenadna.label_words import LabelWords
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.digest import function_digest
from hyenadna.model.prompting.prompted import PromptedModel

_CONFIG: Final = "adapter_config.json"
_TENSORS: Final = "adapter_model.safetensors"
_VECTORS: Final = "prompt_embeddings"
_OURS: Final = "hyenadna_prompt.json"
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
    ours = {"format": FORMAT, **asdict(saved), _PRIOR: prior}
    try:
        beside.mkdir(parents=True)
        for name, values in ((_CONFIG, config), (_OURS, ours)):
            text = json.dumps(values, indent=2) + "\n"
            (beside / name).write_text(text, encoding="utf-8")
        save_file({_VECTORS: vectors}, beside / _TENSORS, metadata={"format": "pt"})
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
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        with safe_open(folder / _TENSORS, framework="pt") as file:
            vectors = file.get_tensor(_VECTORS)
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            f"{folder}: is no prompt-tuning folder of peft ({_CONFIG}, {_TENSORS}): {error}"
        ) from error
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "PROMPT_TUNING":
        raise InputError(f"{folder}: peft_type is {kind!r}; only PROMPT_TUNING is a soft prompt")
    width = model.config.d_model
    if vectors.ndim != 2 or vectors.shape[1] != width:
        raise InputError(
            f"{folder}: vectors are {tuple(vectors.shape)}; this model has width {width}"
        )
    own = _read_own(folder / _OURS)
    saved = (
        prompt_of(json.dumps(own), {"prompt": vectors}, folder / _OURS) if own is not None
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
        prior = _prior(own.get(_PRIOR), len(words.names), folder / _OURS)
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
        raise InputError(f"{path}: prior is no list of {count} numbers; {AGAIN}")
    return torch.tensor(numbers, dtype=torch.float64)


def _read_own(path: Path) -> dict[str, Any] | None:
    """What `export_peft` wrote beside peft's own files; None where it is another's folder."""
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {AGAIN}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds no JSON object; {AGAIN}")
    return values


def is_peft(folder: str | Path) -> bool:
    """Whether a folder is one of the package `peft`."""
    return (Path(folder) / _CONFIG).is_file()
