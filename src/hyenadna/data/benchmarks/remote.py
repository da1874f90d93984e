"""Files of a suite that have a stable public address: accession, release or commit in the address.

Addresses were read in public records, which each suite names beside them; nothing here was guessed.
A commit is a checksum of its own: the same address cannot give other content. Checksums stand where
one is published; for the rest see `hyenadna.data.benchmarks.download`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

GITHUB: Final = "https://raw.githubusercontent.com"
HUB: Final = "https://huggingface.co"
UCSC: Final = "https://hgdownload.soe.ucsc.edu/goldenPath"
NCBI: Final = "https://ftp.ncbi.nlm.nih.gov/genomes/all"
_HUB_SCHEME: Final = "hf://datasets/"


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One file on a server, and where the reader of the suite looks for it."""

    address: str
    """`https://…`, or `hf://datasets/OWNER/NAME@COMMIT/PATH` on the Hugging Face hub."""
    path: str
    """Where it lies under the data folder, with `/`."""
    tasks: tuple[str, ...] = ()
    """Tasks that need it; all of the suite where there are none."""
    checksum: str = ""
    """As published, `md5:…` or `sha256:…`; empty where none is on record."""
    members: tuple[str, ...] = ()
    """Of a tar archive: names of the files that are taken out of it and laid beside `path`; the
    archive itself is not kept."""

    @property
    def targets(self) -> tuple[str, ...]:
        """Paths under the data folder that it becomes."""
        parent = self.path.rpartition("/")[0]
        return tuple(f"{parent}/{name}".lstrip("/") for name in self.members) or (self.path,)


def github_address(repository: str, commit: str, path: str) -> str:
    """The address of a file of a GitHub repository (`owner/name`) at a commit (40 hex digits)."""
    return f"{GITHUB}/{repository}/{commit}/{path}"


def hub_address(repository: str, commit: str, path: str) -> str:
    """The address of a file of a data set (`owner/name`) of the Hugging Face hub at a commit."""
    return f"{_HUB_SCHEME}{repository}@{commit}/{path}"


def split_hub_address(address: str) -> tuple[str, str, str] | None:
    """(repository, commit, path) of a `hub_address`; None for an address elsewhere."""
    if not address.startswith(_HUB_SCHEME):
        return None
    repository, _, rest = address.removeprefix(_HUB_SCHEME).partition("@")
    commit, _, path = rest.partition("/")
    return repository, commit, path


def of_tasks(files: Iterable[RemoteFile], tasks: Iterable[str]) -> tuple[RemoteFile, ...]:
    """The files that these tasks need."""
    wanted = frozenset(tasks)
    return tuple(file for file in files if not file.tasks or wanted.intersection(file.tasks))
