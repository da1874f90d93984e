"""A fine-tuned model on disk: a checkpoint folder with a head beside the backbone.

    FOLDER/config.json, model.safetensors   the backbone, as `hyenadna.load` reads it
    FOLDER/head.safetensors                 head.weight, head.bias, attention.query where there is
    FOLDER/task.json                        what the outputs mean, and how they are made

The folder is written beside and renamed, as every checkpoint. Folders of the published sequence
classifier (`score.weight`) are read too.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, cast

import safetensors.torch
import torch
from torch import Tensor

from hyenadna.checkpoint.files import open_tensors
from hyenadna.checkpoint.load import load_with_report
from hyenadna.checkpoint.reading import locate
from hyenadna.checkpoint.save import save
from hyenadna.errors import InputError
from hyenadna.model.adapters import merged
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.heads import STRANDS, Strands, TaskModel
from hyenadna.model.pooling import POOLINGS, Pooling
from hyenadna.task_kinds import TASK_KINDS, TaskKind

_FORMAT: Final = 1
_TASK, _HEAD = "task.json", "head.safetensors"
_PUBLISHED_HEAD: Final = "score.weight"
_AGAIN: Final = "fetch or fine-tune it again"


@dataclass(frozen=True, kw_only=True)
class SavedTask:
    """The content of `task.json`. It serves as the task of a `TaskModel`."""

    kind: TaskKind
    names: tuple[str, ...]
    """Of the classes, labels or values, in the order of the outputs."""
    pooling: Pooling
    strands: Strands = "forward"
    dropout: float = 0.0
    max_length: int | None = None
    """Longest sequence in tokens that it was trained on; None where nobody said."""
    base_digest: str | None = None
    """`weights_digest` of the backbone before fine-tuning; None where nobody said."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Plain values of whoever trained it."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the packages that wrote it, by name."""

    @property
    def outputs(self) -> int:
        """Numbers for each sequence, for tokens for each base."""
        return len(self.names)


def save_task(
    task_model: TaskModel,
    folder: str | Path,
    *,
    max_length: int | None = None,
    base_digest: str | None = None,
    settings: Mapping[str, Any] | None = None,
    tables: bool = False,
) -> None:
    """Write backbone, head and task as a checkpoint folder, whole or not at all.

    The names of the outputs are those of `task_model.task`; adapters are merged into what is
    written, the model stays as it is. folder: made, or replaced if it is a checkpoint. The other
    arguments: see `SavedTask`; settings must be plain JSON values. tables: see
    `hyenadna.checkpoint.save`; only published loaders need them.

    Raises InputError where the number of names is not that of the outputs, names are not unique or
    settings are no JSON, and as `hyenadna.checkpoint.save` does.
    """
    task = SavedTask(
        kind=task_model.task.kind,
        names=tuple(str(name) for name in task_model.task.names),
        pooling=task_model.pooling,
        strands=task_model.strands,
        dropout=task_model.dropout.p,
        max_length=max_length,
        base_digest=base_digest,
        settings=dict(settings or {}),
        versions={"hyenadna": own_version(), "torch": str(torch.__version__)},
    )
    _check_names(task.names, str(folder))
    if task.outputs != task_model.head.out_features:
        raise InputError(
            f"{folder}: {task.outputs} names for {task_model.head.out_features} outputs; "
            "give one name for each output"
        )
    try:
        text = json.dumps({"format": _FORMAT, **asdict(task)}, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{folder}: settings hold something that JSON cannot ({error}); give plain values"
        ) from error
    head = safetensors.torch.save(_head_tensors(task_model), metadata={"format": "pt"})
    save(merged(task_model.model), folder, tables=tables, extra_files={_HEAD: head, _TASK: text})


def load_task(name_or_path: str | Path, *, device: str | torch.device = "cpu") -> TaskModel:
    """The fine-tuned model of a folder, in evaluation mode; its `task` is a `SavedTask`.

    name_or_path: a folder of `save_task` (or a run folder with one as `best` or `last`), or one of
    the published sequence classifier, `config.json` with a `score.weight`: it reads the last
    position, and becomes a `TaskModel` with biases of 0.

    Raises InputError where there is no such folder or no head in it, and for files that are
    damaged, missing, or do not go together.
    """
    folder = _folder(name_or_path)
    model, report = load_with_report(folder, device=device)
    if (folder / _TASK).is_file():
        task = read_task(folder)
        tensors = _read_head(folder / _HEAD)
    elif _PUBLISHED_HEAD in report.task_head:
        weight = report.task_head[_PUBLISHED_HEAD]
        task = _published_task(folder / "config.json", weight)
        tensors = {"head.weight": weight, "head.bias": torch.zeros(len(weight))}
    else:
        raise InputError(_no_task(folder))
    return _assemble(model, task, tensors, folder).eval()


def is_task(name_or_path: str | Path) -> bool:
    """Whether it is a folder of `save_task`. Raises InputError where there is no such model."""
    return (_folder(name_or_path) / _TASK).is_file()


def read_task(name_or_path: str | Path) -> SavedTask:
    """What `task.json` of a folder of `save_task` says, without reading any weights.

    Raises InputError where there is none, or it is damaged.
    """
    folder = _folder(name_or_path)
    path = folder / _TASK
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(_no_task(folder)) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {_AGAIN}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds a {type(values).__name__}, where a JSON object belongs")
    if values.get("format") != _FORMAT:
        raise InputError(
            f"{path}: format is {values.get('format')!r}; this version of hyenadna reads {_FORMAT}"
        )
    _check_fields(values, path)
    known = {name: values[name] for name in SavedTask.__dataclass_fields__ if name in values}
    return SavedTask(**known | {"names": tuple(values["names"])})


def _folder(name_or_path: str | Path) -> Path:
    """The folder that holds the weights of a checkpoint."""
    return locate(name_or_path).weights[0].parent


def _no_task(folder: Path) -> str:
    return (
        f"{folder}: has no {_TASK}, so this is a model without a task; fine-tune it first "
        "(hyenadna finetune), or read it with hyenadna.load"
    )


def own_version() -> str:
    """The version of this package, for files."""
    try:
        return version("hyenadna")
    except PackageNotFoundError:  # run from a source tree that nobody installed
        return "unknown"


def _head_tensors(task_model: TaskModel) -> dict[str, Tensor]:
    """What a task model holds beside its backbone, by name, in memory of their own."""
    return {
        name: value.detach().to("cpu", copy=True).contiguous()
        for name, value in task_model.state_dict().items()
        if not name.startswith("model.")
    }


def _read_head(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"{path}: is missing, but {_TASK} stands beside it; {_AGAIN}")
    with open_tensors((path,)) as stored:
        return {name: tensor.materialize() for name, tensor in stored.tensors.items()}


def _assemble(
    model: HyenaDNA, task: SavedTask, tensors: Mapping[str, Tensor], folder: Path
) -> TaskModel:
    """The task model with the head's tensors in place."""
    with torch.random.fork_rng(devices=[]):  # the fresh head is overwritten: draw nothing
        task_model = TaskModel(
            model, task, pooling=task.pooling, strands=task.strands, dropout=task.dropout
        )
    expected = {n: tuple(t.shape) for n, t in _head_tensors(task_model).items()}
    found = {n: tuple(t.shape) for n, t in tensors.items()}
    if expected != found:
        wrong = sorted(n for n in expected | found if expected.get(n) != found.get(n))
        name = wrong[0]
        raise InputError(
            f"{folder / _HEAD}: {name} is {found.get(name, 'missing')}, but {_TASK} and "
            f"config.json make it {expected.get(name, 'no part of this head')}; {_AGAIN}"
        )
    task_model.load_state_dict(dict(tensors), strict=False)
    return task_model


def _check_fields(values: Mapping[str, Any], path: Path) -> None:
    """Raise InputError for fields of `task.json` that are missing or out of range."""

    def need(name: str, ok: bool, rule: str) -> None:
        if not ok:
            shown = repr(values[name]) if name in values else "missing"
            raise InputError(f"{path}: {name} is {shown}; it is {rule}. {_AGAIN.capitalize()}")

    names, dropout = values.get("names"), values.get("dropout", 0.0)
    length, digest = values.get("max_length"), values.get("base_digest")
    need("kind", values.get("kind") in TASK_KINDS, f"one of {', '.join(TASK_KINDS)}")
    need(
        "names",
        isinstance(names, list) and all(isinstance(n, str) for n in names),
        "a list of texts",
    )
    need("pooling", values.get("pooling") in POOLINGS, f"one of {', '.join(POOLINGS)}")
    need("strands", values.get("strands", "forward") in STRANDS, f"one of {', '.join(STRANDS)}")
    real = isinstance(dropout, int | float) and not isinstance(dropout, bool)
    need("dropout", real and 0 <= dropout < 1, "a number in [0, 1)")
    whole = isinstance(length, int) and not isinstance(length, bool)
    need("max_length", length is None or (whole and length >= 1), "a number of tokens, or null")
    need("base_digest", digest is None or isinstance(digest, str), "a text, or null")
    for name in ("settings", "versions"):
        need(name, isinstance(values.get(name, {}), dict), "a JSON object")
    _check_names(tuple(cast(list[str], names)), str(path))


def _check_names(names: tuple[str, ...], where: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if not names or twice:
        what = f"output {twice[0]!r} stands twice in the names" if twice else "no names of outputs"
        raise InputError(f"{where}: {what}; give one name for each output, all different")


def _published_task(config: Path, weight: Tensor) -> SavedTask:
    """The task of a published sequence classifier, from the library's fields of its config.

    Where `problem_type` is not set, one output is a value and several are classes, as the library
    takes it.
    """
    values = json.loads(config.read_text(encoding="utf-8"))  # `load_with_report` has read it
    problem = values.get("problem_type") or (
        "regression" if len(weight) == 1 else "single_label_classification"
    )
    kinds: dict[str, TaskKind] = {
        "regression": "values",
        "single_label_classification": "classes",
        "multi_label_classification": "labels",
    }
    if problem not in kinds:
        raise InputError(f"{config}: problem_type is {problem!r}; it is one of {', '.join(kinds)}")
    given = values.get("id2label")
    labels = given if isinstance(given, dict) else {}
    names = tuple(str(labels.get(str(i), f"LABEL_{i}")) for i in range(len(weight)))
    _check_names(names, str(config))
    return SavedTask(kind=kinds[problem], names=names, pooling="last")
