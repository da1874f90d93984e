"""The model of a verb, and how it is run: options, loading and what is told before the work."""

from __future__ import annotations

import datetime
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cyclopts import Parameter
from rich.console import Console

from hyenadna import __version__
from hyenadna.cli.memory import limit_memory, note_no_effect, peak_memory
from hyenadna.cli.process import (
    announce_native,
    announce_slow_bf16,
    choose_device,
    prepare_process,
    set_threads,
)

if TYPE_CHECKING:
    import torch

    from hyenadna.infer.run_record import RunRecord
    from hyenadna.model.backbone import HyenaDNA


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a model runs."""

    max_memory: str | None = None
    """Memory that this process may take, such as `4GiB`; the result does not change beyond
    rounding."""
    precision: Literal["float32", "bf16"] = "float32"
    """Type of the matrix products."""
    device: str = "auto"
    """`cpu`, `cuda`, …; `auto` takes a GPU where there is one."""
    threads: int | None = None
    """CPU threads; all cores when left out."""

    def prepare(self) -> None:
        """Settings of the process; before torch is loaded."""
        prepare_process()
        set_threads(self.threads)

    def dtype(self) -> torch.dtype | None:
        """Type of the matrix products, as `torch.autocast` takes it; None for that of the model."""
        from hyenadna.train.loop import PRECISIONS

        return PRECISIONS[self.precision]

    def load(self, model: str, console: Console) -> HyenaDNA:
        """The model of a name or folder, on the device and in evaluation mode.

        Says what compiling and slow types the user must wait for. Raises InputError as
        `hyenadna.load` does, and for a device or memory that is not there.
        """
        from hyenadna.checkpoint.load import load

        where = choose_device(self.device)
        network = load(model).to(where).eval()
        announce_native(console, network.config)
        announce_slow_bf16(console, self.precision, where)
        limit_memory(network, self.max_memory)
        if self.max_memory is not None:
            note_no_effect(console, self.max_memory, engine=self._heeds_memory(network))
        return network

    def _heeds_memory(self, network: HyenaDNA) -> bool:
        import torch

        device = network.head_weight.device.type
        with torch.autocast(device, dtype=self.dtype(), enabled=self.dtype() is not None):
            return network.pass_memory(1, 1) is not None

    def machine(self, network: HyenaDNA) -> dict[str, Any]:
        """For the record of a run."""
        import torch

        return {
            "device": str(network.head_weight.device),
            "threads": torch.get_num_threads(),
            "precision": self.precision,
            "torch": torch.__version__,
        }


def record_run(
    out: Path,
    *,
    verb: str,
    model: str,
    network: HyenaDNA,
    options: RunOptions,
    begun: float,
    inputs: Mapping[str, Any],
    settings: Mapping[str, Any],
    figures: Mapping[str, Any],
    caveats: Sequence[str] = (),
) -> None:
    """Write the record of a run beside its output; see `make_record`."""
    from hyenadna.infer.run_record import write_record

    record = make_record(
        verb=verb,
        model=model,
        network=network,
        machine=options.machine(network),
        begun=begun,
        inputs=inputs,
        settings=settings,
        figures=figures,
        caveats=caveats,
    )
    write_record(out, record)


def make_record(
    *,
    verb: str,
    model: str,
    network: HyenaDNA,
    machine: Mapping[str, Any],
    begun: float,
    inputs: Mapping[str, Any],
    settings: Mapping[str, Any],
    figures: Mapping[str, Any],
    caveats: Sequence[str] = (),
) -> RunRecord:
    """What a run was; see `hyenadna.infer.run_record`.

    begun: `time.monotonic()` at the start of the work. settings: with `weights`, the digest.
    machine: see `RunOptions.machine`.
    """
    from hyenadna.infer.run_record import RunRecord

    now = datetime.datetime.now(datetime.UTC).astimezone()
    seconds, peak = time.monotonic() - begun, peak_memory()
    return RunRecord(
        verb=verb,
        command=shlex.join(["hyenadna", *sys.argv[1:]]),
        hyenadna=__version__,
        made=now.isoformat(timespec="seconds"),
        model={
            "name": model,
            "weights": settings.get("weights"),
            "parameters": network.config.num_parameters(),
            "layers": network.config.n_layer,
            "width": network.config.d_model,
            "max_seq_len": network.config.max_seq_len,
        },
        inputs=dict(inputs),
        settings=dict(settings),
        figures={**figures, "seconds": seconds, "peak_memory_bytes": peak},
        caveats=tuple(caveats),
        machine=dict(machine),
    )
