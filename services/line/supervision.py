"""supervisord: the rendered configuration of a line, and questions to the running supervisor."""

from __future__ import annotations

import http.client
import xmlrpc.client
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from msgspec import Struct
from supervisor.xmlrpc import SupervisorTransport

from services.line.processes import RETRIES, STEADY_S, STOP_S, Program

HEAD = """\
; Written by `sightline up` from {line_file}; do not edit: it is written again at each start.
[supervisord]
nodaemon=true
identifier=sightline-{line}
directory={directory}
logfile={logs}/supervisord.log
logfile_maxbytes=5MB
logfile_backups=1
pidfile={run_dir}/supervisord.pid
childlogdir={logs}
silent=true

[unix_http_server]
file={run_dir}/supervisor.sock
chmod=0600

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[group:line]
programs={names}
"""

PROGRAM = """
[program:{owner}]
command={command}
priority={priority}
autorestart=true
startsecs={steady_s}
startretries={retries}
stopwaitsecs={stop_s}
killasgroup=true
stdout_logfile={logs}/{owner}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=2
redirect_stderr=true
environment={environment}
"""


class Child(Struct, frozen=True):
    """What the supervisor knows of one process."""

    owner: str
    state: str  # STARTING, RUNNING, BACKOFF, EXITED, FATAL, STOPPED, …
    pid: int


def render(
    programs: Sequence[Program], *, line: str, line_file: Path, run_dir: Path, logs: Path, threads: int = 0
) -> str:
    """The supervisord configuration of one line. A % is doubled, as its reader wants it.

    ``threads``: CPU threads of each model process; 0: as torch decides.
    """
    # Threads that spin while they wait for each other take a busy machine's cores from the other processes: measured
    # 0.4-1.5 s instead of 0.17 s a picture on two cores.
    environment = 'OMP_WAIT_POLICY="PASSIVE"' + (f',OMP_NUM_THREADS="{threads}"' if threads else "")
    names = ",".join(program.owner for program in programs)
    head = HEAD.format(line_file=line_file, line=line, directory=Path.cwd(), logs=logs, run_dir=run_dir, names=names)
    sections = [
        PROGRAM.format(
            owner=program.owner,
            command=" ".join(_quoted(word) for word in program.command),
            priority=priority,
            steady_s=STEADY_S,
            retries=RETRIES,
            stop_s=STOP_S,
            logs=logs,
            environment=environment,
        )
        for priority, program in enumerate(programs, start=1)
    ]
    return "".join([head, *sections]).replace("%", "%%")


def _quoted(word: str) -> str:
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


class Supervisor:
    """Asks a running supervisord over its private socket."""

    def __init__(self, socket_file: Path) -> None:
        self._url = f"unix://{socket_file}"

    def children(self) -> list[Child]:
        """Every process; empty while the supervisor does not answer."""
        transport = SupervisorTransport(None, None, serverurl=self._url)  # a broken connection is never mended
        proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        try:
            rows = cast("list[dict[str, Any]]", proxy.supervisor.getAllProcessInfo())
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return []
        finally:
            transport.close()
        return [Child(row["name"], row["statename"], row["pid"]) for row in rows]
