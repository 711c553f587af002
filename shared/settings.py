"""What a line is: line.yaml and SIGHTLINE_ variables in, one frozen tree of settings out, or one clear error.

A variable overrides the file: ``SIGHTLINE_REDIS_URL``, ``SIGHTLINE_CONSOLE__PORT``,
``SIGHTLINE_CAMERAS__CAM1__PASSWORD``; two underscores go one level down.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import quote, unquote

import platformdirs
import yaml
from pydantic import BaseModel, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as VariableError

from shared.alarm_settings import AlarmSettings
from shared.errors import SettingsError
from shared.links import LinkSettings
from shared.method import Method
from shared.section import Section
from shared.streams import EVERY_SERVICE, STREAMS
from shared.vision.catalogue import BUNDLES_VARIABLE

PREFIX = "SIGHTLINE_"
NAME = r"^[a-z0-9][a-z0-9_-]{0,31}$"
Name = Annotated[str, Field(pattern=NAME)]
Precision = Literal["float32", "bf16", "fp16"]
RefinerName = Literal["mmr", "cascade", "none"]
Phrase = Annotated[str, Field(min_length=1, max_length=100)]
ANY_NAME = ("any name",)
MAX_TRAVEL_COUNTS = 1 << 30  # a quarter of the way round the counter: before and after cannot be mixed up
MAX_SOCKET_PATH_BYTES = 107  # sun_path of Linux, less its closing zero


class TriggerSettings(Section):
    """When a part is in view."""

    kind: Literal["every", "presence", "message"] = Field(
        "presence", description="every: by the clock; presence: a part crosses the picture; message: the line asks"
    )
    every_ms: float = Field(1000, gt=0, description="`every`: one part each so many milliseconds")
    direction: Literal["right", "left", "down", "up"] = Field("right", description="`presence`: the way parts move")
    min_part_fraction: float = Field(
        0.04, gt=0, lt=1, description="`presence`: a part covers at least this share of the region of interest"
    )


class CameraSettings(Section):
    """One imaging station."""

    source: str = Field(description="rtsp://…, usb:0, /dev/v4l/by-id/…, a video file or a folder of pictures")
    username: str | None = Field(None, description="of the camera; may stand in the address too")
    password: SecretStr | None = Field(None, description="never shown; better in SIGHTLINE_CAMERAS__<NAME>__PASSWORD")
    recipe: Name = Field(description="the name of one of `recipes`")
    trigger: TriggerSettings = TriggerSettings()
    roi_px: tuple[int, int, int, int] | None = Field(None, description="x, y, width, height; none: the whole picture")
    longest_side_px: int = Field(1024, ge=32, le=16384, description="larger pictures are scaled down to this")
    travel_ms: float = Field(
        1500, gt=0, description="from the picture until the reject window opens: the time there is to decide"
    )
    travel_counts: int | None = Field(
        None,
        ge=1,
        le=MAX_TRAVEL_COUNTS,
        description="the same in counts of the `encoder`, in place of `travel_ms`: a stopped belt stops the time",
    )
    open_timeout_ms: int = Field(3000, gt=0, description="to open the camera; then it is tried again")
    read_timeout_ms: int = Field(3000, gt=0, description="for one picture; then the camera is opened again")
    live_hz: float = Field(5, gt=0, le=30, description="pictures a second for screens")
    loop: bool = Field(False, description="a file or folder starts again at its end")

    @model_validator(mode="before")
    @classmethod
    def _take_password_out_of_the_url(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("source"), str):
            return values
        scheme, slashes, rest = values["source"].partition("://")
        place = re.match(r"[^/?#]*", rest).group() if slashes else ""  # type: ignore[union-attr] # it matches anything
        if slashes and "@" in rest[len(place) :]:  # it may be a password cut in two: never show any of it
            raise ValueError(
                "source: an @ after the host; put user name and password into `username` and `password`, "
                "and write an @ of the path as %40"
            )
        login, at, host = place.rpartition("@")
        if not at:
            return values
        username, _, password = login.partition(":")
        secrets = {"username": unquote(username), "password": unquote(password)}
        return {**secrets, **values, "source": f"{scheme}://{host}{rest[len(place) :]}"}

    @model_validator(mode="after")
    def _one_way_to_count_the_travel(self) -> CameraSettings:
        if self.travel_counts is not None and "travel_ms" in self.model_fields_set:
            raise ValueError("travel_counts: give it or travel_ms, not both")
        return self

    @field_validator("roi_px")
    @classmethod
    def _roi_has_an_area(cls, roi: tuple[int, int, int, int] | None) -> tuple[int, int, int, int] | None:
        if roi and (min(roi[:2]) < 0 or min(roi[2:]) < 16):
            raise ValueError("x and y must be at least 0, width and height at least 16")
        return roi

    def url(self) -> str:
        """The address with its password, for the decoder only: never log it."""
        scheme, slashes, rest = self.source.partition("://")
        if not self.username or not slashes:
            return self.source
        secret = quote(self.password.get_secret_value(), safe="") if self.password else ""
        return f"{scheme}://{quote(self.username, safe='')}:{secret}@{rest}"


class RecipeSettings(Section):
    """How one product is inspected."""

    object: str = Field(min_length=1, max_length=200, description='the product in words: "metal nut"')
    threshold: float | None = Field(
        None, ge=0, le=1, description="at or under this score a part is OK; none: as the bundle advises"
    )
    mask_threshold: float | None = Field(
        None, gt=0, lt=1, description="refined map above this = defect pixels; none: the threshold of the score"
    )
    min_defect_px: int = Field(20, ge=1, description="smaller areas are no defect")
    refiner: RefinerName = Field(
        "mmr", description="how SAM is asked: mmr (ClipSAM), cascade (PPG + CPS); none: the areas of the rough map"
    )
    defects: tuple[Phrase, ...] = Field(
        (), max_length=50, description='defects to name, in words: ["scratch", "missing screw"]; none: no names'
    )
    name_floor: float = Field(0.5, ge=0, le=1, description='a name less likely than this becomes "other"')
    mm_per_px: float | None = Field(None, gt=0, description="size of a pixel at the part, of the picture as inspected")
    fail_safe: Literal["reject", "pass", "stop"] = Field("reject", description="what an UNKNOWN part gets")
    job: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="its number, by which a controller changes to it; without one only its own cameras use it",
    )


class WireSettings(Section):
    """How the processes reach each other."""

    transport: Literal["ipc", "tcp"] = Field("ipc", description="ipc: one machine; tcp: several")
    base_port: int = Field(8700, ge=1024, le=65000, description="tcp: the first port; streams count up from it")
    bind_host: str = Field("127.0.0.1", description="tcp: the interface to listen on; * is all of them")
    hosts: dict[str, str] = Field({}, description="tcp: process (capture-cam1, localize-1, reject, …) -> host name")
    curve_keys: SecretStr | None = Field(None, description="tcp: `public secret`, from `sightline wire-keys`")

    @field_validator("curve_keys")
    @classmethod
    def _keys_are_a_pair(cls, keys: SecretStr | None) -> SecretStr | None:
        if keys and [len(key) for key in keys.get_secret_value().split()] != [40, 40]:
            raise ValueError("must be `public secret`, 40 signs each: see `sightline wire-keys`")
        return keys


class RejectSettings(Section):
    """The ledger and its signal."""

    publish: str | None = Field(None, description="one more address for the signal, such as tcp://*:8699")
    pulse_ms: float = Field(100, gt=0, le=10_000, description="length of the reject window, which the signal opens")
    pulse_counts: int | None = Field(
        None,
        ge=1,
        description="the same in counts of the `encoder`, in place of `pulse_ms`; a second at most, on a slow belt",
    )

    @model_validator(mode="after")
    def _one_length(self) -> RejectSettings:
        if self.pulse_counts is not None and "pulse_ms" in self.model_fields_set:
            raise ValueError("pulse_counts: give it or pulse_ms, not both")
        return self


class EncoderSettings(Section):
    """The counter on the belt. Silent or jumping: every part in counts on the belt is UNKNOWN."""

    max_counts_per_s: float = Field(gt=0, description="faster than the belt ever goes: a quicker step is a jump")
    silent_ms: float = Field(
        500, ge=10, le=60_000, description="without a reading for so long nobody knows where the parts are"
    )
    ahead_ms: float = Field(
        100, gt=0, description="after a reading the belt is taken to go on at its speed, for at most so long"
    )
    back_counts: int = Field(1000, ge=0, description="the belt may jog back by so much; more is a jump")

    @model_validator(mode="after")
    def _silence_comes_last(self) -> EncoderSettings:
        if self.ahead_ms > self.silent_ms:
            raise ValueError(f"ahead_ms: {self.ahead_ms:g} is more than silent_ms, {self.silent_ms:g}")
        return self


class LaneSettings(Section):
    """Cameras that decide one part together: it is OK only when each of them says so."""

    cameras: tuple[Name, ...] = Field(min_length=2, description="names of `cameras`; each in one lane at most")
    match: Literal["part_id", "arrival"] = Field(
        description="what makes their tickets one part: the id that came with the trigger (new for each of 200 parts), "
        "or when they reach the ejector"
    )
    tolerance_ms: float | None = Field(
        None, gt=0, description="`arrival`: so far apart at most; less than half the gap between parts"
    )
    tolerance_counts: int | None = Field(None, gt=0, description="the same for cameras with `travel_counts`")

    @model_validator(mode="after")
    def _tolerance_fits(self) -> LaneSettings:
        given = [name for name in ("tolerance_ms", "tolerance_counts") if getattr(self, name) is not None]
        if len(given) != (self.match == "arrival"):
            wanted = "tolerance_ms or tolerance_counts" if self.match == "arrival" else "no tolerance"
            raise ValueError(f"match: {self.match} takes {wanted}, {' and '.join(given) or 'none'} is given")
        if len(set(self.cameras)) != len(self.cameras):
            raise ValueError("cameras: the same camera twice")
        return self


class EvidenceSettings(Section):
    """Where the pictures of events are kept."""

    url: str | None = Field(None, description="any fsspec address; none: a folder of the line's state")
    max_mb: float = Field(10_000, gt=0, description="the oldest acknowledged evidence goes when there is more")
    jpeg_quality: int = Field(92, ge=50, le=100, description="of the stored pictures")


class ConsoleSettings(Section):
    """The operator's page."""

    host: str = Field("127.0.0.1", description="the interface the page is served on")
    port: int = Field(8600, ge=1, le=65535, description="and its port")


class WorkerSettings(Section):
    """How many processes share a stage's work."""

    localize: int = Field(1, ge=1, le=16, description="processes that look for suspect places")
    refine: int = Field(1, ge=1, le=16, description="processes that cut out the defects of suspect parts")
    threads: int = Field(0, ge=0, description="CPU threads of each model process; 0: as torch decides")


class StallSettings(Section):
    """A process whose turn takes longer ends itself and is started anew."""

    capture_s: float = Field(10, gt=0, description="capture; above both timeouts of its camera")
    model_s: float = Field(120, gt=0, description="above the slowest honest picture of localize and refine")
    other_s: float = Field(10, gt=0, description="every other process")


class LineSettings(BaseSettings):
    """The whole line."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        validate_default=True,
        env_prefix=PREFIX,
        env_nested_delimiter="__",
    )

    line: Name = Field(description="the line's name, in every key of Redis and every signal")
    cameras: dict[Name, CameraSettings] = Field(min_length=1, description="name -> one imaging station")
    recipes: dict[Name, RecipeSettings] = Field(min_length=1, description="name -> how one product is inspected")
    bundle: str = Field("mini", description="model weights: mini, vitb, vitl-vith, or path:FOLDER")
    device: str = Field("cpu", description="cpu or cuda")
    precision: Precision = Field("float32", description="of the image encoders")
    redis_url: SecretStr | None = Field(None, description="none: `sightline up` starts a Redis of its own")
    state_dir: Path | None = Field(None, description="counters, spool, Redis files; none: the user's state folder")
    keep_days: float = Field(30, gt=0, description="events and counters are kept this long")
    wire: WireSettings = WireSettings()
    workers: WorkerSettings = WorkerSettings()
    reject: RejectSettings = RejectSettings()
    encoder: EncoderSettings | None = None
    lanes: dict[Name, LaneSettings] = Field({}, description="name -> cameras that decide one part together")
    links: dict[Name, LinkSettings] = Field({}, description="name -> one way to the line's controllers (docs/line.md)")
    alarms: AlarmSettings = AlarmSettings()
    evidence: EvidenceSettings = EvidenceSettings()
    console: ConsoleSettings = ConsoleSettings()
    stall: StallSettings = StallSettings()
    method: Method = Method()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Variables override the file; nothing else is read."""
        return env_settings, init_settings

    @model_validator(mode="after")
    def _every_camera_has_its_recipe(self) -> LineSettings:
        for name, camera in self.cameras.items():
            if camera.recipe not in self.recipes:
                raise ValueError(
                    f"cameras.{name}.recipe: there is no recipe {camera.recipe!r}{nearest(camera.recipe, self.recipes)}"
                )
        return self

    @model_validator(mode="after")
    def _counts_have_their_encoder(self) -> LineSettings:
        counting = [
            f"cameras.{name}.travel_counts" for name, one in self.cameras.items() if one.travel_counts is not None
        ]
        counting += ["reject.pulse_counts"] if self.reject.pulse_counts is not None else []
        if counting and self.encoder is None:
            raise ValueError(f"{counting[0]}: needs `encoder:` with at least max_counts_per_s")
        return self

    @model_validator(mode="after")
    def _every_lane_has_its_cameras(self) -> LineSettings:
        lane_of: dict[str, str] = {}
        for name, lane in self.lanes.items():
            for camera in lane.cameras:
                if camera not in self.cameras:
                    raise ValueError(
                        f"lanes.{name}.cameras: there is no camera {camera!r}{nearest(camera, self.cameras)}"
                    )
                if (other := lane_of.setdefault(camera, name)) != name:
                    raise ValueError(f"lanes.{name}.cameras: {camera!r} is in {other!r} already")
            self._check_lane(name, lane)
        return self

    def _check_lane(self, name: str, lane: LaneSettings) -> None:
        counting = {self.cameras[camera].travel_counts is not None for camera in lane.cameras}
        if len(counting) == 2:
            raise ValueError(f"lanes.{name}.cameras: all of them need travel_counts, or none")
        if lane.match == "arrival" and (lane.tolerance_counts is not None) not in counting:
            raise ValueError(f"lanes.{name}: tolerance_counts goes with travel_counts, tolerance_ms with travel_ms")
        for camera in lane.cameras:
            if lane.match == "part_id" and self.cameras[camera].trigger.kind != "message":
                raise ValueError(f"cameras.{camera}.trigger.kind: must be message, for lanes.{name} matches part ids")

    @model_validator(mode="after")
    def _every_link_has_its_cameras(self) -> LineSettings:
        for name, link in self.links.items():
            for camera in link.cameras:
                if camera not in self.cameras:
                    raise ValueError(
                        f"links.{name}.cameras: there is no camera {camera!r}{nearest(camera, self.cameras)}"
                    )
        return self

    @model_validator(mode="after")
    def _every_topic_has_one_link(self) -> LineSettings:
        brokers = {name: link.mqtt for name, link in self.links.items() if link.mqtt is not None}
        for name, one in brokers.items():
            for other, two in brokers.items():
                if name < other and (one.host, one.port, one.prefix) == (two.host, two.port, two.prefix):
                    raise ValueError(f"links.{other}.mqtt.prefix: {name} publishes there already; give it another one")
        return self

    @model_validator(mode="after")
    def _every_job_has_one_recipe(self) -> LineSettings:
        jobs = [(recipe.job, name) for name, recipe in self.recipes.items() if recipe.job is not None]
        for job, name in jobs:
            if (first := next(other for number, other in jobs if number == job)) != name:
                raise ValueError(f"recipes.{name}.job: {job} is the number of {first!r} already")
        return self

    @model_validator(mode="after")
    def _every_host_has_its_process(self) -> LineSettings:
        processes = [owner for service in EVERY_SERVICE for owner in self.owners(service)]
        for owner in self.wire.hosts:
            if owner not in processes:
                raise ValueError(f"wire.hosts.{owner}: there is no such process{nearest(owner, processes)}")
        return self

    def matches_part_ids(self, camera: str) -> bool:
        """Is the camera in a lane that needs an id with each trigger?"""
        return any(lane.match == "part_id" and camera in lane.cameras for lane in self.lanes.values())

    def recipes_of(self, camera: str) -> tuple[str, ...]:
        """Those that the camera can inspect with: its own, then those that a controller may change it to."""
        own = self.cameras[camera].recipe
        return (own, *(name for name, recipe in self.recipes.items() if recipe.job is not None and name != own))

    @property
    def same_clock(self) -> bool:
        """Do all processes share one CLOCK_MONOTONIC?"""
        return self.wire.transport == "ipc"

    @property
    def state(self) -> Path:
        """The line's own folder on disk; made when missing.

        Raises:
            SettingsError: it cannot be made.
        """
        folder = (self.state_dir or platformdirs.user_state_path("sightline") / self.line).expanduser()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"state_dir: {folder} cannot be made: {error.strerror}") from error
        return folder.absolute()

    def view_file(self, camera: str) -> Path:
        """How the camera's view was when it was learnt; removed, it is learnt anew."""
        return self.state / f"view-{camera}.npz"

    @property
    def run_dir(self) -> Path:
        """The folder of the sockets, which only its user can open; made when missing.

        Raises:
            SettingsError: somebody else made it first, or it cannot be made.
        """
        base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
        folder = Path(base) / f"sightline-{os.getuid()}-{self.line}"
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            pass  # whoever made it: its owner and mode decide
        except OSError as error:
            raise SettingsError(f"{folder} cannot be made: {error.strerror}; set XDG_RUNTIME_DIR") from error
        facts = folder.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
            raise SettingsError(f"{folder} is not a private folder of this user: remove it, then start again")
        return folder

    @property
    def embedded_redis_socket(self) -> Path:
        """Where the Redis that `sightline up` starts listens."""
        return self.run_dir / "redis.sock"

    def redis_address(self) -> str:
        """The Redis of this line, as redis-py reads it; may hold a password: never log it."""
        return self.redis_url.get_secret_value() if self.redis_url else f"unix://{self.embedded_redis_socket}"

    def owners(self, service: str) -> list[str]:
        """The processes of one service: `capture` -> [`capture-cam1`, …], `localize` -> [`localize-1`, …]."""
        if service == "capture":
            return [f"capture-{camera}" for camera in self.cameras]
        if service == "link":
            return [f"link-{name}" for name in self.links]
        if service in ("localize", "refine"):
            return [f"{service}-{n}" for n in range(1, getattr(self.workers, service) + 1)]
        return [service]

    def owners_of(self, stream: str) -> list[str]:
        """The processes that bind a stream."""
        return [owner for service in STREAMS[stream].bound_by for owner in self.owners(service)]

    def endpoint(self, stream: str, owner: str) -> str:
        """Where others reach a stream's owner."""
        if self.wire.transport == "ipc":
            return self._socket_file(stream, owner)
        return f"tcp://{self.wire.hosts.get(owner, self._default_host())}:{self._port(stream, owner)}"

    def bind_endpoint(self, stream: str, owner: str) -> str:
        """Where the owner listens."""
        if self.wire.transport == "ipc":
            return self._socket_file(stream, owner)
        return f"tcp://{self.wire.bind_host}:{self._port(stream, owner)}"

    def curve_keys(self) -> tuple[bytes, bytes] | None:
        """The line's CURVE pair, when set."""
        if self.wire.curve_keys is None:
            return None
        public, secret = self.wire.curve_keys.get_secret_value().split()
        return public.encode(), secret.encode()

    def _default_host(self) -> str:
        return "127.0.0.1" if self.wire.bind_host == "*" else self.wire.bind_host

    def _socket_file(self, stream: str, owner: str) -> str:
        path = self.run_dir / f"{stream}.{owner}"
        if len(bytes(path)) > MAX_SOCKET_PATH_BYTES:
            raise SettingsError(f"the socket path {path} is too long for Linux: set a shorter XDG_RUNTIME_DIR")
        return f"ipc://{path}"

    def _port(self, stream: str, owner: str) -> int:
        bound = [(name, process) for name in STREAMS for process in self.owners_of(name)]
        return self.wire.base_port + bound.index((stream, owner))


def load_line(path: Path) -> LineSettings:
    """Read line.yaml, let SIGHTLINE_ variables override it, and check everything.

    Raises:
        SettingsError: names the file, the key or variable, what is wrong and, for a misspelt one, the nearest name.
    """
    values = _read_yaml(path)
    for variable in sorted(os.environ):
        if variable.startswith(PREFIX) and variable != BUNDLES_VARIABLE:  # a place on this machine, not of this line
            _check_variable(variable)
    try:
        return LineSettings(**values)
    except ValidationError as error:
        raise SettingsError("\n".join(f"{path}: {line}" for line in _explain(error))) from None
    except VariableError as error:
        raise SettingsError(f"a {PREFIX} variable cannot be read: {error}") from None


class MethodFile(Section):
    """The part of a line that the laboratory's commands read too."""

    method: Method


def read_method(path: Path) -> Method:
    """The keys under `method:` of a line, in a file of their own; SettingsError as :func:`read_settings`."""
    try:
        return MethodFile.model_validate({"method": _read_yaml(path)}).method
    except ValidationError as error:
        raise SettingsError("\n".join(f"{path}: {line}" for line in _explain(error))) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), OnceLoader)
    except FileNotFoundError:
        raise SettingsError(f"{path}: there is no such file; `sightline demo` runs without one") from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: not YAML: {_yaml_fault(error)}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise SettingsError(f"{path}: must hold keys such as `line:` and `cameras:`")
    return values


class OnceLoader(yaml.SafeLoader):
    """Plain YAML in which a key may stand once only: the second camera of the same name must not replace the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As SafeLoader, after a look at the keys."""
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for at, key in enumerate(keys):
            if key.value in {earlier.value for earlier in keys[:at]}:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands twice", problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


def _yaml_fault(error: yaml.YAMLError) -> str:
    """Where and what, without the line itself, which may hold a password."""
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{place}{getattr(error, 'problem', None) or 'unreadable signs'}"


def _check_variable(variable: str) -> None:
    """SIGHTLINE_CAMERAS__CAM1__TRAVEL_MS -> cameras, cam1, travel_ms; pydantic-settings lets a misspelt one pass."""
    keys = variable.removeprefix(PREFIX).lower().split("__")
    for depth, key in enumerate(keys):
        known = _fields_at(keys[:depth])
        if known is not ANY_NAME and key not in known:
            raise SettingsError(f"{variable}: unknown setting {key!r}{nearest(key, known)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """', did you mean …?' when a known name is close, else the list of names."""
    names = [str(one) for one in known]
    close = difflib.get_close_matches(name, names, 1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known are {', '.join(sorted(names))}" if names else "; it holds one plain value"


def _explain(error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in fault["loc"] if part != "[key]")
        if fault["type"] == "extra_forbidden":
            yield f"{where}: unknown key{nearest(str(fault['loc'][-1]), _fields_at(fault['loc'][:-1]))}"
        elif fault["type"] == "string_pattern_mismatch":
            yield f"{where}: use small letters, digits, - and _ (at most 32)"
        elif fault["type"] == "string_type":
            yield f"{where}: must be text; put it in quotes"
        else:
            yield f"{where + ': ' if where else ''}{re.sub(r'^Value error, ', '', fault['msg'])}"


def _fields_at(location: Iterable[int | str]) -> Iterable[str]:
    """The names known at one place of the tree: fields of a section, ANY_NAME in a mapping, none in a plain value."""
    annotation: Any = LineSettings
    for part in location:
        annotation = _value_type(annotation) or _section_type(annotation).model_fields[str(part)].annotation
    if _value_type(annotation):
        return ANY_NAME
    annotation = _section_type(annotation)
    return annotation.model_fields if isinstance(annotation, type) and issubclass(annotation, BaseModel) else ()


def _value_type(annotation: Any) -> Any:
    """dict[Name, CameraSettings] -> CameraSettings; None for anything that is not a mapping."""
    return get_args(annotation)[1] if get_origin(annotation) is dict else None


def _section_type(annotation: Any) -> Any:
    """OpcUaSettings | None -> OpcUaSettings; anything else as it is."""
    sections = [one for one in get_args(annotation) if isinstance(one, type) and issubclass(one, BaseModel)]
    return sections[0] if len(sections) == 1 else annotation
