"""TLS towards a peer: who signs its certificate in -> a context that checks it."""

from __future__ import annotations

import os
import socket
import ssl
from pathlib import Path

from services.link.desk import PeerLostError


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Checks the server's certificate and its name; None: who the system trusts.

    Raises:
        PeerLostError: the file cannot be read.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise PeerLostError(f"ca_file {ca_file}: {trouble(error)}") from None


def trouble(error: Exception) -> str:
    """What a connection failed of, in words; libraries wrap what the system said."""
    first: BaseException = error
    while first.__cause__ is not None:
        first = first.__cause__
    if isinstance(first, ssl.SSLCertVerificationError):
        return f"its certificate is not right: {first.verify_message}"
    if isinstance(first, TimeoutError):
        return "does not answer"
    if isinstance(first, OSError) and not isinstance(first, ssl.SSLError | socket.gaierror) and first.errno:
        return os.strerror(first.errno)
    return getattr(first, "strerror", None) or str(error) or type(error).__name__
