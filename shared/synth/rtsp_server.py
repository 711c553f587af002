"""A small RTSP camera: raw BGR frames on stdin -> H.264 over RTSP, for demos and tests.

Run by the system's Python (/usr/bin/python3), which has GStreamer's bindings; only the standard library besides.
One shared encoder serves any number of clients; the newest frame wins. Prints one line with the URL when listening;
ends on a closed stdin or SIGTERM. With ``--user`` the password comes from the variable RTSP_SERVER_PASSWORD.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

PASSWORD_VARIABLE = "RTSP_SERVER_PASSWORD"


class Feed:
    """Hands each frame of stdin to the encoder of the moment, if any client listens."""

    def __init__(self, frame_bytes: int) -> None:
        self._frame_bytes = frame_bytes
        self._encoder: Any = None  # the appsrc; a new one for each first client

    def attach(self, media: Any) -> None:
        """A first client came: its pipeline gets the frames."""
        self._encoder = media.get_element().get_by_name_recurse_up("frames")
        media.connect("unprepared", self._detach, self._encoder)

    def _detach(self, media: Any, encoder: Any) -> None:
        if self._encoder is encoder:
            self._encoder = None

    def run(self) -> None:
        """Read stdin to its end. The encoder's queue holds one frame and leaks, so a slow client delays nothing."""
        while len(frame := sys.stdin.buffer.read(self._frame_bytes)) == self._frame_bytes:
            encoder = self._encoder
            if encoder is not None:
                encoder.emit("push-buffer", Gst.Buffer.new_wrapped(frame))


def pipeline(arguments: argparse.Namespace) -> str:
    """The encoder's description: constant quality, no look-ahead, a key frame each half second."""
    caps = f"video/x-raw,format=BGR,width={arguments.width},height={arguments.height},framerate={arguments.fps}/1"
    return (
        f"( appsrc name=frames is-live=true do-timestamp=true format=time max-buffers=1 leaky-type=downstream"
        f" caps={caps} ! videoconvert n-threads=1 ! video/x-raw,format=I420"
        f" ! x264enc tune=zerolatency speed-preset=ultrafast pass=quant quantizer={arguments.quantizer} threads=1"
        f" key-int-max={max(1, arguments.fps // 2)} ! rtph264pay name=pay0 pt=96 config-interval=-1 )"
    )


def protect(server: Any, factory: Any, user: str) -> None:
    """Let nobody in without the password (Basic and Digest)."""
    auth = GstRtspServer.RTSPAuth()
    auth.set_supported_methods(2)  # GST_RTSP_AUTH_DIGEST
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth.add_digest(user, os.environ[PASSWORD_VARIABLE], token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    for permission in ("media.factory.access", "media.factory.construct"):
        permissions.add_permission_for_role("viewer", permission, True)
    factory.set_permissions(permissions)


def serve(arguments: argparse.Namespace) -> None:
    """Listen, print the URL, serve until stdin ends or SIGTERM comes."""
    feed = Feed(arguments.width * arguments.height * 3)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(pipeline(arguments))
    factory.set_shared(True)
    factory.connect("media-configure", lambda _, media: feed.attach(media))
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service=str(arguments.port))
    if arguments.user:
        protect(server, factory, arguments.user)
    server.get_mount_points().add_factory(arguments.path, factory)
    loop = GLib.MainLoop()
    if server.attach(None) == 0:
        sys.exit(f"rtsp_server: port {arguments.port} is taken")

    def feed_until_the_end() -> None:
        feed.run()
        GLib.idle_add(loop.quit)

    threading.Thread(target=feed_until_the_end, daemon=True).start()
    GLib.unix_signal_add(GLib.PRIORITY_HIGH, signal.SIGTERM, loop.quit)
    sys.stdout.write(f"rtsp://127.0.0.1:{server.get_bound_port()}{arguments.path}\n")
    sys.stdout.flush()
    loop.run()


def main() -> None:
    """Arguments, then serve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--height", type=int, required=True)
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--path", default="/line")
    parser.add_argument("--quantizer", type=int, default=18, help="0 lossless .. 50; 18 looks lossless")
    parser.add_argument("--user", default="")
    Gst.init(None)
    serve(parser.parse_args())


if __name__ == "__main__":
    main()
