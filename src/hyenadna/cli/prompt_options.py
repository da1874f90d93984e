"""What a prompt-tuning run is asked for, in plain values; nothing here loads torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from hyenadna.cli.finetune_options import FinetuneRequest
from hyenadna.errors import InputError
from hyenadna.training_config import PromptConfig

COMPARISONS: Final = ("linear", "lora", "full", "kmer", "majority")
"""What `--compare` can measure beside the prompts."""


@dataclass(frozen=True, kw_only=True)
class PromptRequest:
    """All that the result of a run depends on, but device and threads."""

    source: FinetuneRequest = FinetuneRequest()  # noqa: RUF009 - frozen
    """Model, data, and how it is read and split, head and seeds; its other fields stay at their
    defaults."""
    options: PromptConfig = PromptConfig().resolved()  # noqa: RUF009 - frozen
    """Resolved."""
    compare: tuple[str, ...] = ("linear", "full", "kmer", "majority")

    def to_dict(self) -> dict[str, Any]:
        """Plain values by field name."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`, also through JSON. Raises InputError for other values."""
        try:
            return cls(
                source=FinetuneRequest.from_dict(values["source"]),
                options=PromptConfig.from_dict(values["options"]),
                compare=tuple(values["compare"]),
            )
        except (KeyError, TypeError) as error:
            raise InputError(f"the request of the run cannot be read ({error!r})") from error

    def flat(self) -> dict[str, Any]:
        """Value of each option by its flag."""
        own = {f"--{name.replace('_', '-')}": v for name, v in self.options.to_dict().items()}
        return self.source.flat() | own | {"--compare": self.compare}
