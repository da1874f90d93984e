"""The second half of `hyenadna demo`: what a trained model is for, shown on one of the package."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console

from hyenadna.cli.console import make_table

MODEL: Final = "starter-1k"
GENES, CODONS, VARIANTS = 30, 150, 800
"""Of the example: genes, codons of each, variants to score."""
WINDOW: Final = 300
"""Bases of a sequence to embed."""
PROMPT: Final = 90
"""Bases to go on from."""
FEWEST: Final = 10
"""Windows of a genome of the user's."""
MOST_BASES: Final = 60_000
"""Of a genome of the user's, from the start of its contigs."""


def show_shipped(out: Path, fasta: Path | None, console: Console) -> int:
    """Embeds, scores and generates with a model of the package; the exit code of what failed, or 0.

    out: folder for the files. fasta: a genome of the user's in place of our example.
    """
    console.rule(f"What a trained model is for: {MODEL}, which comes with the package")
    if fasta is None:
        console.print(
            f"Our example: {GENES} random genes of codons as E. coli uses them, either strand.\n"
        )
        inputs: Inputs | None = _made_inputs(out)
    else:
        inputs = _own_inputs(out, fasta)
    if inputs is None:
        console.print(
            f"note: {fasta} has fewer than {FEWEST} stretches of {WINDOW} known bases; left out"
        )
        return 0
    genome, windows, variants, prompt = inputs
    scored = out / "scored.vcf.gz"
    steps = [
        ["embed", MODEL, str(windows), "-o", str(out / "windows.npz")],
        ["project", str(out / "windows.npz"), "-o", str(out / "windows.png")]
        + ["--classify", "kind", "--folds", "5", "--trees", "20"],
        ["score", MODEL, str(variants), "--genome", str(genome), "-o", str(scored)],
        ["generate", MODEL, "--prompt", prompt, "--length", "300", "-n", "3"]
        + ["-o", str(out / "new.fa")],
    ]
    for words in steps:
        code = _run(words, console)
        if code:
            return code
        if words[0] == "score":
            _print_effects(scored, console)
    console.print(
        f"Pictures and files in {out}. All of it takes a genome, a VCF or a table of yours; "
        "hyenadna models lists the models."
    )
    return 0


def _run(words: Sequence[str], console: Console) -> int:
    from hyenadna.cli.app import run

    console.print(f"\n$ hyenadna {shlex.join(words)}", style="bold", soft_wrap=True)
    return run(words)


Inputs = tuple[Path, Path, Path, str]
"""Genome, table of sequences, VCF, and bases to go on from."""


def _made_inputs(out: Path) -> Inputs:
    """Genes, windows of three kinds, variants with their effects; and the start of a gene."""
    from hyenadna.alphabet import reverse_complement
    from hyenadna.genome.made_genes import make_genes
    from hyenadna.genome.write_fasta import write_fasta

    contig = make_genes(GENES, codons=CODONS)
    rng = np.random.default_rng(1)
    rows = []
    for number, gene in enumerate(contig.genes):
        text = contig.letters[gene.start : gene.stop]
        read = text if gene.strand == "+" else reverse_complement(text)
        middle = read[60 : 60 + WINDOW]
        mixed = "".join(rng.permutation(list(middle)))
        kinds = {"gene": middle, "gene, other strand": reverse_complement(middle)}
        for kind, letters in {**kinds, "shuffled": mixed}.items():
            rows.append((f"{kind} {number}", kind, letters))
    variants = list(contig.variants())
    chosen = sorted(rng.choice(len(variants), size=min(VARIANTS, len(variants)), replace=False))
    picked = [variants[i] for i in chosen]
    genome = write_fasta([contig], out / "genes.fa")
    vcf = _write_vcf(
        out / "variants.vcf",
        {contig.name: len(contig.letters)},
        [(contig.name, v.position, v.ref, v.alt, v.effect) for v in picked],
    )
    first = contig.genes[0]
    return genome, _write_table(out / "windows.csv", rows), vcf, "".join(first.codons)[:PROMPT]


def _own_inputs(out: Path, fasta: Path) -> Inputs | None:
    """A genome, windows of it and of their shuffled letters, random variants, the last window.

    None where there are fewer than FEWEST windows.
    """
    from hyenadna.genome.fasta import Genome

    genome = Genome.open(fasta)
    rng = np.random.default_rng(1)
    found: list[tuple[str, int]] = []  # contig and start of windows of known bases
    left, lengths = MOST_BASES, {}
    for contig, length in genome.contigs.items():
        lengths[contig] = length
        for start in range(0, length - WINDOW + 1, WINDOW):
            letters = genome.letters(contig, start, start + WINDOW).decode().upper()
            if left > 0 and set(letters) <= set("ACGT"):
                found.append((contig, start))
                left -= WINDOW
            if left <= 0:
                break
    if len(found) < FEWEST:
        return None
    rows, variants = [], []
    for contig, start in found:
        letters = genome.letters(contig, start, start + WINDOW).decode().upper()
        mixed = "".join(rng.permutation(list(letters)))
        rows.append((f"{contig}:{start + 1}", "genome", letters))
        rows.append((f"{contig}:{start + 1} shuffled", "shuffled", mixed))
        for place in sorted(rng.choice(WINDOW, size=5, replace=False).tolist()):
            ref = letters[place]
            alt = str(rng.choice([base for base in "ACGT" if base != ref]))
            kind = "transition" if {ref, alt} in ({"A", "G"}, {"C", "T"}) else "transversion"
            variants.append((contig, start + place, ref, alt, kind))
    vcf = _write_vcf(out / "variants.vcf", lengths, variants)
    contig, start = found[-1]
    prompt = genome.letters(contig, start, start + PROMPT).decode().upper()
    return fasta, _write_table(out / "windows.csv", rows), vcf, prompt


def _write_table(path: Path, rows: Sequence[tuple[str, str, str]]) -> Path:
    import csv

    with path.open("w", newline="") as stream:
        out = csv.writer(stream)
        out.writerow(["id", "kind", "sequence"])
        out.writerows(rows)
    return path


def _write_vcf(
    path: Path, contigs: dict[str, int], rows: Sequence[tuple[str, int, str, str, str]]
) -> Path:
    """rows: contig, position from 0, REF, ALT, kind."""
    import pysam

    header = pysam.VariantHeader()
    for name, length in contigs.items():
        header.contigs.add(name, length=length)
    header.info.add("KIND", 1, "String", "What the variant is")
    with pysam.VariantFile(str(path), "w", header=header) as out:
        for contig, at, ref, alt, kind in rows:
            info = {"KIND": kind}
            out.write(out.new_record(contig, at, at + 1, (ref, alt), info=info))
    return path


def _print_effects(scored: Path, console: Console) -> None:
    """What kinds of variants score, as a table."""
    import pysam

    scores: dict[str, list[float]] = {}
    with pysam.VariantFile(str(scored)) as records:
        for record in records:
            if "HDNA_LLR" in record.info:
                value = record.info["HDNA_LLR"]
                first = value[0] if isinstance(value, tuple) else value
                scores.setdefault(str(record.info["KIND"]), []).append(float(first))
    table = make_table("Scores of variants, in nats", "kind", "variants", "mean", "standard error")
    for kind in sorted(scores):
        values = np.array(scores[kind])
        error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        table.add_row(kind, f"{len(values):,}", f"{values.mean():.3f}", f"{error:.3f}")
    console.print(table)
