"""How fast variants are scored: windows shared by neighbours against a pass for each haplotype.

    python benchmarks/scoring.py MODEL VARIANTS GENOME [--count 200] [--whole 20] [--lengths 1024]

Prints a row for each window length: variants a second of CPU time of one thread (so that other work
on the machine does not count), and the largest difference of the scores.
"""

from __future__ import annotations

import argparse
import time

import torch

from hyenadna.checkpoint.load import load
from hyenadna.genome.fasta import Genome
from hyenadna.genome.variant_file import VariantFile
from hyenadna.genome.variants import Allele, AlleleReader
from hyenadna.infer.score import Score, Scorer, plan_windows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("variants")
    parser.add_argument("genome")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--whole", type=int, default=20)
    parser.add_argument("--lengths", default="1024,8192")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, genome = load(given.model).eval(), Genome.open(given.genome)
    alleles = read(given.variants, genome)[: given.count]
    span = alleles[-1].start - alleles[0].start
    print(f"{len(alleles)} alleles over {span:,} bases")
    print(f"{'length':>8} {'shared /s':>10} {'whole /s':>10} {'times':>7} {'difference':>11}")
    for length in map(int, given.lengths.split(",")):
        windows = plan_windows(model.config, length=length)
        fast, rate = clocked(Scorer(model, genome, windows=windows), alleles)
        step = max(1, len(alleles) // given.whole)
        scorer = Scorer(model, genome, windows=windows, method="whole")
        slow, slow_rate = clocked(scorer, alleles[::step])
        gap = max(abs(a.llr - b.llr) for a, b in zip(fast[::step], slow, strict=True))
        print(f"{length:8} {rate:10.1f} {slow_rate:10.2f} {rate / slow_rate:7.1f} {gap:11.1e}")


def read(path: str, genome: Genome) -> list[Allele]:
    """The alleles that fit the genome."""
    reader = AlleleReader(genome)
    found = [a for record in VariantFile.open(path).records() for a in reader.alleles(record)]
    return [a for a in found if isinstance(a, Allele)]


def clocked(scorer: Scorer, alleles: list[Allele]) -> tuple[list[Score], float]:
    """Scores, and alleles a second, after a first few that fill what is kept."""
    scorer.scores(alleles[:2])
    begun = time.process_time()
    scores = scorer.scores(alleles)
    return scores, len(alleles) / (time.process_time() - begun)


if __name__ == "__main__":
    main()
