"""What a plan is made for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Self

from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.model.engine.sizes import native_fits

Task = Literal["train", "infer"]
PRECISIONS: Final = ("float32", "bf16", "fp16")


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A model, a batch, and the ranks that share the work.

    Raises InputError for what `pretrain` would refuse, in its words.
    """

    config: ModelConfig
    length: int
    """Bases of a sequence, L."""
    batch: int = 1
    """Sequences of a step, of all ranks together, B."""
    at_once: int | None = None
    """Sequences that a rank takes in one pass; all of its own when left out."""
    ranks: int = 1
    context: int = 1
    """Ranks that one sequence lies over."""
    fsdp: bool = False
    """Whether parameters, gradients and moments lie in parts on the ranks."""
    precision: str = "float32"
    checkpointing: bool = False
    average: bool = False
    """Whether a moving average of the weights is kept."""
    task: Task = "train"
    gpu: bool = True
    plain: bool = False
    """Whether the plain modules run where the engine could."""
    native: bool = True
    """Whether there are native kernels, on a CPU."""

    def __post_init__(self) -> None:
        for flag, value in (
            ("--length", self.length), ("--batch", self.batch), ("--ranks", self.ranks),
            ("--context-ranks", self.context), ("--at-once", self.at_once or 1),
        ):  # fmt: skip
            if value < 1:
                raise InputError(f"{flag} is {value}; it must be at least 1")
        if self.precision not in PRECISIONS:
            raise InputError(f"--precision {self.precision}: there are {', '.join(PRECISIONS)}")
        if self.length > self.config.max_seq_len:
            raise InputError(
                f"--length {self.length}: the model reads at most {self.config.max_seq_len}; "
                "give a longer model, or --max-seq-len"
            )
        if self.ranks % self.context:
            raise InputError(
                f"--context-ranks is {self.context} of {self.ranks} ranks; it must divide them"
            )
        self._check_together()

    def _check_together(self) -> None:
        if self.fsdp and self.ranks == 1:
            raise InputError("--fsdp needs several ranks; give --ranks")
        if self.fsdp and self.precision == "fp16":
            raise InputError("--fsdp with --precision fp16: take bf16")
        if self.context == 1:
            return
        if self.config.mixer != "hyena":
            raise InputError("context parallel: only hyena models; this one has attention")
        if self.config.d_model % self.context:
            raise InputError(
                f"context parallel: {self.config.d_model} channels over {self.context} ranks; the "
                "number of ranks must divide the width"
            )
        reach = self.config.short_filter_order - 1
        if self.here < reach:
            raise InputError(
                f"context parallel: {self.here} positions a rank, but the short filter reaches "
                f"{reach} back; give a longer sequence or fewer ranks"
            )

    @property
    def training(self) -> bool:
        """Whether there is a backward pass and an optimiser."""
        return self.task == "train"

    @property
    def groups(self) -> int:
        """Groups of ranks that read different sequences."""
        return self.ranks // self.context

    @property
    def rows(self) -> int:
        """Sequences of a step that a rank reads, or has a part of."""
        return -(-self.batch // self.groups)

    @property
    def rows_at_once(self) -> int:
        """Sequences of one pass."""
        return min(self.rows, self.at_once or self.rows)

    @property
    def passes(self) -> int:
        """Passes of a rank in a step."""
        return -(-self.rows // self.rows_at_once)

    @property
    def here(self) -> int:
        """Positions of a sequence that a rank holds."""
        return -(-self.length // self.context)

    @property
    def half(self) -> bool:
        """Whether products are in half precision."""
        return self.precision != "float32"

    @property
    def engine(self) -> bool:
        """Whether the passes run through the engine, as `auto` takes it."""
        hyena = self.config.mixer == "hyena" and self.config.hyena_order == 2
        dropout = self.training and (self.config.resid_dropout or self.config.hyena_dropout)
        able = bool(hyena and not dropout and (self.gpu or self.precision != "fp16"))
        return able and not (self.plain or self.fsdp or self.context > 1)

    @property
    def native_engine(self) -> bool:
        """Whether its kernels are the native ones of a CPU."""
        return self.engine and not self.gpu and self.native and native_fits(self.config)

    @property
    def recomputes(self) -> bool:
        """Whether the backward pass computes the blocks' inside again."""
        return self.training and (self.checkpointing or self.engine or self.context > 1)

    def change(self, **fields: Any) -> Self:
        """A copy with some fields changed. Raises InputError as for a new one."""
        return replace(self, **fields)
