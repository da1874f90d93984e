"""From genomes and options to what the training loop takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from hyenadna.config import ModelConfig
from hyenadna.data.batches import (
    TrainingSource,
    TrainingStream,
    count_targets,
    evaluation_batches,
)
from hyenadna.data.corpus import CorpusGenome
from hyenadna.errors import InputError
from hyenadna.train.pretrain import ValidBatches
from hyenadna.training_config import PretrainConfig


def final_length(config: ModelConfig, options: PretrainConfig) -> int:
    """Bases per sequence of the last stage. Raises InputError where the model is too short."""
    length = options.length or max(config.max_seq_len - 2, 1)
    if length > config.max_seq_len:
        raise InputError(
            f"--length {length}: the model reads at most {config.max_seq_len}; "
            "give --max-seq-len or a longer --preset"
        )
    return length


def training_stream(
    corpus: Sequence[CorpusGenome], options: PretrainConfig, length: int
) -> TrainingStream:
    """The stream of random windows over the train parts.

    Raises InputError for a genome whose train part has nothing that counts as a target.
    """
    for genome in corpus:
        if not count_targets(
            genome.reader,
            genome.split.train,
            soft_masked=options.soft_masked,
            n_targets=options.n_targets,
            enough=1,
        ):
            raise InputError(
                f"{genome.reader.path}: nothing to learn from in the train part, no base counts "
                f"(--soft-masked {options.soft_masked}, --n-targets {options.n_targets})"
            )
    return TrainingStream(
        [TrainingSource(g.reader, g.split.train, g.weight) for g in corpus],
        length=length,
        batch_size=1,
        seed=options.seed,
        reverse_complement=options.reverse_complement,
        max_n_fraction=options.max_n_fraction,
        soft_masked=options.soft_masked,
        n_targets=options.n_targets,
    )


def validation_batches(
    corpus: Sequence[CorpusGenome], options: PretrainConfig, length: int
) -> dict[str, ValidBatches]:
    """Batches of each genome's valid part: windows spread evenly over it, `evaluate_bases` at most.

    A genome without a valid part is left out. Raises InputError where a valid part has nothing that
    counts as a target in the chosen windows.
    """
    return {
        genome.name: _ValidPart(genome, options, length)
        for genome in corpus
        if genome.split.valid.bases > 1
    }


class _ValidPart:
    """Makes the batches of one genome's valid part anew at each call."""

    def __init__(self, genome: CorpusGenome, options: PretrainConfig, length: int) -> None:
        self.genome, self.options, self.length = genome, options, length
        if not any(bool((targets >= 0).any()) for _, targets in self()):
            raise InputError(
                f"{genome.reader.path}: the valid part has no base that counts "
                f"({genome.split.valid.bases:,} bases, {genome.split.rule}); choose another part"
            )

    def __call__(self) -> Iterable[tuple[Tensor, Tensor]]:
        options = self.options
        batches = evaluation_batches(
            self.genome.reader,
            self.genome.split.valid,
            length=self.length,
            batch_size=max(1, min(options.micro_batch_tokens, 32768) // self.length),
            soft_masked=options.soft_masked,
            n_targets=options.n_targets,
            most_windows=max(1, options.evaluate_bases // self.length),
        )
        return ((batch.inputs, batch.targets) for batch in batches)


def genome_records(corpus: Sequence[CorpusGenome]) -> list[dict[str, Any]]:
    """What a run's description says of each genome."""
    return [
        {
            "name": g.name,
            "path": str(g.reader.path.absolute()),
            "digest": g.reader.digest(),
            "bases": {part: g.split.part(part).bases for part in ("train", "valid", "test")},
            "split": g.split.rule,
            "weight": g.weight,
        }
        for g in corpus
    ]


def require_same_genomes(
    records: Sequence[Mapping[str, Any]], corpus: Sequence[CorpusGenome]
) -> None:
    """Nothing, where the genomes are those of the records. Raises InputError otherwise."""
    if len(records) != len(corpus):
        raise InputError(f"the run has {len(records)} genomes, {len(corpus)} were given")
    for old, new in zip(records, corpus, strict=True):
        if old["digest"] != new.reader.digest():
            raise InputError(
                f"{new.reader.path}: not the genome that the run was started with "
                f"({old['name']}); give the same files in the same order"
            )
