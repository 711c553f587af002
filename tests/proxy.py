"""A TCP proxy for tests: it can stop to forward without closing anything, as a pulled cable does."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PIECE_BYTES = 1 << 16


class Proxy:
    """Listens on ``port`` and forwards to another port of this machine."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._flows = threading.Event()
        self._flows.set()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self) -> None:
        """From now on nothing passes; connections stay open and new ones are taken."""
        self._flows.clear()

    def release(self) -> None:
        """What the two ends sent meanwhile passes now, unless its sender has given the connection up."""
        self._flows.set()

    def cut(self) -> None:
        """End every connection; new ones are taken."""
        self._flows.set()
        while self._open:
            _end(self._open.pop())

    def close(self) -> None:
        """End everything."""
        _end(self._listener)
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                self._open.append(near)
                threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        self._flows.wait()
        try:
            far = socket.create_connection(("127.0.0.1", self._target_port), 5)
        except OSError:
            near.close()
            return
        far.settimeout(None)
        self._open.append(far)
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE_BYTES):
                if not self._flows.is_set():
                    self._flows.wait()
                    piece += _rest(source)
                sink.sendall(piece)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def _rest(source: socket.socket) -> bytes:
    """All that waits there. Raises when the sender has reset the connection."""
    pieces = []
    with contextlib.suppress(BlockingIOError):
        while piece := source.recv(PIECE_BYTES, socket.MSG_DONTWAIT):
            pieces.append(piece)
    return b"".join(pieces)


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@contextmanager
def running_proxy(target_port: int) -> Iterator[Proxy]:
    """Closed afterwards."""
    proxy = Proxy(target_port)
    try:
        yield proxy
    finally:
        proxy.close()
