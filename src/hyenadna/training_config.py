"""Configuration of a pretraining run: what `hyenadna pretrain` takes beyond files and shape."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

from hyenadna.errors import InputError

Precision = Literal["float32", "bf16", "fp16"]
ParameterGroups = Literal["standard", "paper"]
Schedule = Literal["cosine", "paper"]
Optimizer = Literal["adamw", "muon"]
FilterInit = Literal["scaled", "paper"]
SoftMasked = Literal["keep", "ignore"]
NTargets = Literal["ignore", "count"]


@dataclass(frozen=True)
class Stage:
    """A stretch of training at one sequence length."""

    length: int
    steps: int


def stage_at(stages: Sequence[Stage], step: int) -> Stage:
    """The stage that a step belongs to, from 0; the last one for steps behind the end."""
    for stage in stages:
        if step < stage.steps:
            return stage
        step -= stage.steps
    return stages[-1]


def number_list(flag: str, text: str) -> tuple[int, ...]:
    """The whole numbers from 0 that an option lists, rising, each once.

    Raises InputError for anything else, and for none.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts):
        raise InputError(f"{flag} is {text!r}; give whole numbers from 0, such as 0,2,16")
    return tuple(sorted({int(part) for part in parts}))


def _read_stage(text: str, unit: str, example: str) -> Stage:
    """`length:count` as a stage. unit: what is counted. Raises InputError for other text."""
    length, colon, count = text.partition(":")
    if not (colon and length.strip().isdecimal() and count.strip().isdecimal()):
        raise InputError(
            f"--stages: cannot read {text!r}; write `double`, `none` or length:{unit} pairs "
            f"such as {example}"
        )
    return Stage(int(length), int(count))


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """How to train. Frozen: it is written into the run folder and a resumed run must agree with it.

    Raises InputError when a value is out of range.
    """

    steps: int = 2000
    """Optimiser steps in all."""
    length: int | None = None
    """Bases per training sequence in the last stage; the model's maximum less 2 when left out."""
    tokens_per_step: int = 8192
    """Bases per optimiser step (the global batch), the same in every stage."""
    micro_batch_tokens: int = 65536
    """Bases per forward pass; a larger step is accumulated from several."""
    stages: str = "double"
    """Sequence-length warm-up: `double` (from warmup_length, doubling), `none`, or a list such as
    `256:500,512:500` of length:steps before the last stage. Meant for long sequences; at 1,000
    bases `none` is as good."""
    warmup_length: int = 128
    """First length of `--stages double`."""
    warmup_share: float = 0.2
    """Share of the steps that `--stages double` spends below the full length."""
    lr: float = 1.5e-3
    """Peak learning rate. Chosen for the tiny shapes at 8k bases a step; take 6e-4 or less for
    wider and deeper ones (the paper: 1.5e-4 to 6e-4 with 64 to 256 sequences a step)."""
    filter_lr: float | None = None
    """Peak learning rate of the filter network; lr when left out."""
    optimizer: Optimizer = "adamw"
    """`muon`: the matrices of projections and MLP by momentum made orthogonal, the rest by AdamW.
    Learns more from each base, and takes some 10 % more time."""
    matrix_lr: float | None = None
    """Peak learning rate of the matrices under `muon`; 4 lr when left out."""
    filter_init: FilterInit = "scaled"
    """First weights of the filter network. `scaled`: standard deviation 1 / sqrt(inputs), so that
    long filters have shape from the first step. `paper`: 0.02, which starts them small and
    smooth."""
    schedule: Schedule = "cosine"
    """`cosine`: linear warm-up, then the cosine from its peak. `paper`: the original's, whose
    cosine counts from step 0."""
    warmup_steps: int | None = None
    """Steps of linear warm-up of the learning rate; when left out 2 % of all, and at least 20 or a
    fifth of a short run (`paper`: 1 %)."""
    final_lr: float = 0.1
    """Learning rate at the end as a share of lr."""
    weight_decay: float = 0.1
    """Weight decay; `parameter_groups` says of what."""
    parameter_groups: ParameterGroups = "standard"
    """`standard`: decay on projection, MLP and token-table matrices only. `paper`: on everything
    but the filter network, biases and norms included."""
    beta1: float = 0.9
    """AdamW's first decay."""
    beta2: float = 0.99
    """AdamW's second decay."""
    clip: float = 1.0
    """Largest global gradient norm."""
    precision: Precision = "float32"
    """Type of the matrix products; the residual stream, the filter network and the FFTs stay in
    float32."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: about 3 times less memory, a third more time.
    For models and devices that the CPU engine does not run; the engine always does."""
    ema: float | None = None
    """Decay of an exponential moving average of the weights, which is then evaluated and saved as
    the best."""
    evaluate_every: int | None = None
    """Steps between evaluations on the valid split; a tenth of all when left out."""
    evaluate_bases: int = 500_000
    """At most so many bases of each genome's valid split per evaluation during training."""
    save_every: int | None = None
    """Steps between checkpoints; as evaluate_every when left out."""
    seed: int = 0
    """Seed of the first weights, the windows and dropout."""
    reverse_complement: bool = True
    """Read the other strand in half of the windows."""
    max_n_fraction: float = 0.5
    """Windows with a larger share of N are drawn again."""
    n_targets: NTargets = "ignore"
    """Whether the loss counts an N that should have been predicted."""
    soft_masked: SoftMasked = "keep"
    """Whether the loss counts lower-case (repeat-masked) bases."""

    def __post_init__(self) -> None:
        def need(ok: bool, field: str, rule: str) -> None:
            if not ok:
                option = field.replace("_", "-")
                raise InputError(f"--{option} is {getattr(self, field)}; {rule}")

        for field in ("steps", "tokens_per_step", "micro_batch_tokens", "evaluate_bases"):
            need(getattr(self, field) >= 1, field, "it must be at least 1")
        for field in ("length", "evaluate_every", "save_every", "warmup_length"):
            value = getattr(self, field)
            need(value is None or value >= 1, field, "it must be at least 1")
        need(0 <= self.seed < 2**63, "seed", "it must be in 0 .. 2^63 - 1")
        for field in ("lr", "clip"):
            need(getattr(self, field) > 0, field, "it must be positive")
        for field in ("filter_lr", "matrix_lr"):
            value = getattr(self, field)
            need(value is None or value > 0, field, "it must be positive")
        need(
            self.matrix_lr is None or self.optimizer == "muon",
            "matrix_lr",
            "it is for --optimizer muon",
        )
        need(
            self.optimizer == "adamw" or self.parameter_groups == "standard",
            "optimizer",
            "it goes with --parameter-groups standard",
        )
        need(self.weight_decay >= 0, "weight_decay", "it must not be negative")
        for field in ("final_lr", "max_n_fraction"):
            need(0 <= getattr(self, field) <= 1, field, "it must be in [0, 1]")
        for field in ("beta1", "beta2", "warmup_share"):
            need(0 <= getattr(self, field) < 1, field, "it must be in [0, 1)")
        need(self.ema is None or 0 < self.ema < 1, "ema", "it must be in (0, 1)")
        choices: dict[str, tuple[str, ...]] = {
            "schedule": ("cosine", "paper"),
            "optimizer": ("adamw", "muon"),
            "filter_init": ("scaled", "paper"),
            "parameter_groups": ("standard", "paper"),
            "precision": ("float32", "bf16", "fp16"),
            "n_targets": ("ignore", "count"),
            "soft_masked": ("keep", "ignore"),
        }
        for field, allowed in choices.items():
            need(getattr(self, field) in allowed, field, f"it is one of {', '.join(allowed)}")
        need(
            self.warmup_steps is None or 0 <= self.warmup_steps <= self.steps,
            "warmup_steps",
            f"it must be between 0 and --steps {self.steps}",
        )

    def lr_warmup_steps(self) -> float:
        """Steps of linear learning-rate warm-up."""
        if self.warmup_steps is not None:
            return self.warmup_steps
        if self.schedule == "paper":
            return 0.01 * self.steps
        return max(0.02 * self.steps, min(20, self.steps / 5))

    def length_stages(self, final_length: int) -> list[Stage]:
        """The stages of sequence-length warm-up, the last one at `final_length`.

        Raises InputError for a list that cannot be read, is longer than the run, or exceeds the
        final length.
        """
        if self.stages == "none":
            return [Stage(final_length, self.steps)]
        if self.stages == "double":
            lengths = []
            length = self.warmup_length
            while length < final_length:
                lengths.append(length)
                length *= 2
            each = int(self.steps * self.warmup_share / len(lengths)) if lengths else 0
            early = [Stage(length, each) for length in lengths if each > 0]
        else:
            early = [self._stage(text, final_length) for text in self.stages.split(",")]
        left = self.steps - sum(stage.steps for stage in early)
        if left < 0:
            raise InputError(f"--stages {self.stages}: more steps than --steps {self.steps}")
        return early + ([Stage(final_length, left)] if left else [])

    def _stage(self, text: str, final_length: int) -> Stage:
        stage = _read_stage(text, "steps", "256:500,512:500")
        if not 1 <= stage.length <= final_length or stage.steps < 1:
            raise InputError(
                f"--stages: {text.strip()} is outside lengths 1 to {final_length} and steps from 1"
            )
        return stage

    def to_dict(self) -> dict[str, Any]:
        """Plain values by field name."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; unknown fields are passed over."""
        known = {f.name for f in dataclasses.fields(cls)}
        return cls(**{k: v for k, v in values.items() if k in known})


TuneOn = Literal["query", "all"]


@dataclass(frozen=True, kw_only=True)
class InstructConfig:
    """How to tune a language model on a few rows of demonstrations and query.

    The defaults are those of the paper's brief tuning (HyenaDNA, table A.7).

    Raises InputError when a value is out of range.
    """

    lr: float = 1e-4
    """Learning rate of AdamW, constant."""
    weight_decay: float = 0.0
    """Of all weights."""
    batch_size: int = 2
    """Samples of a step."""
    epochs: int = 1
    """Passes over the samples."""
    clip: float = 1.0
    """Largest global gradient norm."""
    tune_on: TuneOn = "query"
    """Whose label the loss is of: the query's alone, or `all`, those of the demonstrations too, as
    the original does."""

    def __post_init__(self) -> None:
        rules = {
            "lr": (self.lr > 0, "it must be positive"),
            "weight_decay": (self.weight_decay >= 0, "it must not be negative"),
            "batch_size": (self.batch_size >= 1, "it must be at least 1"),
            "epochs": (self.epochs >= 1, "it must be at least 1"),
            "clip": (self.clip > 0, "it must be positive"),
            "tune_on": (self.tune_on in ("query", "all"), "it is query or all"),
        }
        for field, (ok, rule) in rules.items():
            if not ok:
                option = field.replace("_", "-")
                raise InputError(f"--{option} is {getattr(self, field)}; {rule}")


FinetuneMode = Literal["full", "frozen", "last", "lora"]
FinetuneSchedule = Literal["cosine", "plateau"]
FinetunePrecision = Literal["auto", "float32", "bf16", "fp16"]
ClassWeights = Literal["none", "balanced"]

_FINETUNE_LR = {"full": 6e-4, "last": 6e-4, "lora": 2e-3, "frozen": 1e-2}
PLATEAU_FACTOR: Final = 0.1
"""What the learning rate is multiplied with by the schedule `plateau`."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """How to fit a task model to labelled sequences; the defaults are the authors' recipe.

    AdamW, a cosine with a short warm-up, decay on matrices only and never on filters, clipping
    (the authors on low scores: https://github.com/HazyResearch/hyena-dna/issues/19). Fewer epochs,
    and early stopping, because most labelled sets are small.

    Raises InputError when a value is out of range.
    """

    mode: FinetuneMode = "full"
    """What is trained beside the head. `full`: everything. `frozen`: nothing; the features are
    computed once where pooling has no weights. `last`: the last blocks. `lora`: low-rank additions
    to the matrices of all blocks (needs peft)."""
    last_blocks: int = 1
    """Blocks that `last` trains, with the final norm."""
    lora_rank: int = 8
    """Rank of the additions of `lora`."""
    lora_alpha: float | None = None
    """Scale of the additions times their rank; twice the rank when left out."""
    epochs: int = 20
    """Most passes over the train part; the learning rate falls over all of them."""
    patience: int | None = 5
    """Evaluations in a row without a better one after which the run ends; None for never."""
    evaluations_per_epoch: int = 1
    """Evaluations on the valid part, and saved states, in each epoch."""
    metric: str | None = None
    """Metric of the valid part that chooses the model: `loss`, or a name that
    `hyenadna.train.metrics` gives; the task's main metric when left out."""
    batch_size: int = 128
    """Sequences of an optimiser step."""
    micro_batch_tokens: int = 65536
    """Tokens of a forward pass, padding included; a larger step is accumulated from several, and a
    longer sequence makes a pass of its own."""
    lr: float | None = None
    """Peak learning rate; when left out 6e-4, or 2e-3 for `lora` and 1e-2 for `frozen`."""
    schedule: FinetuneSchedule = "cosine"
    """`cosine`: falls to `final_lr` over all epochs. `plateau`: a tenth after each evaluation
    without a lower loss than before, as the original tunes its prompts (no `final_lr`)."""
    ema: float | None = None
    """Decay of an exponential moving average of the trained weights, which is then evaluated and
    kept; none when left out."""
    layer_decay: float = 1.0
    """Each block learns at this share of the rate of the block above it."""
    warmup_share: float = 0.05
    """Share of the steps in which the learning rate rises."""
    final_lr: float = 0.1
    """Learning rate at the end as a share of lr."""
    weight_decay: float = 0.1
    """Of matrices; filters, norms and biases have none."""
    beta1: float = 0.9
    """AdamW's first decay."""
    beta2: float = 0.999
    """AdamW's second decay."""
    clip: float = 1.0
    """Largest global gradient norm."""
    embed_dropout: float = 0.1
    """Dropout on the token embeddings while training (not in `frozen`)."""
    precision: FinetunePrecision = "auto"
    """Type of the matrix products. `auto`: bf16 where the processor multiplies it in hardware, else
    float32."""
    reverse_complement: bool = False
    """Read the other strand in half of the training sequences. Not for strand-specific labels."""
    class_weights: ClassWeights = "none"
    """`balanced`: rare classes and rare positive labels count more in the loss, as much as they are
    rarer in the train part."""
    max_length: int | None = None
    """Longer sequences are cropped to their centre; when left out they are refused where the model
    cannot read them."""
    stages: str = "none"
    """Sequence-length warm-up: `none`, `double` (an epoch at each length from warmup_length,
    doubling), or a list such as `1024:2,4096:2` of length:epochs before the full length. Longer
    sequences are cropped meanwhile: in train to a random stretch, another at each visit, in valid
    to their centre; the model is chosen at the full length only. For labels that hold for a part of
    the sequence too, such as species."""
    warmup_length: int = 1024
    """First length of `--stages double`."""

    def __post_init__(self) -> None:
        def need(ok: bool, field: str, rule: str) -> None:
            if not ok:
                option = field.replace("_", "-")
                raise InputError(f"--{option} is {getattr(self, field)}; {rule}")

        for field in (
            "last_blocks", "lora_rank", "epochs", "evaluations_per_epoch", "batch_size",
            "micro_batch_tokens", "warmup_length",
        ):  # fmt: skip
            need(getattr(self, field) >= 1, field, "it must be at least 1")
        for field in ("patience", "max_length"):
            value = getattr(self, field)
            need(value is None or value >= 1, field, "it must be at least 1")
        for field in ("lr", "lora_alpha"):
            value = getattr(self, field)
            need(value is None or value > 0, field, "it must be positive")
        need(self.clip > 0, "clip", "it must be positive")
        need(self.weight_decay >= 0, "weight_decay", "it must not be negative")
        need(0 < self.layer_decay <= 1, "layer_decay", "it must be in (0, 1]")
        need(0 <= self.final_lr <= 1, "final_lr", "it must be in [0, 1]")
        need(self.ema is None or 0 < self.ema < 1, "ema", "it must be in (0, 1)")
        for field in ("beta1", "beta2", "warmup_share", "embed_dropout"):
            need(0 <= getattr(self, field) < 1, field, "it must be in [0, 1)")
        choices: dict[str, tuple[str, ...]] = {
            "mode": ("full", "frozen", "last", "lora"),
            "schedule": ("cosine", "plateau"),
            "precision": ("auto", "float32", "bf16", "fp16"),
            "class_weights": ("none", "balanced"),
        }
        for field, allowed in choices.items():
            need(getattr(self, field) in allowed, field, f"it is one of {', '.join(allowed)}")
        need(
            self.stages == "none" or self.mode != "frozen",
            "stages",
            "--mode frozen computes the features of whole sequences once; leave --stages out, or "
            "take --mode last",
        )
        self._listed_stages()

    def length_stages(self, full_length: int, steps_per_epoch: int = 1) -> list[Stage]:
        """The stages of sequence-length warm-up, the last one at `full_length`.

        full_length: tokens of the longest training sequence. steps_per_epoch: optimiser steps of an
        epoch; when left out, stages are counted in epochs.

        Raises InputError for a stage that is not below the full length, and where no epoch is left
        for that.
        """
        if self.stages == "double":
            early: list[Stage] = []
            while (length := self.warmup_length << len(early)) < full_length:
                early.append(Stage(length, 1))
        else:
            early = self._listed_stages()
        if early and early[-1].length >= full_length:
            raise InputError(
                f"--stages {self.stages}: length {early[-1].length} is not below {full_length}, "
                "the longest training sequence; take shorter stages"
            )
        left = self.epochs - sum(stage.steps for stage in early)
        if left < 1:
            raise InputError(
                f"--stages {self.stages}: takes {self.epochs - left} of --epochs {self.epochs} and "
                f"leaves none for the full length of {full_length}; give more epochs"
            )
        stages = [*early, Stage(full_length, left)]
        return [Stage(stage.length, stage.steps * steps_per_epoch) for stage in stages]

    def _listed_stages(self) -> list[Stage]:
        """The stages of a list, in epochs. Raises InputError where it is not one, or not rising."""
        if self.stages in ("none", "double"):
            return []
        found: list[Stage] = []
        for text in self.stages.split(","):
            stage = _read_stage(text, "epochs", "1024:2,4096:2")
            if stage.length < 1 or stage.steps < 1:
                raise InputError(f"--stages: {text.strip()} has a number below 1")
            if found and stage.length <= found[-1].length:
                raise InputError(
                    f"--stages {self.stages}: length {stage.length} comes after "
                    f"{found[-1].length}; lengths must rise"
                )
            found.append(stage)
        return found

    @property
    def peak_lr(self) -> float:
        """The highest learning rate, that of the head."""
        return _FINETUNE_LR[self.mode] if self.lr is None else self.lr

    def cosine(self, steps: int) -> PretrainConfig:
        """The learning-rate schedule of a run of so many steps, as pretraining takes it."""
        warmup = min(steps, round(self.warmup_share * steps))
        return PretrainConfig(
            steps=steps, lr=self.peak_lr, final_lr=self.final_lr, warmup_steps=warmup
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values by field name."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; unknown fields are passed over."""
        known = {f.name for f in dataclasses.fields(cls)}
        return cls(**{k: v for k, v in values.items() if k in known})


Readout = Literal["label", "head"]
LabelLoss = Literal["classes", "vocabulary"]
Calibration = Literal["train", "none"]


# What options of prompts mean where they are left out: ours, and the original's settings (shared
# specification of training, section 10).
_PROMPT_DEFAULTS: Final[Mapping[str, tuple[Any, Any]]] = {
    "readout": ("head", "label"),
    "label_loss": ("classes", "vocabulary"),
    "calibrate": ("train", "none"),
    "patience": (4, 2),
    "metric": (None, "loss"),
    "batch_size": (32, 16),
    "lr": (1e-2, 1e-3),
    "ema": (0.98, 0.0),
    "reverse_complement": (False, True),
}
_OF_LABEL_WORDS: Final = ("label_words", "label_loss", "calibrate")


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """How to tune soft prompts: vectors before the sequence, while the model stays as it is.

    AdamW without decay, a rate that falls where the valid loss does, an average of the weights, and
    early stopping. What is None is filled in by `resolved`, with our defaults or the original's.

    Raises InputError when a value is out of range.
    """

    tokens: str = "32"
    """How many soft tokens; several counts, such as `0,2,32,128`, are tuned one after the other and
    compared. 0 leaves the model as it is."""
    readout: Readout | None = None
    """What reads the answer. `head`, when left out: a pooled linear head that is learned with the
    vectors. `label`: the model's own language-model head, in the letters of a word after `[SEP]`,
    so that the vectors alone are learned, as in the paper; for classes, and for models that know
    what follows `[SEP]`."""
    label_words: str | None = None
    """`NAME=WORD` of every class, separated by commas; A/N and A/G/N for two and three classes when
    left out, as the paper has it, and more letters for more."""
    label_loss: LabelLoss | None = None
    """Whether a label word is set against those of the other `classes`, as when left out, or
    against the whole `vocabulary`, as the original does."""
    calibrate: Calibration | None = None
    """`train`, when left out: before anything is learned, the mean log-probability of each label
    word over training rows (without their labels) is subtracted, so that no letter starts ahead of
    another. `none`: as the original."""
    prompt_dropout: float = 0.1
    """Dropout on the vectors."""
    epochs: int = 20
    """Most passes over the train part."""
    patience: int | None = None
    """Evaluations in a row without a better one after which the run ends; 4 when left out."""
    evaluations_per_epoch: int = 1
    """Evaluations on the valid part, and saved states, in each epoch."""
    metric: str | None = None
    """Metric of the valid part that chooses the vectors; the task's main metric when left out."""
    batch_size: int | None = None
    """Sequences of an optimiser step, for all of which the vectors pass through the model once; 32
    when left out."""
    micro_batch_tokens: int = 65536
    """Tokens of the sequences in a forward pass, padding included."""
    lr: float | None = None
    """Peak learning rate; 1e-2 when left out."""
    schedule: FinetuneSchedule = "plateau"
    """`plateau`: a tenth after each evaluation without a lower loss than before. `cosine`: falls
    over all epochs."""
    ema: float | None = None
    """Decay of an exponential moving average of the vectors, which is what is evaluated and kept;
    0.98 when left out, 0 for none."""
    clip: float = 1.0
    """Largest global gradient norm."""
    precision: FinetunePrecision = "auto"
    """Type of the matrix products. `auto`: float32 on a CPU, bf16 on a GPU that has it."""
    reverse_complement: bool | None = None
    """Read the other strand in half of the training sequences; not when left out. Not for
    strand-specific labels."""
    class_weights: ClassWeights = "none"
    """`balanced`: rare classes count more in the loss."""
    max_length: int | None = None
    """Longer sequences are cropped to their centre."""

    def __post_init__(self) -> None:
        self.counts()
        self.finetune()  # says what is wrong with the others
        if not 0 <= self.prompt_dropout < 1:
            raise InputError(f"--prompt-dropout is {self.prompt_dropout}; it must be in [0, 1)")
        choices = {
            "readout": (None, "label", "head"),
            "label_loss": (None, "classes", "vocabulary"),
            "calibrate": (None, "train", "none"),
        }
        for field, allowed in choices.items():
            value = getattr(self, field)
            if value not in allowed:
                name = field.replace("_", "-")
                raise InputError(f"--{name} is {value}; it is one of {', '.join(allowed[1:])}")

    def resolved(self, *, published: bool = False) -> Self:
        """The same with nothing left out: by our defaults, or by the original's settings.

        Raises InputError for options of label words where a head reads the answer.
        """
        values = self._filled(published=published)
        if values["readout"] == "head":
            given = [field for field in _OF_LABEL_WORDS if getattr(self, field) is not None]
            if given:
                flag = given[0].replace("_", "-")
                raise InputError(f"--{flag} is of label words; give --readout label")
            values |= dict.fromkeys(_OF_LABEL_WORDS)
        return type(self)(**values)

    def _filled(self, *, published: bool) -> dict[str, Any]:
        """Values by field name, with what is left out."""
        values = self.to_dict()
        for field, choices in _PROMPT_DEFAULTS.items():
            if values[field] is None:
                values[field] = choices[published]
        return values

    def counts(self) -> tuple[int, ...]:
        """The numbers of soft tokens, each once, rising. Raises InputError for another text."""
        return number_list("--tokens", self.tokens)

    def finetune(self) -> FinetuneConfig:
        """The same for the fine-tuning loop; what is left out by our defaults.

        It is a frozen model: the vectors are what it has beside the backbone.
        """
        values = self._filled(published=False)
        shared = {f.name for f in dataclasses.fields(FinetuneConfig)} & values.keys()
        own = {field: values[field] for field in shared} | {"ema": values["ema"] or None}
        return FinetuneConfig(**own, mode="frozen", weight_decay=0.0, warmup_share=0.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values by field name."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; unknown fields are passed over."""
        known = {f.name for f in dataclasses.fields(cls)}
        return cls(**{k: v for k, v in values.items() if k in known})
