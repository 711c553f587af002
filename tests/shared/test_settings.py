"""Settings: line.yaml and variables in; one tree, or one line for each fault, without a secret."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import SettingsError
from shared.settings import LineSettings, load_line, read_method
from shared.streams import STREAMS
from tests.shared.lines import line, line_values

SECRET = "s3cr:t/p@ss?#[%41 ö"
PASSWORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "line.yaml"


def written(file: Path, **changes: object) -> Path:
    file.write_text(yaml.safe_dump(line_values(**changes), allow_unicode=True), encoding="utf-8")
    return file


def camera_of(**changes: object) -> dict:
    return {"cam1": {"source": "pictures", "recipe": "nut", **changes}}


def lane_of(**changes: object) -> dict:
    return {"lanes": {"l": {"cameras": ["a", "b"], "match": "part_id", **changes}}}


TWO_CAMERAS = {
    "cameras": {name: {"source": "x", "recipe": "nut", "trigger": {"kind": "message"}} for name in ("a", "b")},
}
IN_COUNTS = {
    "encoder": {"max_counts_per_s": 9},
    "cameras": {name: {"source": "x", "recipe": "nut", "travel_counts": 9} for name in ("a", "b")},
}
WRONG_LANES = [
    (lane_of(cameras=["a"]), "lanes.l.cameras: Tuple should have at least 2 items"),
    (lane_of(cameras=["a", "a"]), "lanes.l: cameras: the same camera twice"),
    (lane_of(cameras=["a", "bb"]), "lanes.l.cameras: there is no camera 'bb'; did you mean 'b'?"),
    (lane_of(tolerance_ms=5), "lanes.l: match: part_id takes no tolerance, tolerance_ms is given"),
    (lane_of(match="arrival"), "lanes.l: match: arrival takes tolerance_ms or tolerance_counts, none is given"),
    (lane_of(match="arrival", tolerance_ms=5, tolerance_counts=5), "lanes.l: match: arrival takes tolerance_ms or"),
    (lane_of(match="arrival", tolerance_counts=5), "lanes.l: tolerance_counts goes with travel_counts"),
    ({**IN_COUNTS, **lane_of(match="arrival", tolerance_ms=5)}, "lanes.l: tolerance_counts goes with travel_counts"),
    ({**IN_COUNTS, **lane_of()}, "cameras.a.trigger.kind: must be message, for lanes.l matches part ids"),
    (
        {"lanes": {**lane_of()["lanes"], "m": {"cameras": ["b", "a"], "match": "part_id"}}},
        "lanes.m.cameras: 'b' is in 'l' already",
    ),
    (
        {**IN_COUNTS, "cameras": {**TWO_CAMERAS["cameras"], "b": IN_COUNTS["cameras"]["b"]}, **lane_of()},
        "lanes.l.cameras: all of them need travel_counts, or none",
    ),
]


def test_file_is_read_and_variables_override_it(file, monkeypatch) -> None:
    monkeypatch.setenv("SIGHTLINE_BUNDLES", "/srv/bundles")  # of the machine, not of the line
    monkeypatch.setenv("SIGHTLINE_CONSOLE__PORT", "9000")
    monkeypatch.setenv("SIGHTLINE_CAMERAS__CAM1__TRAVEL_MS", "250")
    settings = load_line(written(file, console={"host": "0.0.0.0"}))
    assert (settings.console.host, settings.console.port) == ("0.0.0.0", 9000)
    assert (settings.cameras["cam1"].travel_ms, settings.cameras["cam1"].recipe) == (250, "nut")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"camera": {}}, "camera: unknown key; did you mean 'cameras'?"),
        (
            {"cameras": camera_of(trigger={"kid": "every"})},
            "cameras.cam1.trigger.kid: unknown key; did you mean 'kind'?",
        ),
        ({"cameras": camera_of(zzz=1)}, "cameras.cam1.zzz: unknown key; known are live_hz, "),
        ({"cameras": camera_of(recipe="nuts")}, "cameras.cam1.recipe: there is no recipe 'nuts'; did you mean 'nut'?"),
        ({"cameras": camera_of(travel_ms=0)}, "cameras.cam1.travel_ms: Input should be greater than 0"),
        ({"cameras": camera_of(roi_px=[0, 0, 5, 5])}, "cameras.cam1.roi_px: x and y must be at least 0, width and"),
        ({"cameras": camera_of(password=1234)}, "cameras.cam1.password: must be text; put it in quotes"),
        ({"cameras": {"Cam 1": camera_of()["cam1"]}}, "cameras.Cam 1: use small letters, digits, - and _"),
        ({"cameras": {}}, "cameras: "),
        ({"line": None}, "line: must be text"),
        ({"wire": {"curve_keys": f"{SECRET} x"}}, "wire.curve_keys: must be `public secret`, 40 signs each"),
        (
            {"cameras": camera_of(travel_ms=5, travel_counts=5)},
            "cameras.cam1: travel_counts: give it or travel_ms, not",
        ),
        ({"cameras": camera_of(travel_counts=5)}, "cameras.cam1.travel_counts: needs `encoder:` with at least max_"),
        ({"reject": {"pulse_counts": 5}}, "reject.pulse_counts: needs `encoder:`"),
        ({"reject": {"pulse_counts": 5, "pulse_ms": 5}}, "reject: pulse_counts: give it or pulse_ms, not both"),
        ({"encoder": {"max_counts_per_s": 9, "ahead_ms": 501}}, "encoder: ahead_ms: 501 is more than silent_ms, 500"),
        ({"encoder": {"silent_ms": 50}}, "encoder.max_counts_per_s: Field required"),
        *(({**TWO_CAMERAS, **changes}, says) for changes, says in WRONG_LANES),
        (
            {"wire": {"hosts": {"localise-1": "a"}}},
            "wire.hosts.localise-1: there is no such process; did you mean 'localize-1'?",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(sorted(value)),
)
def test_fault_of_the_file_is_one_line_with_the_place_and_the_cure(file, changes, says) -> None:
    with pytest.raises(SettingsError) as caught:
        load_line(written(file, **changes))
    assert str(caught.value).startswith(f"{file}: {says}")
    assert "\n" not in str(caught.value)


def test_camera_travels_in_ms_unless_it_says_counts(file) -> None:
    plain = load_line(written(file)).cameras["cam1"]
    assert (plain.travel_ms, plain.travel_counts) == (1500, None)
    counting = load_line(written(file, cameras=camera_of(travel_counts=700), encoder={"max_counts_per_s": 5000}))
    assert counting.cameras["cam1"].travel_counts == 700
    assert counting.encoder is not None
    assert (counting.encoder.silent_ms, counting.encoder.ahead_ms, counting.encoder.back_counts) == (500, 100, 1000)


def test_lane_is_read_and_its_cameras_need_part_ids_only_where_they_match(file) -> None:
    settings = load_line(written(file, **TWO_CAMERAS, **lane_of()))
    assert settings.lanes["l"].cameras == ("a", "b")
    assert settings.matches_part_ids("a")
    settings = load_line(written(file, **IN_COUNTS, **lane_of(match="arrival", tolerance_counts=30)))
    assert not settings.matches_part_ids("a")


def test_every_fault_gets_its_own_line(file) -> None:
    with pytest.raises(SettingsError) as caught:
        load_line(written(file, device=1, keep_days=-1, nonsense=2))
    assert [text.split(": ")[1] for text in str(caught.value).splitlines()] == ["device", "keep_days", "nonsense"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must hold keys"),
        ("- a\n- b", "must hold keys"),
        ("1: a", "must hold keys"),
        ("line: [", "not YAML: line 1, column 8"),
        ("line: a\nline: b", "not YAML: line 2, column 1: 'line' stands twice"),
        (f"line: a\npassword: @{SECRET}", "not YAML: line 2, column 11: found character"),
        ("line: 2024-99-99", "cannot be read: "),
        ("line: \x00", "not YAML: unreadable signs"),
    ],
    ids=["empty", "list", "number", "cut", "twice", "secret", "date", "zero"],
)
def test_file_that_is_no_mapping_is_refused_in_one_line(file, text, says) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_line(file)
    assert str(caught.value).startswith(f"{file}: {says}")
    assert "\n" not in str(caught.value)
    assert "s3cr" not in str(caught.value)


@pytest.mark.parametrize("make", [lambda file: None, Path.mkdir, lambda file: file.write_bytes(b"\xff\xfe\xff")])
def test_file_that_cannot_be_read_is_named(file, make) -> None:
    make(file)
    with pytest.raises(SettingsError, match=rf"^{file}: (there is no such file|cannot be read)"):
        load_line(file)


@pytest.mark.parametrize(
    ("variable", "says"),
    [
        ("SIGHTLINE_CONSOL__PORT", "unknown setting 'consol'; did you mean 'console'?"),
        ("SIGHTLINE_CONSOLE__PROT", "unknown setting 'prot'; did you mean 'port'?"),
        ("SIGHTLINE_CAMERAS__CAM1__TRIGER__KIND", "unknown setting 'triger'; did you mean 'trigger'?"),
        ("SIGHTLINE_DEVICE__X", "unknown setting 'x'; it holds one plain value"),
        ("SIGHTLINE_REDIS_URL__X", "unknown setting 'x'; it holds one plain value"),
        ("SIGHTLINE_", "unknown setting ''; known are "),
    ],
)
def test_unknown_variable_is_named_with_the_nearest(file, monkeypatch, variable, says) -> None:
    monkeypatch.setenv(variable, SECRET)
    with pytest.raises(SettingsError) as caught:
        load_line(written(file))
    assert str(caught.value).startswith(f"{variable}: {says}")
    assert SECRET not in str(caught.value)


def test_variable_with_a_wrong_value_is_explained_without_it(file, monkeypatch) -> None:
    monkeypatch.setenv("SIGHTLINE_WIRE__CURVE_KEYS", SECRET)
    monkeypatch.setenv("SIGHTLINE_CONSOLE__PORT", SECRET)
    with pytest.raises(SettingsError, match="curve_keys") as caught:
        load_line(written(file))
    assert SECRET not in str(caught.value)


def test_variable_that_is_no_json_is_explained_without_it(file, monkeypatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CAMERAS", SECRET)
    with pytest.raises(SettingsError, match="cameras") as caught:
        load_line(written(file))
    assert SECRET not in str(caught.value)


# -- secrets -------------------------------------------------------------------------------------------------------


@given(password=PASSWORDS, user=PASSWORDS)
def test_password_reaches_the_camera_and_nothing_else(password, user) -> None:
    camera = {"source": "rtsp://10.0.0.1:554/live?a=1", "recipe": "nut", "username": user, "password": password}
    settings = LineSettings(**line_values(cameras={"cam1": camera}))
    again = LineSettings(**line_values(cameras={"cam1": {"source": settings.cameras["cam1"].url(), "recipe": "nut"}}))
    for one in (settings, again):
        cam1 = one.cameras["cam1"]
        assert (cam1.username, cam1.password.get_secret_value()) == (user, password)
        assert cam1.source == "rtsp://10.0.0.1:554/live?a=1"
        assert "password=SecretStr('**********')" in repr(one)


@pytest.mark.parametrize("password", ["12345", "null", "true", '"quoted"', "1e5", "[1]", SECRET])
def test_password_from_a_variable_is_taken_as_it_stands(file, monkeypatch, password) -> None:
    monkeypatch.setenv("SIGHTLINE_CAMERAS__CAM1__PASSWORD", password)
    settings = load_line(written(file))
    assert settings.cameras["cam1"].password.get_secret_value() == password


@pytest.mark.parametrize(
    "source",
    [f"rtsp://u:{SECRET}@cam/live", "rtsp://u:12/s3cr@cam/live", "rtsp://cam/s3cr@live", "rtsp://u:p#s3cr@cam"],
)
def test_address_that_may_hold_a_cut_password_is_refused_without_showing_it(file, source) -> None:
    with pytest.raises(SettingsError, match=r"cameras\.cam1: source: an @ after the host; put user name and") as caught:
        load_line(written(file, cameras=camera_of(source=source)))
    assert "s3cr" not in str(caught.value)


@given(host=st.text(st.characters(exclude_categories=("Cs",)), max_size=12))
def test_any_address_is_taken_or_refused_by_name(host) -> None:
    source = f"rtsp://user:s3cr@{host}/x"
    try:
        camera = LineSettings(**line_values(cameras=camera_of(source=source))).cameras["cam1"]
    except ValueError as error:
        assert "s3cr" not in str(error)
    else:
        assert "s3cr" not in camera.source
        assert "s3cr" in camera.url()


@pytest.mark.parametrize("source", ["usb:0", "/dev/v4l/by-id/usb-cam", "a@b/video.mp4", "C:\\a@b"])
def test_address_without_a_scheme_is_left_alone(source) -> None:
    camera = line(cameras=camera_of(source=source, username="u", password="p")).cameras["cam1"]
    assert camera.source == camera.url() == source


def test_dump_of_all_settings_shows_no_secret(file) -> None:
    cameras = camera_of(source="rtsp://u:s3cr-camera@cam/live")
    settings = load_line(
        written(
            file,
            cameras=cameras,
            redis_url="redis://:s3cr-redis@h",
            wire={"curve_keys": f"{'s3cr':x<40} {'s3cr':y<40}"},
        )
    )
    for text in (repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump())):
        assert "s3cr" not in text
    assert settings.redis_address() == "redis://:s3cr-redis@h"


# -- places --------------------------------------------------------------------------------------------------------


def test_run_folder_is_made_private(private_surroundings) -> None:
    folder = line().run_dir
    assert folder.parent == private_surroundings
    assert folder.stat().st_mode & 0o777 == 0o700
    assert line().run_dir == folder


@pytest.mark.parametrize("what", ["open", "file", "link", "dangling"])
def test_run_folder_that_is_not_private_is_refused(private_surroundings, tmp_path, what) -> None:
    folder = line().run_dir
    folder.rmdir()
    if what == "open":
        folder.mkdir()
        folder.chmod(0o750)
    elif what == "file":
        folder.touch(mode=0o600)
    else:
        target = tmp_path / "target"
        if what == "link":
            target.mkdir(mode=0o700)
        folder.symlink_to(target)
    with pytest.raises(SettingsError, match=f"{folder} is not a private folder of this user"):
        _ = line().run_dir


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_run_folder_of_somebody_else_is_refused() -> None:
    folder = line().run_dir
    os.chown(folder, 12345, -1)
    with pytest.raises(SettingsError, match="is not a private folder of this user"):
        _ = line().run_dir


def test_run_folder_below_nowhere_is_explained(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match="cannot be made: No such file or directory; set XDG_RUNTIME_DIR"):
        _ = line().run_dir


def test_socket_path_too_long_for_linux_is_explained(monkeypatch, tmp_path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    with pytest.raises(SettingsError, match="too long for Linux: set a shorter XDG_RUNTIME_DIR"):
        line().endpoint("tickets", "reject")


def test_longest_socket_path_can_be_bound(monkeypatch, tmp_path) -> None:
    settings = line()
    spare = 107 - len(settings.endpoint("settlements", "record").removeprefix("ipc://"))
    deep = Path(os.environ["XDG_RUNTIME_DIR"]) / ("d" * (spare - 1))
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    path = settings.endpoint("settlements", "record").removeprefix("ipc://")
    assert len(path) == 107
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path)


def test_state_folder_that_cannot_be_made_is_explained(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"state_dir: .*/file/x cannot be made: Not a directory"):
        _ = line(state_dir=tmp_path / "file" / "x").state


def test_state_folder_may_be_in_the_home_folder(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert line(state_dir="~/state").state == tmp_path / "state"


def test_every_bound_stream_has_its_own_address() -> None:
    for transport in ("ipc", "tcp"):
        settings = line(transport, workers={"localize": 3, "refine": 2})
        places = [settings.endpoint(name, owner) for name in STREAMS for owner in settings.owners_of(name)]
        assert len(places) == len(set(places))


def test_other_machines_are_reached_by_their_names() -> None:
    settings = line("tcp", wire={"bind_host": "*", "hosts": {"reject": "plc-room"}})
    assert settings.endpoint("tickets", "reject").startswith("tcp://plc-room:")
    assert settings.endpoint("frames", "localize-1").startswith("tcp://127.0.0.1:")
    assert settings.bind_endpoint("tickets", "reject").startswith("tcp://*:")


def test_method_is_read_from_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "method.yaml"
    path.write_text("mmr: {points_per_area: 5}\ncascade: {extreme_threshold: 0.8}\n")
    found = read_method(path)
    assert (found.mmr.points_per_area, found.cascade.extreme_threshold, found.crops.margin) == (5, 0.8, 0.25)


@pytest.mark.parametrize(
    ("text", "words"),
    [("mmr: {points: 5}", "mmr.points"), ("mmr: {points_per_area: 0}", "mmr.points_per_area"), ("umci: {}", "umci")],
)
def test_fault_of_a_method_file_is_one_line_with_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "method.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=re.escape(words)) as caught:
        read_method(path)
    assert str(caught.value).startswith(f"{path}: ")
