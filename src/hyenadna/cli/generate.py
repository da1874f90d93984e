"""`hyenadna generate`."""

from __future__ import annotations

import hashlib
import io
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from hyenadna import __version__
from hyenadna.cli.console import make_console
from hyenadna.cli.memory import explain_memory, limit_memory, note_no_effect, peak_text
from hyenadna.cli.pretrain import Repeated
from hyenadna.cli.process import (
    announce_native,
    available_memory,
    choose_device,
    prepare_process,
    set_threads,
)
from hyenadna.cli.prompt_option import load_maybe_prompted, soft_prompt_settings
from hyenadna.cli.units import bases, duration, size
from hyenadna.errors import InputError

if TYPE_CHECKING:
    from hyenadna.alphabet import Ids
    from hyenadna.infer.design import Design
    from hyenadna.infer.generate import GenerationPlan
    from hyenadna.infer.generated_file import GeneratedFile
    from hyenadna.model.backbone import HyenaDNA

_STDOUT: Final = "-"
_ESTIMATE_AFTER: Final = 2.0  # seconds


def generate(
    model: str,
    /,
    *,
    prompt: str | None = None,
    prompts: Path | None = None,
    prompt_file: Path | None = None,
    length: int | None = None,
    count: Annotated[int, Parameter(name=["--count", "-n"])] = 1,
    out: Annotated[str, Parameter(name=["--out", "-o"], allow_leading_hyphen=True)],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    with_n: bool = False,
    template: str | None = None,
    fix: Annotated[tuple[str, ...], Repeated] = (),
    forbid: Annotated[tuple[str, ...], Repeated] = (),
    gc: str | None = None,
    max_homopolymer: int | None = None,
    with_prompt: bool = False,
    resume: bool = False,
    batch_size: int | None = None,
    max_memory: str | None = None,
    device: str = "auto",
    threads: int | None = None,
) -> None:
    """Write new DNA: bases that the model draws after a prompt, one at a time.

    The past is never computed again, and the probabilities are those of the whole model. The header
    of each sequence has its log-likelihood in nats, whatever temperature and design.

    Parameters
    ----------
    model
        Run folder, checkpoint folder or model name.
    prompt
        Bases to start from, at least one.
    prompts
        FASTA with one prompt in each record, in place of `--prompt`.
    prompt_file
        Soft prompt of `hyenadna prompt-tune` for this model: its vectors stand before the bases of
        `--prompt` or `--prompts`, and are never written.
    length
        New bases of each sequence; those of the template when left out.
    count
        Sequences of each prompt.
    out
        New FASTA; `-` for standard output, each sequence as its batch is done.
    temperature
        Below 1 likely bases gain; 0 always takes the likeliest.
    top_k
        Choose among so many likeliest bases.
    top_p
        Choose among the likeliest bases that together reach this probability.
    seed
        Same seed, same sequences, whatever the batch.
    with_n
        Let N be generated beside A, C, G and T.
    template
        IUPAC letters for the new bases, one for each; N is free.
    fix
        `POSITION:MOTIF`, IUPAC letters that stand from this position on; the first new base is 1.
        Several with several `--fix`.
    forbid
        Motif (IUPAC) that must not come up, on either strand, such as a restriction site. Several
        with several `--forbid`.
    gc
        `LOW:HIGH`, fractions of G and C among the new bases, such as 0.4:0.6.
    max_homopolymer
        Longest run of one base.
    with_prompt
        Write the prompt in front of the new bases.
    resume
        Go on with an interrupted run of the same command; one with other settings is refused.
    batch_size
        Sequences made together; as memory allows, up to 64, when left out.
    max_memory
        Memory that this process may take, such as `4GiB`.
    device
        `cpu`, `cuda`, …; `auto` takes a GPU where there is one.
    threads
        CPU threads; all cores when left out.
    """
    prepare_process()
    set_threads(threads)
    from hyenadna.infer.design import Design
    from hyenadna.infer.generate import plan_generation
    from hyenadna.infer.generated_file import require_free
    from hyenadna.infer.sampling import Sampling

    path = None if out == _STDOUT else Path(out)
    console = make_console(stderr=path is None)
    if path is not None:
        require_free(path, resume=resume)
    elif resume:
        raise InputError("--resume goes on with a file; give its name with --out, not -")
    sampling = Sampling(temperature, top_k, top_p, seed)
    design = Design(
        template=template,
        fixed=_positions(fix),
        forbidden=forbid,
        gc=_range(gc),
        max_homopolymer=max_homopolymer,
    )
    given = _read_prompts(prompt, prompts)
    if length is None:
        if template is None:
            raise InputError("no --length given, and no --template that says it; give one of them")
        length = len(template)
    network, prompted = load_maybe_prompted(model, prompt_file, choose_device(device))
    announce_native(console, network.config)
    limit_memory(network, max_memory)
    plan = plan_generation(
        network,
        given.ids,
        length,
        count=count,
        sampling=sampling,
        design=design,
        with_n=with_n,
        batch_size=batch_size,
        state_bytes=_state_bytes(network, max_memory),
        names=given.names,
        soft_prompt=None if prompted is None else prompted.prompt,
    )
    job = _Job(plan, given, with_prompt, path)
    need = _memory(job, network)
    note_no_effect(console, max_memory, engine=need is not None)
    file = None
    if path is not None:
        settings = _settings(job, model, network, design) | soft_prompt_settings(prompted)
        file = _open_file(job, path, settings, resume, console)
    _announce(job, need, console)
    way_out = "give a smaller --batch-size or --max-memory"
    with explain_memory(way_out if path is None else f"{way_out}; --resume goes on"):
        _run(job, file, console)


@dataclass(frozen=True)
class _Prompts:
    names: tuple[str, ...]
    ids: tuple[Ids, ...]
    letters: tuple[str, ...]
    """As they were given."""


@dataclass(frozen=True)
class _Job:
    plan: GenerationPlan
    prompts: _Prompts
    with_prompt: bool
    path: Path | None

    @property
    def lengths(self) -> list[int]:
        """Bases of each record, in order."""
        before = [len(ids) * self.with_prompt for ids in self.prompts.ids]
        return [each + self.plan.length for each in before for _ in range(self.plan.count)]


def _read_prompts(prompt: str | None, prompts: Path | None) -> _Prompts:
    """The prompts of `--prompt` or `--prompts`, with their names."""
    from hyenadna.alphabet import encode
    from hyenadna.genome.fasta import Genome

    if (prompt is None) == (prompts is None):
        raise InputError("give either --prompt with bases, or --prompts with a FASTA")
    if prompts is None:
        text = prompt or ""
        return _Prompts(("prompt",), (encode(text, name="--prompt"),), (text,))
    genome = Genome.open(prompts)
    whole = [(name, 0, bases) for name, bases in genome.contigs.items()]
    ids = tuple(genome.tokens(*contig) for contig in whole)
    letters = tuple(genome.letters(*contig).decode("latin-1") for contig in whole)
    return _Prompts(tuple(genome.contigs), ids, letters)


def _positions(fix: Sequence[str]) -> dict[int, str]:
    """`POSITION:MOTIF` from 1 as motifs by position from 0."""
    found: dict[int, str] = {}
    for text in fix:
        position, _, motif = text.partition(":")
        if not position.strip().isdecimal() or int(position) < 1 or not motif.strip():
            raise InputError(
                f"--fix {text}: give POSITION:MOTIF, such as 12:GAATTC; the first new base is 1"
            )
        at = int(position) - 1
        if at in found:
            raise InputError(f"--fix {text}: there is one at position {at + 1} already")
        found[at] = motif.strip()
    return found


def _range(text: str | None) -> tuple[float, float] | None:
    """`LOW:HIGH` as two numbers."""
    if text is None:
        return None
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError:
        raise InputError(f"--gc {text}: give LOW:HIGH, such as 0.4:0.6") from None


def _state_bytes(network: HyenaDNA, max_memory: str | None) -> int:
    """Bytes that the state of a batch may take: half of what may be taken at all.

    The other half is for reading the prompts.
    """
    from hyenadna.infer.generate import STATE_BYTES
    from hyenadna.model.engine.plan import parse_memory
    from hyenadna.model.engine.sizes import resident_bytes

    if max_memory is None:
        free = available_memory() if network.head_weight.device.type == "cpu" else None
        return STATE_BYTES if free is None else min(STATE_BYTES, free // 2)
    return max(0, parse_memory(max_memory) - resident_bytes()) // 2


def _settings(job: _Job, model: str, network: HyenaDNA, design: Design) -> dict[str, Any]:
    """All that the sequences depend on."""
    from hyenadna.model.digest import weights_digest

    plan = job.plan
    total = hashlib.sha256()
    for name, ids in zip(job.prompts.names, job.prompts.ids, strict=True):
        total.update(f"{name}\0{len(ids)}\0".encode())
        total.update(ids.tobytes())
    return {
        "hyenadna": __version__,
        "model": model,
        "weights": weights_digest(network),
        "prompts": total.hexdigest(),
        "length": plan.length,
        "count": plan.count,
        "letters": list(plan.letters),
        "with_prompt": job.with_prompt,
        **asdict(plan.sampling),
        "design": asdict(design),
    }


def _open_file(
    job: _Job, path: Path, settings: dict[str, Any], resume: bool, console: Console
) -> GeneratedFile:
    from hyenadna.infer.generated_file import GeneratedFile

    if not resume:
        return GeneratedFile.start(path, settings)
    file, note = GeneratedFile.resume(path, settings, job.lengths)
    if note:
        console.print(f"note: {note}")
    return file


def _memory(job: _Job, network: HyenaDNA) -> int | None:
    """Estimated bytes of the process where it needs most: it reads prompts, the state is there.

    None where prompts are read by plain modules. Raises InputError where it is more than
    `max_memory`.
    """
    import torch

    plan = job.plan
    longest = [max(len(plan.prompts[i]) for i in batch.prompts) for batch in plan.batches()]
    rows = [len(batch.prompts) for batch in plan.batches()]
    passes = list(zip(rows, longest, strict=True))
    if plan.soft_tokens:  # they are read with the one prompt there is, or first and by themselves
        alone = len(plan.prompts) == 1
        passes.append((1, plan.soft_tokens + (longest[0] if alone else 0)))
    most = max(passes, key=lambda shape: shape[0] * shape[1])
    with torch.no_grad():
        return network.pass_memory(*most, besides=plan.state_bytes)


def _announce(job: _Job, need: int | None, console: Console) -> None:
    from hyenadna.model.engine.sizes import resident_bytes

    plan, free = job.plan, available_memory()
    longest = max(len(ids) for ids in job.prompts.ids)
    many = min(plan.batch_size, plan.sequences)
    state = plan.state_bytes
    need = need or resident_bytes() + state
    console.print(
        f"{_many(plan.sequences, 'sequence')} of {bases(plan.length)} after "
        f"{_many(len(plan.prompts), 'prompt')} of up to {bases(longest)}"
        + (f" behind {plan.soft_tokens:,} soft tokens" if plan.soft_tokens else "")
        + f", {many:,} at a time; "
        f"about {size(need)} of memory, {size(state)} of it for the state"
    )
    on_cpu = plan.decoder.backbone.ln_f.weight.device.type == "cpu"
    if on_cpu and free is not None and need - resident_bytes() > free:
        console.print(f"note: only {size(free)} are free; give a smaller --batch-size")


def _run(job: _Job, file: GeneratedFile | None, console: Console) -> None:
    """Make the sequences that are left, finish the file, and say what it took."""
    from hyenadna.infer.generated_file import record

    plan = job.plan
    skip = 0 if file is None else file.records_done
    if skip:
        console.print(f"resuming after {_many(skip, 'sequence')}")
    if file is None and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # as files are, whatever the locale
    begun, done = time.monotonic(), skip
    try:
        with _show_progress(console, skip * plan.length) as show:
            for each in plan.run(skip=skip, progress=show):
                text = record(
                    each,
                    job.prompts.names[each.prompt],
                    count=plan.count,
                    sampling=plan.sampling,
                    prompt=job.prompts.letters[each.prompt] if job.with_prompt else None,
                    soft_tokens=plan.soft_tokens,
                )
                if file is None:
                    sys.stdout.write(text)
                    sys.stdout.flush()
                else:
                    file.append(text)
                done += 1
    except KeyboardInterrupt:
        way = "; go on with --resume" if file is not None else ""
        console.print(f"stopped after {done:,} of {_many(plan.sequences, 'sequence')}{way}")
        raise
    if file is not None:
        file.finish()
    seconds = time.monotonic() - begun
    made = (done - skip) * plan.length
    console.print(
        f"{_many(done - skip, 'sequence')} of {bases(plan.length)} in {duration(seconds)}, "
        f"{bases(made / max(seconds, 1e-9))} a second"
        f"{peak_text()}" + (f": {file.path}" if file is not None else "")
    )


@contextmanager
def _show_progress(console: Console, before: int) -> Iterator[Callable[[int, int], None]]:
    """A bar with the bases of each second; once, a lasting line with the time that it will take.

    before: bases that a run before this one has made.
    """
    columns = (
        "{task.description}",
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    begun: tuple[float, int] | None = None
    told = False
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(escape("generating"), total=None, rate="")

        def show(done: int, total: int) -> None:
            nonlocal begun, told
            now = time.monotonic()
            if begun is None:  # the prompts are read
                begun = (now, done)
            seconds, made = now - begun[0], done - begun[1]
            pace = made / seconds if seconds > 0 else 0.0
            rate = f"{bases(pace)} a second" if made else ""
            bar.update(task, completed=done, total=total, rate=rate)
            if not told and pace and seconds >= _ESTIMATE_AFTER and done < total:
                told = True
                left = (total - before) / pace
                bar.console.print(f"about {duration(left)} by the first {bases(made)}")

        yield show


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
