"""What a few-shot run is asked for, in plain values; nothing here loads torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self

from cyclopts import Parameter

from hyenadna.cli.finetune_options import FinetuneRequest
from hyenadna.errors import InputError
from hyenadna.training_config import Calibration, InstructConfig

LayoutName = Literal["plain", "paper"]
COMPARED: Final = ("full", "lora", "linear", "kmer")
"""What `--compare` can train on the same rows."""


@dataclass(frozen=True, kw_only=True)
class ContextOptions:
    """How demonstrations are drawn, laid out and measured."""

    draws: int = 5
    """Sets of demonstrations, each drawn anew."""
    label_words: str | None = None
    """NAME=WORD of every class, separated by commas, in letters of ACGTN; A, N for two classes and
    A, G, N for three when left out."""
    layout: LayoutName = "plain"
    """`paper` pads every sequence on the left to the longest one, as the original does."""
    calibrate: Calibration = "train"
    """`train` takes off what the model says on average of training rows whose labels it is not
    told; `none` takes its answers as they are."""
    calibration_rows: int = 128
    """Training rows for it, at most."""
    limit: int | None = None
    """Rows to measure on at most, of each class its share; as many to choose by."""
    max_length: int | None = None
    """Longer sequences are cropped to their middle."""
    seed: int = 0
    """Of draws, orders, limits and tuning."""
    level: Annotated[tuple[str, ...], Parameter(consume_multiple=False)] = ()
    """NAME=ACCURACY, a level to draw beside the curves; may come several times."""
    compare_epochs: int = 20
    """Most epochs of what `--compare` trains."""
    batch_tokens: int = 32768
    """Tokens of a pass over queries, padding included."""

    def __post_init__(self) -> None:
        for field in ("draws", "calibration_rows", "compare_epochs", "batch_tokens"):
            self._need(getattr(self, field) >= 1, field, "it must be at least 1")
        for field in ("limit", "max_length"):
            value = getattr(self, field)
            self._need(value is None or value >= 1, field, "it must be at least 1")
        self._need(self.seed >= 0, "seed", "it must not be negative")
        self._need(self.layout in ("plain", "paper"), "layout", "it is plain or paper")
        self._need(self.calibrate in ("train", "none"), "calibrate", "it is train or none")
        _ = self.levels

    def _need(self, ok: bool, field: str, rule: str) -> None:
        if not ok:
            raise InputError(f"--{field.replace('_', '-')} is {getattr(self, field)}; {rule}")

    @property
    def levels(self) -> dict[str, float]:
        """Accuracy by name. Raises InputError for one that is none."""
        found = {}
        for text in self.level:
            name, _, number = text.rpartition("=")
            try:
                value = float(number)
            except ValueError:
                value = -1.0
            if not name or not 0 <= value <= 1:
                raise InputError(f"--level {text}: give NAME=ACCURACY, from 0 to 1")
            found[name] = value
        return found


@dataclass(frozen=True, kw_only=True)
class FewshotRequest:
    """All that the result of a run depends on, but device and threads."""

    source: FinetuneRequest = FinetuneRequest()  # noqa: RUF009 - frozen
    """Model, data, and how it is read and split; its other fields stay at their defaults."""
    shots: tuple[int, ...] = ()
    """Demonstrations of each class."""
    tuning_samples: tuple[int, ...] = (0,)
    """Rows to tune on; 0: not at all."""
    compare: tuple[str, ...] = ()
    context: ContextOptions = ContextOptions()
    tuning: InstructConfig = InstructConfig()  # noqa: RUF009 - frozen

    def to_dict(self) -> dict[str, Any]:
        """Plain values by field name."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`, also through JSON. Raises InputError for other values."""
        try:
            context = dict(values["context"])
            return cls(
                source=FinetuneRequest.from_dict(values["source"]),
                shots=tuple(values["shots"]),
                tuning_samples=tuple(values["tuning_samples"]),
                compare=tuple(values["compare"]),
                context=ContextOptions(**context | {"level": tuple(context["level"])}),
                tuning=InstructConfig(**values["tuning"]),
            )
        except (KeyError, TypeError) as error:
            raise InputError(f"the request of the run cannot be read ({error!r})") from error

    def flat(self) -> dict[str, Any]:
        """Value of each option by its flag."""
        found = self.source.flat()
        for options in (self.context, self.tuning):
            found |= {
                f"--{name.replace('_', '-')}": value
                for name, value in dataclasses.asdict(options).items()
            }
        return found | {
            "--shots": self.shots,
            "--tuning-samples": self.tuning_samples,
            "--compare": self.compare,
        }


def require_useful(request: FewshotRequest) -> None:
    """Nothing, where no option is given that does nothing in this run. Raises InputError."""
    plain = FewshotRequest().flat()
    given = {flag: value for flag, value in request.flat().items() if value != plain[flag]}
    idle: list[tuple[bool, str, list[str]]] = [
        (
            not any(request.tuning_samples),
            "without tuning; give rows to tune on too, such as --tuning-samples 64",
            [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(InstructConfig)],
        ),
        (
            request.context.calibrate == "none",
            "with --calibrate none; leave one of them out",
            ["--calibration-rows"],
        ),
        (
            not set(request.compare) - {"kmer"},
            "without a trained model to compare with; give one too, such as --compare full",
            ["--compare-epochs"],
        ),
    ]
    for without, way_out, flags in idle:
        for flag in flags:
            if without and flag in given:
                raise InputError(f"{flag} is {given[flag]}, which does nothing {way_out}")
