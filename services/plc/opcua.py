"""The PLC's side of OPC UA: one read of all status points and one write of all command points a scan."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

from asyncua import ua
from asyncua.client.client import Client
from asyncua.crypto.cert_gen import setup_self_signed_certificate
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.ua.uaerrors import UaError
from cryptography.x509.oid import ExtendedKeyUsageOID

from services.plc.runner import ScanError
from shared.opcua import INDEX, TYPES, command_id, status_id
from shared.points import COMMANDS, STATUS, Point, Values, empty

TIMEOUT_S = 4.0  # a handshake with keys takes its time
URI = "urn:sightline:plc-sim"
FAILURES = (OSError, TimeoutError, UaError, ValueError)  # asyncua's
T = TypeVar("T")


class OpcUaIo:
    """One session: Basic256Sha256, signed and encrypted, with a certificate made for it."""

    def __init__(self, host: str, port: int, user: str, password: str) -> None:
        """``user`` and ``password``: of the link's `users`."""
        for name in ("asyncua", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # the report says it, once
        self._client = Client(f"opc.tcp://{host}:{port}/sightline", timeout=TIMEOUT_S)
        self._client.application_uri = URI
        self._client.set_user(user)
        self._client.set_password(password)
        self._connected = False
        self._status = [self._client.get_node(node_id(status_id(point))) for point in STATUS]
        self._commands = [self._client.get_node(node_id(command_id(point))) for point in COMMANDS]

    async def connect(self) -> None:
        """ScanError: nobody listens, or we are not let in."""
        await tried(self._connect(), "connect")
        self._connected = True

    async def read(self) -> Values:
        """All status points of one moment; 0 where the value is Bad, as a PLC's program has it."""
        found = await tried(self._client.read_attributes(self._status), "read")
        values = empty(STATUS)
        for point, data in zip(STATUS, found, strict=True):
            if data.StatusCode is not None and data.StatusCode.is_good() and data.Value is not None:
                values[point.name] = data.Value.Value
        return values

    async def write(self, values: Values) -> None:
        """All command points at once."""
        data = [value_of(point, values) for point in COMMANDS]
        await tried(self._client.write_values(self._commands, data), "write")

    async def close(self) -> None:
        """Let the session go."""
        if self._connected:
            self._connected = False
            with contextlib.suppress(*FAILURES):  # it may be gone already
                await self._client.disconnect()

    async def _connect(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            key, certificate = Path(folder, "plc.pem"), Path(folder, "plc.der")
            use = [ExtendedKeyUsageOID.CLIENT_AUTH]
            await setup_self_signed_certificate(key, certificate, URI, "localhost", use, {"commonName": "plc-sim"})
            await self._client.set_security(SecurityPolicyBasic256Sha256, str(certificate), str(key))
        await self._client.connect()


async def tried(work: Awaitable[T], what: str) -> T:
    """Its result, or ScanError in place of whatever asyncua raises."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await work
    except FAILURES as error:
        raise ScanError(f"{what}: {str(error) or type(error).__name__}") from error


def node_id(name: str) -> ua.NodeId:
    """Of a row of the table."""
    return ua.NodeId(ua.String(name), ua.Int16(INDEX))


def value_of(point: Point, values: Values) -> ua.Variant:
    """With the type of its node."""
    return ua.Variant(values[point.name], ua.VariantType[TYPES[point.kind]])
