#!/usr/bin/env bash
# Makes .venv: the locked packages, Sightline itself, and the system libraries they need.
#
#   deploy/setup.sh         what a line, the demo and the static checks need
#   deploy/setup.sh demo    the same, and says what the live RTSP demo needs
#   deploy/setup.sh test    the same, and the tests' peers (an RTSP server, a browser, an MQTT broker), which only root
#                           installs
#
# Quick when nothing changed. PYTHON names another interpreter (3.11 or 3.12). Behind a package mirror set
# UV_DEFAULT_INDEX and PIP_INDEX_URL to its address.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly MIN_UV="0.8"
readonly LIBRARIES=(libgl1 libglib2.0-0)
readonly RTSP_SERVER=(
    python3-gi gir1.2-gst-rtsp-server-1.0
    gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly
)
readonly STAMP=.venv/.sightline

say() { printf 'set-up: %s\n' "$*" >&2; }
stop() { say "$@"; exit 2; }

command_for() { echo "apt-get update && apt-get install -y --no-install-recommends $*"; }

install_packages() { # as root, or with `sudo -n`; asks nothing
    local sudo=()
    ((EUID == 0)) || sudo=(sudo -n)
    local apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive
        apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
    say "installing $*"
    "${apt[@]}" update >&2 && "${apt[@]}" install --no-install-recommends "$@" >&2
}

may_install() { command -v apt-get >/dev/null && { ((EUID == 0)) || sudo -n true 2>/dev/null; }; }

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-.venv/bin/python python3.11 python3.12 python3}; do
        case "$(version_of "$candidate")" in
        3.11 | 3.12) "$candidate" -c 'import sys; print(sys._base_executable)' && return ;;
        esac
    done
    stop "needs Python 3.11 or 3.12, found ${PYTHON:-neither}." \
        "On Debian 12: apt-get install -y python3 python3-venv; or name another one: PYTHON=/path/to/python3.12 make …"
}

at_least() { [[ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" == "$1" ]]; }

uv_is_fine() {
    local version
    version="$("$1" --version 2>/dev/null | cut -d ' ' -f 2)" && [[ -n "$version" ]] && at_least "$MIN_UV" "$version"
}

find_uv() { # an installed one when it is new enough, else one of our own in .uv
    local candidate
    for candidate in uv .uv/bin/uv; do
        uv_is_fine "$candidate" && command -v "$candidate" && return
    done
    install_uv >&2
    echo .uv/bin/uv
}

install_uv() {
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        local package
        package="python$(version_of "$python")-venv"
        if ! { may_install && install_packages "$package"; }; then
            stop "$python cannot make a virtual environment. Run as root: $(command_for "$package")"
        fi
    fi
    say "installing uv into .uv"
    rm -rf .uv
    "$python" -m venv .uv
    .uv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r deploy/uv.txt
}

fingerprint() { # what .venv was made from, and where: an editable install does not survive a move
    sha256sum requirements.lock pyproject.toml deploy/setup.sh
    pwd
}

is_current() {
    [[ "$(cat "$STAMP" 2>/dev/null)" == "$(fingerprint)" && "$(version_of .venv/bin/python)" == "$(version_of "$python")" ]]
}

make_venv() {
    local uv started=$SECONDS
    uv="$(find_uv)"
    # Behind a company's TLS proxy only the system's certificates will do; a bare machine may have none.
    [[ -s /etc/ssl/certs/ca-certificates.crt ]] && export UV_SYSTEM_CERTS=1
    export UV_HTTP_TIMEOUT=120 UV_PYTHON_DOWNLOADS=never
    say "making .venv with $python; the first time downloads about 3 GB"
    rm -f "$STAMP"
    if [[ "$(version_of .venv/bin/python)" != "$(version_of "$python")" ]] || ! grep -qsF "$PWD/.venv" .venv/bin/activate; then
        "$uv" venv -q --clear --python "$python" .venv
    fi
    "$uv" pip sync -q --python .venv/bin/python --no-build --require-hashes requirements.lock ||
        stop "the packages could not be installed. Without a way out, name your mirror: UV_DEFAULT_INDEX=… make …"
    "$uv" pip install -q --python .venv/bin/python --no-deps --no-build-isolation --editable .
    need_libraries
    fingerprint >"$STAMP"
    say "done in $((SECONDS - started)) s"
}

need_libraries() { # opencv-python is linked against the system's libGL and GLib
    local trouble
    trouble="$(.venv/bin/python -c 'import cv2' 2>&1)" && return
    case "$trouble" in
    *'cannot open shared object file'*)
        may_install && install_packages "${LIBRARIES[@]}" && .venv/bin/python -c 'import cv2' && return
        stop "${trouble##*ImportError: }. Run as root: $(command_for "${LIBRARIES[@]}")"
        ;;
    *) stop "OpenCV does not import: $trouble" ;;
    esac
}

has_rtsp_server() {
    /usr/bin/python3 - 2>/dev/null <<'PYTHON'
import gi
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
assert all(Gst.ElementFactory.find(name) for name in ("appsrc", "videoconvert", "x264enc", "h264parse", "rtph264pay"))
PYTHON
}

has_broker() { command -v mosquitto >/dev/null || [[ -x /usr/sbin/mosquitto ]]; }

need_test_peers() {
    local missing=()
    has_rtsp_server || missing+=("${RTSP_SERVER[@]}")
    command -v chromium >/dev/null || missing+=(chromium)
    has_broker || missing+=(mosquitto)
    ((${#missing[@]})) || return 0
    if ((EUID == 0)) && may_install && install_packages "${missing[@]}"; then
        [[ " ${missing[*]} " != *" mosquitto "* ]] || systemctl disable -q --now mosquitto 2>/dev/null || true # tests start their own
        return
    fi
    say "tests that need these will be skipped; to run them, as root: $(command_for "${missing[@]}")"
    [[ -z "${CI:-}" || $EUID -ne 0 ]] || stop "CI as root must run every test"
}

main() {
    local python
    python="$(find_python)"
    is_current || make_venv
    case "${1:-}" in
    demo) has_rtsp_server || say "for the demo on a live RTSP stream, as root: $(command_for "${RTSP_SERVER[@]}")" ;;
    test) need_test_peers ;;
    esac
}

main "$@"
