"""The structure of the package: imports point down, and help is instant."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import hyenadna

ROOT = Path(hyenadna.__file__).parent
LAYERS = {
    "errors": 0,
    "alphabet": 1, "config": 1, "training_config": 1, "task_kinds": 1, "file_lock": 1,
    "label_words": 1, "reference_tokenizer": 1, "native": 1,
    "shipped": 1,
    "genome": 2, "conv": 2,
    "model": 3, "data": 3,
    "checkpoint": 4,
    "train": 5, "infer": 5, "transformers": 5,
    "report": 6, "web": 6,
    "cli": 7,
    "__init__": 8, "__main__": 8,
}  # fmt: skip
# Rooms of one layer that must not know each other.
STRANGERS = [("genome", "conv"), ("model", "data"), ("train", "infer")]
WITHOUT_TORCH = (
    "errors",
    "alphabet",
    "config",
    "training_config",
    "task_kinds",
    "file_lock",
    "label_words",
    "reference_tokenizer",
    "native",
    "shipped",
    "genome",
)
ONLY_VERSION = {("cli", "__init__")}  # `hyenadna.__version__` for --version


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> list[str]:
    """Modules that a file imports, anywhere in it."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.append(node.module or "")
    return names


def test_imports_point_down():
    for path in ROOT.rglob("*.py"):
        here = room(path)
        if here == "__init__":
            continue
        for name in imports(path):
            if name.split(".")[0] != "hyenadna":
                continue
            there = name.split(".")[1] if "." in name else "__init__"
            if (here, there) in ONLY_VERSION or here == there:
                continue
            assert LAYERS[there] <= LAYERS[here], f"{path}: {here} imports {name}"
            assert (here, there) not in STRANGERS, f"{path}: {here} imports {name}"
            assert (there, here) not in STRANGERS, f"{path}: {here} imports {name}"


def test_every_room_has_a_layer():
    assert {room(path) for path in ROOT.rglob("*.py")} <= set(LAYERS)


def test_rooms_without_torch():
    for path in ROOT.rglob("*.py"):
        if room(path) in WITHOUT_TORCH:
            assert not {n.split(".")[0] for n in imports(path)} & {"torch"}, path


def loaded_after(code: str) -> set[str]:
    """Top-level modules that running the code loads, in a fresh interpreter."""
    command = (
        f"import sys\n{code}\nprint('LOADED', *sorted({{m.split('.')[0] for m in sys.modules}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True
    )
    return set(done.stdout.rsplit("LOADED", 1)[1].split())


def test_help_never_imports_torch():
    heavy = {
        "torch", "matplotlib", "pysam", "transformers", "huggingface_hub", "sklearn", "scipy",
        "pyarrow", "anndata", "zarr", "h5py", "umap", "pandas", "ray",
    }  # fmt: skip
    commands = (
        "pretrain", "evaluate", "embed", "generate", "finetune", "fewshot", "prompt-tune",
        "predict", "benchmark", "score", "track", "mutate", "project", "report", "merge", "plan",
    )  # fmt: skip
    for words in (["--help"], *([command, "--help"] for command in commands), ["models"],
                  ["plan", "large-1m", "--device", "h100"]):  # fmt: skip
        loaded = loaded_after(f"from hyenadna.cli.app import run\nrun({words!r})")
        assert not loaded & heavy, (words, loaded & heavy)
    assert not loaded_after("import hyenadna") & (heavy | {"numpy"})


def test_public_names_exist():
    for name in hyenadna.__all__:
        assert getattr(hyenadna, name) is not None
    assert set(hyenadna.__all__) <= set(dir(hyenadna))
