#!/usr/bin/env bash
# All static checks, then pytest with the arguments given. Runs every step, then fails if one failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

failed=()
step() {
    local name="$1"
    shift
    printf '\n== %s\n' "$name"
    "$@" || failed+=("$name")
}

step "ruff format" .venv/bin/ruff format --check .
step "ruff check" .venv/bin/ruff check .
step "mypy" .venv/bin/mypy
step "import rules" .venv/bin/lint-imports
step "pytest" .venv/bin/python -m pytest "$@"

printf '\n%s s in all' "$SECONDS"
if ((${#failed[@]})); then
    printf '; failed:'
    printf ' [%s]' "${failed[@]}"
    printf '\n'
    exit 1
fi
printf '; everything passed\n'
