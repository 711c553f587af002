"""docker-compose.yml and the line it runs agree, and every container is locked down."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.line.processes import PROCESSES
from shared.settings import LineSettings, load_line

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
GPU: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if name != "redis"}
LINE_FILE = "/etc/sightline/line.yaml"


@pytest.fixture(scope="module")
def line() -> LineSettings:
    """The line that compose mounts into every container."""
    return load_line(ROOT / COMPOSE["configs"]["line"]["file"])


def module_of(service: dict[str, Any]) -> str:
    """services.capture of `python -m services.capture …`."""
    return str(service["command"][2])


def test_every_process_of_the_line_is_one_service(line: LineSettings) -> None:
    expected = {owner: row.module for row in PROCESSES for owner in line.owners(row.service)}
    assert {name: module_of(service) for name, service in OURS.items()} == expected


@pytest.mark.parametrize("name", OURS)
def test_command_starts_the_process_the_service_is_named_after(name: str) -> None:
    module = module_of(OURS[name])
    assert OURS[name]["command"] == ["python", "-m", module, "--line", LINE_FILE, "--owner", name]
    assert importlib.util.find_spec(f"{module}.__main__") is not None


@pytest.mark.parametrize("name", OURS)
def test_service_reads_the_line_file(name: str) -> None:
    assert OURS[name]["configs"] == [{"source": "line", "target": LINE_FILE}]


@pytest.mark.parametrize("name", SERVICES)
def test_container_is_locked_down(name: str) -> None:
    service = SERVICES[name]
    assert int(service["user"].split(":")[0]) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not {"privileged", "network_mode", "pid", "cap_add"} & set(service)
    assert service["restart"] == "unless-stopped"
    assert service["logging"]["options"]["max-size"]


@pytest.mark.parametrize("name", OURS)
def test_healthcheck_asks_the_container_itself(name: str) -> None:
    check = OURS[name]["healthcheck"]
    assert check["test"][:5] == ["CMD", "python", "-m", "deploy.docker.healthcheck", name]


def test_every_process_is_reached_at_its_service_name(line: LineSettings) -> None:
    assert line.wire.transport == "tcp"
    assert line.wire.bind_host == "*"
    assert line.wire.hosts == {owner: owner for owner in OURS}
    assert all("line" in service["networks"] for service in SERVICES.values())


def test_published_ports_are_those_of_the_line_and_local_by_default(line: LineSettings) -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert line.reject.publish == "tcp://*:8699"
    assert published == {
        "console": [f"${{CONSOLE_ADDRESS:-127.0.0.1}}:{line.console.port}:{line.console.port}"],
        "link-plc": [f"${{PLC_ADDRESS:-127.0.0.1}}:502:{line.links['plc'].modbus_server.port}"],
        "reject": ["${SIGNALS_ADDRESS:-127.0.0.1}:8699:8699"],
    }
    assert SERVICES["console"]["healthcheck"]["test"][5] == f"http://127.0.0.1:{line.console.port}/healthz"


def test_redis_keeps_everything_and_is_the_one_of_the_line(line: LineSettings) -> None:
    command = SERVICES["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert SERVICES["redis"]["image"].startswith("redis:7")
    assert (options["--appendonly"], options["--maxmemory-policy"]) == ("yes", "noeviction")
    assert line.redis_address() == "redis://redis:6379/0"


def test_what_must_survive_lies_on_a_volume(line: LineSettings) -> None:
    state, evidence = str(line.state_dir), str(line.evidence.url)
    mounts = {name: [volume.split(":")[1:] for volume in service.get("volumes", [])] for name, service in OURS.items()}
    assert [state] in mounts["capture-cam1"]
    assert [state] in mounts["reject"]
    assert [state] in mounts["record"]
    assert [state] in mounts["link-plc"]
    assert [evidence] in mounts["record"]
    assert [evidence, "ro"] in mounts["console"]
    assert {volume.split(":")[0] for s in SERVICES.values() for volume in s.get("volumes", [])} == set(
        COMPOSE["volumes"]
    )


def test_camera_password_is_a_secret_of_its_capture_alone() -> None:
    holders = [name for name, service in SERVICES.items() if "secrets" in service]
    assert holders == ["capture-cam1"]
    assert SERVICES["capture-cam1"]["secrets"][0]["target"] == "SIGHTLINE_CAMERAS__CAM1__PASSWORD"


def test_gpu_override_changes_the_model_stages_only(line: LineSettings) -> None:
    assert set(GPU["services"]) == {owner for service in ("localize", "refine") for owner in line.owners(service)}
    for service in GPU["services"].values():
        assert service["environment"] == {"SIGHTLINE_DEVICE": "cuda"}
        devices = service["deploy"]["resources"]["reservations"]["devices"]
        assert [(device["driver"], device["capabilities"]) for device in devices] == [("nvidia", ["gpu"])]
        assert service["image"] != OURS["localize-1"]["image"]
