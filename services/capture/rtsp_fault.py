"""Says in words why an RTSP camera cannot be opened, which OpenCV does not tell: address in, one sentence out."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

RTSP_PORT = 554
MEANING = {
    401: "refuses access (401): check username, password and path",
    403: "forbids access (403): check the user's rights in the camera",
    404: "has no such stream (404): check the path",
    453: "has not enough bandwidth (453): too many viewers?",
    454: "does not know the session (454)",
    503: "is not available now (503): too many viewers?",
}


def rtsp_fault(address: str, timeout_s: float) -> str:
    """Ask the camera, without any password, to describe its stream; ``address`` has none either."""
    url = urlsplit(address)
    try:
        with socket.create_connection((url.hostname or "", url.port or RTSP_PORT), timeout_s) as connection:
            connection.settimeout(timeout_s)
            connection.sendall(f"DESCRIBE {address} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n".encode())
            answer = connection.recv(4096)
    except TimeoutError:
        return "does not answer: is it switched on, is the address right?"
    except socket.gaierror:
        return f"cannot be found: no host is called {url.hostname!r}"
    except OSError as error:
        return f"cannot be reached: {error.strerror or error}"
    return _meaning(answer)


def _meaning(answer: bytes) -> str:
    words = answer.split(maxsplit=2)
    if len(words) < 2 or not words[0].startswith(b"RTSP/") or not words[1].isdigit():
        return "does not speak RTSP at this address"
    status = int(words[1])
    if status == 200:
        return "describes its stream but sends no picture that can be decoded"
    return MEANING.get(status, f"refuses with RTSP status {status}")
