"""The published checkpoints by name, through the Hugging Face hub and its cache on disk.

`tiny-1k`, `hyenadna-tiny-1k-seqlen`, each also with `-hf` and with `LongSafari/` in front. A name
without `LongSafari/` prefers the `-hf` repository, whose weights are safetensors; a full name is
taken as it is. Set HF_HUB_OFFLINE=1 to use the cache only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hyenadna.config import PRESETS, PUBLISHED_NAMES
from hyenadna.errors import InputError
from hyenadna.shipped import shipped_names

OWNER: Final = "LongSafari"
_NEEDED: Final = {
    True: ["config.json", "*.safetensors", "*.safetensors.index.json"],  # the -hf repositories
    False: ["config.json", "weights.ckpt"],  # the original ones
}
_PICKLED: Final = ["config.json", "pytorch_model*.bin", "pytorch_model.bin.index.json"]
"""What an -hf revision without safetensors has."""
_ASIDE: Final = "or give the path of a downloaded folder"


def repositories(name: str) -> tuple[str, ...]:
    """The hub repositories that a name stands for, the preferred first; none for other names."""
    owner, _, last = name.rpartition("/")
    if owner not in ("", OWNER):
        return ()
    wants_hf = last.endswith("-hf")
    stem = last.removesuffix("-hf")
    published = PUBLISHED_NAMES.get(stem, stem)
    if published not in PUBLISHED_NAMES.values():
        return ()
    original = f"{OWNER}/{published}"
    if wants_hf:
        return (f"{original}-hf",)
    return (original,) if owner else (f"{original}-hf", original)


def unknown_name(name: str) -> InputError:
    """The error for a name that is neither a path nor that of a model."""
    if name in PRESETS:
        return InputError(
            f"{name}: a shape without published weights; train it (hyenadna pretrain --preset "
            f"{name}), or name one of {', '.join(PUBLISHED_NAMES)}"
        )
    return InputError(
        f"{name}: no such file or folder, and no model of that name; there are "
        f"{', '.join((*shipped_names(), *PUBLISHED_NAMES))}"
    )


def fetch(
    name: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    endpoint: str | None = None,
) -> Path:
    """The folder in the hub's cache that holds a published checkpoint, downloaded if need be.

    Only the configuration and one set of weights are fetched. revision: branch, tag or commit.
    cache_dir: instead of the hub's own. endpoint: another server (as HF_ENDPOINT).

    Raises InputError for an unknown name or revision, without network and not in the cache, and
    when the server refuses.
    """
    candidates = repositories(name)
    if not candidates:
        raise unknown_name(name)
    first: InputError | None = None
    for repository in candidates:
        try:
            return _snapshot(repository, revision, cache_dir, endpoint)
        except InputError as error:
            first = first or error
    assert first is not None
    raise first


def _snapshot(
    repository: str, revision: str | None, cache_dir: str | Path | None, endpoint: str | None
) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    def download(patterns: list[str]) -> Path:
        folder = snapshot_download(
            repository,
            revision=revision,
            cache_dir=cache_dir,
            endpoint=endpoint,
            allow_patterns=patterns,
            local_files_only=constants.HF_HUB_OFFLINE,
        )
        return Path(folder)

    is_hf = repository.endswith("-hf")
    try:
        folder = download(_NEEDED[is_hf])
        if is_hf and not any(folder.glob("*.safetensors")):
            folder = download(_PICKLED)
    except RepositoryNotFoundError as error:
        raise InputError(f"{repository}: the hub has no such repository; {_ASIDE}") from error
    except RevisionNotFoundError as error:
        raise InputError(f"{repository}: no revision {revision!r}; leave it out") from error
    except LocalEntryNotFoundError as error:
        if constants.HF_HUB_OFFLINE:
            raise InputError(
                f"{repository}: not in the cache, and HF_HUB_OFFLINE is set; unset it, {_ASIDE}"
            ) from error
        raise _unreachable(repository, error.__cause__ or error) from error
    except HfHubHTTPError as error:
        raise InputError(
            f"{repository}: the hub answered {_first_line(error)}; try again later, {_ASIDE}"
        ) from error
    except Exception as error:
        # whichever HTTP library this version of the hub client uses raises errors of its own
        raise _unreachable(repository, error) from error
    return _complete(repository, folder, offline=constants.HF_HUB_OFFLINE)


def _complete(repository: str, folder: Path, *, offline: bool) -> Path:
    """The folder, if it has weights: an interrupted download leaves one without."""
    weights = ("*.safetensors", "weights.ckpt", "pytorch_model*.bin")
    if not any(any(folder.glob(pattern)) for pattern in weights):
        way_out = "unset HF_HUB_OFFLINE to complete it" if offline else "try another revision"
        raise InputError(f"{repository}: {folder} has no weights; {way_out}, {_ASIDE}")
    return folder


def _unreachable(repository: str, error: BaseException) -> InputError:
    return InputError(
        f"{repository}: cannot be downloaded ({_first_line(error)}); check the network, {_ASIDE}"
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
