"""The page about alarms: the alarm table in, docs/alarms.md out."""

from __future__ import annotations

from shared.alarm_kpi import CHATTER_S, CHATTER_TIMES, LONG_S, PEAK_S
from shared.alarm_settings import AlarmSettings
from shared.alarm_table import BELT, ROWS, Of, Row

SUBJECTS = {
    Of.CAMERA: "each camera",
    Of.PROCESS: "each process but `alarm`",
    Of.MODEL: "each `localize` and `refine` process",
    Of.STAGE: "`localize` and `refine`",
    Of.LINK: "each of `links`",
}
STATES = """\
| state | the condition | somebody has acknowledged it | it calls a person |
|---|---|---|---|
| normal | does not hold | | no |
| unacknowledged | holds | no | **yes** |
| acknowledged | holds | yes | no |
| returned unacknowledged | is over | no | **yes** |
| latched | is over | yes; a latching alarm waits for its reset | no |
| shelved | either | somebody has put it aside, for so long and with a reason | no |
| suppressed by design | either | the table says when | no |
| out of service | either | somebody has switched it off with a reason, or line.yaml has | no |
"""


def alarms_page(head: str) -> str:
    """All of it; ``head`` is the first line of every page that is made."""
    settings = AlarmSettings()
    rows = "\n".join(_row(row) for row in ROWS)
    details = "\n".join(_detail(row) for row in ROWS)
    return f"""{head}
# Alarms

An alarm is something that a person must do something about. Sightline's follow ISA-18.2 / IEC 62682: each has a
priority, a state and a memory, and can be acknowledged, shelved and reset by name. The process `alarm` hears the pulses
and signals of the line, decides, and tells all alarms that are not normal twice a second and at every change (stream
`alarms`, see [streams.md](streams.md)). When it is silent for two seconds the operator's page says so, in red: no news
is never "no alarms".

```
sightline alarms                                   what is wrong now, and what to do
sightline alarms --ack output_lost:plc --user ann  or --ack all
sightline alarms --shelve camera_dark:cam1 --minutes 30 --reason "lamp is on order" --user ann
sightline alarms --reset --user ann                all latched ones
sightline alarms --log | --kpi                     what happened; how many, how often, which
sightline audit                                    who has done what
```

Each has `--json`. The same can be done on the operator's page, by `POST /api/alarms/order` of the console
(`{{"action": "acknowledge", "alarm": "…", "user": "ann"}}`), and by the line's controller.

## The alarms

An id is the kind and its subject: `camera_lost:cam1`. Where a number is compared, the alarm holds from the limit on and
ends when the number is back past it by more than the deadband.

| alarm | for | priority | holds when | on / off delay | latching |
|---|---|---|---|---|---|
{rows}

{details}
Every priority, delay, limit and deadband can be set for this line, and every kind switched off:

```yaml
alarms:
  kinds:
    reject_rate: {{limit: 20, last_n: 100, priority: high}}
    camera_blurred: {{enabled: false}}
```

## States

{STATES}
- An alarm that was put aside (shelved, suppressed, out of service) and comes back is announced anew if its condition
  holds, also if it was acknowledged before. What nobody had acknowledged before still waits. A latching alarm that came
  and went while it was shelved waits as *returned unacknowledged*.
- Shelved ones come back by themselves; {settings.shelve_max_min:g} minutes are the most (`alarms.shelve_max_min`). The
  time runs on the machine's monotonic clock: setting the clock does not prolong it.
- States survive a restart of `alarm`, of Redis, and of both; an order is answered when Redis has it. While Redis is
  away, everything goes on from memory; an `alarm` that starts meanwhile announces what holds as new, until it can read
  its past.
- What is not known (a silent process says nothing of its camera) stays as it was.

## Together

- **First-out** (`1st`): the first alarm since everything was acknowledged. Look there first: the others may follow
  from it.
- **Flood**: more than {settings.flood_alarms} new alarms within {settings.flood_min:g} minutes, until fewer than half
  as many came. The page then shows one row for each kind.
- **Horn**: sounds with every new alarm of high or medium priority, until it is silenced or nothing loud is left
  unacknowledged. Silencing acknowledges nothing.
- **Figures** (`--kpi`): alarms that called a person, per hour and by priority; the most within {PEAK_S / 60:g} minutes;
  time in flood; the most frequent; *chattering*: {CHATTER_TIMES} times or more within {CHATTER_S:g} s; *standing*:
  active for {LONG_S / 3600:g} h or longer; *stale*: over, but not acknowledged or reset for so long. Usual guidance
  calls 6 an hour acceptable and 12 the most that a person can manage.

## A camera's view

`capture` looks at one picture a second, after its parts have left. *Brightness* is that of the brightest twentieth of
the picture. *Sharpness* and *shift* are against the view as it was in the first minute, kept in `view-<camera>.npz` of
the line's state folder: let parts run then. Shift is looked for only where nothing moved (rails, screws, edges);
without such places, or when they are not found again, nothing is said. After a change on purpose:
`sightline alarms --learn-view cam1`, on the camera's machine.
"""


def _row(row: Row) -> str:
    latching = "yes" if row.latching else ""
    delays = f"{row.on_delay_s:g} / {row.off_delay_s:g} s" if row.on_delay_s or row.off_delay_s else ""
    subject = SUBJECTS.get(row.of, f"`{row.subject}`")
    return f"| `{row.kind}` | {subject} | {row.priority} | {_holds(row)} | {delays} | {latching} |"


def _holds(row: Row) -> str:
    if row.limit is None:
        return row.says.format(subject="…")
    sign = "≤" if row.below else "≥"
    band = f", deadband {row.deadband:g}" if row.deadband else ""
    return f"{sign} {row.limit:g} {row.unit.format(last_n=row.last_n)}{band}"


def _detail(row: Row) -> str:
    lines = [
        f"**`{row.kind}`**: {row.says.format(subject='…')}.",
        f"Cause: {row.cause}.",
        f"Consequence: {row.consequence}.",
        f"Do: {row.action.format(subject='CAMERA')}.",
    ]
    if row.suppressed_while:
        lines.append(f"Suppressed by design while {' or while '.join(map(_rule, row.suppressed_while))}.")
    return " ".join(lines) + "\n"


def _rule(rule: str) -> str:
    return "the belt stands on purpose" if rule == BELT else f"`{rule}` holds"
