"""A server of files on this machine, in place of the public ones: plain HTTP and the hub's way."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from hyenadna.data.benchmarks.remote import GITHUB, HUB, RemoteFile, split_hub_address


@dataclass
class PublicServer:
    """What is served, by path, and what was asked for."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    wrong_etag: bool = False
    """Whether the hub says a checksum that the content has not."""
    cut: bool = False
    """Whether the connection breaks in the middle of each file."""
    fetched: list[str] = field(default_factory=list)
    """Paths of the GET requests, in their order."""

    @property
    def mirrors(self) -> dict[str, str]:
        return {GITHUB: self.url, HUB: self.url, "https://example.org": self.url}

    def serve(self, file: RemoteFile, content: bytes) -> None:
        """Serve a file at its address."""
        hub = split_hub_address(file.address)
        if hub is not None:
            self.files[f"/datasets/{hub[0]}/resolve/{hub[1]}/{hub[2]}"] = content
            return
        begins = next(begins for begins in self.mirrors if file.address.startswith(begins))
        self.files[file.address.removeprefix(begins)] = content


@contextmanager
def public_server() -> Iterator[PublicServer]:
    """A server that runs until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            here.fetched.append(self.path)
            self.answer(body=True)

        def answer(self, *, body):
            content = here.files.get(self.path)
            if content is None:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")  # as the hub says it
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            if "/resolve/" in self.path:
                known = content + b"!" if here.wrong_etag else content
                self.send_header("ETag", f'"{hashlib.sha256(known).hexdigest()}"')
                self.send_header("X-Repo-Commit", self.path.split("/resolve/")[1][:40])
            self.end_headers()
            if body:
                self.wfile.write(content[: len(content) // 2] if here.cut else content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here = PublicServer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
