#!/usr/bin/env bash
# ONNX Runtime's telemetry is off where the environment looks like a build server: a check there proves nothing.
#
# Expected: with ORT_DISABLE_TELEMETRY unset, `import onnxruntime` on Linux writes the same files below HOME everywhere,
#   so a CI job that finds HOME empty shows that a program keeps to "no telemetry".
# Seen: onnxruntime 1.32.0 writes .cache/Microsoft/DeveloperTools/.onnxruntime/deviceid within a second when none of the
#   usual variables is set, and nothing at all with CI=true, or with BUILDKITE or APPVEYOR, which few other tools read.
#   A program that reports on every user's machine passes such a check on every build server.
# The imports run in a network namespace without interfaces where `unshare` may make one, so that nothing is sent.
# Exits 0 while this holds, 1 when any part of it changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 onnxruntime==1.32.0

offline=()
unshare --user --map-root-user --net true 2>/dev/null && offline=(unshare --user --map-root-user --net)

cd "$folder"
left_by() {  # name=value: prints how many files the import leaves in an empty HOME
    local home
    home=$(mktemp -d -p "$folder")
    env -i PATH="$PATH" HOME="$home" "$1" "${offline[@]}" "$folder/venv/bin/python" - <<'PROGRAM'
import pathlib
import time

import onnxruntime

until = time.monotonic() + 10  # a thread of the library writes
while not (found := list(pathlib.Path.home().rglob("deviceid"))) and time.monotonic() < until:
    time.sleep(0.1)
print(len(found))
PROGRAM
}

"$folder/venv/bin/python" -c 'import onnxruntime; print("onnxruntime", onnxruntime.__version__)' 2>/dev/null
changed=0
for case in 1:SOMETHING=else 0:CI=true 0:BUILDKITE=true 0:APPVEYOR=True; do
    found=$(left_by "${case#*:}")
    echo "${case#*:}: $found device ids"
    [ "$found" = "${case%%:*}" ] || changed=1
done
[ "$changed" = 0 ] && echo "as seen before" || echo "CHANGED: not what was seen before"
exit "$changed"
