"""A web server on the loopback for tests: a folder, served as web servers do, that can be told to break off."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class FileServer:
    """What is served and how; what was asked for."""

    folder: Path
    url: str = ""
    ranges: bool = True  # knows Range and If-Range
    etags: bool = True
    break_after: int | None = None  # bytes of one answer, then the connection is closed
    stall_after: int | None = None  # bytes of one answer, then nothing more comes until `released`
    claimed_bytes: int | None = None  # a Content-Length that is not the file's
    answer_range: str | None = None  # a Content-Range of a broken server
    released: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, Message]] = field(default_factory=list)  # path and headers of each request

    def ranges_asked(self) -> list[str | None]:
        """The Range header of each request so far."""
        return [headers.get("Range") for _, headers in self.asked]


@contextmanager
def serving(folder: Path) -> Iterator[FileServer]:
    """A server on a free port of the loopback."""
    server = FileServer(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self, server)

        def log_message(self, *_: object) -> None:
            """Be quiet."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{listening.server_address[1]}"
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        listening.shutdown()
        listening.server_close()
        thread.join()


def answer(handler: BaseHTTPRequestHandler, server: FileServer) -> None:
    """One GET."""
    server.asked.append((handler.path, handler.headers))
    path = server.folder / handler.path.lstrip("/")
    if not path.is_file():
        handler.send_error(404)
        return
    content = path.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"' if server.etags else None
    span = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", "")) if server.ranges else None
    start = int(span[1]) if span and handler.headers.get("If-Range", etag) == etag else 0
    handler.send_response(206 if start else 200)
    if start:
        usual = f"bytes {start}-{len(content) - 1}/{len(content)}"
        handler.send_header("Content-Range", server.answer_range or usual)
    if etag:
        handler.send_header("ETag", etag)
    handler.send_header("Content-Length", str((server.claimed_bytes or len(content)) - start))
    handler.end_headers()
    send(handler, server, content[start:])


def send(handler: BaseHTTPRequestHandler, server: FileServer, body: bytes) -> None:
    """The body, or as much of it as the test wants to come."""
    whole = len(body)
    sent = min(whole, *(limit for limit in (server.break_after, server.stall_after, whole) if limit is not None))
    try:
        handler.wfile.write(body[:sent])
        handler.wfile.flush()
    except ConnectionError:
        sent = -1  # the other side is gone
    if sent != whole:
        if server.stall_after is not None:
            server.released.wait()
        handler.close_connection = True
