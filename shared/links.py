"""The part of line.yaml that says how the line's controllers are reached: `links`, one entry and one process each."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from shared.points import COMMANDS_BY_NAME, REGISTERS, STATUS_BY_NAME, Kind, Point
from shared.section import Section

Port = Annotated[int, Field(ge=1, le=65535)]
MOST_ADDRESSES = 65536
Password = Annotated[SecretStr, Field(min_length=8)]
Address = Annotated[int, Field(ge=0, le=65535)]


class ModbusServerSettings(Section):
    """A controller polls Sightline: it reads the status points and writes the command points of docs/line.md."""

    host: str = Field("127.0.0.1", description="the interface to listen on; 0.0.0.0 is all of them")
    port: Port = Field(502, description="below 1024 only root may listen")
    allow: tuple[str, ...] = Field((), description="addresses or networks that may connect; none: all that reach it")
    silent_ms: float = Field(2000, gt=0, description="a controller that asks nothing for so long counts as away")

    @field_validator("allow")
    @classmethod
    def _are_networks(cls, allow: tuple[str, ...]) -> tuple[str, ...]:
        for one in allow:
            try:
                ip_network(one, strict=False)
            except ValueError:
                raise ValueError(f"{one!r} is no address and no network such as 192.168.0.0/24") from None
        return allow


class ModbusClientSettings(Section):
    """Sightline writes to a remote coupler, whose own watchdog must be set: about twice `period_ms`."""

    host: str = Field(description="of the coupler")
    port: Port = Field(502, description="of the coupler")
    device_id: int = Field(1, ge=0, le=255, description="unit identifier")
    period_ms: float = Field(50, ge=5, le=1000, description="all outputs are written again so often")
    timeout_ms: float = Field(
        300, gt=0, description="for one answer, less than from part to part; then the connection is made anew"
    )
    coils: dict[str, Address] = Field({}, description="status point (a bit) -> coil of the coupler")
    registers: dict[str, Address] = Field({}, description="status point (a number or text) -> holding register")
    inputs: dict[str, Address] = Field({}, description="command point (a bit) -> discrete input of the coupler")
    input_registers: dict[str, Address] = Field({}, description="command point (a number) -> input register")

    @model_validator(mode="after")
    def _points_exist(self) -> ModbusClientSettings:
        groups = (
            ("coils", self.coils, STATUS_BY_NAME, True),
            ("registers", self.registers, STATUS_BY_NAME, False),
            ("inputs", self.inputs, COMMANDS_BY_NAME, True),
            ("input_registers", self.input_registers, COMMANDS_BY_NAME, False),
        )
        for key, chosen, points, is_bit in groups:
            fitting = [name for name, point in points.items() if (point.kind is Kind.BIT) == is_bit]
            for name in chosen:
                if name not in fitting:
                    raise ValueError(f"{key}.{name}: there is no such point here; known are {', '.join(fitting)}")
            _check_places(key, chosen, points)
        return self


def _check_places(key: str, chosen: dict[str, int], points: dict[str, Point]) -> None:
    """No two points on one address, and none beyond the last."""
    next_free, before = 0, ""
    for name, address in sorted(chosen.items(), key=lambda one: one[1]):
        if address < next_free:
            raise ValueError(f"{key}.{name}: {address} belongs to {before} already")
        next_free, before = address + REGISTERS.get(points[name].kind, 1), name
    if next_free > MOST_ADDRESSES:
        raise ValueError(f"{key}.{before}: its last register would be {next_free - 1}, beyond 65535")


class OpcUaSettings(Section):
    """An OPC UA server after OPC 40100-1, for controllers and SCADA systems; Basic256Sha256 and a login."""

    host: str = Field("127.0.0.1", description="the interface to listen on; 0.0.0.0 is all of them")
    port: Port = Field(4840, description="and its port")
    users: dict[str, Password] = Field({}, description="name -> password, 8 signs or more; none: nobody can log in")
    certificate: Path | None = Field(None, description="DER or PEM; none: one is made in the line's state folder")
    private_key: Path | None = Field(None, description="PEM or DER, without password; of the certificate")
    trusted: Path | None = Field(None, description="folder of client certificates that may connect; none: any")

    @model_validator(mode="after")
    def _certificate_has_its_key(self) -> OpcUaSettings:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key: give both or none")
        return self


class MqttSettings(Section):
    """An MQTT 5 broker."""

    host: str = Field(description="of the broker")
    port: Port = Field(1883, description="of the broker; with tls usually 8883")
    username: str | None = Field(None, description="for the broker")
    password: SecretStr | None = Field(None, description="for the broker")
    tls: bool = Field(False, description="encrypted; the broker's certificate is checked")
    ca_file: Path | None = Field(None, description="`tls`: who signs the broker's certificate; none: the system's")
    prefix: str = Field(
        "sightline", pattern=r"^[^+#$\x00][^+#\x00]*$", max_length=100, description="topics begin with <prefix>/<line>/"
    )
    keep_alive_s: int = Field(
        5, ge=1, le=60, description="a broker silent for so long is away; a link for half as long again: the last will"
    )
    sparkplug_group: str | None = Field(
        None, pattern=r"^[^+#/\x00]+$", max_length=100, description="a Sparkplug B group id: publish there, too"
    )
    commands: bool = Field(False, description="take commands from <prefix>/<line>/command/…")

    @model_validator(mode="after")
    def _ca_file_needs_tls(self) -> MqttSettings:
        if self.ca_file is not None and not self.tls:
            raise ValueError("ca_file: without `tls: true` no certificate is asked for")
        return self


class WebhookSettings(Section):
    """Somebody's HTTP server gets each part as JSON, signed with HMAC-SHA256."""

    url: str = Field(description="http:// or https://: POST goes there")
    ca_file: Path | None = Field(None, description="who signs the server's certificate; none: the system's")
    secret: SecretStr = Field(min_length=1, description="key of the signature, in X-Sightline-Signature")
    parts: Literal["all", "not_ok"] = Field("not_ok", description="which parts are told")
    timeout_s: float = Field(5, gt=0, le=60, description="for one try")
    keep_s: float = Field(600, gt=0, description="a part is tried again for so long")

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:  # .port raises, too
            raise ValueError("must be http:// or https:// and a host")
        return url


class LinkSettings(Section):
    """One way to the line's controllers."""

    cameras: tuple[str, ...] = Field((), description="whose parts; none: of all cameras")
    results: Literal["acknowledged", "latest"] = Field(
        "acknowledged", description="acknowledged: a result stays until ResultAck; latest: the next one replaces it"
    )
    queue: int = Field(8, ge=8, le=256, description="acknowledged: results that wait; one more is an overrun")
    keep_ms: float = Field(5000, gt=0, description="a result is not shown longer than this after its part has passed")
    modbus_server: ModbusServerSettings | None = None
    modbus_client: ModbusClientSettings | None = None
    opcua: OpcUaSettings | None = None
    mqtt: MqttSettings | None = None
    webhook: WebhookSettings | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> LinkSettings:
        if len(self._kinds()) != 1:
            known = ", ".join(KINDS)
            raise ValueError(f"must have exactly one of {known}, has {', '.join(self._kinds()) or 'none'}")
        return self

    @property
    def kind(self) -> str:
        """Which of `KINDS` it is."""
        return self._kinds()[0]

    def _kinds(self) -> list[str]:
        return [kind for kind in KINDS if getattr(self, kind) is not None]


KINDS = ("modbus_server", "modbus_client", "opcua", "mqtt", "webhook")
