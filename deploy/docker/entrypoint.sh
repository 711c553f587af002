#!/bin/sh
# Makes each secret named SIGHTLINE_… the variable of that name, then becomes the process.
# usage: entrypoint.sh COMMAND...
set -eu
for file in "${SECRETS_DIR:-/run/secrets}"/SIGHTLINE_*; do
    if [ -s "$file" ]; then
        export "${file##*/}=$(cat "$file")"
    fi
done
exec "$@"
