"""A real HTTP server for tests of the webhook: it answers as it is told and remembers what came."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct


class Post(Struct, frozen=True):
    """One request."""

    at_s: float  # monotonic
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def seq(self) -> int:
        """Of the part it tells."""
        return int(json.loads(self.body)["part"]["seq"])


class Reply(Struct, frozen=True):
    """How to answer. ``drip_s``: one byte of the body so often, without end."""

    status: int = 200
    headers: dict[str, str] = {}
    body: bytes = b"{}"
    wait_s: float = 0.0
    drip_s: float | None = None


class HttpPeer:
    """Answers with ``replies`` in turn, then with 200."""

    def __init__(self, port: int = 0, tls: tuple[Path, Path] | None = None) -> None:
        self.posts: list[Post] = []
        self.replies: list[Reply] = []
        self._over = threading.Event()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_port
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def accepted(self) -> list[int]:
        """Sequence numbers of all parts that came, each try."""
        return [post.seq for post in self.posts]

    def close(self) -> None:
        """Ends all it does."""
        self._over.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(peer) -> type[http.server.BaseHTTPRequestHandler]:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                peer.posts.append(Post(time.monotonic(), self.path, dict(self.headers), body))
                reply = peer.replies.pop(0) if peer.replies else Reply()
                if peer._over.wait(reply.wait_s):
                    return
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if reply.drip_s is None and "Content-Length" not in reply.headers:
                    self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)
                while reply.drip_s is not None and not peer._over.wait(reply.drip_s):
                    self.wfile.write(b".")

            def log_message(self, format: str, *args: Any) -> None:
                """Silent."""

        return Handler


@contextmanager
def http_peer(port: int = 0, tls: tuple[Path, Path] | None = None) -> Iterator[HttpPeer]:
    """Running; gone afterwards."""
    peer = HttpPeer(port, tls)
    try:
        yield peer
    finally:
        peer.close()
