"""The cells of a few-shot run: what was asked, what was answered, and the files that keep it."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hyenadna.errors import InputError

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
TRUE: Final = "true labels"
SHUFFLED: Final = "shuffled labels"
REORDERED: Final = "another order"
NONE: Final = "no demonstrations"
CHOICE: Final = "choice"
"""The true labels too, but asked about the rows to choose by."""
# What a file that is empty, cut off or of another kind raises (RuntimeError: zipfile, of a way of
# packing that it does not know).
_DAMAGED: Final = (
    OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, RuntimeError,
    zipfile.BadZipFile,
)  # fmt: skip


@dataclass(frozen=True, order=True)
class Cell:
    """One pair of settings: a model tuned on some rows (0: as it is), and some shots."""

    tuned: int
    shots: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"tuned-{self.tuned}-shots-{self.shots}"

    @property
    def title(self) -> str:
        """For people."""
        shots = f"{self.shots} shot{'s' * (self.shots != 1)}"
        return f"tuned on {self.tuned}, {shots}" if self.tuned else f"untuned, {shots}"


@dataclass(frozen=True, eq=False)
class Asked:
    """What was answered to the same queries behind each draw's demonstrations."""

    nats: Floats
    """Log-probabilities of the class words, (D, n, T)."""
    spelled: Int64s
    """Classes that the most probable letters spell, -1 for none, (D, n)."""
    prior: Floats
    """Log of the mean probability of each class over calibration rows, (D, T); zeros without
    calibration."""

    def probabilities(self, *, calibrated: bool = True) -> Floats:
        """Of the classes, (D, n, T)."""
        from hyenadna.infer.fewshot import class_probabilities

        return np.stack(
            [
                class_probabilities(nats, prior if calibrated else None)
                for nats, prior in zip(self.nats, self.prior, strict=True)
            ]
        )

    def classes(self, *, calibrated: bool = True) -> Int64s:
        """The most probable class of each query, (D, n)."""
        found: Int64s = self.probabilities(calibrated=calibrated).argmax(2)
        return found


@dataclass(frozen=True, eq=False)
class CellResult:
    """A cell that is done."""

    cell: Cell
    asked: Mapping[str, Asked]
    """By control: TRUE, CHOICE, and where there are shots SHUFFLED, REORDERED and NONE."""
    notes: Mapping[str, Any]
    """seconds, prefix_tokens, calibration_rows; of tuning: losses, tuning_seconds; with shots
    and without tuning: shared_seconds and together_seconds of timed_rows, the latter from
    together_rows of them, and largest_difference in nats."""


def write_cell(result: CellResult, folder: Path) -> None:
    """Write a cell's file beside and rename. Raises InputError where that cannot be done."""
    path = folder / f"{result.cell.name}.npz"
    beside = path.with_name(f".{path.name}.part")
    arrays = {
        f"{control}/{field}": getattr(asked, field)
        for control, asked in result.asked.items()
        for field in ("nats", "spelled", "prior")
    }
    notes = np.frombuffer(json.dumps(dict(result.notes)).encode(), dtype=np.uint8)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            np.savez(file, notes=notes, **arrays)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error


def read_cell(cell: Cell, folder: Path) -> CellResult | None:
    """The cell that a file keeps, None where there is no file. Raises InputError for a bad one."""
    path = folder / f"{cell.name}.npz"
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            notes = json.loads(file["notes"].tobytes())
            controls = dict.fromkeys(key.split("/")[0] for key in file.files if "/" in key)
            asked = {
                control: Asked(
                    *(file[f"{control}/{field}"] for field in ("nats", "spelled", "prior"))
                )
                for control in controls
            }
    except _DAMAGED as error:
        raise InputError(f"{path}: cannot be read ({error}); remove it and resume") from error
    return CellResult(cell, asked, notes)
