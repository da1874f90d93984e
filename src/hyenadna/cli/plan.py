"""`hyenadna plan`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console

from hyenadna.cli.console import make_console, make_table
from hyenadna.cli.process import available_memory, prepare_process, set_threads
from hyenadna.cli.units import bases as bases_text
from hyenadna.cli.units import size
from hyenadna.config import PRESETS, PUBLISHED_NAMES, ModelConfig, preset
from hyenadna.errors import InputError
from hyenadna.model.planning.clock import ASSUMED, Shares
from hyenadna.model.planning.devices import Device
from hyenadna.model.planning.devices import device as device_of
from hyenadna.model.planning.forecast import (
    HUMAN,
    PAPER,
    Change,
    Forecast,
    forecast,
    smallest_change,
)
from hyenadna.model.planning.setup import Setup
from hyenadna.shipped import shipped_folder, shipped_names

_BAR = 20
_PARTS = {
    "weights": "weights",
    "gradients": "gradients",
    "moments": "moments of AdamW",
    "average": "average of the weights",
    "exchanged": "buffers between ranks",
    "tables": "features of all lags",
    "kept": "kept activations",
    "work": "work space",
    "loss": "logits and loss",
    "freed": "allocator, libraries",
    "process": "interpreter or GPU context",
}


def plan(
    model: str,
    *,
    length: int | None = None,
    batch: int = 1,
    at_once: int | None = None,
    ranks: int = 1,
    context_ranks: int = 1,
    fsdp: bool = False,
    precision: Literal["float32", "bf16", "fp16"] = "float32",
    gradient_checkpointing: bool = False,
    average: bool = False,
    task: Literal["train", "infer"] = "train",
    max_seq_len: int | None = None,
    device: Literal["cpu", "h100", "h200", "a100"] = "cpu",
    price_per_hour: float | None = None,
    bases: float = HUMAN,
    epochs: float = 1.0,
    threads: int | None = None,
    json_output: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Say what a model will take on a machine before it runs: memory, time, network, price.

    By arithmetic; for `--device cpu` after some seconds of probing this machine.

    Parameters
    ----------
    model
        A preset or a model of the package (`hyenadna models` lists them), a folder of a checkpoint
        or run, or a JSON file with a model configuration.
    length
        Bases of a sequence; the longest that the model reads, less 2, when left out.
    batch
        Sequences of a step, of all ranks together.
    at_once
        Sequences that a rank takes in one pass (`--micro-batch-tokens` of `pretrain` in
        sequences); all of its own when left out.
    ranks
        Processes, a device each.
    context_ranks
        Ranks that each sequence lies over.
    fsdp
        Parameters, gradients and moments in parts on the ranks.
    precision
        Type of the matrix products.
    gradient_checkpointing
        Compute activations again in the backward pass, as `pretrain` does with this flag.
    average
        With a moving average of the weights (`--ema` of `pretrain`).
    task
        `train`, or `infer` for a pass without gradients.
    max_seq_len
        Longest sequence that the model can read, instead of its own.
    device
        `cpu` is this machine; the GPUs are the SXM modules, eight to a machine.
    price_per_hour
        Dollars an hour of one device, instead of the assumed ones.
    bases
        Bases of the data, for the days and the price; a human genome when left out.
    epochs
        Passes over them.
    threads
        CPU threads of the probe; all cores when left out.
    json_output
        Print JSON.
    """
    config = model_config(model)
    if max_seq_len is not None:
        config = config.replace(max_seq_len=max_seq_len)
    if bases <= 0 or epochs <= 0:
        raise InputError(f"--bases is {bases:g} and --epochs {epochs:g}; both must be above 0")
    setup = Setup(
        config=config,
        length=length or max(config.max_seq_len - 2, 1),
        batch=batch,
        at_once=at_once,
        ranks=ranks,
        context=context_ranks,
        fsdp=fsdp,
        precision=precision,
        checkpointing=gradient_checkpointing,
        average=average,
        task=task,
        gpu=device != "cpu",
    )
    on, shares = (device_of(device), ASSUMED) if setup.gpu else _this_machine(setup, threads)
    found = forecast(setup, on, shares)
    change = None if found.fits else smallest_change(found, shares)
    wanted = bases * epochs
    if json_output:
        print(json.dumps(_plain(found, change, wanted, price_per_hour), indent=2))
        return 0
    console = make_console()
    _show_memory(console, model, found)
    _show_fit(console, found, change)
    _show_time(console, found)
    _show_days(console, found, wanted, price_per_hour)
    return 0


def model_config(model: str) -> ModelConfig:
    """The configuration of a preset, a model of the package, a JSON file, or a folder.

    The folder: of a checkpoint or run.

    Without torch, but for the original's layout. Raises InputError where there is none.
    """
    if model in PRESETS or model in PUBLISHED_NAMES.values():
        return preset(model)
    path = Path(model).expanduser()
    if model in shipped_names() and not path.exists():
        path = shipped_folder(model)
    for folder in (path, path / "best", path / "last"):
        if (folder / "config.json").is_file():
            path = folder / "config.json"
            break
    if not path.is_file():
        raise InputError(
            f"{model}: no preset, JSON file or folder with a config.json; there are "
            f"{', '.join((*PRESETS, *shipped_names()))}"
        )
    try:
        fields = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON with model fields ({error})") from error
    if isinstance(fields, dict) and "d_model" in fields and "layer" not in fields:
        try:
            return ModelConfig.from_dict({k: v for k, v in fields.items() if v is not None})
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    from hyenadna.checkpoint.config_file import read_config

    return read_config(path)


def _this_machine(setup: Setup, threads: int | None) -> tuple[Device, Shares]:
    prepare_process(spare_memory=setup.checkpointing)
    set_threads(threads)
    from hyenadna.model.planning.probe import probe

    return probe(setup, float(available_memory() or 0))


def _show_memory(console: Console, model: str, found: Forecast) -> None:
    setup, config = found.setup, found.setup.config
    what = "a training step on" if setup.training else "a pass over"
    console.print(
        f"{model}: {config.num_parameters():,} parameters, {config.n_layer} layers of width "
        f"{config.d_model}; {what} {setup.batch:,} x {setup.length:,} bases, {setup.precision}, "
        f"{_ranks_text(setup)} {found.device.name}"
    )
    table = make_table("memory of a rank", "part", "bytes")
    table.add_column("", no_wrap=True)
    table.add_column("less by", no_wrap=True)
    parts = {name: value for name, value in vars(found.memory).items() if value > 0}
    for name, value in parts.items():
        bar = "█" * round(_BAR * value / max(parts.values()))
        table.add_row(_PARTS[name], size(value), bar, _less_by(name, setup))
    table.add_row("all", size(found.memory.total))
    console.print(table)


def _ranks_text(setup: Setup) -> str:
    if setup.ranks == 1:
        return "on one"
    shared = f", a sequence over {setup.context}" if setup.context > 1 else ""
    parts = ", parameters in parts (FSDP2)" if setup.fsdp else ""
    return f"on {setup.ranks}{shared}{parts}:"


def _less_by(name: str, setup: Setup) -> str:
    """Flags that cut a part and are not given."""
    flags = []
    owned = ("weights", "gradients", "moments", "average", "exchanged")
    if name in owned and setup.ranks > 1 and not setup.fsdp:
        flags.append("--fsdp")
    if name in ("kept", "work", "loss"):
        if setup.rows_at_once > 1:
            flags.append("--at-once")
        if name == "kept" and setup.training and not setup.recomputes:
            flags.append("--gradient-checkpointing")
        if setup.config.mixer == "hyena":
            flags.append("--context-ranks")
    return ", ".join(flags)


def _show_fit(console: Console, found: Forecast, change: Change | None) -> None:
    has = found.device.memory
    of_all = "" if found.device.is_gpu or found.setup.ranks == 1 else " of all ranks"
    console.print(
        f"{size(found.needed)}{of_all} of {size(has)}: {'fits' if found.fits else 'does not fit'}"
    )
    if found.fits:
        return
    if change is None:
        console.print("nothing that a plan tries makes it fit; give a shorter --length")
        return
    other = change.outlook
    console.print(
        f"it fits with {change.flags}: {size(other.needed)}, "
        f"{other.time.total / found.time.total:.2g} times the time of a step"
    )


def _show_time(console: Console, found: Forecast) -> None:
    setup = found.setup
    idle = setup.groups * setup.rows - setup.batch
    if idle:
        whole = setup.groups * setup.rows
        console.print(
            f"note: {setup.batch:,} sequences do not divide among {setup.groups:,} groups; "
            f"{idle:,} of {whole:,} rows will not count (--batch {whole})"
        )
    work, sent, time = found.work, found.traffic, found.time
    table = make_table("a step of a rank", "part", "amount", "seconds")
    again = f" ({work.again / work.products:.0%} of it once more)" if work.again else ""
    rows = [
        ("matrix products", work.products, "op", again, time.products),
        ("FFTs", work.transforms, "op", "", time.transforms),
        ("element-wise passes, optimiser", work.traffic, "B", "", time.passes),
        (
            "exchanges within sequences", sent.exchanges + sent.halos, "B",
            f" in {sent.meetings:,.0f} calls", time.exchanges,
        ),
        ("sums of gradients", sent.gradients, "B", "", time.waiting),
        ("gathering of parameters", sent.parameters, "B", "", 0.0),
        ("starts of small kernels", work.launches, "", "", time.starts),
    ]  # fmt: skip
    for name, count, unit, more, seconds in rows:
        if count:
            table.add_row(name, f"{_scaled(count)}{unit}{more}", f"{seconds:.3g}")
    table.add_row("all", "", f"{time.total:.3g}")
    console.print(table)
    console.print(
        f"mostly {time.bound}; {found.tokens_per_second:,.0f} bases a second, "
        f"{bases_text(found.tokens_per_second * 86400)} a day"
    )


def _show_days(console: Console, found: Forecast, wanted: float, per_hour: float | None) -> None:
    verb = "training" if found.setup.training else "reading"
    amounts = [(f"{verb} on {bases_text(wanted)}", wanted)]
    if found.setup.training:
        amounts.append((f"the paper's {bases_text(PAPER)}", PAPER))
    for name, count in amounts:
        cost = found.price(count, per_hour)
        price = "" if cost is None else f", {cost:,.{2 if cost < 10 else 0}f} dollars"
        console.print(f"{name}: {_days(found.days(count))}{price}")
    if found.device.is_gpu:
        price = "" if per_hour is not None else (
            f"; {found.device.price:g} dollars an hour of a device is one too"
        )  # fmt: skip
        console.print(
            "Not measured on GPUs: rates are data sheets', shares of them assumptions "
            f"(docs/plan.md){price}."
        )
    elif found.setup.ranks > 1:
        console.print(
            "Ranks are taken to have cores of their own, and their network is not counted."
        )


def _scaled(count: float) -> str:
    """A large number in powers of 1000, with the unit's letter and room for it."""
    for letter in ("", "k", "M", "G", "T", "P"):
        if count < 1000 or letter == "P":
            return f"{count:.3g} {letter}"
        count /= 1000
    raise AssertionError


def _days(days: float) -> str:
    if days < 1 / 24:
        return f"{days * 1440:.2g} minutes"
    return f"{days * 24:.1f} hours" if days < 2 else f"{days:,.1f} days"


def _plain(
    found: Forecast, change: Change | None, wanted: float, per_hour: float | None
) -> dict[str, Any]:
    return {
        **found.to_dict(),
        "change": None if change is None else change.flags,
        "budgets": [
            {"bases": count, "days": found.days(count), "dollars": found.price(count, per_hour)}
            for count in (wanted, PAPER)
        ],
    }
