"""Files of a suite, fetched from their public addresses and checked.

Every file is written beside its place, checked, and renamed, so that what lies there is whole. What
came is remembered in `checksums.json` in the data folder. Checked against, in this order:

1. the checksum that is published,
2. for a file on the Hugging Face hub, that of its content at the pinned commit,
3. the one in `checksums.json`: where nothing is published, the first download is trusted, and every
   later one has to be the same.

A file that is there and right is not fetched again; one that is there and is not right is never
written over.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from hyenadna.data.benchmarks.remote import HUB, RemoteFile, split_hub_address
from hyenadna.errors import InputError
from hyenadna.file_lock import hold

RECORD: Final = "checksums.json"
"""Name of the file in the data folder that says what was downloaded."""
_SCRATCH: Final = ".download"
_BLOCK: Final = 1 << 20
_WAY_OUT: Final = "try again later, or get it by hand (`hyenadna benchmark NAME` has the steps)"

Checked = Literal["published", "commit", "recorded", "first"]


@dataclass(frozen=True)
class Fetched:
    """What was done about one file."""

    file: RemoteFile
    size: int
    """Bytes of what it became."""
    new: bool
    """Whether it was fetched now."""
    checked: Checked
    """What it was checked against: `first` means that nothing was known to check it against."""


def fetch(
    files: Iterable[RemoteFile],
    folder: Path,
    *,
    mirrors: Mapping[str, str] | None = None,
    progress: bool = False,
) -> Iterator[Fetched]:
    """What was done about each file in turn, each lying under `folder` and checked by then.

    mirrors: beginnings of addresses (such as `https://huggingface.co`) and what to ask instead.
    progress: whether a bar is drawn on standard error.

    Raises InputError, in one line that names the address, where a server cannot be reached or
    refuses, where what came is not what it should be, and where something else lies in its place.
    """
    with _held(folder):
        record = _Record(folder)
        try:
            for file in files:
                kept = _kept(file, folder, record)
                yield kept or _fetch(file, folder, record, mirrors or {}, progress)
        finally:
            shutil.rmtree(folder / _SCRATCH, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The folder, for this process alone while the block runs: two would mix up their records."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        if not hold(lock):
            raise InputError(f"{folder}: another download is writing it; wait for it")
        yield
    finally:
        os.close(lock)


def checksum_of(path: Path, algorithm: str) -> str:
    """The checksum of a file, hex. algorithm: as hashlib knows it, or `git` for that of a git blob.

    Raises InputError for a file that cannot be read.
    """
    try:
        total = hashlib.new("sha1" if algorithm == "git" else algorithm)
        if algorithm == "git":
            total.update(b"blob %d\0" % path.stat().st_size)
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                total.update(block)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    return total.hexdigest()


class _Record:
    """`checksums.json`: the SHA-256 and the address of each file that was downloaded."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / RECORD
        self._files: dict[str, dict[str, str]] = {}
        if self.path.is_file():
            try:
                content = json.loads(self.path.read_text(encoding="utf-8"))["files"]
                self._files = {target: dict(known) for target, known in content.items()}
            except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
                raise InputError(
                    f"{self.path}: is not what --download wrote ({type(error).__name__}); delete "
                    "it to trust what is fetched next"
                ) from error

    def checksum(self, target: str, address: str) -> str:
        """`sha256:…` of a file, empty where it was never downloaded from this address."""
        known = self._files.get(target, {})
        return f"sha256:{known['sha256']}" if known.get("address") == address else ""

    def add(self, sums: Mapping[str, str], address: str) -> None:
        """Remember files by their SHA-256, hex."""
        for target, known in sums.items():
            self._files[target] = {"sha256": known, "address": address}
        text = json.dumps({"files": dict(sorted(self._files.items()))}, indent=1)
        beside = self.path.with_name(f".{RECORD}.part")
        try:
            beside.write_text(text + "\n", encoding="utf-8")
            beside.replace(self.path)
        except OSError as error:
            raise _unwritable(self.path, error) from error


def _kept(file: RemoteFile, folder: Path, record: _Record) -> Fetched | None:
    """The answer for a file that is there and right; None where it has to be fetched."""
    there = {t: folder / t for t in file.targets if (folder / t).exists()}
    for target, place in there.items():
        recorded = record.checksum(target, file.address)
        expected = recorded if file.members else file.checksum or recorded
        if not expected:
            raise InputError(
                f"{place}: is there, but --download did not fetch it from {file.address}; move it "
                "away, or leave out --download to use it"
            )
        algorithm, _, known = expected.partition(":")
        if checksum_of(place, algorithm) != known:
            raise InputError(
                f"{place}: is not what was downloaded (its {algorithm} is not {known}); delete it "
                "to fetch it again"
            )
    if len(there) < len(file.targets):
        return None
    published = bool(file.checksum) and not file.members
    return Fetched(file, _size(there.values()), False, "published" if published else "recorded")


def _fetch(
    file: RemoteFile, folder: Path, record: _Record, mirrors: Mapping[str, str], progress: bool
) -> Fetched:
    place = folder / file.path
    beside = place.with_name(f".{place.name}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(place.parent, error) from error
    parts = {
        target: (folder / target).with_name(f".{Path(target).name}.part") for target in file.targets
    }
    try:
        checked = _bring(file, beside, folder / _SCRATCH, mirrors, progress)
        if file.members:
            _unpack(file, beside, parts)
        recorded = {target: record.checksum(target, file.address) for target in parts}
        for target, known in recorded.items():
            if known:
                _require(parts[target], known, file.address, f"as {RECORD} has it")
        sums = {target: checksum_of(part, "sha256") for target, part in parts.items()}
        # remembered first: a file without a record would count as somebody else's
        record.add(sums, file.address)
        for target, part in parts.items():
            part.replace(folder / target)
    except OSError as error:
        raise _unwritable(place, error) from error
    finally:
        for path in (beside, *parts.values()):
            path.unlink(missing_ok=True)
        if place.parent != folder:
            with suppress(OSError):  # it holds something; an empty one would look like a task
                place.parent.rmdir()
    if checked == "first" and all(recorded.values()):
        checked = "recorded"
    return Fetched(file, _size(folder / target for target in parts), True, checked)


def _bring(
    file: RemoteFile, beside: Path, scratch: Path, mirrors: Mapping[str, str], progress: bool
) -> Checked:
    """Put what the address gives at `beside`; how it was checked, `first` where it could not be."""
    hub = split_hub_address(file.address)
    if hub is None:
        _from_server(file.address, _mirrored(file.address, mirrors), beside, progress)
        if file.checksum:
            _require(beside, file.checksum, file.address, "as it is published")
        return "published" if file.checksum else "first"
    expected = _from_hub(file.address, hub, beside, scratch, mirrors.get(HUB), progress)
    if expected:
        _require(beside, expected, file.address, "that of this commit")
    return "commit" if expected else "first"


def _mirrored(address: str, mirrors: Mapping[str, str]) -> str:
    for begins, instead in mirrors.items():
        if address.startswith(begins):
            return instead + address.removeprefix(begins)
    return address


def _from_server(address: str, asked: str, beside: Path, progress: bool) -> None:
    """Put what an https address gives at `beside`."""
    import pooch

    pooch.get_logger().setLevel("ERROR")  # it says at each download that the hash is not known
    beside.unlink(missing_ok=True)
    try:
        pooch.retrieve(
            asked,
            known_hash=None,  # checked by us, the same way whatever the server
            fname=beside.name,
            path=beside.parent,
            downloader=pooch.HTTPDownloader(progressbar=progress, timeout=60),
        )
    except OSError as error:  # those of requests are OSErrors too, without a number
        response: Any = getattr(error, "response", None)
        if response is not None:
            raise InputError(
                f"{address}: the server answered {response.status_code} {response.reason}; "
                f"{_WAY_OUT}"
            ) from error
        if error.errno is not None:
            raise _unwritable(beside, error) from error
        raise _unreachable(address, error) from error


def _from_hub(
    address: str,
    parts: tuple[str, str, str],
    beside: Path,
    scratch: Path,
    endpoint: str | None,
    progress: bool,
) -> str:
    """Put a file of the hub at `beside`; its checksum at that commit, where the hub says it."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import disable_progress_bars, logging

    repository, commit, path = parts
    if not progress:
        disable_progress_bars()
    logging.set_verbosity_error()
    url = hf_hub_url(repository, path, repo_type="dataset", revision=commit, endpoint=endpoint)
    try:
        # first: it says at once that there is no network
        etag = get_hf_file_metadata(url).etag or ""
        found = hf_hub_download(
            repository,
            path,
            repo_type="dataset",
            revision=commit,
            local_dir=scratch,
            endpoint=endpoint,
        )
        Path(found).replace(beside)
    except HfHubHTTPError as error:
        answer: Any = getattr(error, "response", None)
        if answer is None:
            raise _unreachable(address, error) from error
        raise InputError(f"{address}: the hub answered {answer.status_code}; {_WAY_OUT}") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise _unwritable(beside, error) from error
        # whichever HTTP library this version of the hub client uses raises errors of its own
        raise _unreachable(address, error.__cause__ or error) from error
    # Large files go by their SHA-256, small ones by that of the git blob.
    return {64: f"sha256:{etag}", 40: f"git:{etag}"}.get(len(etag), "")


def _require(path: Path, expected: str, address: str, which: str) -> None:
    """Raise InputError where the checksum of a file is another."""
    algorithm, _, known = expected.partition(":")
    found = checksum_of(path, algorithm)
    if found != known:
        raise InputError(
            f"{address}: what came has {algorithm} {found}, not {known}, {which}; nothing was "
            "kept - try again, or look whether the source has changed"
        )


def _unpack(file: RemoteFile, archive: Path, parts: Mapping[str, Path]) -> None:
    """Put the wanted files of a tar archive at `parts`, by their paths under the data folder."""
    wanted = dict(zip(file.members, parts.values(), strict=True))
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = member.name.rpartition("/")[2]
                stream = tar.extractfile(member) if name in wanted else None
                if stream is not None:
                    with wanted.pop(name).open("wb") as part:
                        shutil.copyfileobj(stream, part, _BLOCK)
    except (tarfile.TarError, EOFError, KeyError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of this machine's disk
        raise InputError(
            f"{file.address}: what came is no whole archive ({error}); nothing was kept - "
            f"{_WAY_OUT}"
        ) from error
    if wanted:
        raise InputError(f"{file.address}: the archive has no {', '.join(wanted)}; {_WAY_OUT}")


def _size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def _unreachable(address: str, error: BaseException) -> InputError:
    return InputError(
        f"{address}: cannot be fetched ({type(error).__name__}); is this machine online? - "
        f"{_WAY_OUT}"
    )


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be written ({error.strerror or error})")
