"""The folder of one fine-tuning run.

    RUN/log.jsonl            one line per step and per evaluation
    RUN/state.safetensors    newest state: weights, best weights, optimiser, random state, history
    RUN/best/                the model that was best on the valid part, as `load_task` reads it; of
                             a soft prompt `prompt.safetensors` alone, as `load_prompt` does
    RUN/lock                 held by the process that writes

The state is one file, written beside and renamed, so that it is whole at any moment.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from hyenadna.checkpoint.prompt_file import PROMPT_FILE, save_prompt
from hyenadna.checkpoint.task import save_task
from hyenadna.errors import InputError
from hyenadna.file_lock import hold
from hyenadna.model.prompting.prompted import PromptedModel
from hyenadna.train.finetune_loop import Finetuner
from hyenadna.train.finetune_reports import FinetuneEvaluation, FinetuneStep, to_entry
from hyenadna.train.run_folder import RunFolder
from hyenadna.training_config import FinetuneConfig

_VERSION: Final = 1
_STATE: Final = "state.safetensors"
_LOCK: Final = "lock"


class FinetuneFolder:
    """Reads and writes the folder of one run; see the module for its layout.

    The folder is held until `close`. Raises InputError where it cannot be made, or another process
    holds it.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        """writes: whether this process is the one of its ranks that writes; others read only."""
        self.path, self.writes = path, writes
        self._log = RunFolder(path, {}, writes=writes)
        if not writes:
            return
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = (path / _LOCK).open("a")
        except OSError as error:
            raise InputError(f"{path}: cannot make the run folder ({error.strerror})") from error
        if not hold(self._lock):
            self._lock.close()
            raise InputError(
                f"{path}: another run is writing it; wait for it, or give another folder"
            )

    @property
    def has_state(self) -> bool:
        """Whether there is a run to go on with."""
        return (self.path / _STATE).is_file()

    def log(self, report: FinetuneStep | FinetuneEvaluation) -> None:
        """Append a line to the log."""
        self._log.log(to_entry(report))

    def entries(self) -> list[dict[str, Any]]:
        """All complete lines of the log."""
        return self._log.entries()

    def clear_log(self) -> None:
        """Forget the steps of a start that was killed before it had a state."""
        if self.writes:
            self._log.rewind_log(0)

    def close(self) -> None:
        """Let another run write here."""
        if self.writes:
            self._lock.close()

    def save_state(self, tuner: Finetuner) -> None:
        """Write the newest state. Raises InputError if the disk is full; the one before stands."""
        tensors, plain = tuner.state()  # all ranks take part in gathering
        if not self.writes:
            return
        text = json.dumps({"version": _VERSION, "of": tuner.fingerprint(), **plain})
        beside = self.path / f"{_STATE}.part"
        try:
            held = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
            save_file(held, beside, metadata={"state": text})
            with beside.open("rb") as file:
                os.fsync(file.fileno())
            beside.replace(self.path / _STATE)
        except (OSError, SafetensorError) as error:
            beside.unlink(missing_ok=True)
            raise InputError(
                f"{self.path}: cannot be written ({error}); the state before stands. Free some "
                "space and resume"
            ) from error

    def restore(self, tuner: Finetuner) -> None:
        """Bring a fresh tuner, and the log, to where the state was written.

        Raises InputError where the state is damaged, or of other data, settings or weights.
        """
        path = self.path / _STATE
        try:
            with safe_open(path, framework="pt") as file:
                plain = json.loads(file.metadata()["state"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            self._check(plain, tuner)
            tuner.load_state(tensors, plain)
        except InputError:
            raise
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise InputError(
                f"{path}: damaged, cannot resume from it ({type(error).__name__}: {error}); "
                "remove it to start over"
            ) from error
        if self.writes:
            self._log.rewind_log(tuner.steps_done)

    def save_best(self, tuner: Finetuner) -> None:
        """Write the model of a finished tuner. Raises InputError where that cannot be done."""
        if not self.writes:
            return
        best = tuner.best
        settings: dict[str, Any] = {"seed": tuner.seed, "finetune": tuner.config.to_dict()}
        if best:
            settings |= {"epoch": best.epoch, "metric": best.metric}
            settings["valid"] = to_entry(best)["valid"]
        if isinstance(tuner.model, PromptedModel):
            path = self.path / "best" / PROMPT_FILE
            save_prompt(tuner.model, path, max_length=tuner.max_length, settings=settings)
            return
        save_task(
            tuner.model,
            self.path / "best",
            max_length=tuner.max_length,
            base_digest=tuner.base_digest,
            settings=settings,
        )

    def _check(self, plain: Mapping[str, Any], tuner: Finetuner) -> None:
        if plain["version"] != _VERSION:
            raise InputError(f"{self.path}: version {plain['version']}, not {_VERSION}")
        old, new = plain["of"], json.loads(json.dumps(tuner.fingerprint()))
        config = new["config"]
        before = FinetuneConfig.from_dict(old["config"]).to_dict()  # options since then: defaults
        other = [k for k in config if before[k] != config[k]]
        if other:
            was, now = before[other[0]], config[other[0]]
            raise InputError(
                f"{self.path}: was run with {other[0]} {was}, not {now}; resume with the same, or "
                "give another folder"
            )
        names = {
            "seed": "another seed",
            "precision": "another precision (is this another machine?)",
            "base": "other weights to begin with",
            "head": "another pooling or strands",
            "head dropout": "another dropout of the head",
            "train": "other training rows",
            "valid": "other validation rows",
        }
        for key, what in names.items():
            if old.get(key, new[key]) != new[key]:  # states of before lack the newest
                raise InputError(
                    f"{self.path}: was run with {what}; resume with the same, or give another "
                    "folder"
                )
