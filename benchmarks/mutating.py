"""Every substitution scored: one whole pass each beside shared states, and how far effects reach.

    python benchmarks/mutating.py MODEL GENOME [REGIONS]

Times both ways on random bases of two lengths, side by side on the same mutants (a sample of them
where all would take hours), on one thread and the forward strand, and checks that they agree. Then
takes REGIONS (60) places of the genome and measures how much of the effect of a substitution lies
within so many bases behind it, and how much it depends on so many before. Prints the page and
writes docs/benchmarks/mutating.md.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from hyenadna.alphabet import BASES, Ids
from hyenadna.checkpoint.load import load
from hyenadna.genome.fasta import Genome
from hyenadna.infer.mutate import PIECE, Piece, Reach, mutate_piece
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.decoding import Decoder
from hyenadna.model.likelihood import target_nats

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "mutating.md"
LENGTHS, AFTER = (1024, 8192), (64, 256, None)
SAMPLED = 4
"""Pieces, and mutants of each way, that are timed of a long sequence."""
BATCH_TOKENS = 1 << 14
FURTHEST, MOST_CONTEXT, WITHIN = 4095, 16_000, 64
DISTANCES = (0, 1, 4, 16, 64, 128, 256, 512, 1024, 2048)
CONTEXTS = (16, 64, 256, 1024, 2048, 4096)

Floats = npt.NDArray[np.float64]


def main() -> None:
    """Measure, print and write the page."""
    torch.set_num_threads(1)
    model = load(sys.argv[1]).eval()
    genome = Genome.open(sys.argv[2])
    places = int(sys.argv[3]) if len(sys.argv) > 3 else 60
    speeds = [speed(model, length, after) for length in LENGTHS for after in AFTER]
    text = page(model, speeds, *reach(model, genome, places), places, genome)
    PAGE.write_text(text)
    print(text)


@torch.no_grad()
def speed(model: HyenaDNA, length: int, after: int | None) -> list[str]:
    """A row of the table: seconds for all substitutions of a sequence, three ways."""
    rng = np.random.default_rng(0)
    ids = rng.integers(BASES[0], BASES[-1] + 1, length).astype(np.uint8)
    follow = length if after is None else after
    size = 16 if after is None else PIECE  # of a piece that is timed
    starts = [int((i + 0.5) * length / SAMPLED) // size * size for i in range(SAMPLED)]
    decoder, found = Decoder(model), {}

    def shared() -> None:
        reach = Reach(after=follow, context=length, piece=size)
        for start in starts:
            piece = Piece(start, start + size, start, start + size)
            found[start] = mutate_piece(
                decoder, lambda a, b: ids[a:b], length, piece, reach, "forward"
            )

    wanted = {}

    def whole() -> None:
        for start in starts:
            wanted[start] = score(model, ids, start + size // 2, follow, length)

    def cut() -> None:
        for start in starts:
            at = start + size // 2
            score(model, ids, at, follow, min(length, at + 1 + follow))

    shared()  # warm
    seconds = clock(shared) * length / (SAMPLED * size)
    each, short = (clock(way) * length / SAMPLED for way in (whole, cut))
    worst = max(float(np.nanmax(np.abs(found[s].score[size // 2] - wanted[s]))) for s in starts)
    return [
        f"{length:,}",
        "all" if after is None else str(after),
        *(f"{value:,.0f}" for value in (each, short)),
        f"{seconds:,.1f}",
        f"{each / seconds:,.1f}",
        f"{short / seconds:,.1f}",
        f"{worst:.0e}",
    ]


def score(model: HyenaDNA, ids: Ids, position: int, after: int, length: int) -> Floats:
    """Scores (4,) of the substitutions at a position by a pass each over the first bases."""
    rows = np.repeat(ids[None, :length], len(BASES), axis=0)
    rows[:, position] = BASES
    tokens = torch.from_numpy(rows.astype(np.int64))
    other = torch.tensor([base != ids[position] for base in BASES])
    nats = torch.zeros(len(BASES), length - 1, dtype=torch.float64)
    for row in torch.nonzero(other).split(max(1, BATCH_TOKENS // length)):
        some = tokens[row[:, 0]]
        nats[row[:, 0]] = target_nats(model, some[:, :-1], some[:, 1:]).double()
    reference = reference_nats(model, ids)[: length - 1]
    change = (reference - nats)[:, position - 1 : position + after].sum(1).numpy()
    return np.where(other.numpy(), change, np.nan)


_REFERENCES: dict[bytes, torch.Tensor] = {}


def reference_nats(model: HyenaDNA, ids: Ids) -> torch.Tensor:
    """Nats (L - 1,) of the reference, read once."""
    key = ids.tobytes()
    if key not in _REFERENCES:
        tokens = torch.from_numpy(ids.astype(np.int64))[None]
        _REFERENCES[key] = target_nats(model, tokens[:, :-1], tokens[:, 1:])[0].double()
    return _REFERENCES[key]


def clock(way: Callable[[], object]) -> float:
    """Seconds of the processor, which others on the machine do not lengthen much."""
    begun = time.process_time()
    way()
    return time.process_time() - begun


def reach(model: HyenaDNA, genome: Genome, places: int) -> tuple[list[list[str]], list[list[str]]]:
    """Rows of two tables: of what follows a substitution, and of what stands before it."""
    rng = np.random.default_rng(0)
    size = MOST_CONTEXT + FURTHEST + 1
    contigs = {name: n for name, n in genome.contigs.items() if n > size}
    share = np.array(list(contigs.values())) / sum(contigs.values())
    summed: list[Floats] = []
    behind = {context: list[Floats]() for context in (*CONTEXTS, MOST_CONTEXT)}
    decoder = Decoder(model)
    while len(summed) < places:
        name = rng.choice(list(contigs), p=share)
        start = int(rng.integers(0, contigs[name] - size))
        ids = genome.tokens(name, start, start + size)
        if (ids > BASES[-1]).any():
            continue
        at = MOST_CONTEXT
        for context, found in behind.items():
            changes = effects(decoder, ids[at - context : at], ids[at : at + WITHIN + 1])
            found.append(changes.sum(1))
        summed.append(np.cumsum(effects(decoder, ids[:at], ids[at:]), axis=1))
    follow, far = np.concatenate(summed), np.concatenate(behind[MOST_CONTEXT])
    after = [
        agreement(f"{distance:,}", follow[:, distance], follow[:, -1]) for distance in DISTANCES
    ]
    before = [agreement(f"{c:,}", np.concatenate(behind[c]), far) for c in CONTEXTS]
    return after, before


@torch.no_grad()
def effects(decoder: Decoder, front: Ids, rest: Ids) -> Floats:
    """(3, n): change of the log-likelihood of each base of `rest` by substitutions of its first."""
    state = decoder.prefill([torch.from_numpy(front.astype(np.int64))], room=len(rest))
    rows = torch.from_numpy(np.repeat(rest[None], len(BASES), axis=0).astype(np.int64))
    rows[:, 0] = torch.tensor(BASES)
    logits = decoder.model.logits(decoder.read(state, rows[:, :-1]))
    before = state.logits.expand(len(rows), -1)[:, None]
    logp = torch.cat([before, logits], dim=1).double().log_softmax(-1)
    nats = logp.gather(2, rows[..., None])[..., 0].numpy()
    same = int(rest[0]) - BASES[0]
    return np.delete(nats - nats[same], same, axis=0)


def agreement(name: str, some: Floats, full: Floats) -> list[str]:
    """A row: correlation and root mean square of the difference."""
    r = float(np.corrcoef(some, full)[0, 1])
    off = float(np.sqrt(((some - full) ** 2).mean()))
    return [name, f"{r:.3f}", f"{off:.3f}"]


def table(columns: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of Markdown."""
    return [
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def page(
    model: HyenaDNA,
    speeds: list[list[str]],
    after: list[list[str]],
    before: list[list[str]],
    places: int,
    genome: Genome,
) -> str:
    """The tables and what they are of."""
    config = model.config
    shape = f"{config.n_layer} layers of {config.d_model}, max_seq_len {config.max_seq_len:,}"
    lines = [
        "# Every substitution",
        "",
        f"Generated by `python benchmarks/mutating.py MODEL GENOME {places}`: {shape}; one thread, "
        f"float32, {platform.machine()}, torch {torch.__version__}.",
        "",
        "## Speed",
        "",
        "Seconds of the processor for all 3 L substitutions of L random bases on one strand, "
        "scored over the base and K that follow. *Whole*: a pass of L bases for each. *Cut*: a "
        "pass for each that ends where what counts ends. *Shared*: `hyenadna.mutate`. All three "
        "are measured on the same "
        f"{SAMPLED} stretches or positions, evenly spread, and scaled up; the last column is the "
        "largest difference of a score between whole and shared.",
        "",
        *table(
            ["L", "K", "whole", "cut", "shared", "times whole", "times cut", "differ by"], speeds
        ),
        "",
        "With all that follows there is nothing to leave out but the front, which is half of it.",
        "",
        "## What follows",
        "",
        f"Scores of {3 * places} substitutions at random places of {genome.name}, behind "
        f"{MOST_CONTEXT:,} bases, with only the first K that follow, beside those with "
        f"{FURTHEST:,}: correlation, and root mean square of the difference in nats.",
        "",
        *table(["K", "correlation", "differ by"], after),
        "",
        "## What stands before",
        "",
        f"The same with K = {WITHIN} behind fewer bases, beside those behind {MOST_CONTEXT:,}.",
        "",
        *table(["bases before", "correlation", "differ by"], before),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
