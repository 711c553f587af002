"""Writes the reference pages: settings models, stream table and alarm table in, docs/*.md out.

Run as ``python -m services.lab.reference`` after changing either; a test fails while the pages say something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from services.lab.alarm_reference import alarms_page
from shared.messages import Alarm, Defect
from shared.opcua import opcua_nodes
from shared.points import COMMANDS, FAULT_CODES, RESULT_CODES, STATUS, Kind, Point
from shared.published import mqtt_topics, sparkplug_topics, webhook_headers
from shared.settings import PREFIX, LineSettings
from shared.streams import STREAMS, Stream
from shared.vision.catalogue import BUNDLES_VARIABLE

DOCS = Path(__file__).parents[2] / "docs"
KINDS = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
    SecretStr: "secret text",
}
BOUNDS = {Ge: "at least", Gt: "above", Le: "at most", Lt: "below"}
HEAD = "<!-- made by `python -m services.lab.reference`; change the code, not this page -->"


def settings_page() -> str:
    """Every setting of line.yaml with its kind, default and meaning."""
    rows = "\n".join(
        f"| `{name}` | {kind} | {default} | {meaning} |" for name, kind, default, meaning in settings_rows()
    )
    return f"""{HEAD}
# Settings

All settings of `line.yaml`. `<name>` is a name of your own: small letters, digits, `-` and `_`.
Check a file with `sightline up --check line.yaml`.

A variable of the environment overrides the file: `{PREFIX}` and the setting in capitals, two underscores for each dot.
`console.port` is `{PREFIX}CONSOLE__PORT`; the password of `cam1` is `{PREFIX}CAMERAS__CAM1__PASSWORD`.
`{BUNDLES_VARIABLE}` is no setting of a line: it names the folder of the fetched model bundles,
`~/.local/share/sightline/bundles` without it.

| setting | kind | default | meaning |
|---|---|---|---|
{rows}
"""


def settings_rows() -> Iterator[tuple[str, str, str, str]]:
    """(dotted name, kind, default, meaning) of every plain setting."""
    return _rows_of(LineSettings, "")


def _rows_of(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    for name, field in model.model_fields.items():
        where, inner = f"{prefix}{name}", _present(field.annotation)
        if get_origin(inner) is dict and _is_section(get_args(inner)[1]):
            yield from _rows_of(get_args(inner)[1], f"{where}.<name>.")
        elif _is_section(inner):
            yield from _rows_of(inner, f"{where}.")
        else:
            yield where, _kind(field), _default(field), (field.description or "").replace("<", "&lt;")


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _present(kind: Any) -> Any:
    """OpcUaSettings | None -> OpcUaSettings; any other kind as it is."""
    choices = [one for one in get_args(kind) if one is not type(None)]
    return choices[0] if get_origin(kind) in (Union, UnionType) and len(choices) == 1 else kind


def _kind(field: FieldInfo) -> str:
    bounds = [
        f"{words} {value:g}"
        for one in field.metadata
        for bound, words in BOUNDS.items()
        if isinstance(one, bound) and isinstance(value := getattr(one, bound.__name__.lower()), int | float)
    ]
    return ", ".join([_words(field.annotation), *bounds])


def _words(kind: Any) -> str:
    if kind in KINDS:
        return KINDS[kind]
    inner = get_args(kind)
    if get_origin(kind) is Annotated:
        return _words(inner[0])
    if get_origin(kind) is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_words(one) for one in inner if one is not type(None))
    if get_origin(kind) is tuple:
        return f"list of {'any length' if inner[-1] is ... else len(inner)}, each a {_words(inner[0])}"
    return f"{_words(inner[0])} -> {_words(inner[1])}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**must be given**"
    if field.default is None:
        return "none"
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    return f"`{field.default:g}`" if isinstance(field.default, float) else f"`{field.default}`"


def streams_page() -> str:
    """Every stream, and every field of what it carries."""
    rows = "\n".join(_stream_row(name, stream) for name, stream in STREAMS.items())
    carried: list[type[msgspec.Struct]] = [kind for stream in STREAMS.values() for kind in stream.carries]
    carried += [answer for stream in STREAMS.values() for answer in stream.answers]
    carried += [Defect, Alarm]
    kinds = "\n".join(_message(kind) for kind in carried)
    return f"""{HEAD}
# Streams

Who tells what to whom. A message is one part of MessagePack; with arrays a second part describes them (a list of
`[name, dtype, shape]`) and one raw part follows for each. On PUB streams a topic comes first. `signals` is JSON under
the topics `signal`, `result` and `heartbeat`, so that anything can listen. `queue` is the high-water mark at each end,
in messages.

| stream | pattern | carries | bound by | connected by | queue | arrays |
|---|---|---|---|---|---|---|
{rows}

## Messages

Fields are only ever added, last and with a default, so old and new versions read each other. `_ns` is CLOCK_MONOTONIC
of the machine that wrote it; `_at` is wall time in seconds since 1970.

{kinds}"""


def _stream_row(name: str, stream: Stream) -> str:
    arrays = ", ".join(
        f"{key} ({one.dtype}, {one.axes} axes{'' if key in stream.required else ', may be missing'})"
        for key, one in stream.arrays.items()
    )
    carries = ", ".join(kind.__name__ for kind in stream.carries)
    bound, connected = ", ".join(stream.bound_by), ", ".join(stream.connected_by)
    return f"| `{name}` | {stream.pattern} | {carries} | {bound} | {connected} | {stream.queue} | {arrays} |"


def _message(kind: type[msgspec.Struct]) -> str:
    fields = ", ".join(f"`{name}`" for name in kind.__struct_fields__)
    words = " ".join((kind.__doc__ or "").replace("``", "`").split())
    return f"- **{kind.__name__}** (`type`: `{kind.__struct_config__.tag}`): {words} Fields: {fields}.\n"


def line_page() -> str:
    """The register map and the codes, after the prose of `line_prose.md`."""
    prose = (Path(__file__).with_name("line_prose.md")).read_text()
    tables = {
        "STATUS_BITS": _points(STATUS, bits=True),
        "STATUS_REGISTERS": _points(STATUS, bits=False),
        "COMMAND_BITS": _points(COMMANDS, bits=True),
        "COMMAND_REGISTERS": _points(COMMANDS, bits=False),
        "RESULT_CODES": "\n".join(
            f"| {code} | `{reason or 'ok'}` | {words} |" for reason, (code, words) in RESULT_CODES.items()
        ),
        "OPCUA_NODES": _table((f"`{node}`", kind, words) for node, kind, words in opcua_nodes()),
        "MQTT_TOPICS": _table((f"`{topic}`", sent, words) for topic, sent, words in mqtt_topics()),
        "SPARKPLUG_TOPICS": _table((f"`{topic}`", sent, words) for topic, sent, words in sparkplug_topics()),
        "WEBHOOK_HEADERS": _table((f"`{name}`", words) for name, words in webhook_headers()),
        "FAULT_CODES": "\n".join(f"| {code} | `{fault}` | {words} |" for fault, (code, words) in FAULT_CODES.items()),
    }
    for name, table in tables.items():
        prose = prose.replace(f"{{{name}}}", table)
    return f"{HEAD}\n{prose}"


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    """Rows of a Markdown table."""
    return "\n".join(
        f"| {' | '.join(cell.replace('<', '&lt;') if '`' not in cell else cell for cell in row)} |" for row in rows
    )


def _points(points: tuple[Point, ...], *, bits: bool) -> str:
    chosen = [point for point in points if (point.kind is Kind.BIT) == bits]
    return "\n".join(
        f"| {point.address} | `{point.name}` |{'' if bits else f' {point.kind} |'} {point.words} |" for point in chosen
    )


def write(folder: Path = DOCS) -> None:
    """All pages."""
    folder.mkdir(exist_ok=True)
    (folder / "settings.md").write_text(settings_page())
    (folder / "streams.md").write_text(streams_page())
    (folder / "line.md").write_text(line_page())
    (folder / "alarms.md").write_text(alarms_page(HEAD))


if __name__ == "__main__":
    write()
