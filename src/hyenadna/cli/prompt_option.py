"""`--prompt-file`: a model behind a soft prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from hyenadna.model.backbone import HyenaDNA
    from hyenadna.model.prompting.prompted import PromptedModel


def load_prompted(model: str, prompt_file: Path, device: torch.device) -> PromptedModel:
    """The model of a name or folder behind the prompt of a file, in evaluation mode.

    Raises InputError for a file that is no prompt, and a model that it was not tuned for.
    """
    from hyenadna.checkpoint.load import load
    from hyenadna.checkpoint.prompt_file import load_prompt, read_prompt

    read_prompt(prompt_file)  # a wrong file is told before a large model is read
    return load_prompt(prompt_file, load(model).to(device))


def load_maybe_prompted(
    model: str, prompt_file: Path | None, device: torch.device
) -> tuple[HyenaDNA, PromptedModel | None]:
    """A model, and the same behind the prompt of a file where one is given.

    Raises InputError as `load` and `load_prompted` do.
    """
    from hyenadna.checkpoint.load import load

    if prompt_file is None:
        return load(model).to(device), None
    prompted = load_prompted(model, prompt_file, device)
    return prompted.model, prompted


def soft_prompt_settings(prompted: PromptedModel | None) -> dict[str, Any]:
    """What the settings of a result say of its prompt; nothing where there is none.

    No path: a prompt that lies elsewhere is the same.
    """
    from hyenadna.checkpoint.prompt_file import prompt_digest

    if prompted is None:
        return {}
    return {"soft_prompt": prompt_digest(prompted), "soft_tokens": len(prompted.prompt)}
