"""`hyenadna convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from hyenadna.cli.console import make_console
from hyenadna.errors import InputError


def convert(
    source: str,
    target: Path,
    /,
    *,
    layout: Literal["hf", "training", "peft"] | None = None,
    window_shift: float | None = None,
    tables: bool = True,
    max_shard_size: str | None = None,
    model: str | None = None,
    label_words: str | None = None,
) -> None:
    """Rewrite a checkpoint, or a soft prompt, in another layout.

    A soft prompt becomes a folder of the package `peft` with `--layout peft`, and a folder of
    `peft` becomes a file for `--prompt-file`.

    Parameters
    ----------
    source
        Checkpoint: run folder, Hugging Face folder, original folder with `weights.ckpt`, file, or
        published name. Or a soft prompt: a file of `hyenadna prompt-tune`, or a folder of `peft`.
    target
        Folder to write; for a soft prompt from `peft` the file.
    layout
        `hf` (config.json, model.safetensors; when left out), `training` (the original's files:
        weights.ckpt), or for a soft prompt `peft`.
    window_shift
        Constant of the filter window; 0.05 for all published weights.
    tables
        Also store the position tables, which the published loader wants.
    max_shard_size
        Longest weight file, such as `500MB`; 5GB when left out. A larger model is several files
        with an index, `model.safetensors.index.json`.
    model
        Of a soft prompt: the model that it was tuned for. From `peft` it is needed; to `peft` it is
        the name that the folder gives, that of the tuning when left out.
    label_words
        From `peft`: `NAME=WORD` of every class, by commas; what this command wrote when left out.
    """
    from hyenadna.checkpoint.prompt_peft import is_peft

    console = make_console()
    no_tables = None if tables else True
    if layout == "peft":
        _refuse(
            label_words=label_words, window_shift=window_shift, no_tables=no_tables,
            max_shard_size=max_shard_size,
        )  # fmt: skip
        console.print(_to_peft(Path(source), target, model))
    elif is_peft(source):
        _refuse(layout=layout, no_tables=no_tables, max_shard_size=max_shard_size)
        console.print(_from_peft(Path(source), target, model, label_words, window_shift))
    else:
        _refuse(model=model, label_words=label_words)
        _checkpoint(source, target, layout or "hf", window_shift, tables, max_shard_size)


def _checkpoint(
    source: str,
    target: Path,
    layout: Literal["hf", "training"],
    window_shift: float | None,
    tables: bool,
    max_shard_size: str | None,
) -> None:
    from hyenadna.checkpoint.convert import convert as run
    from hyenadna.checkpoint.prompt_file import is_prompt
    from hyenadna.checkpoint.save import SHARD_BYTES

    if is_prompt(source):
        raise InputError(f"{source}: is a soft prompt; write it as a folder of peft: --layout peft")
    if max_shard_size and layout == "training":
        raise InputError("--max-shard-size: the training layout is one file; convert to 'hf'")
    longest = _shard_bytes(max_shard_size) if max_shard_size else SHARD_BYTES
    report = run(
        source, target, layout=layout, window_shift=window_shift, tables=tables,
        shard_bytes=longest,
    )  # fmt: skip
    console = make_console()
    console.print(report.summary())
    console.print(f"written to {target} ({layout} layout)")


def _shard_bytes(text: str) -> int:
    from hyenadna.model.engine.plan import parse_memory

    try:
        return parse_memory(text)
    except InputError:
        raise InputError(
            f"--max-shard-size is {text!r}; give a size such as 5GB or 500MB"
        ) from None


def _to_peft(source: Path, target: Path, model: str | None) -> str:
    """What was done, in a line."""
    from hyenadna.checkpoint.prompt_file import read_prompt
    from hyenadna.checkpoint.prompt_peft import export_peft

    saved, tensors = read_prompt(source)
    export_peft(source, target, base=model or "")
    tokens = len(tensors["prompt"])
    return f"{tokens:,} soft tokens for {model or saved.base} written to {target} (peft layout)"


def _from_peft(
    source: Path,
    target: Path,
    model: str | None,
    label_words: str | None,
    window_shift: float | None,
) -> str:
    """What was done, in a line."""
    from hyenadna.checkpoint.load import load
    from hyenadna.checkpoint.prompt_file import read_prompt
    from hyenadna.checkpoint.prompt_peft import import_peft
    from hyenadna.label_words import spelled_words

    if model is None:
        raise InputError(f"{source}: is a folder of peft; give the model it is for with --model")
    if target.exists():
        raise InputError(f"{target}: exists; remove it, or give another file")
    words = None if label_words is None else spelled_words(label_words)
    network = load(model, window_shift=window_shift)
    import_peft(source, target, network, words=words, base=model)
    saved, tensors = read_prompt(target)
    return (
        f"{len(tensors['prompt']):,} soft tokens for {model}, classes {', '.join(saved.names)} in "
        f"words {' '.join(saved.words or ())}, written to {target}"
    )


def _refuse(**options: object) -> None:
    """Raise InputError for an option that has no meaning for what is converted."""
    for name, value in options.items():
        if value is not None:
            raise InputError(
                f"--{name.replace('_', '-')} has no meaning for this SOURCE; leave it out (--model "
                "and --label-words are for soft prompts, --layout hf and training for checkpoints)"
            )
