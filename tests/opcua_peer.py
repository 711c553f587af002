"""An OPC UA client as a controller has one, with certificates made once, for tests of the server."""

from __future__ import annotations

import asyncio
import functools
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from asyncua import Client, ua
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.crypto.uacrypto import CertProperties
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from services.link.certificates import Identity

USER, PASSWORD = "plc", "opens the door"
CLIENT_URI = "urn:example:plc"
SIGNED_AND_SECRET, SIGNED = ua.MessageSecurityMode.SignAndEncrypt, ua.MessageSecurityMode.Sign


@functools.cache
def identity(name: str, days: int = 100) -> Identity:
    """A self-signed certificate with its key; over when ``days`` is below zero."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=200))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"urn:example:{name}")]), False)
        .sign(key, hashes.SHA256())
    )
    return Identity(certificate, key, f"urn:example:{name}")


def der(one: Identity) -> bytes:
    """The certificate's bytes."""
    return one.certificate.public_bytes(Encoding.DER)


def pem(one: Identity) -> bytes:
    """The certificate as text."""
    return one.certificate.public_bytes(Encoding.PEM)


def key_pem(one: Identity) -> bytes:
    """The key as text."""
    return one.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


async def secured(
    port: int,
    who: Identity | None = None,
    mode: ua.MessageSecurityMode = SIGNED_AND_SECRET,
    kind: type[Client] = Client,
) -> Client:
    """A client that asked the server for its certificate and is ready to connect."""
    client = kind(f"opc.tcp://127.0.0.1:{port}/sightline", timeout=10, watchdog_intervall=5)
    who = who or identity("plc")
    client.application_uri = who.uri
    await client.set_security(
        SecurityPolicyBasic256Sha256,
        CertProperties(der(who), "der"),
        CertProperties(key_pem(who), "pem"),
        mode=mode,
    )
    return client


@asynccontextmanager
async def controller(
    port: int,
    user: str = USER,
    password: str = PASSWORD,
    who: Identity | None = None,
    mode: ua.MessageSecurityMode = SIGNED_AND_SECRET,
) -> AsyncIterator[Controller]:
    """Logged in; away afterwards."""
    client = await secured(port, who, mode)
    client.set_user(user)
    client.set_password(password)
    async with client:
        yield Controller(client)


class Controller:
    """A client that knows the points' names."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def node(self, name: str) -> Any:
        """By the string of its id."""
        return self.client.get_node(f"ns=2;s={name}")

    async def read(self, name: str) -> Any:
        """A good value, or ua.UaStatusCodeError."""
        return await self.node(name).read_value()

    async def code(self, name: str) -> str:
        """Of the value."""
        data = await self.node(name).read_data_value(raise_on_bad_status=False)
        return data.StatusCode.name

    async def write(self, **values: Any) -> list[str]:
        """Command points in one request; -> the codes' names."""
        kinds = {bool: ua.VariantType.Boolean, str: ua.VariantType.String, int: ua.VariantType.UInt16}
        nodes = [self.node(f"Command.{name}") for name in values]
        data = [
            ua.DataValue(one if isinstance(one, ua.Variant) else ua.Variant(one, kinds[type(one)]))
            for one in values.values()
        ]
        return await self.write_nodes(nodes, data)

    async def write_nodes(self, nodes: list[Any], data: list[ua.DataValue], **fields: Any) -> list[str]:
        """Anything, in one request; -> the codes' names."""
        request = ua.WriteParameters()
        request.NodesToWrite = [
            ua.WriteValue(node.nodeid, ua.AttributeIds.Value, None, one) for node, one in zip(nodes, data, strict=True)
        ]
        for item in request.NodesToWrite:
            for name, value in fields.items():
                setattr(item, name, value)
        return [code.name for code in await self.client.uaclient.session.write(request)]

    async def call(self, path: str, *arguments: Any) -> list[Any]:
        """One of the server's methods -> its outputs, or ua.UaStatusCodeError."""
        result = await self.node(path.rpartition(".")[0]).call_method(self.node(path).nodeid, *arguments)
        if result is None:
            return []
        return result if isinstance(result, list) else [result]

    async def until(self, name: str, wanted: Callable[[Any], bool] | Any, timeout_s: float = 10) -> Any:
        """Read until it is so; -> the value."""
        fits = wanted if callable(wanted) else lambda value: value == wanted
        deadline_s = time.monotonic() + timeout_s
        while True:
            data = await self.node(name).read_data_value(raise_on_bad_status=False)
            value = data.Value.Value if data.StatusCode.is_good() else data.StatusCode.name
            if fits(value):
                return value
            assert time.monotonic() < deadline_s, f"{name} is {value!r}, not within {timeout_s} s"
            await asyncio.sleep(0.02)


async def code_of(awaitable: Any) -> str:
    """What the server refused it with, by name."""
    try:
        await awaitable
    except ua.UaStatusCodeError as error:
        return ua.StatusCode(error.code).name
    return "Good"


class Heard:
    """A subscription's handler: everything that came, as (name of the node, value or code) or an event."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, Any]] = []
        self.events: list[Any] = []

    def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
        """One value."""
        code = data.monitored_item.Value.StatusCode
        self.changes.append((node.nodeid.Identifier, value if code.is_good() else code.name))

    def event_notification(self, event: Any) -> None:
        """One event."""
        self.events.append(event)

    def of(self, name: str) -> list[Any]:
        """The values of one node."""
        return [value for one, value in self.changes if one == name]


def is_open(port: int) -> bool:
    """Does anybody listen there?"""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
