"""The part of line.yaml that says how the line's controllers are reached: `links`, one entry and one process each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, model_validator

from shared.points import COMMANDS_BY_NAME, STATUS_BY_NAME, Kind
from shared.section import Section

Port = Annotated[int, Field(ge=1, le=65535)]
Password = Annotated[SecretStr, Field(min_length=8)]
Address = Annotated[int, Field(ge=0, le=65535)]


class ModbusServerSettings(Section):
    """A controller polls Sightline: it reads the status points and writes the command points of docs/line.md."""

    host: str = Field("127.0.0.1", description="the interface to listen on; 0.0.0.0 is all of them")
    port: Port = Field(502, description="below 1024 only root may listen")
    allow: tuple[str, ...] = Field((), description="addresses or networks that may connect; none: all that reach it")
    silent_ms: float = Field(2000, gt=0, description="a controller that asks nothing for so long counts as away")


class ModbusClientSettings(Section):
    """Sightline writes to a remote coupler, whose own watchdog must be set: about twice `period_ms`."""

    host: str = Field(description="of the coupler")
    port: Port = 502
    device_id: int = Field(1, ge=0, le=255, description="unit identifier")
    period_ms: float = Field(50, ge=5, le=1000, description="all outputs are written again so often")
    timeout_ms: float = Field(300, gt=0, description="for one answer; then the connection is made anew")
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
        return self


class OpcUaSettings(Section):
    """An OPC UA server after OPC 40100-1, for controllers and SCADA systems; Basic256Sha256 and a login."""

    host: str = Field("127.0.0.1", description="the interface to listen on; 0.0.0.0 is all of them")
    port: Port = 4840
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
    port: Port = 1883
    username: str | None = None
    password: SecretStr | None = None
    tls: bool = Field(False, description="encrypted; the broker's certificate is checked")
    ca_file: Path | None = Field(None, description="who signs the broker's certificate; none: the system's")
    prefix: str = Field("sightline", min_length=1, max_length=100, description="topics begin with <prefix>/<line>/")
    keep_alive_s: int = Field(5, ge=1, le=60, description="after half as long again the broker publishes the last will")
    sparkplug_group: str | None = Field(None, min_length=1, description="a Sparkplug B group id: publish there, too")
    commands: bool = Field(False, description="take commands from <prefix>/<line>/command/…")


class WebhookSettings(Section):
    """Somebody's HTTP server gets each part as JSON, signed with HMAC-SHA256."""

    url: str = Field(pattern=r"^https?://", description="POST goes there")
    secret: SecretStr = Field(description="key of the signature, in X-Sightline-Signature")
    parts: Literal["all", "not_ok"] = Field("not_ok", description="which parts are told")
    timeout_s: float = Field(5, gt=0, le=60, description="for one try")
    keep_s: float = Field(600, gt=0, description="a part is tried again for so long")


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
