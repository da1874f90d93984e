"""`hyenadna convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from hyenadna.cli.console import make_console


def convert(
    source: str,
    target: Path,
    /,
    *,
    layout: Literal["hf", "training"] = "hf",
    window_shift: float | None = None,
    tables: bool = True,
) -> None:
    """Rewrite a checkpoint in another layout.

    Parameters
    ----------
    source
        Checkpoint: run folder, Hugging Face folder, original folder with `weights.ckpt`, file, or
        published name.
    target
        Folder to write.
    layout
        `hf` (config.json, model.safetensors) or `training` (the original's files: weights.ckpt).
    window_shift
        Constant of the filter window; 0.05 for all published weights.
    tables
        Also store the position tables, which the published loader wants.
    """
    from hyenadna.checkpoint.convert import convert as run

    report = run(source, target, layout=layout, window_shift=window_shift, tables=tables)
    console = make_console()
    console.print(report.summary())
    console.print(f"written to {target} ({layout} layout)")
