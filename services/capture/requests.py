"""Answers what the line's controller asks of one camera: to take a picture, or to inspect with another recipe."""

from __future__ import annotations

import time

from services.capture.capturer import Capturer
from services.capture.job import Job
from shared.messages import JobChange, JobReply, Trigger, TriggerReply
from shared.wire import RequestServer

ANSWERED_A_TURN = 100


class Requests:
    """The `triggers` stream of one camera. ``trigger_kind``: only a camera of the kind "message" takes triggers."""

    def __init__(
        self, server: RequestServer[Trigger | JobChange], capturer: Capturer, job: Job, trigger_kind: str
    ) -> None:
        self._server, self._capturer, self._job, self._kind = server, capturer, job, trigger_kind
        capturer.recipe = job.recipe

    def answer(self, connected: bool) -> None:
        """All that wait."""
        for _ in range(ANSWERED_A_TURN):
            request = self._server.receive()
            if request is None:
                return
            reply = self._change(request) if isinstance(request, JobChange) else self._trigger(request, connected)
            self._server.answer(reply)

    def _change(self, request: JobChange) -> JobReply:
        reply = self._job.change(request.recipe, request.by)
        self._capturer.recipe = self._job.recipe
        return reply

    def _trigger(self, request: Trigger, connected: bool) -> TriggerReply:
        if self._kind != "message":
            return TriggerReply(error=f"this camera takes no triggers: its trigger.kind is {self._kind!r}")
        return self._capturer.trigger(request.part_id, time.monotonic_ns(), time.time(), connected, request.count)
