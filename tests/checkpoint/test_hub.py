"""Published names, against a hub of our own on this machine and against a prepared cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from checkpoint_examples import (
    lightning_value,
    logits,
    small_model,
    write_hf,
    write_lightning,
)
from huggingface_hub import constants

from hyenadna.checkpoint import load
from hyenadna.checkpoint.hub import fetch, repositories
from hyenadna.config import PUBLISHED_NAMES
from hyenadna.errors import InputError
from hyenadna.shipped import shipped_names

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TINY = "LongSafari/hyenadna-tiny-1k-seqlen"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("tiny-1k", (f"{TINY}-hf", TINY)),
        ("tiny-1k-hf", (f"{TINY}-hf",)),
        ("hyenadna-tiny-1k-seqlen", (f"{TINY}-hf", TINY)),
        ("hyenadna-tiny-1k-seqlen-hf", (f"{TINY}-hf",)),
        (TINY, (TINY,)),
        (f"{TINY}-hf", (f"{TINY}-hf",)),
        ("LongSafari/tiny-1k", (TINY,)),
        ("tiny-1k-d256", (f"{TINY}-d256-hf", f"{TINY}-d256")),
        ("somebody/hyenadna-tiny-1k-seqlen", ()),
        ("tiny-2k", ()),
        ("", ()),
        ("-hf", ()),
    ],
)
def test_names(name: str, found: tuple[str, ...]) -> None:
    assert repositories(name) == found


def test_every_preset_has_a_repository() -> None:
    for name in PUBLISHED_NAMES:
        assert repositories(name)[0] == f"LongSafari/{PUBLISHED_NAMES[name]}-hf"


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a snapshot download asks for."""

    repos: dict[str, Path]
    status = 200
    requested: list[str]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0].strip("/")
        if self.status != 200:
            return self._send(self.status, b"down", {}, body)
        for repo, folder in self.repos.items():
            files = sorted(folder.iterdir())
            if path.startswith(f"api/models/{repo}/tree/"):
                tree = [
                    {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": _oid(f)}
                    for f in files
                ]
                return self._json(tree, body)
            if path in (f"api/models/{repo}", f"api/models/{repo}/revision/main"):
                siblings = [{"rfilename": f.name} for f in files]
                return self._json({"id": repo, "sha": COMMIT, "siblings": siblings}, body)
            if path.startswith(f"api/models/{repo}/revision/"):
                return self._error("RevisionNotFound", body)
            if path.startswith(f"{repo}/resolve/{COMMIT}/"):
                file = folder / path.rpartition("/")[2]
                if body:
                    self.requested.append(file.name)
                headers = {"ETag": f'"{_oid(file)}"', "X-Repo-Commit": COMMIT}
                return self._send(200, file.read_bytes(), headers, body)
        return self._error("RepoNotFound", body)

    def _json(self, value: object, body: bool) -> None:
        raw = json.dumps(value).encode()
        self._send(200, raw, {"Content-Type": "application/json"}, body)

    def _error(self, code: str, body: bool) -> None:
        self._send(404, b"{}", {"X-Error-Code": code, "X-Error-Message": code}, body)

    def _send(self, status: int, raw: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        if body:
            self.wfile.write(raw)


def _oid(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A running hub with both kinds of tiny-1k and the original kind of small-32k."""
    write_hf(tmp_path / "hf", small_model(1))
    (tmp_path / "hf" / "README.md").write_text("not needed")
    shutil.copy(tmp_path / "hf" / "model.safetensors", tmp_path / "hf" / "pytorch_model.bin")
    write_lightning(tmp_path / "original", small_model(2), lightning_value(small_model(2)))

    class OurHub(Hub):
        repos = {  # noqa: RUF012
            f"{TINY}-hf": tmp_path / "hf",
            TINY: tmp_path / "original",
            "LongSafari/hyenadna-small-32k-seqlen": tmp_path / "original",
        }
        requested: list[str] = []  # noqa: RUF012

    server = ThreadingHTTPServer(("127.0.0.1", 0), OurHub)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    OurHub.url = f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
    yield OurHub
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_name_is_downloaded_once_and_only_what_is_needed(tmp_path: Path, hub: type[Hub]) -> None:
    url = hub.url  # type: ignore[attr-defined]
    folder = fetch("tiny-1k", cache_dir=tmp_path / "cache", endpoint=url)
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert sorted(hub.requested) == ["config.json", "model.safetensors"]
    assert torch.equal(logits(load(folder)), logits(small_model(1)))
    assert fetch("tiny-1k", cache_dir=tmp_path / "cache", endpoint=url) == folder
    assert len(hub.requested) == 2


def test_the_original_repository_by_its_full_name(tmp_path: Path, hub: type[Hub]) -> None:
    folder = fetch(TINY, cache_dir=tmp_path / "cache", endpoint=hub.url)  # type: ignore[attr-defined]
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "weights.ckpt"]
    assert torch.equal(logits(load(folder)), logits(small_model(2)))


def test_without_an_hf_repository_the_original_is_taken(tmp_path: Path, hub: type[Hub]) -> None:
    folder = fetch("small-32k", cache_dir=tmp_path, endpoint=hub.url)  # type: ignore[attr-defined]
    assert (folder / "weights.ckpt").exists()


def test_load_takes_a_name(tmp_path: Path, hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    """Through HF_ENDPOINT and the cache, as a user sets them, and then offline."""
    url = hub.url  # type: ignore[attr-defined]
    program = (
        "import sys\n"
        "from hyenadna.checkpoint import load\n"
        "from hyenadna.errors import InputError\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        print(load(name).config.d_model)\n"
        "    except InputError as error:\n"
        "        print(error)\n"
    )
    online = os.environ | {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "home")}
    online.pop("HF_HUB_OFFLINE", None)
    offline = online | {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}

    def run(environment: dict[str, str], *names: str) -> list[str]:
        return subprocess.run(
            [sys.executable, "-c", program, *names],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            cwd=tmp_path,
        ).stdout.splitlines()

    assert run(online, "tiny-1k") == ["8"]
    assert run(offline, "tiny-1k", "large-1m") == [
        "8",
        "LongSafari/hyenadna-large-1m-seqlen-hf: not in the cache, and HF_HUB_OFFLINE is set; "
        "unset it, or give the path of a downloaded folder",
    ]


def test_offline_with_a_prepared_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repo = tmp_path / "models--LongSafari--hyenadna-tiny-1k-seqlen-hf"
    write_hf(repo / "snapshots" / COMMIT, small_model(1))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    for name in ("tiny-1k", "hyenadna-tiny-1k-seqlen-hf", f"{TINY}-hf"):
        assert torch.equal(logits(load(name, cache_dir=tmp_path)), logits(small_model(1)))
    with pytest.raises(InputError, match=r"not in the cache, and HF_HUB_OFFLINE is set"):
        load("medium-160k", cache_dir=tmp_path)

    original = tmp_path / "models--LongSafari--hyenadna-small-32k-seqlen"
    model = small_model(2)
    write_lightning(original / "snapshots" / COMMIT, model, lightning_value(model))
    (original / "refs").mkdir()
    (original / "refs" / "main").write_text(COMMIT)
    assert torch.equal(logits(load("small-32k", cache_dir=tmp_path)), logits(model))

    (repo / "snapshots" / COMMIT / "model.safetensors").unlink()
    with pytest.raises(InputError, match="has no weights; unset HF_HUB_OFFLINE"):
        load("tiny-1k-hf", cache_dir=tmp_path)


def test_unknown_names_list_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder, and no model of") as error:
        load("tiny-2k", cache_dir=tmp_path)
    assert all(name in str(error.value) for name in (*shipped_names(), *PUBLISHED_NAMES))
    with pytest.raises(InputError, match="there are starter-16k, starter-1k, tiny-1k"):
        fetch("tiny-2k")
    with pytest.raises(InputError, match="xlarge-1m: a shape without published weights"):
        load("xlarge-1m", cache_dir=tmp_path)


def test_a_path_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_hf(Path("tiny-1k"), small_model(3))
    assert torch.equal(logits(load("tiny-1k")), logits(small_model(3)))


def one_line(error: InputError) -> str:
    assert "\n" not in str(error)
    return str(error)


def test_a_missing_repository_and_revision(tmp_path: Path, hub: type[Hub]) -> None:
    url = hub.url  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="no such repository") as error:
        fetch("large-1m", cache_dir=tmp_path, endpoint=url)
    assert "large-1m-seqlen-hf" in one_line(error.value)
    with pytest.raises(InputError, match="no revision 'v9'; leave it out") as error:
        fetch(f"{TINY}-hf", revision="v9", cache_dir=tmp_path, endpoint=url)
    one_line(error.value)


def test_a_hub_that_is_down(tmp_path: Path, hub: type[Hub]) -> None:
    hub.status = 500
    with pytest.raises(InputError, match="or give the path of a downloaded folder") as error:
        fetch(TINY, cache_dir=tmp_path, endpoint=hub.url)  # type: ignore[attr-defined]
    assert "500" in one_line(error.value)


def test_a_refused_connection(tmp_path: Path, hub: type[Hub]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(InputError, match=r"cannot be downloaded .* check the network") as error:
        fetch(f"{TINY}-hf", cache_dir=tmp_path, endpoint=f"http://127.0.0.1:{port}")
    one_line(error.value)
