"""`hyenadna predict`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
from cyclopts import Parameter
from rich.console import Console

from hyenadna import __version__
from hyenadna.cli.console import make_console
from hyenadna.cli.finetune_options import Outside
from hyenadna.cli.memory import (
    explain_memory,
    fit_batch,
    limit_memory,
    note_no_effect,
    peak_text,
)
from hyenadna.cli.process import (
    announce_native,
    announce_slow_bf16,
    choose_device,
    prepare_process,
    set_threads,
)
from hyenadna.cli.progress import progress_bar
from hyenadna.cli.prompt_option import load_prompted, soft_prompt_settings
from hyenadna.cli.run_options import RunOptions, make_record
from hyenadna.cli.spread import USUAL, Spread, SpreadOptions, begin
from hyenadna.cli.units import bases, duration, size
from hyenadna.errors import InputError

if TYPE_CHECKING:
    import torch

    from hyenadna.data.sequences import SequenceFile, SequenceRow
    from hyenadna.infer.rows_file import ColumnType, RowsFile
    from hyenadna.model.heads import TaskModel

_CHUNK_BATCHES: Final = 16
_CHUNK_ROWS: Final = 4096


def predict(
    model: str,
    source: Path,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    long: bool = False,
    sequence: str | None = None,
    pair: str | None = None,
    id: str | None = None,
    genome: Path | None = None,
    window: int | None = None,
    outside: Outside | None = None,
    max_length: int | None = None,
    strands: Literal["forward", "average"] | None = None,
    prompt_file: Path | None = None,
    resume: bool = False,
    spread: SpreadOptions = USUAL,
    max_memory: str | None = None,
    precision: Literal["float32", "bf16"] = "float32",
    device: str = "auto",
    threads: int | None = None,
) -> None:
    """Say what a fine-tuned model makes of sequences: classes, labels or values.

    A row for each sequence, in the order of the input: id, predicted class and the probability of
    each class; for labels the probability of each; for values the numbers; for a class of each base
    the classes of all bases, one letter each.

    Parameters
    ----------
    model
        Run folder of `hyenadna finetune`, or a folder with a fine-tuned model. With
        `--prompt-file` the model that the prompt was tuned for: run folder, checkpoint folder or
        published name.
    source
        FASTA, CSV, TSV, Parquet, or BED with `--genome`.
    out
        New file: `.csv`, `.tsv` or `.parquet`.
    long
        For a class of each base: a row for each base, with its position (from 0) and probabilities.
    sequence
        Column of the sequences; that of the fine-tuning or the usual names when left out.
    pair
        Column of the second sequence of a pair; that of the fine-tuning when left out.
    id
        Column of the names; the usual ones when left out.
    genome
        FASTA to cut intervals from.
    window
        Bases around the middle of each interval; as in the fine-tuning when left out.
    outside
        What to do with a window past the end of a contig; as in the fine-tuning when left out.
    max_length
        Longer sequences are cropped to their middle; as in the fine-tuning when left out.
    strands
        Read both strands and average, or the given one alone; as in the fine-tuning when left out.
    prompt_file
        Soft prompt of `hyenadna prompt-tune`, for a model that was not fine-tuned.
    resume
        Go on with an interrupted run of the same command.
    max_memory
        Memory that this process may take, such as `4GiB`; the result does not change beyond
        rounding.
    precision
        Type of the matrix products.
    device
        `cpu`, `cuda`, …; `auto` takes a GPU where there is one.
    threads
        CPU threads; all cores when left out.
    """
    run = begin("predict", dict(locals()))
    if run is None:
        return
    prepare_process()
    set_threads(threads)
    from hyenadna.data.batches import BATCH_TOKENS
    from hyenadna.infer.interrupted import stored_tokens
    from hyenadna.infer.rows_file import require_free
    from hyenadna.train.loop import PRECISIONS

    console, begun = make_console(), time.monotonic()
    require_free(out, what="predictions", resume=resume, shard=run.shard)
    network = _load(model, prompt_file, choose_device(device), strands)
    if long and network.task.kind != "tokens":
        raise InputError(f"--long is for a class of each base; the task is {network.task.kind}")
    announce_native(console, network.model.config)
    announce_slow_bf16(console, precision, network.model.head_weight.device)
    limit_memory(network.model, max_memory)
    trained = _trained_with(network)
    file = _open_source(
        source,
        trained,
        sequence=sequence,
        pair=pair,
        id=id,
        genome=genome,
        window=window,
        outside=outside,
    )
    crop = max_length if max_length is not None else trained.get("max_length")
    survey = _survey(file, crop, network, console)
    batch_tokens, need = fit_batch(
        network.model,
        survey.longest,
        stored_tokens(run.place, BATCH_TOKENS) if resume else BATCH_TOKENS,
        precision=PRECISIONS[precision],
        most=survey.tokens,
        pass_memory=network.pass_memory,
    )
    note_no_effect(console, max_memory, engine=need is not None)
    settings = {
        "hyenadna": __version__,
        "model": model,
        **_digests(network),
        "sequences": survey.digest,
        "strands": network.strands,
        "long": long,
        "precision": precision,
        "batch_tokens": batch_tokens,
    }
    target = _open_target(run, network, long, settings, console)
    console.print(
        f"{survey.rows:,} sequences, {bases(survey.tokens)}, the longest {survey.longest:,}; "
        f"{network.task.kind} ({network.task.outputs}), strands {network.strands}"
        + _behind(network)
        + (f"; about {size(need)} of memory" if need is not None else "")
    )
    work = _Work(network, file, crop, batch_tokens, PRECISIONS[precision], long)
    units = (
        (len(chunk), sum(len(ids) for _, ids in chunk))
        for chunk in _chunks(work, range(survey.rows))
    )
    cut = run.cut(survey.rows, units, "tokens to read", console)
    with explain_memory("go on with --resume and a (smaller) --max-memory"):
        figures = _run(target, work, cut.items, run, console)
    record = make_record(
        verb="predict",
        model=model,
        network=network.model,
        machine=RunOptions(precision=precision).machine(network.model),
        begun=begun,
        inputs={"source": str(source), "sequences": survey.rows, "digest": survey.digest},
        settings=settings,
        figures=figures,
    )
    run.end(target, cut, record, console)


@dataclass(frozen=True)
class _Work:
    """What is done with each sequence."""

    network: TaskModel
    file: SequenceFile
    crop: int | None
    batch_tokens: int
    precision: torch.dtype | None
    long: bool


@dataclass(frozen=True)
class _Survey:
    """What a file holds, found before the first prediction."""

    rows: int
    tokens: int
    longest: int
    digest: str


def _load(
    model: str,
    prompt_file: Path | None,
    device: torch.device,
    strands: Literal["forward", "average"] | None,
) -> TaskModel:
    from hyenadna.checkpoint.task import load_task

    if prompt_file is None:
        network = load_task(model, device=device)
    else:
        network = load_prompted(model, prompt_file, device)
    if strands is not None and strands != network.strands:
        if network.strands == "concatenate":
            tuned = "tuned" if prompt_file else "fine-tuned"
            raise InputError(
                f"--strands {strands}: {prompt_file or model} was {tuned} with both strands "
                "concatenated, and reads no other way"
            )
        network.read_strands(strands)
    return network


def _trained_with(network: TaskModel) -> dict[str, Any]:
    """How sequences were read in the fine-tuning, as far as the model says."""
    settings = getattr(network.task, "settings", {})
    reading = settings.get("reading", {})
    found = dict(reading) if isinstance(reading, Mapping) else {}
    options = settings.get("finetune", {})
    if isinstance(options, Mapping):
        found["max_length"] = options.get("max_length")
    return found


def _open_source(source: Path, trained: Mapping[str, Any], **given: Any) -> SequenceFile:
    from hyenadna.data.sequences import SequenceFile, require_column
    from hyenadna.data.text_files import suffix_of
    from hyenadna.genome.fasta import Genome

    chosen = {key: given[key] if given[key] is not None else trained.get(key) for key in given}
    genome = given["genome"]
    if given["window"] is not None and genome is None:
        raise InputError("--window is laid around intervals of a genome; give --genome as well")
    if given["sequence"] is not None and suffix_of(source) != ".bed":
        require_column(source, given["sequence"])
    return SequenceFile(
        path=source,
        sequence=chosen["sequence"],
        pair=chosen["pair"],
        id=chosen["id"],
        genome=Genome.open(genome) if genome is not None else None,
        window=chosen["window"],
        outside=chosen["outside"] or "refuse",
    )


def _survey(file: SequenceFile, crop: int | None, network: TaskModel, console: Console) -> _Survey:
    """Read the whole file once: a bad row is told before the first prediction.

    crop: tokens that longer sequences are cropped to. Raises InputError for a sequence that is too
    long for the model, and for a file without rows.
    """
    from hyenadna.genome.contig_names import renamed_text

    longest, behind = network.max_length, _behind(network)
    if crop is not None and not 1 <= crop <= longest:
        raise InputError(
            f"--max-length is {crop}; this model reads 1 to {longest:,} tokens{behind}"
        )
    rows = tokens = most = 0
    digest = hashlib.sha256()
    with console.status(f"reading {file.path} …"):
        for row in file:
            ids = _cropped(row, crop)
            if len(ids) > longest:
                raise InputError(
                    f"{row.place}: {row.id!r} has {len(ids):,} tokens, but this model reads up to "
                    f"{longest:,}{behind}; crop to the middle with --max-length {longest}, or cut "
                    "it"
                )
            rows, tokens, most = rows + 1, tokens + len(ids), max(most, len(ids))
            digest.update(f"{row.id}\0{len(ids)}\0".encode())
            digest.update(ids.tobytes())
    if not rows:
        raise InputError(f"{file.path}: holds no sequences")
    if file.renamed:
        console.print(f"note: {renamed_text(file.renamed)}")
    return _Survey(rows, tokens, most, digest.hexdigest())


def _cropped(row: SequenceRow, crop: int | None) -> npt.NDArray[np.uint8]:
    """The middle of a sequence that is too long; a pair is never cut."""
    from hyenadna.alphabet import SEP

    ids = row.ids
    if crop is None or len(ids) <= crop or bool((ids == SEP).any()):
        return ids
    start = (len(ids) - crop) // 2
    return ids[start : start + crop]


def _behind(network: TaskModel) -> str:
    """What sequences are read behind, where they are."""
    from hyenadna.model.prompting.prompted import PromptedModel

    if not isinstance(network, PromptedModel):
        return ""
    answer = f" and before a word of {network.words.length}" if network.words else ""
    return f", behind {len(network.prompt):,} soft tokens{answer}"


def _digests(network: TaskModel) -> dict[str, Any]:
    """Short names of all weights that the predictions depend on."""
    from hyenadna.model.digest import weights_digest
    from hyenadna.model.prompting.prompted import PromptedModel

    if isinstance(network, PromptedModel):
        return {"weights": weights_digest(network.model), **soft_prompt_settings(network)}
    others = {k: v for k, v in network.state_dict().items() if not k.startswith("model.")}
    return {"weights": weights_digest(network.model, **others)}


def _columns(network: TaskModel, long: bool) -> dict[str, ColumnType]:
    """Names and types of the columns of the output."""
    task = network.task
    found: dict[str, ColumnType] = {"id": "text"}
    if long:
        found["position"] = "integer"
    if task.kind in ("classes", "tokens"):
        found["predicted"] = "text"
    if task.kind != "tokens" or long:
        before = "predicted_" if task.kind == "values" else "p_"
        found |= {f"{before}{name}": "number" for name in task.names}
    return found


def _open_target(
    run: Spread, network: TaskModel, long: bool, settings: dict[str, Any], console: Console
) -> RowsFile:
    from hyenadna.infer.rows_file import RowsFile

    columns = _columns(network, long)
    if not run.arguments["resume"]:
        return RowsFile.start(run.out, columns, settings, run.shard)
    file, note = RowsFile.resume(run.out, columns, settings, run.shard)
    run.told(note, console)
    return file


def _run(
    target: RowsFile, work: _Work, wanted: range, spread: Spread, console: Console
) -> dict[str, Any]:
    """Predict all sequences that are left, finish the file, and say what it took; figures."""
    from hyenadna.infer.predict import predict as run

    before, total = target.inputs_done, len(wanted)
    if before and not spread.merging:
        console.print(f"resuming after sequence {wanted.start + before:,}")
    begun = time.monotonic()
    try:
        with progress_bar(console, f"predicting {work.file.path.name}") as show:
            done = before
            for chunk in _chunks(work, wanted[before:]):
                said = run(
                    work.network,
                    [ids for _, ids in chunk],
                    batch_tokens=work.batch_tokens,
                    precision=work.precision,
                    progress=partial(_show_rows, show, done, total),
                )
                names = [id for id, _ in chunk]
                rows = _rows(work.network, names, list(said), work.long)
                target.append(rows, len(chunk))
                done += len(chunk)
    except KeyboardInterrupt:
        console.print(
            f"stopped after {target.inputs_done:,} of {total:,} sequences; go on with --resume"
        )
        raise
    if spread.shard is None:
        target.finish()
    seconds = time.monotonic() - begun
    count = total - before
    if not spread.merging:
        console.print(
            f"{count:,} sequences in {duration(seconds)}, {count / max(seconds, 1e-9):,.0f} a "
            "second"
            f"{peak_text()}: {spread.place}"
        )
    return {"sequences_of_this_run": count, "sequences_a_second": count / max(seconds, 1e-9)}


def _show_rows(
    show: Callable[[int, int], None], before: int, total: int, done: int, _: int
) -> None:
    """Move the bar of all rows by the progress of one chunk."""
    show(before + done, total)


def _chunks(work: _Work, rows: range) -> Iterator[list[tuple[str, npt.NDArray[np.uint8]]]]:
    """(id, tokens) of these rows, in stretches of several batches."""
    chunk: list[tuple[str, npt.NDArray[np.uint8]]] = []
    tokens = 0
    for row in islice(work.file, rows.start, rows.stop):
        ids = _cropped(row, work.crop)
        chunk.append((row.id, ids))
        tokens += len(ids)
        if tokens >= _CHUNK_BATCHES * work.batch_tokens or len(chunk) >= _CHUNK_ROWS:
            yield chunk
            chunk, tokens = [], 0
    if chunk:
        yield chunk


def _rows(
    network: TaskModel, ids: list[str], said: list[npt.NDArray[np.float32]], long: bool
) -> Iterator[list[str]]:
    """The rows of the output, as text; numbers in as few digits as say them exactly."""
    from hyenadna.cli.finetune_report import base_labels

    task = network.task
    for id, row in zip(ids, said, strict=True):
        if task.kind == "tokens":
            best = row.argmax(1)
            if not long:
                yield [id, base_labels(best, task.names)]
                continue
            for position, (c, numbers) in enumerate(
                zip(best.tolist(), row.astype(str).tolist(), strict=True)
            ):
                yield [id, str(position), task.names[c], *numbers]
        else:
            predicted = [task.names[int(row.argmax())]] if task.kind == "classes" else []
            yield [id, *predicted, *row.astype(str).tolist()]
