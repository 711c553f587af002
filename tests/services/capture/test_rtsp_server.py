"""The demo's RTSP server by itself."""

from __future__ import annotations

import cv2
import pytest

from shared.synth.rtsp import start_rtsp_server
from tests.rtsp import HEIGHT_PX, WIDTH_PX, made_ns, needs_rtsp_server, rtsp_camera

pytestmark = [pytest.mark.process, needs_rtsp_server]


def test_rtsp_server_serves_several_clients_and_those_that_come_later() -> None:
    with rtsp_camera() as camera:
        first, second = (cv2.VideoCapture(camera.url, cv2.CAP_FFMPEG) for _ in range(2))
        assert made_ns(first.read()[1]) > 0
        first.release()
        before, after = (made_ns(second.read()[1]) for _ in range(2))
        assert after > before
        second.release()
        third = cv2.VideoCapture(camera.url, cv2.CAP_FFMPEG)  # the encoder stopped in between and starts anew
        assert made_ns(third.read()[1]) > after
        third.release()


def test_rtsp_server_ends_with_its_frames() -> None:
    with start_rtsp_server(None, width_px=WIDTH_PX, height_px=HEIGHT_PX) as server:
        assert server.process.stdin is not None
        server.process.stdin.close()
        assert server.process.wait(10) == 0
