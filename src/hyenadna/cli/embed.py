"""`hyenadna embed`."""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console

from hyenadna import __version__
from hyenadna.cli.console import make_console
from hyenadna.cli.memory import (
    explain_memory,
    fit_batch,
    limit_memory,
    note_no_effect,
    peak_memory,
)
from hyenadna.cli.pretrain import comma_list
from hyenadna.cli.process import (
    announce_native,
    announce_slow_bf16,
    available_memory,
    choose_device,
    prepare_process,
    set_threads,
)
from hyenadna.cli.progress import progress_bar
from hyenadna.cli.units import bases, duration, size

if TYPE_CHECKING:
    import torch

    from hyenadna.genome.fasta import Genome
    from hyenadna.infer.embed import Tiling
    from hyenadna.infer.embeddings_file import EmbeddingsFile
    from hyenadna.model.backbone import HyenaDNA


def embed(
    model: str,
    genome: Path,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    length: int | None = None,
    bin: int | None = None,
    contigs: str = "",
    resume: bool = False,
    max_memory: str | None = None,
    precision: Literal["float32", "bf16"] = "float32",
    device: str = "auto",
    threads: int | None = None,
) -> None:
    """Turn a genome into embeddings: mean hidden states over each stretch of bases.

    They are the states after the final norm.
    Each contig is read in windows, one after the other; a base sees the bases before it in its
    window. N counts like any base, padding never does.

    Parameters
    ----------
    model
        Run folder, checkpoint folder or published name.
    genome
        FASTA, plain, gzip or bgzip.
    out
        New file, `.npz`: embeddings (rows, D); contig, start, stop of each row (from 0, half open).
    length
        Bases of a window; the longest that the model reads, less 2, when left out. Cut down to a
        multiple of `--bin`.
    bin
        Bases of a row; the whole window when left out.
    contigs
        Contigs to read, separated by commas; all when left out.
    resume
        Go on with an interrupted run of the same command; one with other settings is refused.
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
    prepare_process()
    set_threads(threads)
    from hyenadna.checkpoint.load import load
    from hyenadna.data.batches import BATCH_TOKENS
    from hyenadna.genome.fasta import Genome
    from hyenadna.infer.embed import tile_genome
    from hyenadna.infer.embeddings_file import require_free
    from hyenadna.infer.interrupted import stored_settings
    from hyenadna.model.digest import weights_digest
    from hyenadna.train.loop import PRECISIONS

    console = make_console()
    require_free(out, resume=resume)
    where = choose_device(device)
    reader = Genome.open(genome)
    network = load(model).to(where)
    announce_native(console, network.config)
    announce_slow_bf16(console, precision, where)
    limit_memory(network, max_memory)
    tiling = tile_genome(
        network.config, reader, length=length, bin=bin, contigs=comma_list(contigs)
    )
    with progress_bar(console, f"reading {reader.name}") as show:
        summary = reader.check(progress=show)
    for warning in summary.warnings:
        console.print(f"note: {warning}")
    longest = min(tiling.length, max(tiling.contigs.values()))
    # a resumed run must keep its batches, whatever memory there is now
    stored = stored_settings(out) if resume else {}
    batch_tokens, need = fit_batch(
        network,
        longest,
        _count(stored.get("batch_tokens"), BATCH_TOKENS),
        precision=PRECISIONS[precision],
        most=tiling.bases,
    )
    note_no_effect(console, max_memory, engine=need is not None)
    settings = {
        "hyenadna": __version__,
        "model": model,
        "weights": weights_digest(network),
        "genome": reader.digest(),
        "contigs": list(tiling.contigs),
        "length": tiling.length,
        "bin": tiling.bin,
        "precision": precision,
        "batch_tokens": batch_tokens,
    }
    file = _open_file(out, tiling, network, settings, resume, console)
    if need is None:
        need = _plain_memory(network, max(longest, min(batch_tokens, tiling.bases)))
    _announce(console, tiling, network, where, out, need)
    with explain_memory(
        "go on with --resume and a (smaller) --max-memory, or start over with a shorter --length"
    ):
        _run(file, network, reader, batch_tokens, PRECISIONS[precision], console)


def _count(value: object, default: int) -> int:
    """A number of tokens from a file that may be damaged."""
    return value if isinstance(value, int) and value > 0 else default


def _open_file(
    out: Path,
    tiling: Tiling,
    network: HyenaDNA,
    settings: dict[str, Any],
    resume: bool,
    console: Console,
) -> EmbeddingsFile:
    from hyenadna.infer.embeddings_file import EmbeddingsFile

    width = network.config.d_model
    if not resume:
        return EmbeddingsFile.start(out, tiling, width, settings)
    file, note = EmbeddingsFile.resume(out, tiling, width, settings)
    if note:
        console.print(f"note: {note}")
    return file


def _plain_memory(network: HyenaDNA, tokens: int) -> int:
    """Estimated bytes of the process in a pass of the plain modules."""
    from hyenadna.model.memory import inference_bytes

    return (peak_memory() or 0) + inference_bytes(network.config, tokens=tokens, engine=False)


def _announce(
    console: Console, tiling: Tiling, network: HyenaDNA, where: torch.device, out: Path, need: int
) -> None:
    from hyenadna.model.engine.sizes import resident_bytes

    free = available_memory()
    console.print(
        f"{tiling.count:,} windows of up to {tiling.length:,} bases, {bases(tiling.bases)} in all; "
        f"{tiling.rows:,} rows of {network.config.d_model} ({size(_file_bytes(tiling, network))}) "
        f"for {out}; about {size(need)} of memory"
    )
    if where.type == "cpu" and free is not None and need - resident_bytes() > free:
        console.print(f"note: only {size(free)} are free; give --max-memory or a shorter --length")


def _file_bytes(tiling: Tiling, network: HyenaDNA) -> int:
    return tiling.rows * network.config.d_model * 4


def _run(
    file: EmbeddingsFile,
    network: HyenaDNA,
    genome: Genome,
    batch_tokens: int,
    precision: torch.dtype | None,
    console: Console,
) -> None:
    """Embed all windows that are left, finish the file, and say what it took."""
    from hyenadna.infer.embed import batches, last_boundary
    from hyenadna.infer.embed import embed as run

    tiling = file.tiling
    windows, rows, before = last_boundary(tiling, file.rows_done, batch_tokens)
    file.keep(rows)
    if windows:
        console.print(f"resuming after window {windows:,}")
    left = islice(tiling.windows(), windows, None)
    first = sum(each.length for each in next(batches(left, batch_tokens), []))
    left = islice(tiling.windows(), windows, None)
    begun, done = time.monotonic(), before
    try:
        with progress_bar(console, f"embedding {genome.name}") as show:
            for each in run(
                network,
                genome,
                left,
                bin=tiling.bin,
                batch_tokens=batch_tokens,
                precision=precision,
            ):
                file.append(each.embeddings)
                if done == before:
                    seconds = (tiling.bases - before) / first * (time.monotonic() - begun)
                    console.print(f"about {duration(seconds)} by the first {bases(first)}")
                done += each.window.length
                show(done, tiling.bases)
    except KeyboardInterrupt:
        console.print(f"stopped at {bases(done)} of {bases(tiling.bases)}; go on with --resume")
        raise
    file.finish()
    seconds, peak = time.monotonic() - begun, peak_memory()
    console.print(
        f"{tiling.rows - rows:,} rows in {duration(seconds)}, "
        f"{bases((done - before) / max(seconds, 1e-9))} a second"
        + (f", at most {size(peak)} of memory" if peak is not None else "")
        + f": {file.path}"
    )
