#!/usr/bin/env bash
# Newer packages into the locks: requirements.lock (what people and CI use), the image's lock, and uv itself.
# `deploy/lock.sh --upgrade` takes the newest of everything; without it only what pyproject.toml asks for changes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

deploy/setup.sh
uv="$(command -v uv || echo .uv/bin/uv)"
compile() {
    "$uv" pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-build \
        --custom-compile-command "make lock" "$@"
}

compile pyproject.toml --extra dev -o requirements.lock "$@"
# The image takes torch from the index of its backend; see deploy/docker/Dockerfile.
mapfile -t torch < <(grep -oE '^(torch|torchvision|triton|nvidia-[^=]+|cuda-[^=]+)==' requirements.lock | tr -d =)
compile pyproject.toml -c requirements.lock "${torch[@]/#/--no-emit-package=}" -o deploy/docker/requirements.lock
echo 'uv' | compile --no-header - -o deploy/uv.txt "$@"
