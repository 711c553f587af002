"""TLS towards a peer: who signs its certificate in -> a context that checks it."""

from __future__ import annotations

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
    """What a connection failed of, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not right: {error.verify_message}"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
