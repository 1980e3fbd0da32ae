#!/usr/bin/env bash
# `import kserve` parses the command line of the program that imports it, and may end it.
#
# Expected: importing a library reads no arguments that are not its own.
# Seen, kserve 0.21.0: `kserve/model_server.py` calls `parser.parse_known_args()` when it is imported, and argparse takes
#   abbreviations: a program with an option `--timeout 0.5` of its own leaves with exit code 2 and a message about
#   `--timeout-keep-alive`, before its own code runs; with `--timeout 5` it goes on, and the server's default has changed.
# Exits 0 while this holds, 1 when it changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'kserve==0.21.0'

cd "$folder"
code=0
"$folder/venv/bin/python" -c 'import kserve' --timeout 0.5 2>said || code=$?
[ "$code" = 2 ] && grep -q -- '--timeout-keep-alive: invalid int value' said

"$folder/venv/bin/python" - --timeout 5 <<'PROGRAM'
import sys

from kserve.model_server import args

print("default of timeout_keep_alive:", args.timeout_keep_alive)
sys.exit(args.timeout_keep_alive != 5)
PROGRAM
echo "import kserve read the command line"
